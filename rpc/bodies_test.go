package rpc_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/rpc"
)

// A user without any right can begin calls: what has come of them is held until the
// rest comes, before it is known what they ask for.
func TestRequestsThatAreNotWholeAreBounded(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.Unread = 4 << 20 })
	const begun, of = 8, 1 << 20 // more than that is not taken
	codes := make(chan int, begun)
	var ends []io.Closer
	for range begun {
		from, to := io.Pipe()
		ends = append(ends, to)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.web.URL+"/bulkhead.v1.RunService/CreateRun", from)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("Authorization", "Bearer "+userToken)
		go func() {
			_, _ = to.Write(make([]byte, of)) // a server that has answered reads no more
		}()
		go func() {
			code := 0
			if res, err := s.web.Client().Do(req); err == nil {
				code = res.StatusCode
				_ = res.Body.Close()
			}
			codes <- code
		}()
	}
	// Some are refused while nobody ends a request, and their room is given back.
	for range begun - 3 {
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Errorf("code %d", code)
		}
	}
	for _, e := range ends {
		_ = e.Close()
	}
	// How many of the others were let in depends on who grew first. What was let in is
	// read, and says nothing.
	for range 3 {
		if code := <-codes; code != http.StatusBadRequest && code != http.StatusTooManyRequests {
			t.Errorf("code %d", code)
		}
	}
	code := http.StatusTooManyRequests
	for try := 0; code == http.StatusTooManyRequests && try < 100; try++ { // an answer may come before its room is back
		code, _ = s.post("RunService/CreateRun", userToken, strings.Repeat(" ", of))
	}
	if code != http.StatusBadRequest {
		t.Errorf("code %d of one that fits", code)
	}
	for range 20 {
		if code, _ := s.post("RunService/ListClasses", userToken, "{}"); code != http.StatusOK {
			t.Errorf("code %d afterwards", code)
		}
	}
}
