package guard_test

import (
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// Events go by themselves after an hour. That there are many for a while, as when a node
// is lost, is no reason to hold anybody's work.
func TestAStormOfEventsHoldsNobodysWork(t *testing.T) {
	for _, rate := range []int64{2_000, 20_000, 100_000} {
		now := start
		g := guard.New(guard.Options{Now: func() time.Time { return now }, Snapshot: func() bulkhead.Census {
			minutes := max(0, int64(now.Sub(start)/time.Minute)-120)
			n := 900 + min(minutes, 60)*rate/60
			return bulkhead.Census{At: now, Kinds: []bulkhead.KindStatus{{Kind: "events", Objects: n, Reason: "counted once a minute, never watched"}, {Kind: "pods", Exact: true}},
				Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "events", Family: "*"}, Objects: n}}}
		}})
		for range 6 * 60 {
			now = now.Add(time.Minute)
			if err := g.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r := g.Rulings(); len(r) > 0 {
				t.Errorf("%d/h, after %s: %+v", rate, now.Sub(start), r[0])
				break
			}
		}
	}
}
