package footprint_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/footprint"
)

const day = 24 * time.Hour

// perHour is the rate of the incident, Wikimedia 2024-10-09.
var perHour = footprint.Rate{N: 224, Per: time.Hour}

func incident(t testing.TB) *footprint.Footprint {
	t.Helper()
	text, err := os.ReadFile("testdata/incident.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return read(t, string(text), footprint.Options{Namespace: "mw-script"})
}

func budgets(t testing.TB, more ...string) []bulkhead.Budget {
	t.Helper()
	all := budget.Defaults()
	for _, text := range more {
		b, err := budget.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// line is a row of a plan for a test.
func line(r footprint.Row) string {
	peak, after := "no end", "never"
	if r.Peak != nil {
		peak = fmt.Sprint(*r.Peak)
	}
	if r.CrossedAt != nil {
		after = fmt.Sprintf("no. %d after %s", *r.CrossedAt, time.Duration(*r.CrossedAfter*float64(time.Second)).Truncate(time.Second))
	}
	return fmt.Sprintf("%s %s each=%d peak=%s crossed=%s", budget.Short(r.Kind), r.Unit, r.Each, peak, after)
}

func TestTheIncidentWouldHaveBeenSeenBefore(t *testing.T) {
	p := incident(t).Plan(footprint.Schedule{Rate: perHour, Keep: 7 * day}, footprint.Against{Budgets: budgets(t), Nodes: 212})
	var got []string
	for _, r := range p.Rows {
		if r.Unit != budget.Bytes {
			got = append(got, line(r))
		}
	}
	want := []string{
		"configmaps objects each=7 peak=263424 crossed=no. 1715 after 7h39m6s",
		"jobs objects each=1 peak=37632 crossed=no. 2001 after 8h55m42s",
		"networkpolicies objects each=1 peak=37632 crossed=no. 2001 after 8h55m42s",
		"networkpolicies rules each=90 peak=3386880 crossed=no. 2223 after 9h55m10s",
		"pods objects each=1 peak=37632 crossed=no. 3001 after 13h23m34s",
		"secrets objects each=1 peak=37632 crossed=no. 20001 after 89h17m8s",
		"events objects each=6 peak=1344 crossed=never",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if first := p.First(); first == nil || first.Kind != "configmaps" || p.Crossed[0] != "configmaps" {
		t.Errorf("first: %+v", first)
	}
	a := p.Agents[0]
	if *a.Nodes != 212 || a.Each != 106_500 {
		t.Errorf("calico-node: %+v", a)
	}
}

func TestTheLoopOfTheIncidentStaysBelowSomeBudgetsAndCrossesOne(t *testing.T) {
	p := incident(t).Plan(footprint.Schedule{Times: 1800, Rate: footprint.Rate{N: 1, Per: 16 * time.Second}, Keep: 7 * day}, footprint.Against{Budgets: budgets(t)})
	if d := cmp.Diff([]string{"configmaps"}, p.Crossed); d != "" {
		t.Error(d)
	}
	// 1,800 policies of 90 rules: felix 3.23.3 was measured at 60 MiB + 106.5 kB each.
	if mib := *p.Agents[0].Bytes >> 20; mib != 182 {
		t.Errorf("calico-node would take %d MiB more", mib)
	}
}

func TestTheTimeToLiveOfAJobShowsAsItsFactor(t *testing.T) {
	text, err := os.ReadFile("testdata/incident.yaml")
	if err != nil {
		t.Fatal(err)
	}
	was := read(t, strings.Replace(string(text), "ttlSecondsAfterFinished: 604800", "ttlSecondsAfterFinished: 3600", 1), footprint.Options{})
	factors := map[string]float64{}
	for _, c := range incident(t).Compare(was, footprint.Schedule{Rate: perHour, Keep: 30 * day}) {
		if c.Unit == budget.Objects {
			factors[c.Kind] = *c.Factor
		}
	}
	if d := cmp.Diff(map[string]float64{"jobs.batch": 168, "pods": 168}, factors); d != "" {
		t.Error(d)
	}
}

func TestAChangeSaysWhatItIs(t *testing.T) {
	job := func(ttl string) string { return of("batch/v1", "Job", "{"+ttl+"}") }
	map2 := "apiVersion: v1\nkind: ConfigMap\n---\napiVersion: v1\nkind: ConfigMap\n"
	for name, c := range map[string]struct {
		was, now, kind string
		keep           time.Duration
		want           string
	}{
		"nothing":               {pod, pod, "pods", day, "same"},
		"twice as many":         {map2, map2 + "---\n" + map2, "configmaps", day, "2"},
		"twice as many, kept":   {map2, map2 + "---\n" + map2, "configmaps", 0, "2"},
		"a kind more":           {pod, pod + "---\n" + map2, "configmaps", day, "none"},
		"a kind less":           {pod + "---\n" + map2, pod, "configmaps", day, "0"},
		"a time to live":        {job(""), job("ttlSecondsAfterFinished: 60"), "jobs.batch", 0, "0"},
		"no time to live":       {job("ttlSecondsAfterFinished: 60"), job(""), "jobs.batch", 0, "none"},
		"removed before":        {job("ttlSecondsAfterFinished: 604800"), job(""), "jobs.batch", time.Hour, "same"},
		"half as long":          {job("ttlSecondsAfterFinished: 60"), job("ttlSecondsAfterFinished: 30"), "jobs.batch", 0, "0.5"},
		"another kind of rules": {of("networking.k8s.io/v1", "NetworkPolicy", "{egress: [{}]}"), of("networking.k8s.io/v1", "NetworkPolicy", "{egress: [{}, {}, {}]}"), "networkpolicies.networking.k8s.io", day, "3"},
	} {
		t.Run(name, func(t *testing.T) {
			got := "same"
			for _, change := range read(t, c.now, footprint.Options{}).Compare(read(t, c.was, footprint.Options{}), footprint.Schedule{Keep: c.keep}) {
				if change.Kind != c.kind {
					continue
				}
				if got = "none"; change.Factor != nil {
					got = fmt.Sprint(*change.Factor)
				}
			}
			if got != c.want {
				t.Errorf("factor %s, want %s", got, c.want)
			}
		})
	}
}

// part is one part for a property: kept for a while, or for good.
func part(t *rapid.T, i int) footprint.Part {
	life := footprint.Life{Ends: footprint.Uninstall}
	if rapid.Bool().Draw(t, "ends") {
		life = footprint.Life{Ends: footprint.TTL, After: time.Duration(rapid.IntRange(0, 200).Draw(t, "ttl"))}
	}
	return footprint.Part{Kind: "configmaps", Namespace: fmt.Sprint("n", i%2), Life: life, Objects: rapid.Int64Range(1, 5).Draw(t, "objects")}
}

// there counts what is there when invocation i has started, one by one.
func there(parts []footprint.Part, s footprint.Schedule, i int64) (n int64) {
	for _, p := range parts {
		kept := p.Life.After + s.Lasts
		if s.Keep > 0 && p.Life.Ends == footprint.TTL {
			kept = min(kept, s.Keep)
		}
		if p.Life.Ends == footprint.Uninstall {
			kept = s.Keep
		}
		forGood := p.Life.Ends == footprint.Uninstall && s.Keep == 0
		for j := range i + 1 {
			// i − j starts take (i − j) × Per ÷ N. What was just made is there, however short.
			if j == i || forGood || (i-j)*int64(s.Rate.Per) < int64(kept)*s.Rate.N {
				n += p.Objects
			}
		}
	}
	return n
}

func TestPeaksAndCrossingsAreThoseOfCountingOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &footprint.Footprint{}
		for i := range rapid.IntRange(1, 4).Draw(t, "parts") {
			f.Parts = append(f.Parts, part(t, i))
		}
		s := footprint.Schedule{
			Times: rapid.Int64Range(1, 60).Draw(t, "times"),
			Rate:  footprint.Rate{N: rapid.Int64Range(1, 7).Draw(t, "n"), Per: time.Duration(rapid.IntRange(1, 40).Draw(t, "per"))},
			Lasts: time.Duration(rapid.IntRange(0, 20).Draw(t, "lasts")), Keep: time.Duration(rapid.IntRange(0, 100).Draw(t, "keep")),
		}
		now := rapid.Int64Range(0, 20).Draw(t, "now")
		limit := rapid.IntRange(0, 300).Draw(t, "limit")
		peak, crossed := int64(0), int64(0)
		for i := range s.Times {
			n := there(f.Parts, s, i)
			peak = max(peak, n)
			if n+now > int64(limit) && crossed == 0 {
				crossed = i + 1
			}
		}
		r := f.Plan(s, footprint.Against{
			Budgets: []bulkhead.Budget{{Kind: "configmaps", Unit: budget.Objects, Limit: float64(limit)}},
			Now:     map[footprint.Count]int64{{Kind: "configmaps", Unit: budget.Objects}: now},
		}).Rows[0]
		got := int64(0)
		if r.CrossedAt != nil {
			got = *r.CrossedAt
			if want := time.Duration((got - 1) * int64(s.Rate.Per) / s.Rate.N); *r.CrossedAfter != want.Seconds() {
				t.Fatalf("crossed after %v, want %v", *r.CrossedAfter, want)
			}
		}
		if *r.Peak != peak || got != crossed {
			t.Fatalf("peak %d, want %d; crossed by %d, want %d: %+v %+v", *r.Peak, peak, got, crossed, f.Parts, s)
		}
	})
}

func TestTheTightestOfTheBudgetsOfAKindCounts(t *testing.T) {
	f := read(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: b}\n", footprint.Options{})
	s := footprint.Schedule{Times: 100, Rate: footprint.Rate{N: 1, Per: time.Second}}
	for name, c := range map[string]struct {
		budgets []string
		now     map[footprint.Count]int64
		want    string // namespace of the budget, and the invocation
	}{
		"the cluster's":           {[]string{"cm=50"}, nil, " 26"},
		"that of each namespace":  {[]string{"cm=50", "cm@each=10"}, nil, "a 11"},
		"that of one":             {[]string{"cm=50", "cm@b=5"}, nil, "b 6"},
		"one that is not crossed": {[]string{"cm=1000", "cm@b=101"}, nil, "b never"},
		"one that is used less":   {[]string{"cm=200", "cm@b=1000"}, nil, " never"},
		"what is there counts":    {[]string{"cm=200", "cm@b=1000"}, map[footprint.Count]int64{{Kind: "configmaps", Unit: "objects"}: 1, {Kind: "configmaps", Namespace: "b", Unit: "objects"}: 990}, "b 11"},
		"over it already":         {[]string{"cm=5"}, map[footprint.Count]int64{{Kind: "configmaps", Unit: "objects"}: 6}, " 1"},
		"none may be":             {[]string{"cm=0"}, nil, " 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.Plan(s, footprint.Against{Budgets: budgets(t, c.budgets...), Now: c.now}).Rows[0]
			got := r.Budget.Namespace + " never"
			if r.CrossedAt != nil {
				got = fmt.Sprint(r.Budget.Namespace, " ", *r.CrossedAt)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestNoBudgetIsAcquittedWithoutWhatIsThereNow(t *testing.T) {
	f := read(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: a}\nspec: {egress: [{}, {}]}\n", footprint.Options{})
	rules := footprint.Count{Kind: budget.NetworkPolicies, Unit: budget.Rules}
	for name, c := range map[string]struct {
		budgets []string
		now     map[footprint.Count]int64
		crossed []string
		unknown []string
		verdict string
	}{
		"all is known":             {[]string{"netpol.rules=50"}, map[footprint.Count]int64{rules: 10}, nil, nil, "verdict: no budget is crossed"},
		"it is over with that":     {[]string{"netpol.rules=50"}, map[footprint.Count]int64{rules: 2610}, []string{"netpol.rules"}, nil, "crossed: netpol.rules by the first"},
		"one is not known":         {[]string{"netpol.rules=50"}, nil, nil, []string{"netpol.rules"}, "verdict: not known whether 1 budget would be crossed"},
		"that of a namespace":      {[]string{"netpol.rules=50", "netpol.rules@a=9000"}, map[footprint.Count]int64{rules: 1}, nil, []string{"netpol.rules@a"}, "verdict: not known"},
		"it is over in any case":   {[]string{"netpol.rules=20"}, nil, []string{"netpol.rules"}, nil, "crossed: netpol.rules by no. 11"},
		"one is over, one unknown": {[]string{"netpol.rules=20", "netpol@a=9000"}, nil, []string{"netpol.rules"}, []string{"netpol@a"}, "crossed: netpol.rules"},
	} {
		t.Run(name, func(t *testing.T) {
			own := budgets(t, c.budgets...)[len(budget.Defaults()):]
			p := f.Plan(footprint.Schedule{Times: 20}, footprint.Against{Budgets: own, Live: true, Now: c.now})
			if d := cmp.Diff([][]string{c.crossed, c.unknown}, [][]string{p.Crossed, p.Unknown}, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
			var text strings.Builder
			if err := p.Text(&text); err != nil || !strings.Contains(text.String(), c.verdict) {
				t.Errorf("%v\n%s", err, &text)
			}
		})
	}
}

func TestNoScheduleOverflows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		big := rapid.OneOf(rapid.Int64Range(0, 10), rapid.Int64Range(0, math.MaxInt64))
		f := &footprint.Footprint{}
		for i := range rapid.IntRange(1, 3).Draw(t, "parts") {
			p := part(t, i)
			p.Objects, p.Rules, p.Bytes = max(1, big.Draw(t, "objects")), big.Draw(t, "rules"), big.Draw(t, "bytes")
			p.Life.After = time.Duration(big.Draw(t, "after") / 2)
			p.Kind = rapid.SampledFrom([]string{"pods", budget.NetworkPolicies}).Draw(t, "kind")
			f.Parts = append(f.Parts, p)
		}
		s := footprint.Schedule{Times: big.Draw(t, "times"), Rate: footprint.Rate{N: big.Draw(t, "n"), Per: time.Duration(big.Draw(t, "per"))},
			Lasts: time.Duration(big.Draw(t, "lasts") / 2), Keep: time.Duration(big.Draw(t, "keep"))}
		p := f.Plan(s, footprint.Against{Budgets: budget.Defaults(), Nodes: big.Draw(t, "nodes")})
		p.Changes = f.Compare(&footprint.Footprint{Parts: f.Parts[:1]}, s)
		for _, r := range p.Rows {
			if r.Each < 0 || r.Peak != nil && *r.Peak < 0 || r.CrossedAfter != nil && *r.CrossedAfter < 0 || r.CrossedAt != nil && *r.CrossedAt < 1 {
				t.Fatalf("%s", line(r))
			}
		}
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := p.Text(&b); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAPlanFitsAScreen(t *testing.T) {
	f := incident(t)
	for kind := range strings.FieldsSeq("Foo Bar Baz Qux Quux Corge Grault Garply Waldo Fred") {
		f.Add(read(t, "apiVersion: example.com/v1\nkind: "+kind, footprint.Options{}))
	}
	p := f.Plan(footprint.Schedule{Rate: perHour, Keep: 7 * day}, footprint.Against{Budgets: budgets(t), Nodes: 212})
	var b strings.Builder
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) > 40 {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	for _, l := range lines {
		if n := utf8.RuneCountInString(l); n > 100 {
			t.Errorf("%d columns: %s", n, l)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	f, against := incident(b), footprint.Against{Budgets: budget.Defaults(), Nodes: 212}
	for b.Loop() {
		f.Plan(footprint.Schedule{Rate: perHour, Keep: 7 * day}, against)
	}
}
