package guard_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// Jobs that the cluster removes an hour after their end are 700 when there are 700 an
// hour, and no more: nobody's work has to wait. Their metadata does not say so.
func TestJobsWithAShortTimeToLiveStopNothing(t *testing.T) {
	now, asked := start, 0
	g := guard.New(guard.Options{
		Now: func() time.Time { return now },
		TTL: func(_ context.Context, key bulkhead.Key, example string) (time.Duration, error) {
			if asked++; asked == 1 || key.Family != "test-*" || example != "test-7" {
				return 0, errors.New("it is gone")
			}
			return time.Hour, nil
		},
		Snapshot: func() bulkhead.Census {
			minutes := max(0, int64(now.Sub(start)/time.Minute)-120)
			n := min(minutes, 60) * 700 / 60
			return bulkhead.Census{At: now, Kinds: []bulkhead.KindStatus{{Kind: "jobs.batch", Exact: true, Objects: n}},
				Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "jobs.batch", Namespace: "ci", Family: "test-*", Manager: "kubectl-create"},
					Objects: n, Keeps: bulkhead.Keep{Nothing: n}, Example: bulkhead.Example{Name: "test-7", Created: now}}}}
		},
	})
	for range 5 * 60 {
		now = now.Add(time.Minute)
		if err := g.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range g.Rulings() {
			if r.Verdict.Stops() && now.Sub(start) > 2*time.Hour+30*time.Minute {
				t.Fatalf("after %s: %+v", now.Sub(start), r)
			}
		}
	}
	if asked < 2 || asked > 10 {
		t.Errorf("asked %d times", asked)
	}
}
