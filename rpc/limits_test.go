package rpc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

func TestTooManyCallsASecondAreRefusedAndMadeAgain(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.Rate, o.Burst = 200, 1 })
	refused := 0
	for range 20 {
		if code, got := s.post("RunService/ListClasses", userToken, "{}"); code == http.StatusTooManyRequests && got["code"] == "resource_exhausted" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("none was refused")
	}
	c := s.client(nil, nil)
	for range 20 {
		if _, err := c.Classes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.StreamsEach = 2 })
	c := s.client(nil, func(o *rpc.ClientOptions) { o.Tries = 2 })
	r := s.submit(c, 1)
	ctx, cancel := context.WithCancel(t.Context())
	seen, end := make(chan struct{}, 2), make(chan error, 2)
	for range 2 {
		go func() {
			first := true
			end <- c.Watch(ctx, r.ID, func(rpc.Status) error {
				if first {
					first = false
					seen <- struct{}{}
				}
				return nil
			})
		}()
	}
	<-seen
	<-seen
	if err := c.Items(ctx, r, bulkhead.ItemQuery{}, nil); err == nil || !strings.Contains(err.Error(), "2 streams, 2 of them yours") {
		t.Error(err)
	}
	cancel()
	for range 2 {
		if err := <-end; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	// Who has gone makes room.
	waitFor(t, s.client(nil, nil), r.ID, func(rpc.Status) bool { return true })
}

func TestAMessageThatIsTooLargeIsRefused(t *testing.T) {
	s := newSite(t, nil, nil)
	code, got := s.post("RunService/AppendItems", userToken, `{"run": 1, "items": [{"index": 1, "values": ["`+strings.Repeat("eHh4", 3<<20)+`"]}]}`)
	if code != http.StatusTooManyRequests || got["code"] != "resource_exhausted" {
		t.Error(code, got["code"])
	}
	if code, got = s.post("RunService/GetRun", userToken, `{"wrong": 1}`); code != http.StatusBadRequest || !strings.Contains(got["message"].(string), "wrong") {
		t.Error(code, got)
	}
	if code, got = s.post("RunService/GetRun", userToken, ``); code != http.StatusBadRequest {
		t.Error(code, got)
	}
}

// broken are classes with a bug.
type broken struct{ classes }

func (broken) Known() error { return nil }

func (broken) Statuses() []bulkhead.ClassStatus { panic("a bug") }

// brokenOutputs have one, too.
type brokenOutputs struct{ rpc.Outputs }

func (brokenOutputs) Follow(context.Context, bulkhead.RunID, []bulkhead.Position, func() bool, func(error),
	func(int64, int, bulkhead.Chunk, bulkhead.Position) error,
) error {
	panic("another bug")
}

func TestABugEndsACallAndNotTheServer(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.Classes, o.Outputs = broken{o.Classes.(classes)}, brokenOutputs{} })
	c := s.client(nil, nil)
	_, err := c.Classes(t.Context())
	if bulkhead.CodeOf(err) != bulkhead.CodeInternal || !strings.Contains(err.Error(), "bug of its own") {
		t.Error(err)
	}
	r := s.submit(c, 1)
	if err := c.FollowOutput(t.Context(), r.ID, false, nil, nil); !strings.Contains(err.Error(), "bug of its own") {
		t.Error(err)
	}
	if _, err := c.Run(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
}

// endless is output that never ends, and counts what was taken of it.
type endless struct {
	rpc.Outputs
	taken *atomic.Int64
	ended chan error
}

func (e endless) Follow(_ context.Context, _ bulkhead.RunID, _ []bulkhead.Position, _ func() bool, _ func(error),
	fn func(int64, int, bulkhead.Chunk, bulkhead.Position) error,
) error {
	data := make([]byte, 32<<10)
	for i := range data {
		data[i] = byte(i*i + i>>7) // it does not compress to nothing
	}
	for {
		if err := fn(1, 1, bulkhead.Chunk{Stream: 1, At: time.Now(), Data: data}, bulkhead.Position{Segment: 1, Offset: 1}); err != nil {
			e.ended <- err
			return err
		}
		e.taken.Add(int64(len(data)))
	}
}

func TestAReaderThatTakesNothingHoldsLittleAndIsCutOff(t *testing.T) {
	e := endless{taken: &atomic.Int64{}, ended: make(chan error, 10)}
	s := newSite(t, nil, func(o *rpc.Options) { o.Outputs, o.Stall = e, 300*time.Millisecond })
	c := s.client(nil, nil)
	r := s.submit(c, 1)
	first := true
	err := c.FollowOutput(t.Context(), r.ID, true, nil, func(int64, int, bulkhead.Chunk) error {
		if !first {
			return io.EOF // it goes on where it was
		}
		first = false
		if err := <-e.ended; err == nil { // the server gives up
			t.Error("no error")
		}
		if n := e.taken.Load(); n > 6<<20 {
			t.Errorf("%d bytes were taken for a reader that takes none", n)
		}
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestChangesAreWatchedAFewTimesASecond(t *testing.T) {
	s := newSite(t, func(*work) bulkhead.Result { return bulkhead.Result{} }, nil)
	c := s.client(nil, nil)
	r := s.submit(c, 500)
	began, n := time.Now(), 0
	if err := c.Watch(t.Context(), r.ID, func(rpc.Status) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	const quick = 4 // at first, so that what is short does not seem long
	if most := int(time.Since(began)/(200*time.Millisecond)) + 2 + quick; n > most {
		t.Errorf("%d messages, more than %d", n, most)
	}
}

func TestMetricsHaveNoLabelsOfCallers(t *testing.T) {
	m := &tally{calls: map[string]int{}}
	s := newSite(t, nil, func(o *rpc.Options) { o.Metrics = m })
	c := s.client(nil, nil)
	r := s.submit(c, 1)
	waitFor(t, c, r.ID, func(rpc.Status) bool { return true })
	_, _ = c.Run(t.Context(), 99)
	s.post("RunService/GetRun", "wrong", "{}")
	if res, err := s.web.Client().Post(s.web.URL+"/bulkhead.v1.RunService/Invented", "application/json", strings.NewReader("{}")); err == nil {
		res.Body.Close()
	}
	m.Lock()
	defer m.Unlock()
	for _, call := range []string{"RunService/CreateRun ok", "RunService/GetRun not_found", "RunService/GetRun unauthenticated"} {
		if m.calls[call] != 1 {
			t.Errorf("%s: %v", call, m.calls)
		}
	}
	for call := range m.calls {
		if strings.Contains(call, "Invented") {
			t.Error(call)
		}
	}
}

// tally is metrics in a map.
type tally struct {
	sync.Mutex
	calls map[string]int
}

func (m *tally) Ended(procedure, code string) {
	m.Lock()
	defer m.Unlock()
	m.calls[procedure+" "+code]++
}

func (m *tally) Took(procedure string, _ time.Duration) { m.Ended(procedure, "took") }
func (m *tally) Streams(procedure string, _ int)        { m.Ended(procedure, "stream") }
