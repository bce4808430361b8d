package engine_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// finds lets the guard say of each finding that nothing of class a may start.
func (s *server) finds(findings ...string) {
	s.t.Helper()
	out := []bulkhead.Ruling{}
	for _, id := range findings {
		out = append(out, ruled(id, bulkhead.Stop))
	}
	s.rule(out...)
}

func (s *server) rule(rulings ...bulkhead.Ruling) {
	s.rules.Store(&rulings)
	s.settle()
}

func ruled(finding string, level bulkhead.Level) bulkhead.Ruling {
	v := bulkhead.Verdict{Level: level, Reason: "critical finding " + finding + ": pods multiply in a, about 09:00 UTC", Past: "finding " + finding}
	if level == bulkhead.Slow {
		v.Factor = 0.5
	}
	return bulkhead.Ruling{From: "guard", Finding: finding, Scope: ofClass("a"), Verdict: v}
}

func (s *server) exempt(finding string, long time.Duration) bulkhead.Brake {
	return s.brake(bulkhead.FindingScope("a", finding), long)
}

func TestAFindingThatIsExemptHoldsNothingAndOthersDo(t *testing.T) {
	s := serve(t)
	id := s.submit(1000, bulkhead.Spec{Limit: 100})
	s.finds("f1")
	if n := s.startAll(big(100)); n != 0 {
		t.Fatalf("%d started", n)
	}
	s.exempt("f1", time.Hour)
	if n := s.startAll(big(100)); n != 10 || s.status(id).Reason != "limit: 10 of 100: ramping up after: finding f1" {
		t.Errorf("%d started, and not by a ramp: %q", n, s.status(id).Reason)
	}
	s.finds("f1", "f2")
	s.clock.pass(time.Minute)
	s.startAll(big(100)) // those that have a lease get the same again
	if r := s.status(id); r.Counts.Running != 10 || r.Reason != ruled("f2", bulkhead.Stop).Verdict.Reason {
		t.Errorf("%d run under another finding: %q", r.Counts.Running, r.Reason)
	}
	s.finds("f1")
	s.brake(ofClass("a"), 0)
	s.startAll(big(100))
	if r := s.status(id); r.Counts.Running != 10 || !strings.HasPrefix(r.Reason, "brake 2 ") {
		t.Errorf("%d run under a brake: %q", r.Counts.Running, r.Reason)
	}
}

func TestAFindingThatBecomesWorseStaysExempt(t *testing.T) {
	s := serve(t)
	id := s.submit(1000, bulkhead.Spec{Limit: 100})
	s.rule(ruled("f1", bulkhead.Slow))
	s.exempt("f1", time.Hour)
	s.rule(ruled("f1", bulkhead.Stop))
	s.clock.pass(time.Minute)
	if n := s.startAll(big(10)); n == 0 {
		t.Error("nothing started")
	}
	// Who may brake in a namespace cannot let all go on, also not before.
	all := ruled("f1", bulkhead.Stop)
	all.Scope = bulkhead.Scope{}
	s.rule(ruled("f1", bulkhead.Stop), all)
	before := s.status(id).Counts.Running
	s.clock.pass(time.Minute)
	s.startAll(big(100))
	if n := s.status(id).Counts.Running; n != before {
		t.Errorf("%d run, and not %d, under what is about all", n, before)
	}
	s.brake(bulkhead.FindingScope("", "f1"), time.Hour)
	s.clock.pass(time.Minute)
	s.startAll(big(100))
	if n := s.status(id).Counts.Running; n == before {
		t.Error("nothing started when all may go on")
	}
}

func TestAnExemptionEndsByItselfAndByHand(t *testing.T) {
	s := serve(t)
	s.submit(1000, bulkhead.Spec{})
	s.finds("f1")
	s.exempt("f1", time.Hour)
	s.clock.pass(59 * time.Minute)
	if n := s.startAll(big(1)); n != 1 {
		t.Fatal("it is over too soon")
	}
	s.clock.pass(time.Minute)
	if n := s.startAll(big(100)); n > 1 || len(s.Brakes()) != 0 { // slot 0 has its lease still
		t.Errorf("%d started after its end, with %+v", n, s.Brakes())
	}
	s.lift(s.exempt("f1", time.Hour))
	if r := s.HeldRuns(); r["guard"] != 1 {
		t.Errorf("held: %v", r)
	}
}

func TestAnExemptionOutlivesTheServer(t *testing.T) {
	s := serve(t)
	s.submit(1, bulkhead.Spec{})
	s.finds("f1")
	s.exempt("f1", time.Hour)
	s.kill()
	s.start()
	if n := s.startAll(big(1)); n != 1 {
		t.Error("the next server does not know of it")
	}
}

func TestAClockThatWasSetBackMakesNoExemptionLongerThanItWasMeant(t *testing.T) {
	s := serve(t)
	s.submit(2, bulkhead.Spec{})
	s.finds("f1")
	s.exempt("f1", time.Hour)
	s.kill()
	s.clock.pass(-24 * time.Hour)
	s.start()
	s.clock.pass(59 * time.Minute)
	s.settle() // reads it again
	if n := s.startAll(big(1)); n != 1 {
		t.Fatal("it is over too soon")
	}
	s.clock.pass(time.Minute)
	if s.settle(); len(s.Brakes()) != 0 || s.HeldRuns()["guard"] != 1 {
		t.Errorf("it goes on: %+v", s.Brakes())
	}
}

// What is exempt takes no place of what is to be heeded.
func TestOnlyTheFirstRulingsAreHeededAndExemptOnesDoNotCount(t *testing.T) {
	s := serve(t)
	id := s.submit(10, bulkhead.Spec{})
	many := make([]bulkhead.Ruling, engine.MaxRulings+1)
	for i := range many {
		many[i] = ruled(fmt.Sprint("f", i), bulkhead.Stop)
		if i < engine.MaxRulings {
			many[i].Scope = ofClass("b")
		}
	}
	s.rule(many...)
	if r := s.status(id); r.Held {
		t.Fatalf("it heeds more: %q", r.Reason)
	}
	s.exempt("f0", time.Hour)
	if n := s.startAll(big(10)); n != 0 {
		t.Errorf("%d started", n)
	}
}

func TestWhatIsShownAfterABrakeWasLiftedIsNotThatItHolds(t *testing.T) {
	s := serve(t)
	id := s.submit(1000, bulkhead.Spec{})
	for n := range 50 {
		b := s.brake(ofClass("a"), time.Hour)
		if r := s.status(id); r.Shown() != bulkhead.RunHeld {
			t.Fatalf("%s: %q", r.Shown(), r.Reason)
		}
		if _, err := s.store.LiftBrake(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		if err := s.Obey(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := s.status(id); r.Shown() == bulkhead.RunHeld || strings.Contains(r.Reason, "until") {
			t.Fatalf("lifted for the %d. time, it is %s: %q", n+1, r.Shown(), r.Reason)
		}
	}
	s.startAll(big(11))
	if r := s.status(id); r.Reason != "limit: 10 of 100: ramping up after: brake 50 on class a by ann: T1" {
		t.Errorf("%q", r.Reason)
	}
}

// However often a finding is exempt and not, while nobody has said that it is nothing is
// leased.
func TestNothingIsLeasedForAFindingThatIsNotExempt(t *testing.T) {
	dir := t.TempDir()
	st, other := openStore(t, dir), openStore(t, dir)
	const items = 2_000
	r := submit(t, st, bulkhead.Spec{Limit: 8}, items)
	var stopped atomic.Bool
	var given atomic.Int64
	e := engine.New(engine.Options{Store: st, Ramp: time.Millisecond, Poll: time.Hour,
		Rulings: func() []bulkhead.Ruling {
			all := ruled("f1", bulkhead.Stop)
			all.Scope = bulkhead.Scope{}
			return []bulkhead.Ruling{all}
		},
		Leased: func(*bulkhead.Run, bulkhead.Lease) {
			if given.Add(1); stopped.Load() {
				t.Error("a lease was given for a finding that is not exempt")
			}
		}})
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	stopped.Store(true)
	over := make(chan struct{})
	go func() {
		defer close(over)
		run(t, e, 8, succeed)
	}()
	exempted := 0
	for {
		b, err := other.AddBrake(t.Context(), bulkhead.Brake{Scope: bulkhead.FindingScope("", "f1"), Reason: "T1", Owner: "ann", Since: time.Now(), Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		stopped.Store(false)
		for range 3 {
			err = e.Obey(t.Context())
		}
		if exempted++; err != nil {
			break // the run is over
		}
		if _, err := other.LiftBrake(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		if e.Obey(t.Context()) != nil {
			break
		}
		stopped.Store(given.Load() < items)
		for range 3 {
			_ = e.Obey(t.Context())
		}
	}
	<-over
	if got := stored(t, st, r.ID); got.Counts.Succeeded != items || exempted < 10 {
		t.Errorf("%s %+v after %d exemptions", got.State, got.Counts, exempted)
	}
}
