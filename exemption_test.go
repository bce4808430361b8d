package bulkhead_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
)

func exemption(namespace, id, owner string, long time.Duration) bulkhead.Brake {
	return bulkhead.Brake{Scope: bulkhead.FindingScope(namespace, id), Reason: "T123: meant", Owner: owner, Since: midday, Expires: midday.Add(long)}
}

func TestAnExemptionHasAnEndThatIsNear(t *testing.T) {
	tests := map[string]struct {
		change func(*bulkhead.Brake)
		want   string // in the error; "": there is none
	}{
		"two hours":         {change: func(*bulkhead.Brake) {}},
		"the longest":       {change: func(b *bulkhead.Brake) { b.Expires = midday.Add(bulkhead.MaxExemption) }},
		"too long":          {change: func(b *bulkhead.Brake) { b.Expires = midday.Add(bulkhead.MaxExemption + 1) }, want: "is more than 7 days"},
		"for ever":          {change: func(b *bulkhead.Brake) { b.Expires = time.Time{} }, want: "for how long the finding is meant is missing"},
		"over already":      {change: func(b *bulkhead.Brake) { b.Expires = midday }, want: "is not more than 0"},
		"by a half":         {change: func(b *bulkhead.Brake) { b.Factor = 0.5 }, want: "factor 0.5 has no meaning"},
		"for no reason":     {change: func(b *bulkhead.Brake) { b.Reason = " " }, want: "the reason is empty"},
		"a reason of lines": {change: func(b *bulkhead.Brake) { b.Reason = "a\nb" }, want: "that a line cannot show"},
		"of nothing":        {change: func(b *bulkhead.Brake) { b.Scope.Name = "" }, want: "the name of the finding is empty"},
		"of a path":         {change: func(b *bulkhead.Brake) { b.Scope.Name = "a/b/c" }, want: "is not the id of a finding"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := exemption("mw-script", "118b1ceae7", "ann", 2*time.Hour)
			tt.change(&b)
			err := b.Check()
			if tt.want == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), tt.want) || bulkhead.CodeOf(err) != bulkhead.CodeUsage) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestAnExemptionHoldsNothing(t *testing.T) {
	b := exemption("mw-script", "118b1ceae7", "ann", time.Hour)
	if id, ok := b.Exempts(); id != "118b1ceae7" || !ok {
		t.Errorf("it is of %q", id)
	}
	if v, _ := bulkhead.Strongest([]bulkhead.Ruling{b.Ruling()}); v.Level != bulkhead.Allow {
		t.Errorf("%+v", v)
	}
	spec := bulkhead.Spec{Class: "mw-script/web"}
	if b.Scope.Covers(1, &spec) {
		t.Error("it covers a run")
	}
	other := bulkhead.Brake{Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: "mw-script/118b1ceae7"}}
	if _, ok := other.Exempts(); ok {
		t.Error("a brake on a class exempts")
	}
}

func TestOfTwoExemptionsOfAFindingTheOneThatEndsLastIsTold(t *testing.T) {
	brakes := []bulkhead.Brake{
		{Scope: bulkhead.Scope{}, Reason: "T1", Owner: "dan", Since: midday, Expires: midday.Add(9 * time.Hour)},
		exemption("mw-script", "118b1ceae7", "ann", time.Hour), exemption("", "118b1ceae7", "bob", 2*time.Hour),
		exemption("mw-script", "118b1ceae7", "cy", time.Minute), exemption("", "f3d1b0aa20", "eve", 3*time.Hour),
	}
	got := bulkhead.ExemptionOf(brakes, "118b1ceae7")
	want := &bulkhead.Exemption{Owner: "bob", Reason: "T123: meant", Since: midday, Until: midday.Add(2 * time.Hour)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text := got.String(); text != "not obeyed until 14:00 UTC, by bob: T123: meant" {
		t.Error(text)
	}
	if none := bulkhead.ExemptionOf(brakes, "0"); none != nil {
		t.Errorf("%+v", none)
	}
}

func TestAnExemptionCountsWhatWaitsInTheScopesOfItsRulings(t *testing.T) {
	waits := func(id bulkhead.RunID, class string, items int64) *bulkhead.Run {
		r := &bulkhead.Run{ID: id, Spec: bulkhead.Spec{Class: class}, State: bulkhead.RunRunning}
		r.Counts.Queued = items
		return r
	}
	runs := []*bulkhead.Run{waits(1, "ns/web", 10), waits(2, "ns/batch", 5), waits(3, "other/web", 100)}
	rulings := []bulkhead.Ruling{
		{Finding: "a", Scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "ns"}}, {Finding: "a", Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: "ns/web"}},
		{Finding: "b"},
	}
	list := bulkhead.StatusOfBrakes([]bulkhead.Brake{exemption("ns", "a", "ann", time.Hour), {Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: "ns/web"}}}, rulings, runs)
	if st := list.Exemptions; len(st) != 1 || st[0].Runs != 2 || st[0].Items != 15 {
		t.Errorf("exemptions: %+v", st)
	}
	if st := list.Brakes; len(st) != 1 || st[0].Runs != 1 || st[0].Items != 10 {
		t.Errorf("brakes: %+v", st)
	}
	var exempt []bool
	for i := range list.Rulings {
		exempt = append(exempt, list.Exempt(&list.Rulings[i]))
	}
	if diff := cmp.Diff([]bool{true, true, false}, exempt); diff != "" || list.Rulings[2].Items != 115 {
		t.Errorf("%s %+v", diff, list.Rulings)
	}
}
