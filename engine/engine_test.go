package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script plays the part of a script: what an attempt of an item ends as.
type script func(bulkhead.Lease) bulkhead.Result

func succeed(bulkhead.Lease) bulkhead.Result { return bulkhead.Result{} }

func fail(bulkhead.Lease) bulkhead.Result {
	return bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowExit, ExitCode: 1}
}

func openStore(t testing.TB, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// submit stores a run of n items with one column, item i having value vi.
func submit(t testing.TB, st *sqlite.Store, spec bulkhead.Spec, n int64) *bulkhead.Run {
	t.Helper()
	ctx := context.Background()
	spec.Columns = []string{"1"}
	spec.Limit = max(spec.Limit, 1)
	r := &bulkhead.Run{Spec: spec, Created: time.Now()}
	if err := st.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	var items []bulkhead.Item
	for i := int64(1); i <= n; i++ {
		items = append(items, bulkhead.Item{Index: i, Values: []string{fmt.Sprintf("v%d", i)}})
		if len(items) == 50_000 {
			if err := st.Append(ctx, r.ID, items); err != nil {
				t.Fatal(err)
			}
			items = items[:0]
		}
	}
	if err := st.Accept(ctx, r, items, n, "hash"); err != nil {
		t.Fatal(err)
	}
	return r
}

// run drives the engine with workers that play script until it is done.
func run(t testing.TB, e *engine.Engine, workers int, play script) {
	t.Helper()
	if err := runCtx(context.Background(), e, workers, play); err != nil {
		t.Fatal(err)
	}
}

func runCtx(ctx context.Context, e *engine.Engine, workers int, play script) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for slot := range workers {
		wg.Go(func() {
			var done *engine.Done
			for {
				work, err := e.Next(ctx, engine.Ask{Slot: slot, Done: done})
				if err != nil {
					if !errors.Is(err, bulkhead.ErrClosed) && ctx.Err() == nil {
						panic(err)
					}
					return
				}
				done = &engine.Done{Lease: work.Lease, Result: play(work.Lease)}
			}
		})
	}
	return e.Run(ctx)
}

func stored(t testing.TB, st *sqlite.Store, id bulkhead.RunID) *bulkhead.Run {
	t.Helper()
	r, err := st.Run(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryItemIsLeasedOnceAndItsResultStored(t *testing.T) {
	st := openStore(t, t.TempDir())
	r := submit(t, st, bulkhead.Spec{Limit: 7}, 10_000)
	e := engine.New(engine.Options{Store: st})
	if err := e.Adopt(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[int64]int{}
	run(t, e, 7, func(l bulkhead.Lease) bulkhead.Result {
		mu.Lock()
		defer mu.Unlock()
		seen[l.Item.Index]++
		if want := fmt.Sprintf("v%d", l.Item.Index); l.Item.Values[0] != want {
			t.Errorf("item %d has value %q", l.Item.Index, l.Item.Values[0])
		}
		if l.Item.Index%100 == 0 {
			return fail(l)
		}
		return succeed(l)
	})
	for i := int64(1); i <= 10_000; i++ {
		if seen[i] != 1 {
			t.Errorf("item %d ran %d times", i, seen[i])
		}
	}
	got := stored(t, st, r.ID)
	if want := (bulkhead.Counts{Succeeded: 9900, Failed: 100}); got.Counts != want || got.State != bulkhead.RunFailed {
		t.Errorf("got %s %+v, want failed %+v", got.State, got.Counts, want)
	}
}

func BenchmarkNoop(b *testing.B) {
	for _, workers := range []int{2, 64, 1000} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			st := openStore(b, b.TempDir())
			r := submit(b, st, bulkhead.Spec{Limit: workers}, int64(b.N))
			e := engine.New(engine.Options{Store: st})
			if err := e.Adopt(context.Background(), r); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			run(b, e, workers, succeed)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}
