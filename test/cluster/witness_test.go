package cluster_test

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
)

// witness is told by scripts that they have started, without Bulkhead: what it has
// heard is what has happened.
type witness struct {
	addr string

	mu     sync.Mutex
	starts map[int64]int
	first  chan struct{} // closed with the first start
}

func (b *bed) witness() *witness {
	b.Helper()
	host, _, err := net.SplitHostPort(b.Listen)
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		b.Fatal(err)
	}
	w := &witness{addr: listener.Addr().String(), starts: map[int64]int{}, first: make(chan struct{})}
	server := &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close() })
	return w
}

// ServeHTTP implements http.Handler.
func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	item, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.starts) == 0 {
		close(w.first)
	}
	w.starts[item]++
}

func (w *witness) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.starts)
}

// script says that it has started, works for some seconds and says that it is done.
func (w *witness) script(seconds float64) []string {
	return []string{"/bin/sh", "-c", fmt.Sprintf("wget -q -O /dev/null http://%s/$0 && echo begin $0 && sleep %g && echo end $0", w.addr, seconds), "{}"}
}

// outcome is what a run may have come to.
type outcome struct {
	lost, failed int64 // at most
}

// check looks that no item ran twice, that none disappeared, and that those that
// succeeded have all of their output.
func (b *bed) check(w *witness, r *bulkhead.Run, items int64, most outcome) {
	b.Helper()
	c := r.Counts
	if c.Total() != items || c.Queued+c.Running > 0 || c.Lost > most.lost || c.Failed > most.failed || c.Cancelled > 0 {
		b.Errorf("%s %+v: %s", r.State, c, r.Reason)
	}
	out := b.Outputs(r.ID)
	var succeeded int64
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := int64(1); i <= items; i++ {
		if w.starts[i] > 1 {
			b.Errorf("item %d ran %d times", i, w.starts[i])
		}
		if out[i] == fmt.Sprintf("begin %d\nend %[1]d\n", i) {
			succeeded++
		} else if most == (outcome{}) {
			b.Errorf("item %d wrote %q", i, out[i])
		}
	}
	if succeeded < c.Succeeded {
		b.Errorf("%d items succeeded, %d have all of their output", c.Succeeded, succeeded)
	}
}

// midway starts a run and returns once some of it has run.
func (b *bed) midway(w *witness, items int64, spec bulkhead.Spec) bulkhead.RunID {
	b.Helper()
	id := b.Submit(items, spec)
	b.Until(id, "midway", func(r *bulkhead.Run) bool { return r.Counts.Succeeded >= 2 && r.Counts.Running > 0 })
	if testing.Verbose() {
		b.Logf("midway: %d have started", w.started())
	}
	return id
}
