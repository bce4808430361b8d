package agents_test

import (
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/transport"
)

// counted counts requests by their path; those for numbers of any node as "stats".
func counted(asked map[string]int) transport.WrapperFunc {
	var mu sync.Mutex
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			path := r.URL.Path
			if strings.HasSuffix(path, "/stats/summary") {
				path = "stats"
			}
			mu.Lock()
			asked[path]++
			mu.Unlock()
			return next.RoundTrip(r)
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
