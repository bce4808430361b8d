package engine_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

func TestTheStatusHasTheItemsThatRunLongest(t *testing.T) {
	st := openStore(t, t.TempDir())
	const items = 7
	r := submit(t, st, bulkhead.Spec{Limit: items}, items)
	var mu sync.Mutex
	now := time.Unix(1_000_000, 0)
	e := engine.New(engine.Options{Store: st, Now: func() time.Time { // goes back: the last to start has run longest
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(-time.Second)
		return now
	}})
	if err := e.Adopt(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Add(items)
	run(t, e, items, func(l bulkhead.Lease) bulkhead.Result {
		all.Done()
		all.Wait()
		if l.Item.Index != 1 {
			return succeed(l)
		}
		// The others may have ended by now, but for this one.
		for n := range items + 2 {
			live := e.Status(n).Runs[0].Live
			if len(live) > n || n > 0 && len(live) == 0 {
				t.Errorf("%d items where up to %d were asked for", len(live), n)
			}
			for i := 1; i < len(live); i++ {
				a, b := live[i-1], live[i]
				if c := a.Since.Compare(b.Since); c > 0 || c == 0 && a.Item.Index >= b.Item.Index {
					t.Errorf("item %d since %s before item %d since %s", a.Item.Index, a.Since, b.Item.Index, b.Since)
				}
			}
		}
		return fail(l)
	})
	var failed []int64
	for _, f := range e.Status(0).Failures {
		failed = append(failed, f.Index)
	}
	if d := cmp.Diff([]int64{1}, failed); d != "" {
		t.Errorf("failures (-want +got):\n%s", d)
	}
}
