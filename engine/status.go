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
		st.Live = longest(r.leases, live)
		s.Runs = append(s.Runs, st)
	}
	return s
}

// longest are the n leases that are held longest. Workers wait meanwhile: it
// looks at each lease once and sorts none but the n.
func longest(leases map[int64]*live, n int) []bulkhead.Lease {
	if n == 0 {
		return nil
	}
	older := func(a, b bulkhead.Lease) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Item.Index, b.Item.Index))
	}
	out := make([]bulkhead.Lease, 0, n+1)
	for _, l := range leases {
		if len(out) == n && older(l.Lease, out[n-1]) >= 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(out, l.Lease, older)
		out = slices.Insert(out, at, l.Lease)
		out = out[:min(len(out), n)]
	}
	return out
}

func (e *Engine) noteFailure(r *run, f Failure) {
	for _, list := range []*[]Failure{&e.failures, &r.failures} {
		if len(*list) == keptFailures {
			*list = slices.Delete(*list, 0, 1)
		}
		*list = append(*list, f)
	}
}

// unguessable makes tokens for agents: who has one must not know those of others,
// because what belongs to an attempt is known by its token alone.
func unguessable() func() uint64 {
	return func() uint64 { return rand.Uint64() >> 1 } // the store keeps signed integers
}

// tokens counts up from a random number: unique within a process by counting,
// between processes by chance (63 bits).
func tokens() func() uint64 {
	var next atomic.Uint64
	next.Store(rand.Uint64() >> 2) // the store keeps signed integers; leave room to count
	return func() uint64 { return next.Add(1) }
}
