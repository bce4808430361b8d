package bulkhead_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
)

var midday = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func TestABrakeIsChecked(t *testing.T) {
	good := bulkhead.Brake{Reason: "calico-node is full, T1", Since: midday}
	tests := map[string]struct {
		change func(*bulkhead.Brake)
		want   string // of the message; "": it is fine
	}{
		"everything, until it is lifted":    {change: func(*bulkhead.Brake) {}},
		"a class, slowed, for a while":      {change: func(b *bulkhead.Brake) { b.Scope = class("a/web"); b.Factor = 0.5; b.Expires = midday.Add(time.Hour) }},
		"one key of a pool":                 {change: func(b *bulkhead.Brake) { b.Scope = pool("db:s1:x") }},
		"a key of a pool that is empty":     {change: func(b *bulkhead.Brake) { b.Scope = pool("db:") }, want: `"db:" is not the name of a pool`},
		"no reason":                         {change: func(b *bulkhead.Brake) { b.Reason = " \t" }, want: "the reason is empty"},
		"a reason of several lines":         {change: func(b *bulkhead.Brake) { b.Reason = "a\nb" }, want: "that a line cannot show"},
		"a reason that turns the writing":   {change: func(b *bulkhead.Brake) { b.Reason = "a\u202eb" }, want: "that a line cannot show"},
		"a reason that is no text":          {change: func(b *bulkhead.Brake) { b.Reason = "a\xff" }, want: "that a line cannot show"},
		"a reason of 10 kB":                 {change: func(b *bulkhead.Brake) { b.Reason = strings.Repeat("x", 10_000) }, want: "10000 characters, more than 200"},
		"a factor below 0":                  {change: func(b *bulkhead.Brake) { b.Factor = -0.5 }, want: "factor -0.5 is not between"},
		"a factor of 1":                     {change: func(b *bulkhead.Brake) { b.Factor = 1 }, want: "factor 1 is not between"},
		"a factor that is no number":        {change: func(b *bulkhead.Brake) { b.Factor = math.NaN() }, want: "factor NaN is not between"},
		"a time below 0":                    {change: func(b *bulkhead.Brake) { b.Expires = midday.Add(-time.Second) }, want: "a time of -1s is not more than 0"},
		"a time of two years":               {change: func(b *bulkhead.Brake) { b.Expires = midday.AddDate(2, 0, 0) }, want: "is more than a year"},
		"a name of everything":              {change: func(b *bulkhead.Brake) { b.Scope.Name = "x" }, want: "everything has no name"},
		"a kind that there is not":          {change: func(b *bulkhead.Brake) { b.Scope.Kind = "node" }, want: `"node" is not a kind of scope`},
		"a class without a name":            {change: func(b *bulkhead.Brake) { b.Scope = class("") }, want: "the name of the class is empty"},
		"a class with a control character":  {change: func(b *bulkhead.Brake) { b.Scope = class("a\x1b[1m") }, want: "is not the name of a class"},
		"a class with a name of a megabyte": {change: func(b *bulkhead.Brake) { b.Scope = class(strings.Repeat("x", 1<<20)) }, want: "is not the name of a class"},
		"a namespace with a slash":          {change: func(b *bulkhead.Brake) { b.Scope = bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "a/b"} }, want: "is not the name of a namespace"},
		"a run that is no number":           {change: func(b *bulkhead.Brake) { b.Scope = bulkhead.Scope{Kind: bulkhead.ScopeRun, Name: "07"} }, want: `"07" is not the number of a run`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := good
			tt.change(&b)
			err := b.Check()
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 300 {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func class(name string) bulkhead.Scope {
	return bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: name}
}
func pool(name string) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopePool, Name: name} }

func TestAScopeCoversTheRunsThatAreInIt(t *testing.T) {
	spec := bulkhead.Spec{Class: "batch/web", Pools: []bulkhead.PoolUse{{Name: "db", Key: "{1}", Slots: 4}}}
	tests := map[string]struct {
		scope bulkhead.Scope
		want  bool
	}{
		"everything":                      {want: true},
		"its class":                       {scope: class("batch/web"), want: true},
		"another class":                   {scope: class("batch/webs")},
		"its namespace":                   {scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "batch"}, want: true},
		"a class that is called so":       {scope: class("batch")},
		"another namespace":               {scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "bat"}},
		"a pool that its items need":      {scope: pool("db"), want: true},
		"a key of it, which some may":     {scope: pool("db:s1"), want: true},
		"another pool":                    {scope: pool("d")},
		"its number":                      {scope: bulkhead.Scope{Kind: bulkhead.ScopeRun, Name: "7"}, want: true},
		"another number":                  {scope: bulkhead.Scope{Kind: bulkhead.ScopeRun, Name: "77"}},
		"a namespace without a name":      {scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace}},
		"a run of no class, in its class": {scope: class("")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.scope.Covers(7, &spec); got != tt.want {
				t.Errorf("%s: %t", tt.scope, got)
			}
		})
	}
}

func TestABrakeSaysWhoHoldsUntilWhen(t *testing.T) {
	tests := map[string]struct {
		brake bulkhead.Brake
		want  bulkhead.Verdict
	}{
		"everything, until it is lifted": {
			brake: bulkhead.Brake{ID: 3, Reason: "T1", Owner: "ann@deploy", Since: midday},
			want:  bulkhead.Verdict{Level: bulkhead.Stop, Reason: "brake 3 by ann@deploy: T1", Since: midday, Lifts: "bulkhead brake off 3"},
		},
		"a class, slowed, for two hours": {
			brake: bulkhead.Brake{ID: 4, Scope: class("web"), Reason: "T1", Owner: "ann", Factor: 0.5, Since: midday, Expires: midday.Add(2 * time.Hour)},
			want: bulkhead.Verdict{Level: bulkhead.Slow, Factor: 0.5, Reason: "brake 4 on class web by ann until 14:00 UTC: T1", Since: midday, Lifts: "bulkhead brake off 4",
				Past: "brake 4 on class web by ann: T1"},
		},
		"a pool, for days": {
			brake: bulkhead.Brake{ID: 5, Scope: pool("db"), Reason: "T1", Owner: "ann", Since: midday, Expires: midday.AddDate(0, 0, 3)},
			want: bulkhead.Verdict{Level: bulkhead.Stop, Reason: "brake 5 on pool db by ann until 2026-11-28 12:00 UTC: T1", Since: midday, Lifts: "bulkhead brake off 5",
				Past: "brake 5 on pool db by ann: T1"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.brake.Verdict()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSeveralRulingsComeToTheStrongest(t *testing.T) {
	stop := func(reason string, minute int) bulkhead.Ruling {
		return bulkhead.Ruling{From: "brake", Verdict: bulkhead.Verdict{Level: bulkhead.Stop, Reason: reason, Since: midday.Add(time.Duration(minute) * time.Minute)}}
	}
	slow := func(reason string, factor float64) bulkhead.Ruling {
		return bulkhead.Ruling{From: "guard", Verdict: bulkhead.Verdict{Level: bulkhead.Slow, Factor: factor, Reason: reason, Since: midday}}
	}
	tests := map[string]struct {
		rulings []bulkhead.Ruling
		want    bulkhead.Verdict
		from    string
	}{
		"none allow": {},
		"one that allows says nothing": {
			rulings: []bulkhead.Ruling{{Verdict: bulkhead.Verdict{Reason: "all is well"}}},
		},
		"a stop is enough": {
			rulings: []bulkhead.Ruling{slow("a", 0.5), stop("b", 1), slow("c", 0.1)},
			want:    bulkhead.Verdict{Level: bulkhead.Stop, Reason: "b", Since: midday.Add(time.Minute)}, from: "brake",
		},
		"of those that slow the least counts, and both say why": {
			rulings: []bulkhead.Ruling{slow("a", 0.5), slow("c", 0.1)},
			want:    bulkhead.Verdict{Level: bulkhead.Slow, Factor: 0.1, Reason: "a; c", Since: midday}, from: "guard",
		},
		"the oldest comes first, and what is many is counted": {
			rulings: []bulkhead.Ruling{stop("d", 4), stop("a", 1), stop("c", 3), stop("b", 2)},
			want:    bulkhead.Verdict{Level: bulkhead.Stop, Reason: "a; b; and 2 more", Since: midday.Add(time.Minute)}, from: "brake",
		},
		"the same reason is said once": {
			rulings: []bulkhead.Ruling{stop("a", 1), stop("a", 2)},
			want:    bulkhead.Verdict{Level: bulkhead.Stop, Reason: "a", Since: midday.Add(time.Minute)}, from: "brake",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, from := bulkhead.Strongest(tt.rulings)
			if diff := cmp.Diff(tt.want, got); diff != "" || from != tt.from {
				t.Errorf("from %q %s", from, diff)
			}
		})
	}
}

func TestTheStrongestVerdictIsNeverWeakerThanAnyRuling(t *testing.T) {
	ruling := rapid.Custom(func(t *rapid.T) bulkhead.Ruling {
		level := rapid.SampledFrom([]bulkhead.Level{bulkhead.Allow, bulkhead.Slow, bulkhead.Stop}).Draw(t, "level")
		r := bulkhead.Ruling{From: "guard", Verdict: bulkhead.Verdict{Level: level, Reason: rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "reason")}}
		if level == bulkhead.Slow {
			r.Verdict.Factor = rapid.Float64Range(0.01, 0.99).Draw(t, "factor")
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(ruling, 0, 8).Draw(t, "rulings")
		limit := rapid.IntRange(1, 1000).Draw(t, "limit")
		got, _ := bulkhead.Strongest(all)
		for _, r := range all {
			if got.Level < r.Verdict.Level || got.Level == bulkhead.Slow && got.Slowed(limit) > r.Verdict.Slowed(limit) {
				t.Fatalf("%+v is weaker than %+v", got, r.Verdict)
			}
		}
		if n := got.Slowed(limit); n < 1 || n > limit {
			t.Fatalf("a limit of %d becomes %d", limit, n)
		}
		if (got.Level == bulkhead.Allow) != (got.Reason == "") {
			t.Fatalf("%+v", got)
		}
		if other, _ := bulkhead.Strongest(rapid.Permutation(all).Draw(t, "order")); other.Level != got.Level || other.Factor != got.Factor {
			t.Fatalf("the order matters: %+v, %+v", got, other)
		}
	})
}

func TestABrakeCountsWhatWaits(t *testing.T) {
	run := func(id bulkhead.RunID, state bulkhead.RunState, queued int64, class string) *bulkhead.Run {
		return &bulkhead.Run{ID: id, State: state, Counts: bulkhead.Counts{Queued: queued, Running: 2}, Spec: bulkhead.Spec{Class: class}}
	}
	st := bulkhead.StatusOfBrake(bulkhead.Brake{ID: 1, Scope: class("web")}, []*bulkhead.Run{
		run(1, bulkhead.RunRunning, 5, "web"), run(2, bulkhead.RunPaused, 7, "web"), run(3, bulkhead.RunRunning, 0, "web"),
		run(4, bulkhead.RunRunning, 11, "other"), run(5, bulkhead.RunRunning, 13, "web"),
	})
	if st.Runs != 2 || st.Items != 18 {
		t.Errorf("%d runs, %d items", st.Runs, st.Items)
	}
}
