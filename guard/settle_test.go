package guard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/store/history"
)

func openHistory(t *testing.T, path string) *history.Store {
	t.Helper()
	h, err := history.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestARestartInTheMiddleForgetsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	h := openHistory(t, path)
	o := newWatch(t, w, start, h)
	o.minutes(60+7, nil) // too early to say
	if some(o.guard.Findings()) {
		t.Fatal("found already")
	}
	_ = h.Close()
	h = openHistory(t, path)
	o = newWatch(t, w, o.now.Add(2*time.Minute), h)
	if !o.minutes(6, some) {
		t.Fatal("not found a quarter of an hour after it began")
	}
	o.minutes(20, nil)
	before := o.guard.Findings()[0]
	checkIncident(t, before, w.loop)
	_ = h.Close()

	// What was found is there from the first look on, and the ruling with it.
	h = openHistory(t, path)
	o = newWatch(t, w, o.now, h)
	o.minutes(1, nil)
	findings := o.guard.Findings()
	if len(findings) != 1 || findings[0].ID != before.ID || !findings[0].Since.Equal(before.Since) {
		t.Errorf("%+v", findings)
	}
	if len(o.guard.Rulings()) != 1 {
		t.Errorf("rulings: %+v", o.guard.Rulings())
	}
}

func TestAFindingEndsAQuarterOfAnHourAfterTheGrowth(t *testing.T) {
	h := openHistory(t, filepath.Join(t.TempDir(), history.Name))
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour), loopEnds: start.Add(3 * time.Hour)}
	o := newWatch(t, w, start, h)
	o.minutes(180, nil)
	if len(o.guard.Findings()) != 1 || len(o.guard.Rulings()) != 1 {
		t.Fatalf("%s", o.text())
	}
	none := func(f []bulkhead.Finding) bool { return len(f) == 0 }
	if !o.minutes(60, none) {
		t.Fatalf("it goes on:\n%s", o.text())
	}
	t.Logf("ended %s after the growth", o.now.Sub(w.loopEnds))
	if o.now.Sub(w.loopEnds) < 15*time.Minute {
		t.Errorf("it ended %s after the growth", o.now.Sub(w.loopEnds))
	}
	o.minutes(11, nil)
	if rulings := o.guard.Rulings(); len(rulings) > 0 {
		t.Errorf("rulings: %+v", rulings)
	}
	kept, err := h.Findings(t.Context(), true)
	if err != nil || len(kept) != 1 || kept[0].Ended.IsZero() {
		t.Errorf("%v %+v", err, kept)
	}
}

// Somebody else reads what a guard has found from its history.
func TestTheHistoryHasTheNumbersOfTheLastLook(t *testing.T) {
	h := openHistory(t, filepath.Join(t.TempDir(), history.Name))
	o := newWatch(t, &world{quiet: true, perHour: 224, loop: start}, start, h)
	if !o.minutes(60, some) {
		t.Fatal("not found")
	}
	o.minutes(30, func(findings []bulkhead.Finding) bool {
		kept, err := h.Findings(t.Context(), false)
		if diff := cmp.Diff(findings, kept); err != nil || diff != "" {
			t.Fatalf("at %s: %v (-said +kept):\n%s", o.now, err, diff)
		}
		return false
	})
}

func TestAGuardThatWasAwayFindsWhatGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	w := &world{perHour: 224, loop: start.Add(4 * time.Hour)}
	o := newWatch(t, w, start, openHistory(t, path))
	o.minutes(3*60, nil)
	o.now = o.now.Add(3 * time.Hour) // nobody looks
	if !o.minutes(20, some) {
		t.Fatal("not found")
	}
	o.minutes(10, nil)
	if f := o.guard.Findings(); len(f) == 0 || f[0].Namespace != "mw-script" {
		t.Errorf("%s", o.text())
	}
}

func TestClockJumpsAreSurvived(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	clock := start
	actual := start
	g := guard.New(guard.Options{
		Snapshot: func() bulkhead.Census { c := w.census(actual); c.At = clock; return c },
		History:  openHistory(t, filepath.Join(t.TempDir(), history.Name)), Now: func() time.Time { return clock },
	})
	step := func(n int) {
		for range n {
			clock, actual = clock.Add(time.Minute), actual.Add(time.Minute)
			if err := g.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(30)
	clock = clock.Add(48 * time.Hour)
	step(3)
	clock = clock.Add(-48 * time.Hour)
	step(60)
	if f := g.Findings(); len(f) != 1 {
		t.Fatalf("%d findings", len(f))
	}
	clock = clock.Add(-5 * time.Minute)
	step(30)
	clock = clock.Add(-3 * time.Hour)
	step(30)
	if f := g.Findings(); len(f) != 1 || len(g.Rulings()) != 1 {
		t.Fatalf("%d findings, rulings %+v", len(f), g.Rulings())
	}
}

func TestTwoGuardsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	w := &world{quiet: true, perHour: 224, loop: start}
	first, second := newWatch(t, w, start, openHistory(t, path)), newWatch(t, w, start, openHistory(t, path))
	for range 40 {
		first.minutes(1, nil)
		second.minutes(1, nil)
	}
	if a, b := first.guard.Findings(), second.guard.Findings(); len(a) != 1 || len(b) != 1 || a[0].ID != b[0].ID {
		t.Errorf("%+v\n%+v", a, b)
	}
	if first.guard.Trouble() != "" || !strings.Contains(second.guard.Trouble(), "another guard") {
		t.Errorf("%q, %q", first.guard.Trouble(), second.guard.Trouble())
	}
}

// brokenHistory cannot be written.
type brokenHistory struct{ *history.Store }

func (brokenHistory) Append(context.Context, bulkhead.Census) error {
	return errors.New("no space left on device")
}

func TestWithoutADiskTheGuardGoesOnInMemoryAndSaysSo(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	now := start
	g := guard.New(guard.Options{Snapshot: func() bulkhead.Census { return w.census(now) }, Now: func() time.Time { return now },
		History: brokenHistory{openHistory(t, filepath.Join(t.TempDir(), history.Name))}})
	for range 80 {
		now = now.Add(time.Minute)
		if err := g.Step(t.Context()); err == nil {
			t.Fatal("it says nothing")
		}
	}
	if len(g.Findings()) != 1 || !strings.Contains(g.Trouble(), "no space left") {
		t.Errorf("%d findings, trouble %q", len(g.Findings()), g.Trouble())
	}
}

func TestAKindThatIsStillBeingListedDoesNotGrow(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(-8 * time.Hour)}
	o := newWatch(t, w, start, nil)
	// Of 1,800 policies a few more are known at each look.
	frozen := w.census(start)
	n := int64(0)
	o.guard = guard.New(guard.Options{Now: func() time.Time { return o.now }, Snapshot: func() bulkhead.Census {
		c := frozen
		c.At, c.Kinds, c.Tallies = o.now, nil, nil
		n += 20
		for _, k := range frozen.Kinds {
			k.Exact = n > 1000
			c.Kinds = append(c.Kinds, k)
		}
		for _, t := range frozen.Tallies {
			if n <= 1000 {
				t.Objects = min(t.Objects, n)
			}
			c.Tallies = append(c.Tallies, t)
		}
		return c
	}})
	if o.minutes(120, some) {
		t.Errorf("at %s:\n%s", o.now, o.text())
	}
}

func TestRulingsFollowFindings(t *testing.T) {
	budgets := func(limit float64) []bulkhead.Budget {
		return []bulkhead.Budget{{Name: "networkpolicies", Kind: "networkpolicies.networking.k8s.io", Unit: "objects", Limit: limit, Source: "configured"}}
	}
	for name, c := range map[string]struct {
		limit float64
		want  bulkhead.Ruling
	}{
		"a budget of the cluster that is near stops everything": {800, bulkhead.Ruling{Verdict: bulkhead.Verdict{Level: bulkhead.Stop}}},
		"one that is reached today slows the namespace down": {3000, bulkhead.Ruling{Scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "mw-script"},
			Verdict: bulkhead.Verdict{Level: bulkhead.Slow, Factor: 0.5}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{quiet: true, perHour: 224, loop: start}
			o := newWatch(t, w, start, nil)
			o.guard = guard.New(guard.Options{Snapshot: func() bulkhead.Census { return w.census(o.now) },
				Now: func() time.Time { return o.now }, Budgets: budgets(c.limit)})
			o.minutes(60, nil)
			rulings := o.guard.Rulings()
			if len(rulings) != 1 {
				t.Fatalf("%+v\n%s", rulings, o.text())
			}
			got := rulings[0]
			v := &got.Verdict
			if got.From != "guard" || got.Finding != o.guard.Findings()[0].ID || v.Reason == "" || v.Lifts == "" || v.Since.IsZero() || strings.Contains(v.Reason, "\n") {
				t.Errorf("%+v", got)
			}
			// Owners of runs in all namespaces read what is about all of them.
			if names := strings.Contains(v.Reason, "mw-script"); names != (got.Scope.Name == "mw-script") || !strings.Contains(v.Reason, "networkpolicies reached about ") {
				t.Errorf("%s is told %q", got.Scope, v.Reason)
			}
			got.From, got.Finding, v.Reason, v.Past, v.Lifts, v.Since = "", "", "", "", "", time.Time{}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTheMemoryOfAnAgentIsForecast(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	o := newWatch(t, w, start, nil)
	o.guard = guard.New(guard.Options{
		Snapshot: func() bulkhead.Census { return w.census(o.now) }, Now: func() time.Time { return o.now },
		Agents: func(context.Context) ([]guard.AgentSample, error) {
			policies := max(0, o.now.Sub(w.loop).Hours()*224)
			return []guard.AgentSample{
				{Agent: "calico-node", Namespace: "kube-system", Memory: 230<<20 + policies*106.5e3, Limit: 500 << 20},
				{Agent: "calico-node", Namespace: "kube-system", Memory: 200<<20 + policies*106.5e3, Limit: 500 << 20},
			}, nil
		},
	})
	o.minutes(5*60, nil)
	findings := o.guard.Findings()
	if len(findings) != 1 {
		t.Fatalf("%s", o.text())
	}
	full := (270<<20)/106.5e3/224 - 4 // hours from now
	for _, r := range findings[0].Reaches {
		if r.Budget.Name != "calico-node memory" {
			continue
		}
		if hours := r.In.Hours(); hours < 0.85*full || hours > 1.15*full {
			t.Errorf("in %.1f h, really in %.1f h", hours, full)
		}
		if !strings.Contains(r.Detail, "restarting calico-node is safe up to") || !strings.Contains(r.Budget.Source, "learned") {
			t.Errorf("%+v", r)
		}
		return
	}
	t.Fatalf("it is not there:\n%s", o.text())
}

func TestOurOwnWorkersAreNoFinding(t *testing.T) {
	o := newWatch(t, nil, start, nil)
	o.guard = guard.New(guard.Options{Now: func() time.Time { return o.now }, Snapshot: func() bulkhead.Census {
		n := min(200, int64(o.now.Sub(start)/time.Minute)*8) // a run with --limit 200 begins
		return bulkhead.Census{At: o.now, Kinds: []bulkhead.KindStatus{{Kind: "pods", Exact: true, Objects: n}},
			Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "pods", Namespace: "mw-script", Family: "mediawiki-*", Manager: "bulkhead"},
				Objects: n, Keeps: bulkhead.Keep{Nothing: n}}}}
	}})
	if o.minutes(120, some) {
		t.Errorf("at %s:\n%s", o.now, o.text())
	}
}

func ExampleNumber() {
	fmt.Println(guard.Number(12537), guard.Number(3.7), guard.Duration(230*time.Minute), guard.Duration(4*24*time.Hour+5*time.Hour))
	// Output: 12,537 3.7 3h50m 4d 5h
}

// At first each name stands for itself, and only their sum grows; later they are one family.
func TestAGrowthIsOneFindingAlsoWhenItsFamiliesShowLaterThanItsSum(t *testing.T) {
	o := newWatch(t, &world{quiet: true}, start, nil)
	o.guard = guard.New(guard.Options{Now: func() time.Time { return o.now }, Snapshot: func() bulkhead.Census {
		made := int64(4 * o.now.Sub(start).Minutes())
		c := bulkhead.Census{At: o.now, Kinds: []bulkhead.KindStatus{{Kind: "jobs.batch", Objects: made, Exact: true}}}
		family := func(name string, objects int64) {
			c.Tallies = append(c.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: "jobs.batch", Namespace: "lists", Family: name}, Objects: objects})
		}
		if o.now.Sub(start) < 70*time.Minute {
			for i := range made {
				family(fmt.Sprint("name-", i), 1)
			}
		} else {
			family("name-*", made)
		}
		return c
	}})
	ids := map[string]string{}
	o.minutes(4*60, func(findings []bulkhead.Finding) bool {
		for _, f := range findings {
			if ids[f.ID] == "" {
				ids[f.ID] = fmt.Sprint(o.now.Sub(start), f.Namespace, f.Members[0].Key)
			}
		}
		return false
	})
	if len(ids) != 1 {
		t.Errorf("%v", ids)
	}
	if f := o.guard.Findings(); len(f) != 1 || f[0].Members[0].Family != "name-*" {
		t.Errorf("at the end:\n%s", o.text())
	}
}

func TestABudgetOfSomebodysOwnThatIsReachedIsToldThoughNothingGrows(t *testing.T) {
	set := func(text string) bulkhead.Budget {
		b, err := budget.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	o := newWatch(t, &world{quiet: true}, start, nil)
	o.guard = guard.New(guard.Options{Now: func() time.Time { return o.now },
		Budgets: append(budget.Defaults(), set("configmaps@lists=500"), set("networkpolicies=2"), set("jobs@each=100"), set("secrets=5000")),
		Snapshot: func() bulkhead.Census {
			of := func(kind, namespace, family string, objects int64) bulkhead.Tally {
				return bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: namespace, Family: family}, Objects: objects, Keeps: bulkhead.Keep{Nothing: objects}}
			}
			return bulkhead.Census{At: o.now, Tallies: []bulkhead.Tally{of("configmaps", "lists", "a-*", 700), of("configmaps", "lists", "b-*", 78),
				of("configmaps", "other", "c-*", 40_000), of("networkpolicies.networking.k8s.io", "x", "p", 1), of("networkpolicies.networking.k8s.io", "y", "p", 1),
				of("jobs.batch", "x", "j-*", 99), of("jobs.batch", "y", "j-*", 101), of("jobs.batch", "ci-*", "j-*", 5000), of("secrets", "x", "s-*", 4999)}}
		}})
	o.minutes(30, nil)
	var titles []string
	for _, f := range o.guard.Findings() {
		titles = append(titles, fmt.Sprintf("%s: %s", f.Severity, f.Title))
	}
	slices.Sort(titles)
	want := []string{"warning: 101 jobs in y: the budget is 100", "warning: 2 networkpolicies in the cluster: the budget is 2", "warning: 778 configmaps in lists: the budget is 500"}
	if diff := cmp.Diff(want, titles); diff != "" {
		t.Errorf("-want +got:\n%s\n%s", diff, o.text())
	}
	t.Logf("\n%s", o.text())
}

// What has reached a budget may be of many, who have nothing to do with one another.
func TestABudgetThatIsReachedIsToldWithWhoMadeWhatThereIs(t *testing.T) {
	of := func(namespace, family, manager string, objects int64) bulkhead.Tally {
		return bulkhead.Tally{Key: bulkhead.Key{Kind: "configmaps", Namespace: namespace, Family: family, Origin: "release/" + family, Manager: manager},
			Objects: objects, Keeps: bulkhead.Keep{Nothing: objects}, Example: bulkhead.Example{Name: family + "1", Created: start}}
	}
	all := []bulkhead.Tally{of("shop", "import-*-cfg", "helm", 137), of("web", "a-*", "kubectl-create", 88), of("lists", "a-*", "kubectl-create", 88), of("rest", "x-*", "", 30)}
	metrics := []bulkhead.Tally{{Key: bulkhead.Key{Kind: "configmaps", Family: "*"}, Objects: 343}}
	for name, c := range map[string]struct {
		budget  string
		tallies []bulkhead.Tally
		says    []string
		not     []string
	}{
		"of the cluster": {"configmaps=300", all, []string{
			"there are 137 configmaps import-*-cfg in shop, 88 configmaps a-* in lists, 88", "configmaps a-* in web, 30 configmaps of other families",
			"made by   kubectl-create", "kept      nothing removes 343 of them"}, nil},
		"of a namespace": {"configmaps@shop=100", all, []string{"there are 137 configmaps import-*-cfg\n", "made by   helm\n", " 2 find out who runs helm, to stop it"},
			[]string{"other families"}},
		"of which the largest say little": {"configmaps=300", append([]bulkhead.Tally{of("rest", "y-*", "", 90), of("rest", "z-*", "", 91), of("rest", "w-*", "", 92)}, all...), []string{
			"made by   bulkhead why configmaps says more"}, nil},
		"that only the API server counts": {"configmaps=300", metrics, []string{"there are 343 configmaps\n"}, []string{"kept", "nothing removes", "/all in"}},
	} {
		b, err := budget.Parse(c.budget)
		if err != nil {
			t.Fatal(err)
		}
		kinds := []bulkhead.KindStatus{{Kind: "configmaps", Objects: 343, Exact: len(c.tallies) > 1}}
		findings := guard.Analyze(guard.Input{Now: start, Budgets: []bulkhead.Budget{b}, Census: bulkhead.Census{At: start, Tallies: c.tallies, Kinds: kinds}})
		var page bytes.Buffer
		if err := guard.Text(&page, findings, start, 0); err != nil {
			t.Fatal(err)
		}
		for _, text := range c.says {
			if !strings.Contains(page.String(), text) {
				t.Errorf("%s: it does not say %q:\n%s", name, text, &page)
			}
		}
		for _, text := range c.not {
			if strings.Contains(page.String(), text) {
				t.Errorf("%s: it says %q:\n%s", name, text, &page)
			}
		}
	}
}

// A budget of the whole cluster is over because of two floods, and they may have ended.
func TestWhoAddsAFewBesideAFloodIsNotWhatReachesABudget(t *testing.T) {
	b, err := budget.Parse("configmaps=900")
	if err != nil {
		t.Fatal(err)
	}
	now := start
	of := func(namespace string, objects int64, from time.Duration) bulkhead.Tally {
		return bulkhead.Tally{Key: bulkhead.Key{Kind: "configmaps", Namespace: namespace, Family: "x-*", Manager: namespace},
			Objects: objects, Keeps: bulkhead.Keep{Nothing: objects}, Born: births(now.Add(-from), now, objects)}
	}
	old := of("old", 1100, time.Hour)
	old.Born = []bulkhead.Birth{{At: now.Add(-100 * time.Hour), Objects: 1100}}
	for name, c := range map[string]struct {
		tallies []bulkhead.Tally
		want    string
	}{
		"beside floods":                       {[]bulkhead.Tally{of("single", 77, 45*time.Minute), of("a", 600, time.Hour), of("b", 500, time.Hour)}, "critical a, critical b, notice single"},
		"after floods":                        {[]bulkhead.Tally{of("single", 77, 45*time.Minute), old}, "notice single, warning "},
		"a flood above what is there already": {[]bulkhead.Tally{of("single", 400, time.Hour), old}, "critical single"},
		"what crosses it": {[]bulkhead.Tally{of("single", 77, 45*time.Minute), func() bulkhead.Tally {
			t := old
			t.Objects, t.Keeps.Nothing, t.Born = 850, 850, []bulkhead.Birth{{At: now.Add(-100 * time.Hour), Objects: 850}}
			return t
		}()}, "critical single"},
	} {
		findings := guard.Analyze(guard.Input{Now: now, Budgets: []bulkhead.Budget{b}, Census: bulkhead.Census{At: now, Tallies: c.tallies}})
		var got []string
		for _, f := range findings {
			got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Namespace))
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
