package guard_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// growth is a finding of a namespace that reaches a budget in some time.
func growth(id, namespace string, severity bulkhead.Severity, in time.Duration, ofBudget string) bulkhead.Finding {
	f := bulkhead.Finding{ID: id, Severity: severity, Title: "jobs multiply in " + namespace, Namespace: namespace, PerHour: 224,
		Members: []bulkhead.Member{{Key: bulkhead.Key{Kind: "jobs.batch", Namespace: namespace, Family: "a-*"}}}}
	if in >= 0 {
		f.Reaches = []bulkhead.Reach{{Budget: bulkhead.Budget{Name: "jobs", Kind: "jobs.batch", Namespace: ofBudget, Limit: 3000}, In: in}}
	}
	return f
}

// said is rulings as SCOPE LEVEL FINDING.
func said(rulings []bulkhead.Ruling) (out []string) {
	for _, r := range rulings {
		level := map[bulkhead.Level]string{bulkhead.Slow: "slow", bulkhead.Stop: "stop"}[r.Verdict.Level]
		out = append(out, fmt.Sprintf("%s: %s because of %s", r.Scope, level, r.Finding))
	}
	return out
}

func knows(classes ...string) *guard.Guard {
	return guard.New(guard.Options{Class: func(name string) bool { return slices.Contains(classes, name) }})
}

func TestWhatAFindingHoldsBack(t *testing.T) {
	const hours, days = time.Hour, 24 * time.Hour
	of := func(f bulkhead.Finding, class string) bulkhead.Finding {
		f.Class = class
		return f
	}
	events := growth("f1", "ns", bulkhead.Critical, 2*hours, "each")
	events.Members[0].Kind = "events"
	for name, c := range map[string]struct {
		finding bulkhead.Finding
		want    []string
	}{
		"a critical one of a budget of each namespace stops the namespace": {growth("f1", "ns", bulkhead.Critical, 2*hours, "each"), []string{"namespace ns: stop because of f1"}},
		"a warning slows it down":                                    {growth("f1", "ns", bulkhead.Warning, 9*hours, "each"), []string{"namespace ns: slow because of f1"}},
		"a notice says nothing":                                      {growth("f1", "ns", bulkhead.Notice, 9*days, "each"), nil},
		"a budget of the cluster stops everything when it is near":   {growth("f1", "ns", bulkhead.Critical, 2*hours, ""), []string{"everything: stop because of f1"}},
		"one that is not near slows the namespace":                   {growth("f1", "ns", bulkhead.Warning, 9*hours, ""), []string{"namespace ns: slow because of f1"}},
		"a class whose objects say so is stopped, not its namespace": {of(growth("f1", "ns", bulkhead.Critical, 2*hours, "each"), "ns/web"), []string{"class ns/web: stop because of f1"}},
		"it is slowed likewise":                                      {of(growth("f1", "ns", bulkhead.Warning, 9*hours, ""), "ns/web"), []string{"class ns/web: slow because of f1"}},
		"a class that there is not lets nobody go on":                {of(growth("f1", "ns", bulkhead.Critical, 2*hours, "each"), "ns/wbe"), []string{"namespace ns: stop because of f1"}},
		"a budget of the cluster is everybody's, whoever makes it":   {of(growth("f1", "ns", bulkhead.Critical, 2*hours, ""), "ns/web"), []string{"everything: stop because of f1"}},
		"what is in no namespace is of all":                          {growth("f1", "", bulkhead.Warning, 9*hours, ""), []string{"everything: slow because of f1"}},
		"what is in no namespace and hurts nobody holds nobody":      {growth("f1", "", bulkhead.Warning, -1, ""), nil},
		"events hold nobody":                                         {events, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, said(knows("ns/web").Rule([]bulkhead.Finding{c.finding}, start))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestEachFindingHasARulingAndWhatStopsMostComesFirst(t *testing.T) {
	got := knows().Rule([]bulkhead.Finding{growth("f3", "ns", bulkhead.Warning, 9*time.Hour, "each"), growth("f2", "ns", bulkhead.Critical, time.Hour, "each"),
		growth("f1", "ns", bulkhead.Critical, time.Hour, "each"), growth("f4", "other", bulkhead.Critical, time.Hour, "")}, start)
	want := []string{"everything: stop because of f4", "namespace ns: stop because of f1", "namespace ns: stop because of f2", "namespace ns: slow because of f3"}
	if diff := cmp.Diff(want, said(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestARulingNamesItsFindingAndTheCommandThatLiftsIt(t *testing.T) {
	r := knows().Rule([]bulkhead.Finding{growth("118b1ceae7", "ns", bulkhead.Critical, 3*time.Hour+47*time.Minute, "each")}, start)[0]
	if want := "critical finding 118b1ceae7: jobs multiply in ns, jobs reached about 23:45 UTC"; r.Verdict.Reason != want {
		t.Errorf("%q, want %q", r.Verdict.Reason, want)
	}
	if want := "critical finding 118b1ceae7: jobs multiply in ns"; r.Verdict.Past != want {
		t.Errorf("%q, want %q", r.Verdict.Past, want)
	}
	if !strings.Contains(r.Verdict.Lifts, "bulkhead brake off 118b1ceae7 --for 2h --reason TEXT") {
		t.Errorf("%q", r.Verdict.Lifts)
	}
}

// A severity or a scope that comes and goes with each look must not let runs start and
// stop with it.
func TestARulingHoldsTenMinutesAfterItWasLastAskedFor(t *testing.T) {
	g := knows("ns/web")
	at := func(minute int, findings ...bulkhead.Finding) []string {
		return said(g.Rule(findings, start.Add(time.Duration(minute)*time.Minute)))
	}
	near, far := growth("f1", "ns", bulkhead.Critical, time.Hour, "each"), growth("f1", "ns", bulkhead.Warning, 9*time.Hour, "each")
	for i, step := range []struct {
		minute int
		is     []bulkhead.Finding
		want   []string
	}{
		{0, []bulkhead.Finding{near}, []string{"namespace ns: stop because of f1"}},
		{9, []bulkhead.Finding{far}, []string{"namespace ns: stop because of f1"}},
		{10, []bulkhead.Finding{far}, []string{"namespace ns: slow because of f1"}},
		{11, []bulkhead.Finding{near}, []string{"namespace ns: stop because of f1"}},
		// Another one begins, and does not keep the first.
		{15, []bulkhead.Finding{growth("f2", "ns", bulkhead.Warning, 9*time.Hour, "each")}, []string{"namespace ns: stop because of f1", "namespace ns: slow because of f2"}},
		{20, nil, []string{"namespace ns: stop because of f1", "namespace ns: slow because of f2"}},
		{21, nil, []string{"namespace ns: slow because of f2"}},
		{25, nil, nil},
		// The same in another scope.
		{30, []bulkhead.Finding{growth("f1", "ns", bulkhead.Critical, time.Hour, "")}, []string{"everything: stop because of f1"}},
		{31, []bulkhead.Finding{near}, []string{"everything: stop because of f1", "namespace ns: stop because of f1"}},
		{40, []bulkhead.Finding{near}, []string{"namespace ns: stop because of f1"}},
		// A clock that is set back or forward lifts no more than what nobody asks for.
		{-900, []bulkhead.Finding{near}, []string{"namespace ns: stop because of f1"}},
		{900, []bulkhead.Finding{near}, []string{"namespace ns: stop because of f1"}},
	} {
		if diff := cmp.Diff(step.want, at(step.minute, step.is...)); diff != "" {
			t.Fatalf("step %d, minute %d: -want +got:\n%s", i, step.minute, diff)
		}
	}
}

// Each look has another forecast; who waits reads the same until it matters.
func TestTheReasonOfARulingStaysWhileNothingEssentialChanges(t *testing.T) {
	g := knows()
	over := growth("f2", "ns", bulkhead.Warning, 0, "each")
	over.PerHour = 0
	texts := map[string]int{}
	var first []bulkhead.Ruling
	for i := range 60 {
		f := growth("f1", "ns", bulkhead.Critical, 3*time.Hour-time.Duration(i)*time.Minute+time.Duration(i%7-3)*2*time.Minute, "each")
		over.Title, over.Reaches[0].Now = fmt.Sprintf("%d jobs in ns: the budget is 3,000", 3001+i), float64(3001+i)
		rulings := g.Rule([]bulkhead.Finding{f, over}, start.Add(time.Duration(i)*time.Minute))
		for _, r := range rulings {
			texts[r.Verdict.Reason]++
		}
		if first == nil {
			first = rulings
		}
		if !slices.Equal(first, rulings) {
			t.Fatalf("minute %d:\n%s", i, cmp.Diff(first, rulings))
		}
	}
	later := start.Add(time.Hour)
	for name, f := range map[string]bulkhead.Finding{
		"much sooner":      growth("f1", "ns", bulkhead.Critical, 20*time.Minute, "each"),
		"another severity": growth("f1", "ns", bulkhead.Warning, 3*time.Hour, "each"),
		"reached":          growth("f1", "ns", bulkhead.Critical, 0, "each"),
		"in no time":       growth("f1", "ns", bulkhead.Critical, -1, "each"),
		"more kinds grow": func() bulkhead.Finding {
			f := growth("f1", "ns", bulkhead.Critical, 2*time.Hour, "each")
			f.Title = "jobs and pods multiply in ns"
			return f
		}(),
		"another budget": func() bulkhead.Finding {
			f := growth("f1", "ns", bulkhead.Critical, 2*time.Hour, "each")
			f.Reaches[0].Budget.Name = "calico-node memory"
			return f
		}(),
		"over, and far more": func() bulkhead.Finding {
			f := over
			f.Reaches = slices.Clone(over.Reaches)
			f.Reaches[0].Now = 5000
			f.Title = "5,000 jobs in ns"
			return f
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			g := knows()
			before := growth("f1", "ns", bulkhead.Critical, 2*time.Hour, "each")
			if f.ID == over.ID {
				before = over
			}
			was := g.Rule([]bulkhead.Finding{before}, later)[0]
			is := g.Rule([]bulkhead.Finding{f}, later.Add(holdRuling))[0]
			if was.Verdict.Reason == is.Verdict.Reason {
				t.Errorf("it says %q still", is.Verdict.Reason)
			}
		})
	}
}

// holdRuling is how long a ruling stands at least.
const holdRuling = 10 * time.Minute

func TestRulingsAreOfTheFindingsThereAreOrWereLately(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := knows("ns/web")
		now := start
		last := map[string]time.Time{}
		for range rapid.IntRange(1, 40).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "minutes")) * time.Minute)
			var findings []bulkhead.Finding
			for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "findings") {
				f := growth(id, "ns", rapid.SampledFrom([]bulkhead.Severity{bulkhead.Notice, bulkhead.Warning, bulkhead.Critical}).Draw(t, "severity"),
					time.Duration(rapid.IntRange(-1, 30).Draw(t, "hours"))*time.Hour, rapid.SampledFrom([]string{"", "each"}).Draw(t, "budget"))
				f.Class = rapid.SampledFrom([]string{"", "ns/web", "ns/none"}).Draw(t, "class")
				findings = append(findings, f)
				last[id] = now
			}
			rulings := g.Rule(findings, now)
			for _, r := range rulings {
				if at, was := last[r.Finding]; !was || now.Sub(at) >= holdRuling {
					t.Fatalf("%s though it was seen last at %s", said([]bulkhead.Ruling{r}), at)
				}
			}
			for i := range findings {
				f := &findings[i]
				if f.Severity == bulkhead.Critical && !slices.ContainsFunc(rulings, func(r bulkhead.Ruling) bool { return r.Finding == f.ID && r.Verdict.Stops() }) {
					t.Fatalf("nothing stops because of %+v: %v", f, said(rulings))
				}
			}
		}
	})
}

// The incident's Jobs, policies and ConfigMaps can name the class whose script made them;
// the records of Helm's releases cannot.
func TestAGrowthThatNamesAClassIsTheFindingOfThatClass(t *testing.T) {
	for name, c := range map[string]struct {
		value string // of the annotation
		kinds string // that have it
		want  string
	}{
		"by its name":                          {"web", "jobs.batch networkpolicies.networking.k8s.io configmaps", "mw-script/web"},
		"with its namespace":                   {"mw-script/web", "jobs.batch networkpolicies.networking.k8s.io configmaps", "mw-script/web"},
		"one of another namespace":             {"other/web", "jobs.batch networkpolicies.networking.k8s.io configmaps", ""},
		"a path":                               {"mw-script/web/x", "jobs.batch networkpolicies.networking.k8s.io configmaps", ""},
		"nothing behind the namespace":         {"mw-script/", "jobs.batch networkpolicies.networking.k8s.io configmaps", ""},
		"on some of the objects only":          {"web", "jobs.batch", ""},
		"on what their owner does not have":    {"web", "pods", ""},
		"on nearly all, and on what they own":  {"web", "jobs.batch networkpolicies.networking.k8s.io configmaps pods", "mw-script/web"},
		"on all but one of the seven families": {"web", "jobs.batch networkpolicies.networking.k8s.io", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{quiet: true, perHour: 224, loop: start, born: true, class: c.value, classed: strings.Fields(c.kinds)}
			now := start.Add(3 * time.Hour)
			f := guard.Analyze(guard.Input{Now: now, Census: w.census(now)})
			if len(f) != 1 || f[0].Class != c.want {
				t.Errorf("%d findings, of class %q", len(f), f[0].Class)
			}
		})
	}
}

func TestAClassThatBeganLatelyIsToldThoughOlderObjectsNameNone(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start, born: true, class: "web", classed: []string{"jobs.batch", "networkpolicies.networking.k8s.io", "configmaps"},
		classFrom: start.Add(4 * time.Hour)}
	earlier, now := start.Add(5*time.Hour), start.Add(6*time.Hour)
	facts := map[bulkhead.Key][]bulkhead.Fact{}
	for _, t := range w.census(earlier).Tallies {
		facts[t.Key] = append([]bulkhead.Fact{{Key: "", Objects: t.Objects}}, t.Facts...) // no label has such a key
	}
	for name, c := range map[string]struct {
		facts map[bulkhead.Key][]bulkhead.Fact
		want  string
	}{
		"of all of them a third name it":      {nil, ""},
		"of those of the last hour all do so": {facts, "mw-script/web"},
	} {
		t.Run(name, func(t *testing.T) {
			f := guard.Analyze(guard.Input{Now: now, Census: w.census(now), Facts: c.facts})
			if len(f) != 1 || f[0].Class != c.want {
				t.Errorf("%d findings, of class %q, not %q", len(f), f[0].Class, c.want)
			}
		})
	}
}

func TestThePageSaysWhoLetsRunsGoOn(t *testing.T) {
	f := growth("118b1ceae7", "ns", bulkhead.Critical, 2*time.Hour, "each")
	f.Exempt = &bulkhead.Exemption{Owner: "ann", Reason: "T123: meant", Since: start, Until: start.Add(2 * time.Hour)}
	var page strings.Builder
	if err := guard.Text(&page, []bulkhead.Finding{f}, start, 0); err != nil || !strings.Contains(page.String(), "not obeyed until 22:00 UTC, by ann: T123: meant\n") {
		t.Errorf("%v\n%s", err, page.String())
	}
}
