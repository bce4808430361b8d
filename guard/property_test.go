package guard_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// hostile is text as a cluster may have it.
var hostile = rapid.OneOf(rapid.Just(""), rapid.Just("mediawiki-*"), rapid.StringN(0, 40, 400),
	rapid.Just("\x1b[2J\n'; rm -rf / #"), rapid.Just("*"), rapid.Just("/all"), rapid.Just(strings.Repeat("x", 5000)), rapid.Just("\xff\xfe"+"\u202e"))

func anyKey(t *rapid.T) bulkhead.Key {
	return bulkhead.Key{
		Kind:      rapid.OneOf(rapid.SampledFrom([]string{"jobs.batch", "configmaps", "networkpolicies.networking.k8s.io", "agents:memory", "agents:cpu", ""}), hostile).Draw(t, "kind"),
		Namespace: rapid.OneOf(rapid.SampledFrom([]string{"a", "b", ""}), hostile).Draw(t, "namespace"),
		Family:    hostile.Draw(t, "family"), Origin: hostile.Draw(t, "origin"), Manager: hostile.Draw(t, "manager"),
	}
}

var anyCount = rapid.OneOf(rapid.Int64Range(0, 5000), rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64, -1}))

func anyTime(t *rapid.T) time.Time {
	return start.Add(time.Duration(rapid.Int64Range(-20*24*60, 60).Draw(t, "minute")) * time.Minute)
}

func anyTally(t *rapid.T) bulkhead.Tally {
	tally := bulkhead.Tally{Key: anyKey(t), Objects: anyCount.Draw(t, "objects"), Rules: anyCount.Draw(t, "rules"), Bytes: anyCount.Draw(t, "bytes"),
		Keeps:   bulkhead.Keep{Owned: anyCount.Draw(t, "owned"), Nothing: anyCount.Draw(t, "nothing"), TTL: time.Duration(anyCount.Draw(t, "ttl"))},
		Example: bulkhead.Example{Name: hostile.Draw(t, "example"), Created: anyTime(t)}}
	for range rapid.IntRange(0, 3).Draw(t, "facts") {
		tally.Facts = append(tally.Facts, bulkhead.Fact{Key: hostile.Draw(t, "key"), Value: hostile.Draw(t, "value"), Objects: anyCount.Draw(t, "of")})
	}
	for range rapid.IntRange(0, 5).Draw(t, "births") {
		tally.Born = append(tally.Born, bulkhead.Birth{At: anyTime(t), Objects: anyCount.Draw(t, "born")})
	}
	return tally
}

// anySeries is any points, or a growth as steep as it may be.
func anySeries(t *rapid.T, key bulkhead.Key) bulkhead.Series {
	s := bulkhead.Series{Key: key}
	if rapid.Bool().Draw(t, "grows") {
		step := rapid.Int64Range(0, 1000).Draw(t, "step")
		for m := range rapid.IntRange(0, 120).Draw(t, "points") {
			s.Points = append(s.Points, bulkhead.Point{At: start.Add(time.Duration(m-120) * time.Minute), Objects: int64(m) * step, Rules: int64(m)})
		}
		return s
	}
	for range rapid.IntRange(0, 10).Draw(t, "points") {
		s.Points = append(s.Points, bulkhead.Point{At: anyTime(t), Objects: anyCount.Draw(t, "n"), Rules: anyCount.Draw(t, "r")})
	}
	return s
}

func TestWhateverIsSeenTheFindingsAreBoundedAndSafeToShow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := guard.Input{Now: start, Census: bulkhead.Census{At: start}}
		for range rapid.IntRange(0, 8).Draw(t, "tallies") {
			tally := anyTally(t)
			in.Census.Tallies = append(in.Census.Tallies, tally)
			if rapid.Bool().Draw(t, "known") {
				in.Series = append(in.Series, anySeries(t, tally.Key))
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "kinds") {
			in.Census.Kinds = append(in.Census.Kinds, bulkhead.KindStatus{Kind: anyKey(t).Kind, Objects: anyCount.Draw(t, "total"),
				Bytes: anyCount.Draw(t, "size"), Exact: rapid.Bool().Draw(t, "exact")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "spans") {
			in.Looked = append(in.Looked, bulkhead.Span{From: anyTime(t), To: anyTime(t)})
		}
		for range rapid.IntRange(0, 2).Draw(t, "agents") {
			in.Agents = append(in.Agents, guard.AgentSample{Agent: hostile.Draw(t, "agent"), Memory: rapid.Float64().Draw(t, "memory"), Limit: rapid.Float64().Draw(t, "limit"),
				CPU: rapid.Float64().Draw(t, "cpu"), CPULimit: rapid.Float64().Draw(t, "cpu limit")})
		}
		findings := guard.Analyze(in)
		if len(findings) > 50 {
			t.Fatalf("%d findings", len(findings))
		}
		for _, f := range findings {
			if f.ID == "" || len(f.Members) == 0 || len(f.Facts) > 8 || len(f.Reaches) > 8 {
				t.Fatalf("%+v", f)
			}
			var b bytes.Buffer
			if err := guard.Text(&b, []bulkhead.Finding{f}, in.Now, 0); err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(b.String(), "\n"); lines > 24 || strings.ContainsAny(b.String(), "\x1b\r\u202e") {
				t.Fatalf("%d lines:\n%q", lines, &b)
			}
		}
	})
}

func TestManyGrowthsMakeAtMostFiftyFindings(t *testing.T) {
	in := guard.Input{Now: start, Looked: []bulkhead.Span{{From: start.Add(-5 * time.Hour), To: start}}, Census: bulkhead.Census{At: start}}
	for i := range 300 {
		key := bulkhead.Key{Kind: "configmaps", Namespace: fmt.Sprintf("tenant-%d", i), Family: "x-*", Origin: fmt.Sprint(i)}
		s := bulkhead.Series{Key: key}
		for m := range 300 {
			s.Points = append(s.Points, bulkhead.Point{At: start.Add(time.Duration(m-300) * time.Minute), Objects: int64(m * 10)})
		}
		in.Series = append(in.Series, s)
		in.Census.Tallies = append(in.Census.Tallies, bulkhead.Tally{Key: key, Objects: 2990, Keeps: bulkhead.Keep{Nothing: 2990}})
	}
	if n := len(guard.Analyze(in)); n != 50 {
		t.Errorf("%d findings", n)
	}
}

// BenchmarkStep is one look at 5,000 families in 100 namespaces, of which 300 change
// at each look and eleven multiply, after three hours.
//
//	go test -run '^$' -bench Step ./guard
func BenchmarkStep(b *testing.B) {
	w := &world{quiet: true, perHour: 224, loop: start}
	now := start
	snapshot := func() bulkhead.Census {
		c := w.census(now)
		for i := range 5000 {
			n := int64(20 + i%500)
			if i < 300 {
				n += int64(w.noise(fmt.Sprint(i), now.Unix()).IntN(40))
			}
			c.Tallies = append(c.Tallies, bulkhead.Tally{Objects: n, Keeps: bulkhead.Keep{Nothing: n}, Key: bulkhead.Key{
				Kind: []string{"pods", "configmaps", "secrets", "jobs.batch"}[i%4], Namespace: fmt.Sprintf("tenant-%d", i%100), Family: fmt.Sprintf("app-%d-*", i)}})
		}
		return c
	}
	g := guard.New(guard.Options{Snapshot: snapshot, Now: func() time.Time { return now }})
	step := func() {
		now = now.Add(time.Minute)
		if err := g.Step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for range 3 * 60 {
		step()
	}
	for b.Loop() {
		step()
	}
	if len(g.Findings()) != 1 {
		b.Errorf("%d findings", len(g.Findings()))
	}
}
