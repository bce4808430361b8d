package engine

import (
	"cmp"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// poolsEvery is how old what Pools says may be: so it costs the same however many
// people look.
const poolsEvery = time.Second

// pools are how the pools stood a moment ago.
type pools struct {
	at   time.Time
	list []bulkhead.PoolStatus
}

// Pools are the pools that are in use or waited for: full ones first, then those for
// which most waits. What waits is counted among the items that were read ahead.
// There are no more of them than live leases and items in windows.
func (e *Engine) Pools() []bulkhead.PoolStatus {
	now := e.opts.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	// A clock that was set back ends what it was kept for, too.
	if age := now.Sub(e.pools.at); e.pools.at.IsZero() || age < 0 || age >= poolsEvery {
		e.pools = pools{now, e.countPools()}
	}
	return e.pools.list
}

func (e *Engine) countPools() []bulkhead.PoolStatus {
	byKey := map[PoolKey]*bulkhead.PoolStatus{}
	count := func(r *run, needs []Need, used int, waiting int64) {
		for _, n := range needs {
			p := byKey[n.Pool]
			if p == nil {
				p = &bulkhead.PoolStatus{Name: n.Pool.Name, Key: n.Pool.Key, Slots: n.Slots}
				byKey[n.Pool] = p
			}
			p.Slots, p.Used, p.Waiting = min(p.Slots, n.Slots), p.Used+used, p.Waiting+waiting
			if !slices.Contains(p.Classes, r.Spec.Class) {
				p.Classes = append(p.Classes, r.Spec.Class)
			}
		}
	}
	for _, r := range e.runs {
		if len(r.pools) == 0 {
			continue
		}
		for _, l := range r.leases {
			count(r, l.needs, 1, 0)
		}
		for _, g := range r.groups {
			if len(g.items) > 0 {
				count(r, g.needs, 0, int64(len(g.items)))
			}
		}
	}
	out := make([]bulkhead.PoolStatus, 0, len(byKey))
	for _, p := range byKey {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b bulkhead.PoolStatus) int {
		full := func(p *bulkhead.PoolStatus) int {
			if p.Full() {
				return 0
			}
			return 1
		}
		return cmp.Or(full(&a)-full(&b), cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Used, a.Used),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	return out
}
