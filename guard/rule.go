package guard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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

// ruled is what there can be one ruling about: each finding has its own, so that one
// can be exempt and the others hold. A finding that concerns another scope than before
// has two for a while.
type ruled struct {
	finding string
	scope   bulkhead.Scope
}

// holding is a ruling with what keeps it.
type holding struct {
	ruling bulkhead.Ruling
	says   saying
	last   time.Time // when its finding asked for it last
}

// rule makes rulings of findings: a critical one stops the work of the class that
// causes it, or else of the namespace where it grows, or all of it when a budget of the
// whole cluster is about to be reached; a warning slows it down. Events go by
// themselves, and what makes many of them, a node that is lost for example, does not get
// better when others wait. What stops most comes first: an engine heeds so many and no
// more.
func (g *Guard) rule(findings []bulkhead.Finding, now time.Time) []bulkhead.Ruling {
	for i := range findings {
		r, says, ok := g.ruling(&findings[i], now)
		if !ok {
			continue
		}
		key := ruled{r.Finding, r.Scope}
		old, held := g.held[key]
		if held && old.ruling.Verdict.Level > r.Verdict.Level && now.Sub(old.last).Abs() < holdRuling {
			continue
		}
		r.Verdict.Since = now
		if held && old.ruling.Verdict.Level == r.Verdict.Level {
			r.Verdict.Since = old.ruling.Verdict.Since
			if old.says.like(says, now) {
				r, says = old.ruling, old.says
			}
		}
		g.held[key] = holding{r, says, now}
	}
	var out []bulkhead.Ruling
	for key, h := range g.held {
		if now.Sub(h.last).Abs() >= holdRuling {
			delete(g.held, key)
			continue
		}
		out = append(out, h.ruling)
	}
	slices.SortFunc(out, func(a, b bulkhead.Ruling) int {
		return cmp.Or(cmp.Compare(b.Verdict.Level, a.Verdict.Level), cmp.Compare(a.Scope.Kind, b.Scope.Kind),
			cmp.Compare(a.Scope.Name, b.Scope.Name), cmp.Compare(a.Finding, b.Finding))
	})
	return out
}

// ruling is what one finding asks for.
func (g *Guard) ruling(f *bulkhead.Finding, now time.Time) (r bulkhead.Ruling, says saying, ok bool) {
	if !slices.ContainsFunc(f.Members, func(m bulkhead.Member) bool { return m.Kind != events }) {
		return r, says, false
	}
	if f.Namespace == "" && len(f.Reaches) == 0 {
		return r, says, false // large, and nobody knows that it hurts: no reason to slow down everybody
	}
	r = bulkhead.Ruling{From: bulkhead.FromGuard, Finding: f.ID, Scope: g.scope(f)}
	switch f.Severity {
	case bulkhead.Critical:
		r.Verdict.Level = bulkhead.Stop
	case bulkhead.Warning:
		r.Verdict.Level, r.Verdict.Factor = bulkhead.Slow, slowFactor
	default:
		return r, says, false
	}
	told := f
	if r.Scope.Kind == bulkhead.ScopeAll && f.Namespace != "" {
		told = unnamed(f)
	}
	says = sayingOf(told, now)
	r.Verdict.Past = fmt.Sprintf("%s finding %s: %s", f.Severity, f.ID, told.Title)
	r.Verdict.Reason = r.Verdict.Past + says.text(told)
	r.Verdict.Lifts = fmt.Sprintf("when the finding has ended, see bulkhead why; if it is meant: bulkhead brake off %s --for 2h --reason TEXT", f.ID)
	return r, says, true
}

// scope is whose work a finding concerns.
func (g *Guard) scope(f *bulkhead.Finding) bulkhead.Scope {
	switch {
	case f.Namespace == "" || f.Severity == bulkhead.Critical && hitsCluster(f):
		return bulkhead.Scope{}
	// A class that there is not, because somebody mistyped it, would let all of them go on.
	case f.Class != "" && g.opts.Class != nil && g.opts.Class(f.Class):
		return bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: f.Class}
	}
	return bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: f.Namespace}
}

// unnamed is a finding as owners of runs anywhere may read it, who may not see into its
// namespace.
func unnamed(f *bulkhead.Finding) *bulkhead.Finding {
	told := *f
	told.Title = multiply(f, "a namespace")
	told.Reaches = slices.DeleteFunc(slices.Clone(f.Reaches), func(r bulkhead.Reach) bool { return !ofCluster(&r) })
	return &told
}

// hitsCluster is whether a budget that is about to be reached is one of the whole
// cluster.
func hitsCluster(f *bulkhead.Finding) bool {
	return slices.ContainsFunc(f.Reaches, func(r bulkhead.Reach) bool { return fails(r) && ofCluster(&r) })
}

// ofCluster is whether a budget is one of the whole cluster.
func ofCluster(r *bulkhead.Reach) bool {
	return r.Budget.Namespace == "" || r.Budget.Kind == budget.All
}

// saying is what the reason of a ruling rests on. The reason stays as it is while that
// is much the same: everybody who waits is shown it, and a look each minute has other
// figures.
type saying struct {
	words string    // the severity, what grows, and the budget that it reaches first
	due   time.Time // when it does; zero: it has, or there is none
	there float64   // how much there is, of a budget that is reached though nothing grows
}

func sayingOf(f *bulkhead.Finding, now time.Time) saying {
	s := saying{words: string(f.Severity)}
	if grows(f) {
		s.words += " " + f.Title // else it has figures
	}
	if len(f.Reaches) == 0 {
		return s
	}
	r := reason(f)
	s.words += " " + r.Budget.Name
	switch {
	case r.In > 0:
		s.due = now.Add(r.In)
	case grows(f):
		s.words += ", reached"
	default:
		s.there = r.Now
	}
	return s
}

// reason is the reach of a finding that work is held for: of what is critical the first
// that fails, not what gets slower before.
func reason(f *bulkhead.Finding) bulkhead.Reach {
	if i := slices.IndexFunc(f.Reaches, fails); i > 0 && f.Severity == bulkhead.Critical {
		return f.Reaches[i]
	}
	return f.Reaches[0]
}

// like reports whether nobody needs to hear it anew.
func (s saying) like(o saying, now time.Time) bool {
	const tenth, soon = 0.1, 15 * time.Minute
	if s.words != o.words || s.due.IsZero() != o.due.IsZero() {
		return false
	}
	moved, left := o.due.Sub(s.due).Abs(), o.due.Sub(now)
	return (s.due.IsZero() || moved <= max(soon, left/4)) && max(s.there, o.there)-min(s.there, o.there) <= tenth*o.there
}

// text says when the first budget is reached, by the clock: so it stays true.
func (s saying) text(f *bulkhead.Finding) string {
	if len(f.Reaches) == 0 || s.there > 0 { // then the title says it
		return ""
	}
	r := reason(f)
	b := r.Budget
	switch {
	case s.due.IsZero() && ofAgent(r):
		return fmt.Sprintf(", %s at its limit", clean(b.Name))
	case s.due.IsZero():
		return fmt.Sprintf(", over its budget of %s %s", Number(b.Limit), clean(b.Name))
	}
	format := "15:04 UTC"
	if r.In >= 24*time.Hour {
		format = time.DateOnly
	}
	return fmt.Sprintf(", %s reached about %s", clean(b.Name), s.due.UTC().Round(5*time.Minute).Format(format))
}

// classShare of what has come lately must name a class, for it to be the cause: in a
// Helm release all but the release itself can.
const classShare = 0.85

// class is the class of a namespace whose scripts make what grows, as the objects say;
// "": they do not. What has an owner in the group says nothing: a Pod of a Job lacks the
// Job's annotations.
func (a *analysis) class(group []*growth, namespace string) string {
	all, of := int64(0), map[string]int64{}
	for _, g := range group {
		if slices.ContainsFunc(group, func(o *growth) bool { return owns(&o.Key, &g.Key) }) {
			continue
		}
		added, before := a.added(g)
		all += added
		for _, f := range g.tally.Facts {
			if class, ok := classIn(namespace, f.Value); ok && f.Key == bulkhead.ClassKey {
				of[class] += min(added, f.Objects-before[[2]string{f.Key, f.Value}])
			}
		}
	}
	for class, n := range of {
		if float64(n) >= classShare*float64(all) {
			return class
		}
	}
	return ""
}

// classIn is the full name of a class that an object in a namespace names. One of
// another namespace is not believed: whoever writes here must not stop others there.
func classIn(namespace, value string) (string, bool) {
	name := strings.TrimPrefix(value, namespace+"/")
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", false
	}
	return namespace + "/" + name, true
}
