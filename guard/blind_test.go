package guard_test

import (
	"path/filepath"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/store/history"
)

// While the API server does not answer nobody knows whether the growth has ended: what
// was held back stays so.
func TestWhatWasFoundStandsWhileTheGuardIsBlind(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	now, blind, seen := start, false, bulkhead.Census{}
	g := guard.New(guard.Options{Now: func() time.Time { return now }, Snapshot: func() bulkhead.Census {
		if !blind {
			seen = w.census(now)
			return seen
		}
		c := seen // as a census tells it: the last counts, and that they are not exact
		c.At, c.Kinds = now, nil
		for _, k := range seen.Kinds {
			k.Exact, k.Reason = false, "not seen for now, tried again: connection refused"
			c.Kinds = append(c.Kinds, k)
		}
		return c
	}})
	step := func(n int) {
		for range n {
			now = now.Add(time.Minute)
			if err := g.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(6 * 60)
	if len(g.Findings()) != 1 || len(g.Rulings()) != 1 {
		t.Fatalf("%d findings, rulings %+v", len(g.Findings()), g.Rulings())
	}
	before := g.Rulings()[0]
	blind = true
	if g.Blind() {
		t.Error("it says that it is blind")
	}
	for i := range 60 {
		step(1)
		if len(g.Findings()) != 1 || len(g.Rulings()) != 1 {
			t.Fatalf("%d minutes after it went blind: %d findings, rulings %+v", i+1, len(g.Findings()), g.Rulings())
		}
	}
	if !g.Blind() {
		t.Error("it does not say that it is blind")
	}
	blind = false
	for i := range 30 {
		step(1)
		if len(g.Findings()) != 1 || len(g.Rulings()) != 1 {
			t.Fatalf("%d minutes after it sees again: %d findings, rulings %+v", i+1, len(g.Findings()), g.Rulings())
		}
	}
	if after := g.Rulings()[0]; !after.Verdict.Since.Equal(before.Verdict.Since) {
		t.Errorf("%+v\n%+v", before, after)
	}
}

// A machine that slept, or a clock that was set forward, has not seen that it ended.
func TestWhatWasFoundStandsWhenTheClockJumpsForward(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	o := newWatch(t, w, start, nil)
	o.minutes(5*60, nil)
	if len(o.guard.Rulings()) != 1 {
		t.Fatalf("%+v", o.guard.Rulings())
	}
	o.now = o.now.Add(8 * time.Hour)
	for i := range 30 {
		o.minutes(1, nil)
		if len(o.guard.Findings()) == 0 || len(o.guard.Rulings()) != 1 {
			t.Fatalf("after %d minutes: %d findings, rulings %+v", i+1, len(o.guard.Findings()), o.guard.Rulings())
		}
	}
}

// A guard that begins while the API server does not even say which kinds there are holds
// what was held before.
func TestWhatWasFoundStandsWhenAGuardBeginsBlind(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	h := openHistory(t, path)
	w := &world{quiet: true, perHour: 224, loop: start.Add(time.Hour)}
	o := newWatch(t, w, start, h)
	o.minutes(5*60, nil)
	_ = h.Close()
	h = openHistory(t, path)
	o.guard = guard.New(guard.Options{History: h, Now: func() time.Time { return o.now },
		Snapshot: func() bulkhead.Census { return bulkhead.Census{At: o.now} }})
	o.minutes(60, nil)
	if len(o.guard.Findings()) != 1 || len(o.guard.Rulings()) != 1 {
		t.Errorf("%d findings, rulings %+v", len(o.guard.Findings()), o.guard.Rulings())
	}
}
