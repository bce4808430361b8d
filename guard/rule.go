package guard

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

const (
	// holdRuling is how long a ruling stands at least after the last look that asked
	// for it.
	holdRuling = 10 * time.Minute
	slowFactor = 0.5
)

// holding is a ruling with what keeps it.
type holding struct {
	ruling bulkhead.Ruling
	last   time.Time // when a finding asked for it last
}

// rule makes rulings of findings: a critical one stops work in the namespace where it
// grows, or all of it when a budget of the whole cluster is about to be reached; a
// warning slows it down. Events go by themselves, and what makes many of them, a node
// that is lost for example, does not get better when others wait.
func (g *Guard) rule(findings []bulkhead.Finding, now time.Time) []bulkhead.Ruling {
	for i := range findings {
		r, ok := ruling(&findings[i])
		if !ok {
			continue
		}
		r.Verdict.Since = now
		old, held := g.held[r.Scope]
		if held && old.last.Equal(now) && old.ruling.Verdict.Level >= r.Verdict.Level {
			continue // of a worse finding
		}
		if held && old.ruling.Verdict.Level > r.Verdict.Level && now.Sub(old.last).Abs() < holdRuling {
			continue
		}
		if held && old.ruling.Verdict.Level == r.Verdict.Level {
			r.Verdict.Since = old.ruling.Verdict.Since
		}
		g.held[r.Scope] = holding{r, now}
	}
	var out []bulkhead.Ruling
	for scope, h := range g.held {
		if now.Sub(h.last).Abs() >= holdRuling {
			delete(g.held, scope)
			continue
		}
		out = append(out, h.ruling)
	}
	slices.SortFunc(out, func(a, b bulkhead.Ruling) int {
		return cmp.Or(cmp.Compare(a.Scope.Kind, b.Scope.Kind), cmp.Compare(a.Scope.Name, b.Scope.Name))
	})
	return out
}

// ruling is what one finding asks for.
func ruling(f *bulkhead.Finding) (bulkhead.Ruling, bool) {
	r := bulkhead.Ruling{From: "guard", Scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: f.Namespace}}
	if !slices.ContainsFunc(f.Members, func(m bulkhead.Member) bool { return m.Kind != events }) {
		return r, false
	}
	if f.Namespace == "" && len(f.Reaches) == 0 {
		return r, false // large, and nobody knows that it hurts: no reason to slow down everybody
	}
	r.Verdict.Lifts = "when the finding has ended: bulkhead why"
	switch f.Severity {
	case bulkhead.Critical:
		r.Verdict.Level = bulkhead.Stop
	case bulkhead.Warning:
		r.Verdict.Level, r.Verdict.Factor = bulkhead.Slow, slowFactor
	default:
		return r, false
	}
	what, reaches := f.Title, f.Reaches
	if f.Namespace == "" || f.Severity == bulkhead.Critical && hitsCluster(f) {
		r.Scope = bulkhead.Scope{}
	}
	if r.Scope.Kind == bulkhead.ScopeAll && f.Namespace != "" {
		// Owners of runs anywhere read it, and may not see into that namespace.
		what = multiply(f, "a namespace")
		reaches = slices.DeleteFunc(slices.Clone(reaches), func(r bulkhead.Reach) bool { return !ofCluster(&r) })
	}
	r.Verdict.Reason = fmt.Sprintf("%s: %s", f.Severity, what)
	if len(reaches) > 0 {
		r.Verdict.Reason += ", " + when(reaches[0])
	}
	return r, true
}

// hitsCluster is whether a budget that is about to be reached is one of the whole
// cluster.
func hitsCluster(f *bulkhead.Finding) bool {
	return slices.ContainsFunc(f.Reaches, func(r bulkhead.Reach) bool { return r.In <= criticalIn && ofCluster(&r) })
}

// ofCluster is whether a budget is one of the whole cluster.
func ofCluster(r *bulkhead.Reach) bool {
	return r.Budget.Namespace == "" || r.Budget.Kind == budget.All
}

// when says in how long a budget is reached.
func when(r bulkhead.Reach) string {
	name := clean(r.Budget.Name)
	if r.In <= 0 {
		return fmt.Sprintf("over its budget of %s %s", Number(r.Budget.Limit), name)
	}
	return fmt.Sprintf("%s reached in %s", name, Duration(r.In))
}
