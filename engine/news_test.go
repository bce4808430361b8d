package engine_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// told is what the engine says of runs.
type told struct {
	mu  sync.Mutex
	all []string
}

func (t *told) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, fmt.Sprintf(format, args...))
}

func (t *told) options(o engine.Options) engine.Options {
	o.Began = func(r *bulkhead.Run, again bool) { t.say("began %d again %t", r.ID, again) }
	o.Over = func(r *bulkhead.Run) { t.say("over %d %s", r.ID, r.State) }
	return o
}

// work runs an engine with workers until it is done.
func (t *told) work(test *testing.T, st engine.Store, r *bulkhead.Run, script script) {
	test.Helper()
	e := engine.New(t.options(engine.Options{Store: st}))
	if err := e.Adopt(test.Context(), r); err != nil {
		test.Fatal(err)
	}
	var wg sync.WaitGroup
	for slot := range 3 {
		wg.Go(func() {
			var done *engine.Done
			for {
				a, err := e.Next(test.Context(), engine.Ask{Slot: slot, Done: done})
				if err != nil {
					return
				}
				done = &engine.Done{Lease: a.Lease, Result: script(a.Lease)}
			}
		})
	}
	if err := e.Run(test.Context()); err != nil {
		test.Fatal(err)
	}
	wg.Wait()
}

func TestAStartAndAnEndAreToldOnceEach(t *testing.T) {
	st := openStore(t, t.TempDir())
	r := submit(t, st, bulkhead.Spec{Command: []string{"x"}, Limit: 3}, 20)
	var said told
	said.work(t, st, r, fail)
	// Its items are retried, by whoever takes it up then.
	if _, err := st.Ask(t.Context(), bulkhead.Request{Run: r.ID, Kind: bulkhead.RequestRetry, At: time.Now(), Selection: bulkhead.Selection{Failed: true}}); err != nil {
		t.Fatal(err)
	}
	r, err := st.Run(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(said.options(engine.Options{Store: st}))
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := e.CarryOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var done *engine.Done
		for {
			a, err := e.Next(t.Context(), engine.Ask{Done: done})
			if err != nil {
				return
			}
			done = &engine.Done{Lease: a.Lease, Result: succeed(a.Lease)}
		}
	})
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	want := []string{"began 1 again false", "over 1 failed", "began 1 again true", "over 1 succeeded"}
	if diff := cmp.Diff(want, said.all); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Who takes up a run that is under way says nothing of its start.
	r = submit(t, st, bulkhead.Spec{Command: []string{"x"}}, 1)
	r.Started = time.Now()
	said.work(t, st, r, succeed)
	if last := said.all[len(want):]; !slices.Equal(last, []string{"over 2 succeeded"}) {
		t.Errorf("%q", last)
	}
}

func TestPoolsSayWhatIsUsedAndWhatWaits(t *testing.T) {
	st := openStore(t, t.TempDir())
	now := time.Unix(1_700_000_000, 0)
	e := engine.New(engine.Options{Store: st, Now: func() time.Time { return now }})
	for _, class := range []string{"a", "b"} {
		r := submit(t, st, bulkhead.Spec{Command: []string{"x"}, Limit: 10, Class: class, Shape: bulkhead.Shape{},
			Pools: []bulkhead.PoolUse{{Name: "db", Key: "{1}", Slots: 1}, {Name: "all", Slots: 3}}}, 3)
		if err := e.Adopt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.CarryOut(t.Context()); err != nil { // which reads items ahead
		t.Fatal(err)
	}
	both := []string{"a", "b"}
	want := []bulkhead.PoolStatus{
		{Name: "all", Slots: 3, Waiting: 6, Classes: both}, {Name: "db", Key: "v1", Slots: 1, Waiting: 2, Classes: both},
		{Name: "db", Key: "v2", Slots: 1, Waiting: 2, Classes: both}, {Name: "db", Key: "v3", Slots: 1, Waiting: 2, Classes: both},
	}
	if diff := cmp.Diff(want, e.Pools()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
