package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// Verdicts come as rulings: brakes, which are in the store so that every process of
// the state folder obeys them, and what Options.Rulings gives. What a ruling says
// about a run is found once, and again only when the rulings have changed; a decision
// then looks at one verdict for each run, however many rulings there are.

// MaxRulings is how many rulings are heeded beside the brakes, the first ones.
const MaxRulings = 256

// rules are the rulings in force and what follows from them.
type rules struct {
	brakes []brake
	read   bool // they were, once

	given   []bulkhead.Ruling
	ruled   int // counts the changes of given
	byScope map[bulkhead.Scope][]bulkhead.Ruling
	pools   map[PoolKey]bulkhead.Verdict // on one key of a pool
	ramps   []*ramp
	wake    time.Time // when a ramp goes on; zero: there is none
}

// brake is a brake with its end by the clock of this process.
type brake struct {
	bulkhead.Brake
	until  time.Time
	ruling bulkhead.Ruling
}

func (b *brake) over(now time.Time) bool { return !b.until.IsZero() && !now.Before(b.until) }

// readBrakes reads the brakes. Their end is counted by the clock of this process, from
// when it first saw them: with a monotonic one, as time.Now is, a clock that is set
// forward lifts none early. One that is set back makes none longer than it was meant.
func (e *Engine) readBrakes(ctx context.Context) error {
	list, err := e.opts.Store.Brakes(ctx)
	if err != nil {
		return fmt.Errorf("read brakes: %w", err)
	}
	now := e.opts.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.rules.brakes
	e.rules.brakes, e.rules.read = nil, true
	for _, b := range list[:min(len(list), bulkhead.MaxBrakes)] {
		own := brake{Brake: b, ruling: b.Ruling()}
		at := slices.IndexFunc(known, func(k brake) bool { return k.ID == b.ID && k.Expires.Equal(b.Expires) })
		switch {
		case b.Expires.IsZero():
		case at >= 0:
			own.until = known[at].until
		default:
			own.until = now.Add(min(b.Expires.Sub(now), b.Expires.Sub(b.Since)))
		}
		e.rules.brakes = append(e.rules.brakes, own)
	}
	return nil
}

// Brakes are those in force, exemptions among them.
func (e *Engine) Brakes() []bulkhead.Brake {
	now := e.opts.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []bulkhead.Brake
	for _, b := range e.rules.brakes {
		if !b.over(now) {
			out = append(out, b.Brake)
		}
	}
	return out
}

// given are the rulings to obey now: brakes, and what others say but for findings that
// are exempt.
func (e *Engine) given() (out []bulkhead.Ruling) {
	now := e.opts.Now()
	var exempt []*brake
	for i := range e.rules.brakes { // which only the loop changes
		b := &e.rules.brakes[i]
		_, exempts := b.Exempts()
		switch {
		case b.over(now):
		case exempts:
			exempt = append(exempt, b)
		default:
			out = append(out, b.ruling)
		}
	}
	if e.opts.Rulings == nil {
		return out
	}
	most := len(out) + MaxRulings
	for _, r := range e.opts.Rulings() {
		if len(out) < most && !slices.ContainsFunc(exempt, func(b *brake) bool { return b.Excuses(&r) }) {
			out = append(out, r)
		}
	}
	return out
}

// set heeds the rulings that there are now.
func (r *rules) set(given []bulkhead.Ruling, now time.Time) {
	if slices.Equal(given, r.given) {
		return
	}
	before := r.byScope
	r.given, r.byScope, r.pools = given, map[bulkhead.Scope][]bulkhead.Ruling{}, map[PoolKey]bulkhead.Verdict{}
	r.ruled++
	for _, g := range given {
		r.byScope[g.Scope] = append(r.byScope[g.Scope], g)
	}
	for scope, list := range r.byScope {
		if scope.Keyed() {
			r.pools[poolOf(scope)], _ = bulkhead.Strongest(list)
		}
	}
	r.change(before, now)
}

func poolOf(scope bulkhead.Scope) PoolKey {
	name, key, _ := strings.Cut(scope.Name, ":")
	return PoolKey{name, key}
}

// judge is what the rulings say about a run.
func (r *rules) judge(of *run) bulkhead.Verdict {
	if of.judged == r.ruled {
		return of.verdict
	}
	var about []bulkhead.Ruling
	for _, scope := range of.scopes {
		about = append(about, r.byScope[scope]...)
	}
	of.verdict, of.from = bulkhead.Strongest(about)
	of.judged = r.ruled
	return of.verdict
}

// change begins a ramp for each scope that is less restricted than before, and ends
// that of one that is stopped again.
func (r *rules) change(before map[bulkhead.Scope][]bulkhead.Ruling, now time.Time) {
	scopes := slices.Collect(maps.Keys(before))
	slices.SortFunc(scopes, func(a, b bulkhead.Scope) int { return strings.Compare(a.String(), b.String()) })
	for _, scope := range scopes {
		if scope.Keyed() {
			continue // a key has few slots
		}
		old, _ := bulkhead.Strongest(before[scope])
		is, _ := bulkhead.Strongest(r.byScope[scope])
		r.turn(&ramp{scope: scope, after: cmp.Or(old.Past, old.Reason), since: now, share: leaves(old)}, leaves(is))
	}
	r.ramps = slices.DeleteFunc(r.ramps, func(p *ramp) bool {
		v, _ := bulkhead.Strongest(r.byScope[p.scope])
		return v.Stops()
	})
}

// HeldRuns is how many runs are held, by who holds them: who gives rulings, pool for
// those whose items all need a key of a pool that is stopped, and store.
func (e *Engine) HeldRuns() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]int{}
	for _, r := range e.runs {
		switch {
		case r.Shown() != bulkhead.RunHeld:
		case e.hold != "":
			out["store"]++
		case r.verdict.Stops():
			out[r.from]++
		default:
			out["pool"]++
		}
	}
	return out
}
