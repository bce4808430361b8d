package footprint

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

// Plan is what a schedule leaves behind, compared with what a cluster can hold. Its JSON
// names are a contract: add, never rename.
type Plan struct {
	Documents    int64    `json:"documents"`
	Helm         bool     `json:"helm"`
	Times        *int64   `json:"times"`         // null: without end
	EverySeconds float64  `json:"every_seconds"` // 0: all at once
	KeepSeconds  *float64 `json:"keep_seconds"`  // null: nobody removes it
	LastSeconds  *float64 `json:"last_start_seconds"`
	Rows         []Row    `json:"rows"`
	Watchers     []Watch  `json:"watchers"`
	Agents       []Agent  `json:"agents"`
	Notes        []string `json:"notes"`
	// Crossed are the names of the budgets that are crossed, the first at the front.
	Crossed []string `json:"crossed"`
	// Unknown are the names of the budgets of which nobody can say whether they are crossed,
	// as what is there now is not known.
	Unknown []string `json:"unknown"`
	// Changes compare with other manifests; left out if there are none.
	Changes []Change `json:"changes,omitempty"`
}

// Row is one kind in one unit: objects, rules or bytes.
type Row struct {
	Kind string   `json:"kind"` // "all" for the bytes of everything
	Unit string   `json:"unit"`
	By   []string `json:"by"`   // who makes them
	Each int64    `json:"each"` // of one invocation
	// Kept is for how long one is there, the longest; null: for good.
	Kept *float64 `json:"kept_seconds"`
	Now  *int64   `json:"now"`  // what is there already, and counts; null: not known
	Peak *int64   `json:"peak"` // the most that there will be of it, what is there already not counted; null: it grows without end
	// Budget is the one that is crossed first, or of which the most is used; null: there is none.
	Budget *bulkhead.Budget `json:"budget"`
	// CrossedAt is the invocation, from 1, with which the budget is crossed, and
	// CrossedAfter the time from the first one to it; null: never.
	CrossedAt    *int64   `json:"crossed_at"`
	CrossedAfter *float64 `json:"crossed_after_seconds"`
	// Unknown are the names of its budgets that what is there now might cross, and that is
	// not known.
	Unknown []string `json:"unknown,omitempty"`

	used float64 // the share of the budget at the peak; infinite without end
}

// Count says what is counted: the zero namespace is all of them.
type Count struct{ Kind, Namespace, Unit string }

// Against is what a cluster can hold and what it holds.
type Against struct {
	Budgets []bulkhead.Budget
	Live    bool            // a cluster was asked: what is there now counts
	Now     map[Count]int64 // of Live; what is not in it is not known
	Nodes   int64           // 0: not known
}

// Plan repeats a footprint.
func (f *Footprint) Plan(s Schedule, a Against) Plan {
	p := Plan{Documents: f.Documents, Helm: f.Helm, Rows: []Row{}, Notes: append([]string{}, f.Notes...), Crossed: []string{}, Unknown: []string{}}
	if n := s.times(); n != endless {
		p.Times = &n
		p.LastSeconds = seconds(s.Rate.starts(n - 1))
	}
	if s.Rate.N > 0 {
		p.EverySeconds = s.Rate.Per.Seconds() / float64(s.Rate.N)
	}
	if s.Keep > 0 {
		p.KeepSeconds = seconds(s.Keep)
	}
	for _, unit := range []string{budget.Objects, budget.Rules} {
		for _, kind := range f.kinds() {
			if row, ok := f.row(s, a, kind, unit); ok {
				p.Rows = append(p.Rows, row)
			}
		}
	}
	if row, ok := f.row(s, a, budget.All, budget.Bytes); ok {
		p.Rows = append(p.Rows, row)
	}
	slices.SortStableFunc(p.Rows, compareRows)
	for _, r := range p.Rows {
		if r.CrossedAt != nil {
			p.Crossed = append(p.Crossed, r.Budget.Name)
		}
		for _, name := range r.Unknown { // one of each namespace is in many rows
			if !slices.Contains(p.Unknown, name) {
				p.Unknown = append(p.Unknown, name)
			}
		}
	}
	p.Watchers, p.Agents = watchers(p.Rows, a.Nodes), agents(p.Rows, a.Nodes)
	return p
}

// First is the row whose budget is crossed first, nil if none is.
func (p *Plan) First() *Row {
	if len(p.Crossed) == 0 {
		return nil
	}
	return &p.Rows[0]
}

// compareRows puts what is crossed first to the front, then what uses most of its
// budget.
func compareRows(a, b Row) int {
	return cmp.Or(cmp.Compare(a.invocation(), b.invocation()), cmp.Compare(b.used, a.used), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Unit, b.Unit))
}

// invocation is the one with which a budget is crossed.
func (r *Row) invocation() int64 {
	if r.CrossedAt == nil {
		return endless
	}
	return *r.CrossedAt
}

func (f *Footprint) kinds() (kinds []string) {
	for _, p := range f.Parts {
		if !slices.Contains(kinds, p.Kind) {
			kinds = append(kinds, p.Kind)
		}
	}
	return kinds
}

// of is how much of a unit a part has.
func (p *Part) of(unit string) int64 {
	switch unit {
	case budget.Rules:
		return p.Rules
	case budget.Bytes:
		return p.Bytes
	}
	return p.Objects
}

// row is a kind in a unit. It is not ok if there is nothing of it.
func (f *Footprint) row(s Schedule, a Against, kind, unit string) (r Row, ok bool) {
	r = Row{Kind: kind, Unit: unit}
	all := growth{times: s.times()}
	spaces := map[string]*growth{}
	kept := time.Duration(0)
	forGood := false
	for i := range f.Parts {
		p := &f.Parts[i]
		n := p.of(unit)
		if n == 0 || kind != budget.All && kind != p.Kind {
			continue
		}
		r.Each = plus(r.Each, n)
		if !slices.Contains(r.By, p.By) {
			r.By = append(r.By, p.By)
		}
		b := s.batch(n, p.Life)
		all.batches = append(all.batches, b)
		if p.Namespace != "" {
			g := spaces[p.Namespace]
			if g == nil {
				g = &growth{times: all.times}
				spaces[p.Namespace] = g
			}
			g.batches = append(g.batches, b)
		}
		d, ends := p.Life.span(s.Lasts, s.Keep)
		kept, forGood = max(kept, d), forGood || !ends
	}
	if r.Each == 0 {
		return r, false
	}
	if !forGood {
		r.Kept = seconds(kept)
	}
	if n, ends := all.peak(); ends {
		r.Peak = &n
	}
	if n, known := a.Now[Count{kind, "", unit}]; known {
		r.Now = &n
	}
	r.measure(s, a, "", all)
	for _, namespace := range sortedKeys(spaces) {
		r.measure(s, a, namespace, *spaces[namespace])
	}
	return r, true
}

// measure compares a growth with the budget of a namespace, and keeps it if it is
// crossed sooner, or is used more.
func (r *Row) measure(s Schedule, a Against, namespace string, g growth) {
	b, ok := budget.For(a.Budgets, r.Kind, namespace, r.Unit)
	if !ok {
		return
	}
	now, known := a.Now[Count{r.Kind, namespace, r.Unit}] // 0 where it is not known
	if b.Namespace == budget.Each {
		b.Namespace = namespace
	}
	next := Row{Budget: &b, used: math.Inf(1)}
	if i, crossed := g.crosses(b.Limit - float64(now)); crossed {
		at := i + 1
		next.CrossedAt, next.CrossedAfter = &at, seconds(s.Rate.starts(i))
	}
	if a.Live && !known && next.CrossedAt == nil {
		r.Unknown = append(r.Unknown, b.Name)
	}
	if n, ends := g.peak(); ends && b.Limit > 0 {
		next.used = float64(plus(n, now)) / b.Limit
	}
	if r.Budget == nil || compareRows(next, Row{CrossedAt: r.CrossedAt, used: r.used}) < 0 {
		r.Budget, r.CrossedAt, r.CrossedAfter, r.used = next.Budget, next.CrossedAt, next.CrossedAfter, next.used
	}
}

// Counts are what a plan would like to know of a cluster: how many objects there are, and
// of what else there is a budget.
func (f *Footprint) Counts(budgets []bulkhead.Budget) (counts []Count) {
	want := func(c Count) {
		_, limited := budget.For(budgets, c.Kind, c.Namespace, c.Unit)
		if (limited || c.Namespace == "" && c.Unit == budget.Objects) && !slices.Contains(counts, c) {
			counts = append(counts, c)
		}
	}
	for _, p := range f.Parts {
		for _, namespace := range []string{"", p.Namespace} {
			want(Count{p.Kind, namespace, budget.Objects})
			if p.Rules > 0 {
				want(Count{p.Kind, namespace, budget.Rules})
			}
		}
	}
	want(Count{budget.All, "", budget.Bytes})
	return counts
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// shortKind is a kind for a table, with its unit where that is not objects.
func (r *Row) shortKind() string {
	switch {
	case r.Kind == budget.All:
		return "bytes of all"
	case r.Unit != budget.Objects:
		return fmt.Sprintf("%s %s", budget.Short(r.Kind), r.Unit)
	}
	return budget.Short(r.Kind)
}
