package guard

import (
	"cmp"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/forecast"
)

const mostReaches = 8

// reaches says which budgets a growth reaches, and when, the first at the front.
func (a *analysis) reaches(kinds []kindGrowth) (out []bulkhead.Reach) {
	for _, k := range kinds {
		out = append(out, a.reachesOf(k)...)
	}
	if r, ok := a.database(kinds); ok {
		out = append(out, r)
	}
	out = append(out, a.agents(kinds)...)
	slices.SortStableFunc(out, nearest)
	return out[:min(len(out), mostReaches)]
}

// reachesOf are the budgets of one kind.
func (a *analysis) reachesOf(k kindGrowth) (out []bulkhead.Reach) {
	all := a.count(total(k.kind))
	namespace := k.all[0].Namespace
	there := a.count(bulkhead.Key{Kind: k.kind, Namespace: namespace, Family: All})
	if there.Objects == 0 {
		for _, g := range k.all {
			there.Objects += g.tally.Objects
			there.Rules += g.tally.Rules
		}
	}
	objects, rules := k.trend(objectsOf), k.trend(rulesOf)
	try := func(namespace, unit string, now int64, t forecast.Trend) {
		b, ok := budget.For(a.Budgets, k.kind, namespace, unit)
		if !ok {
			return
		}
		gained := t.PerHour * t.At.Sub(t.Since).Hours()
		if b.Source != budget.Configured && float64(now)-gained >= b.Limit {
			return // it was over it before this began, and lives
		}
		if r, ok := reach(b, float64(now), t, k.peak(float64(now), t)); ok {
			if r.Budget.Kind == budget.Each {
				r.Budget.Kind = k.kind
			}
			out = append(out, r)
		}
	}
	try("", budget.Objects, all.Objects, objects)
	if namespace != "" && namespace != All {
		try(namespace, budget.Objects, there.Objects, objects)
	}
	if rules.PerHour > 0 {
		try("", budget.Rules, all.Rules, rules)
	}
	return out
}

// smallPart is the share of something below which a growth is not what makes it be much.
const smallPart = 0.1

// caused leaves out of what is reached the budgets of the whole cluster that others have
// reached: who adds a few objects beside a flood does not make it worse by much, and is no
// reason to hold back what is in his namespace.
func (a *analysis) caused(kinds []kindGrowth, reaches []bulkhead.Reach) []bulkhead.Reach {
	return slices.DeleteFunc(slices.Clone(reaches), func(r bulkhead.Reach) bool {
		i := slices.IndexFunc(kinds, func(k kindGrowth) bool { return k.kind == r.Budget.Kind })
		if i < 0 || r.Budget.Namespace != "" || r.In > 0 {
			return false
		}
		of, gain := objectsOf, kinds[i].sum(func(g *growth) float64 { return g.gain })
		if gain < smallPart*a.gained[r.Budget.Kind] {
			return true
		}
		if r.Budget.Unit == budget.Rules {
			of = rulesOf
		}
		t := kinds[i].trend(of)
		gain = t.PerHour * t.At.Sub(t.Since).Hours()
		return r.Now-gain >= r.Budget.Limit && gain < smallPart*r.Now
	})
}

// count is how much there is of a key now.
func (a *analysis) count(key bulkhead.Key) bulkhead.Tally {
	if t := a.tallies[key]; t != nil {
		return *t
	}
	return bulkhead.Tally{Key: key, Objects: a.status[key.Kind].Objects}
}

func objectsOf(g *growth) forecast.Trend { return g.trend }
func rulesOf(g *growth) forecast.Trend   { return g.rules }

// trend is that of several families together.
func (k kindGrowth) trend(of func(*growth) forecast.Trend) forecast.Trend {
	fastest := slices.MaxFunc(k.all, func(a, b *growth) int { return cmp.Compare(of(a).PerHour, of(b).PerHour) })
	t := of(fastest)
	t.PerHour, t.Low, t.High, t.Bend, t.Level = 0, 0, 0, 0, 0
	for _, g := range k.all {
		part := of(g)
		t.Growing = t.Growing || part.Growing
		t.PerHour += part.PerHour
		t.Low += part.Low
		t.High += part.High
		t.Bend += part.Bend
		if part.Level > 0 {
			t.Level += part.Level - part.Now
		}
	}
	return t
}

// peak is how many there will be at most: of what has a time to live, as many as
// come in that time. 0: there is no such bound.
func (k kindGrowth) peak(now float64, t forecast.Trend) float64 {
	longest := time.Duration(0)
	for _, g := range k.all {
		if g.tally.Keeps.Nothing > 0 || g.tally.Keeps.TTL <= 0 {
			return 0
		}
		longest = max(longest, g.tally.Keeps.TTL)
	}
	left := longest - t.At.Sub(t.Since)
	return now + t.PerHour*max(0, left.Hours())
}

// reach is when a growth reaches a budget; not ok if it never does, or not for long.
func reach(b bulkhead.Budget, now float64, t forecast.Trend, peak float64) (bulkhead.Reach, bool) {
	if peak > 0 && peak < b.Limit {
		return bulkhead.Reach{}, false
	}
	if t.Level > 0 {
		t.Level += now
	}
	t.Now = now
	in, low, high, ok := t.Reach(b.Limit)
	if !ok || in > horizon {
		return bulkhead.Reach{}, false
	}
	return bulkhead.Reach{Budget: b, Now: now, In: in, Low: low, High: high}, true
}

// database is when the cluster's database is full, as far as the API server says what
// things take there.
func (a *analysis) database(kinds []kindGrowth) (bulkhead.Reach, bool) {
	b, ok := budget.For(a.Budgets, budget.All, "", budget.Bytes)
	if !ok {
		return bulkhead.Reach{}, false
	}
	now := 0.0
	for _, s := range a.status {
		now += float64(s.Bytes)
	}
	var t forecast.Trend
	for _, k := range kinds {
		s := a.status[k.kind]
		if s.Bytes == 0 || s.Objects == 0 {
			continue
		}
		each, part := float64(s.Bytes)/float64(s.Objects), k.trend(objectsOf)
		t.Growing, t.At, t.Since = true, part.At, part.Since
		t.PerHour += each * part.PerHour
		t.Low += each * part.Low
		t.High += each * part.High
	}
	if now == 0 || t.PerHour == 0 {
		return bulkhead.Reach{}, false
	}
	return reach(b, now, t, 0)
}
