package footprint

import (
	"cmp"
	"math"
	"slices"
	"time"

	"bulkhead.dev/bulkhead/guard/budget"
)

// Change is how one kind differs between what is used now and what is planned.
type Change struct {
	Kind    string   `json:"kind"`
	Unit    string   `json:"unit"`
	WasEach int64    `json:"was_each"`
	Each    int64    `json:"each"`
	WasKept *float64 `json:"was_kept_seconds"` // null: for good
	Kept    *float64 `json:"kept_seconds"`
	// Factor is by what the load grows: how many there are on average at any rate, which
	// is how many an invocation makes × for how long each is kept. null: there was none
	// before, or it ended and does not any more.
	Factor *float64 `json:"factor"`
}

// Compare says what differs from another footprint, the largest factor first. Whatever
// rate both are repeated at, the factors are the same.
func (f *Footprint) Compare(was *Footprint, s Schedule) []Change {
	changes := []Change{}
	kinds := f.kinds()
	for _, kind := range was.kinds() {
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	for _, unit := range []string{budget.Objects, budget.Rules} {
		for _, kind := range kinds {
			if c, differs := change(was.load(s, kind, unit), f.load(s, kind, unit)); differs {
				c.Kind, c.Unit = kind, unit
				changes = append(changes, c)
			}
		}
	}
	if c, differs := change(was.load(s, budget.All, budget.Bytes), f.load(s, budget.All, budget.Bytes)); differs {
		c.Kind, c.Unit = budget.All, budget.Bytes
		changes = append(changes, c)
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(b.weight(), a.weight()) })
	return changes
}

// weight orders changes: growth first, and what ends last.
func (c *Change) weight() float64 {
	if c.Factor == nil {
		return math.Inf(1)
	}
	return *c.Factor
}

// load is what one invocation leaves of a kind.
type load struct {
	each    int64
	kept    time.Duration // the longest, of what ends
	forGood int64         // of each: what does not end
	hours   float64       // of what ends: each × time
}

func (f *Footprint) load(s Schedule, kind, unit string) (l load) {
	for i := range f.Parts {
		p := &f.Parts[i]
		if kind != budget.All && kind != p.Kind {
			continue
		}
		n := p.of(unit)
		l.each = plus(l.each, n)
		d, ends := p.Life.span(s.Lasts, s.Keep)
		switch {
		case n == 0:
		case !ends:
			l.forGood = plus(l.forGood, n)
		default:
			l.kept = max(l.kept, d)
			l.hours += float64(n) * max(d, time.Second).Hours()
		}
	}
	return l
}

func change(was, now load) (c Change, differs bool) {
	c = Change{WasEach: was.each, Each: now.each}
	if was.forGood == 0 {
		c.WasKept = seconds(was.kept)
	}
	if now.forGood == 0 {
		c.Kept = seconds(now.kept)
	}
	factor := now.hours / was.hours
	switch {
	case was.forGood > 0:
		factor = float64(now.forGood) / float64(was.forGood)
	case now.forGood > 0 || was.each == 0:
		return c, now.each > 0
	}
	c.Factor = &factor
	return c, was != now
}
