package engine

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"bulkhead.dev/bulkhead"
)

// keptFailures is how many of the last failures Status shows.
const keptFailures = 8

// Failure is one failed attempt, for people to see while the run goes on.
type Failure struct {
	bulkhead.Item
	bulkhead.Attempt
	At time.Time
}

// Status is how the runs of this process stand.
type Status struct {
	Runs     []RunStatus
	Failures []Failure // oldest first, at most the last few
}

// RunStatus is how one run stands.
type RunStatus struct {
	bulkhead.Run                  // Reason is the one to show
	Live         []bulkhead.Lease // the longest running first, at most as many as were asked for
}

// Status returns how the runs stand, with up to live running items each.
func (e *Engine) Status(live int) Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Status{Failures: slices.Clone(e.failures)}
	for _, r := range e.runs {
		st := RunStatus{Run: *r.Run}
		st.Reason = r.shown()
		for _, l := range r.leases {
			st.Live = append(st.Live, l.Lease)
		}
		slices.SortFunc(st.Live, func(a, b bulkhead.Lease) int {
			return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Item.Index, b.Item.Index))
		})
		st.Live = st.Live[:min(live, len(st.Live))]
		s.Runs = append(s.Runs, st)
	}
	return s
}

func (e *Engine) noteFailure(it bulkhead.Item, a bulkhead.Attempt, at time.Time) {
	if len(e.failures) == keptFailures {
		e.failures = slices.Delete(e.failures, 0, 1)
	}
	e.failures = append(e.failures, Failure{it, a, at})
}

// tokens counts up from a random number: unique within a process by counting,
// between processes by chance (63 bits).
func tokens() func() uint64 {
	var next atomic.Uint64
	next.Store(rand.Uint64() >> 2) // the store keeps signed integers; leave room to count
	return func() uint64 { return next.Add(1) }
}
