package guard

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

const (
	// mostMembers is how many families of a kind are named that has too many objects.
	mostMembers = 3
	// mostOver is how many namespaces are told of in which one budget is reached, the
	// fullest ones: a budget of each namespace may be reached in thousands.
	mostOver = 10
)

// exceeded are the budgets that somebody has set and that are reached, whether or not
// anything grows. Default budgets are not: what has always been over them lives.
func (a *analysis) exceeded(found []bulkhead.Finding) (out []bulkhead.Finding) {
	defaults := budget.Defaults()
	for _, b := range a.Budgets {
		if slices.Contains(defaults, b) || b.Unit != budget.Objects && b.Unit != budget.Rules {
			continue
		}
		there := a.thereOf(b)
		over := slices.DeleteFunc(slices.Collect(maps.Keys(there)), func(namespace string) bool {
			return float64(there[namespace]) < b.Limit || told(found, b, namespace)
		})
		slices.SortFunc(over, func(x, y string) int { return cmp.Or(cmp.Compare(there[y], there[x]), cmp.Compare(x, y)) })
		for _, namespace := range over[:min(len(over), mostOver)] {
			out = append(out, a.over(b, namespace, there[namespace]))
		}
	}
	return out
}

// thereOf is how much there is of what a budget is about, by namespace; under "" if all
// of them count together.
func (a *analysis) thereOf(b bulkhead.Budget) map[string]int64 {
	there := map[string]int64{}
	for key, t := range a.tallies {
		switch {
		case key.Kind != b.Kind || isSum(key):
		case b.Namespace == "":
			there[""] += measure(b.Unit, t)
		case b.Namespace == key.Namespace, b.Namespace == budget.Each && key.Namespace != "" && !strings.Contains(key.Namespace, "*"):
			there[key.Namespace] += measure(b.Unit, t) // a pattern is many namespaces, and none of them alone
		}
	}
	if b.Namespace == "" && b.Unit == budget.Objects {
		there[""] = max(there[""], a.status[b.Kind].Objects) // where nobody counts families
	}
	return there
}

// told reports whether a growth is told of that has reached a budget where it counts. A
// notice is of one that others have reached.
func told(found []bulkhead.Finding, b bulkhead.Budget, namespace string) bool {
	return slices.ContainsFunc(found, func(f bulkhead.Finding) bool {
		return (namespace == "" || f.Namespace == namespace) && f.Severity != bulkhead.Notice &&
			slices.ContainsFunc(f.Reaches, func(r bulkhead.Reach) bool { return r.Budget.Name == b.Name && r.In <= 0 })
	})
}

func measure(unit string, t *bulkhead.Tally) int64 {
	if unit == budget.Rules {
		return t.Rules
	}
	return t.Objects
}

// over is the finding of a budget that is reached in a namespace; "": everywhere.
func (a *analysis) over(b bulkhead.Budget, namespace string, n int64) bulkhead.Finding {
	tallies, nothing := a.largest(b, namespace)
	members := make([]bulkhead.Member, 0, mostMembers)
	for _, t := range tallies {
		members = append(members, bulkhead.Member{Key: t.Key, Objects: t.Objects, Rules: t.Rules, Example: clean(t.Example.Name)})
	}
	if len(members) == 0 {
		members = []bulkhead.Member{{Key: total(b.Kind), Objects: n}}
	}
	where, scope := "the cluster", []string{"-A"}
	if namespace != "" {
		where, scope = clean(namespace), []string{"-n", namespace}
	}
	sum := sha256.Sum256([]byte("budget\x00" + b.Name + "\x00" + namespace))
	f := bulkhead.Finding{
		ID: fmt.Sprintf("%x", sum[:5]), Severity: bulkhead.Warning, Namespace: namespace, Since: a.Now,
		Title:   fmt.Sprintf("%s %s in %s: the budget is %s", Number(float64(n)), what(b), where, Number(b.Limit)),
		Members: members,
		Reaches: []bulkhead.Reach{{Budget: b, Now: float64(n)}},
	}
	if nothing > 0 {
		f.Keeps = fmt.Sprintf("nothing removes %s of them", Number(float64(nothing)))
	}
	f.Client, f.Users, f.Facts = a.madeMost(tallies, b, n)
	f.Advice = []bulkhead.Advice{{Text: "look at the newest of them; this changes nothing",
		Command: bulkhead.ShellLine(append([]string{"kubectl", "get", named(b.Kind)}, scope...)) + " --sort-by=.metadata.creationTimestamp | tail"}}
	if f.Client != "" || len(f.Users) > 0 {
		f.Advice = append(f.Advice, bulkhead.Advice{Text: ask(f)})
	}
	if namespace != "" {
		f.Advice = append(f.Advice, bulkhead.Advice{Text: "refuse more of them at the API; without --yes it says what that would be",
			Command: bulkhead.ShellLine(append([]string{"bulkhead", "guard", "quota", "--kinds", named(b.Kind)}, scope...))})
	}
	return f
}

// largest are the largest families of what a budget is about in a namespace ("": all of
// them), and of how many objects of all nobody knows what removes them.
func (a *analysis) largest(b bulkhead.Budget, namespace string) (tallies []*bulkhead.Tally, nothing int64) {
	for key, t := range a.tallies {
		if key.Kind == b.Kind && !isSum(key) && (namespace == "" || key.Namespace == namespace) {
			tallies = append(tallies, t)
			nothing += t.Keeps.Nothing
		}
	}
	slices.SortFunc(tallies, func(x, y *bulkhead.Tally) int {
		return cmp.Or(cmp.Compare(measure(b.Unit, y), measure(b.Unit, x)), compareKeys(x.Key, y.Key))
	})
	return tallies[:min(len(tallies), mostMembers)], nothing
}

// madeMost says who has made most of what a budget is about. Of less than a half of it
// nobody is named: others have made the rest.
func (a *analysis) madeMost(tallies []*bulkhead.Tally, b bulkhead.Budget, n int64) (client string, users []string, facts []bulkhead.Fact) {
	of, groups := map[string]int64{}, map[string][]*growth{}
	for _, t := range tallies {
		of[t.Manager] += measure(b.Unit, t)
		groups[t.Manager] = append(groups[t.Manager], &growth{Key: t.Key, tally: t, gain: float64(t.Objects)})
	}
	for _, t := range tallies {
		if 2*of[t.Manager] >= n {
			return a.makers(groups[t.Manager])
		}
	}
	return "", nil, nil
}

func what(b bulkhead.Budget) string {
	if b.Unit == budget.Rules {
		return "rules of " + short(b.Kind)
	}
	return short(b.Kind)
}

// grows is whether a finding is about a growth, and not about a budget that is reached.
func grows(f *bulkhead.Finding) bool { return f.PerHour > 0 }

// sinceWhen is since when a budget is reached, for people.
func sinceWhen(f *bulkhead.Finding, now time.Time) string {
	return fmt.Sprintf("%s UTC (%s ago), or longer", f.Since.UTC().Format("2006-01-02 15:04"), Duration(now.Sub(f.Since)))
}

// thereOver is what there is of a budget that is reached: the largest families, by name
// because each may be another's, and how much else.
func thereOver(f *bulkhead.Finding) string {
	var parts []string
	r := f.Reaches[0]
	rest := int64(r.Now)
	for _, m := range f.Members {
		text := fmt.Sprintf("%s %s", Number(float64(m.Objects)), short(m.Kind))
		if m.Rules > 0 {
			text += fmt.Sprintf(" (%s rules)", Number(float64(m.Rules)))
		}
		if !isSum(m.Key) {
			text += " " + m.Family
		}
		if f.Namespace == "" && m.Namespace != "" && m.Namespace != All {
			text += " in " + m.Namespace
		}
		parts = append(parts, text)
		rest -= measure(r.Budget.Unit, &bulkhead.Tally{Objects: m.Objects, Rules: m.Rules})
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%s %s of other families", Number(float64(rest)), what(r.Budget)))
	}
	return strings.Join(parts, ", ")
}
