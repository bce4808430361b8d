package engine

import (
	"fmt"
	"math"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// When a verdict has lifted, what it held back must not start at once: that may be
// what it was given for. So the scope gets a ramp, a cap on how much of it runs at
// once, that begins with a share and doubles until it holds nothing back.

// firstShare is the part of what a scope could have at once that may run when a stop
// has just lifted.
const firstShare = 0.1

// ramp is how a scope comes back after its verdict was lifted.
type ramp struct {
	scope bulkhead.Scope
	after string // the reason of the verdict, as one that is over
	since time.Time
	share float64 // of what the scope could have at once, with which it begins
	first int     // that many; 0: not counted yet
	limit int     // now
}

// at is how many may run at once after some time.
func (r *ramp) at(passed, double time.Duration) int {
	steps := max(passed, 0) / double
	if steps > 31 {
		return math.MaxInt32
	}
	return min(r.first<<steps, math.MaxInt32)
}

// leaves is the share of the limits that a verdict leaves.
func leaves(v bulkhead.Verdict) float64 {
	switch v.Level {
	case bulkhead.Stop:
		return 0
	case bulkhead.Slow:
		return v.Factor
	}
	return 1
}

// turn begins a ramp if its scope had a smaller share of the limits before than it has
// now. One that goes on already is lower.
func (r *rules) turn(p *ramp, share float64) {
	if p.share >= share {
		return
	}
	at := slices.IndexFunc(r.ramps, func(old *ramp) bool { return old.scope == p.scope })
	if at >= 0 && p.share > 0 {
		return
	}
	if at >= 0 {
		r.ramps = slices.Delete(r.ramps, at, at+1)
	}
	p.share = max(firstShare, p.share/share)
	r.ramps = append(r.ramps, p)
}

// capRamps adds to a snapshot what the ramps allow, and forgets those that hold
// nothing back any more.
func (e *Engine) capRamps(s *Snapshot) {
	rules := &e.rules
	rules.wake = time.Time{}
	rules.ramps = slices.DeleteFunc(rules.ramps, func(p *ramp) bool {
		runs, full, running := e.rampOf(p, s)
		if p.first == 0 {
			p.first = max(1, int(math.Ceil(float64(e.reach(runs, full))*p.share)))
		}
		p.limit = p.at(s.Now.Sub(p.since), e.opts.Ramp)
		if p.limit >= full {
			return true
		}
		for _, i := range runs {
			s.Runs[i].Caps = append(s.Runs[i].Caps, len(s.Caps))
		}
		s.Caps = append(s.Caps, Cap{Limit: p.limit, Running: running,
			Reason: fmt.Sprintf("limit: %d of %d: ramping up after: %s", p.limit, full, p.after)})
		passed := max(s.Now.Sub(p.since), 0)
		rules.wake = sooner(rules.wake, s.Now.Add(e.opts.Ramp-passed%e.opts.Ramp))
		return false
	})
}

// rampOf are the runs of a ramp's scope that may start something, how much they could
// have at once without it, and how much of the scope runs.
func (e *Engine) rampOf(p *ramp, s *Snapshot) (runs []int, full, running int) {
	for i, r := range e.runs {
		v := &s.Runs[i]
		if !slices.Contains(r.scopes, p.scope) {
			continue
		}
		running += v.Running
		if v.Stop == "" && !v.Verdict.Stops() {
			full += int(min(int64(v.Verdict.Slowed(v.Limit)), r.Counts.Queued+r.Counts.Running))
			runs = append(runs, i)
		}
	}
	return runs, full, running
}

// reach is how much of that there are slots for: those of the agents that are there,
// if there are any.
func (e *Engine) reach(runs []int, full int) int {
	kinds := map[bulkhead.Kind]bool{}
	for _, i := range runs {
		kinds[e.runs[i].Spec.Kind()] = true
	}
	slots := 0
	for _, g := range e.agents {
		if kinds[g.Kind] && !g.retired {
			slots += g.Slots
		}
	}
	if slots == 0 {
		return full
	}
	return min(full, slots)
}

// rampLimit is how much of a run may run at once by the ramps that it is in.
func (r *rules) rampLimit(of *run) int {
	limit := math.MaxInt
	for _, p := range r.ramps {
		if p.first > 0 && slices.Contains(of.scopes, p.scope) {
			limit = min(limit, p.limit)
		}
	}
	return limit
}
