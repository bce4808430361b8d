package engine_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func ofClass(name string) bulkhead.Scope {
	return bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: name}
}

// brake puts one on a scope, for so long (0: until it is lifted), and waits until the
// engine obeys it.
func (s *server) brake(scope bulkhead.Scope, long time.Duration) bulkhead.Brake {
	s.t.Helper()
	b := bulkhead.Brake{Scope: scope, Reason: "T1", Owner: "ann", Since: s.clock.Now()}
	if long > 0 {
		b.Expires = b.Since.Add(long)
	}
	b, err := s.store.AddBrake(s.t.Context(), b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.settle()
	return b
}

func (s *server) lift(b bulkhead.Brake) {
	s.t.Helper()
	if _, err := s.store.LiftBrake(s.t.Context(), b.ID); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

// startAll leases as much as there is to be had for the slots of one agent, and returns how
// many leases it got.
func (s *server) startAll(agent bulkhead.Agent) int {
	s.t.Helper()
	n := 0
	for slot := range agent.Slots {
		a, err := s.ask(engine.Ask{Agent: agent, Slot: slot})
		if err != nil {
			s.t.Fatal(err)
		}
		if a != nil {
			n++
		}
	}
	return n
}

func (s *server) status(id bulkhead.RunID) bulkhead.Run {
	s.t.Helper()
	st, _, _, ok := s.StatusOf(id, 0)
	if !ok {
		s.t.Fatalf("the engine does not have run %d", id)
	}
	r := st.Run
	r.Reason = st.Reason
	return r
}

// big is an agent of class a with so many slots.
func big(slots int) bulkhead.Agent {
	a := who("pod", 1)
	a.Slots = slots
	return a
}

func TestABrakeHoldsItsScopeAndNoOther(t *testing.T) {
	number := func(id bulkhead.RunID) bulkhead.Scope {
		return bulkhead.Scope{Kind: bulkhead.ScopeRun, Name: id.String()}
	}
	tests := map[string]struct {
		scope func(id bulkhead.RunID) bulkhead.Scope
		holds bool
	}{
		"everything":      {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{} }, holds: true},
		"its class":       {scope: func(bulkhead.RunID) bulkhead.Scope { return ofClass("a") }, holds: true},
		"another class":   {scope: func(bulkhead.RunID) bulkhead.Scope { return ofClass("b") }},
		"its number":      {scope: number, holds: true},
		"another number":  {scope: func(id bulkhead.RunID) bulkhead.Scope { return number(id + 1) }},
		"a pool of it":    {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "db"} }, holds: true},
		"the key of all":  {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "db:s1"} }, holds: true},
		"another key":     {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "db:s2"} }},
		"a namespace":     {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "a"} }},
		"a pool's prefix": {scope: func(bulkhead.RunID) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "d"} }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			id := s.submit(5, bulkhead.Spec{Pools: []bulkhead.PoolUse{{Name: "db", Key: "s1", Slots: 9}}})
			s.brake(tt.scope(id), 0)
			a, err := s.ask(engine.Ask{Agent: who("pod", 1)})
			if err != nil || (a == nil) != tt.holds {
				t.Fatalf("lease %v, %v", a, err)
			}
			r := s.status(id)
			if held := r.Shown() == bulkhead.RunHeld; held != tt.holds || held != strings.HasPrefix(r.Reason, "brake 1 ") {
				t.Errorf("it is %s: %q", r.Shown(), r.Reason)
			}
		})
	}
}

func TestARunThatIsHeldIsSoInTheStoreAndAsksForNoWorkers(t *testing.T) {
	s := serve(t)
	id := s.submit(5, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	b := s.brake(ofClass("a"), 0)
	s.clock.pass(time.Second)
	s.settle()
	r := stored(t, s.store, id)
	if r.Shown() != bulkhead.RunHeld || r.Reason != "brake 1 on class a by ann: T1" || r.Counts.Running != 1 {
		t.Errorf("%s, %q, %+v", r.Shown(), r.Reason, r.Counts)
	}
	if d := s.Demand("a"); len(d) != 1 || d[0].Slots != 1 {
		t.Errorf("it wants %+v", d)
	}
	if diff := s.HeldRuns(); !maps.Equal(diff, map[string]int{"brake": 1}) {
		t.Errorf("held: %v", diff)
	}
	s.hand(who("pod", 1), l)
	if c := s.counts(id); c.Succeeded != 1 || c.Running != 0 {
		t.Errorf("what ran did not end: %+v", c)
	}
	s.lift(b)
	s.clock.pass(time.Second)
	s.settle()
	if r := stored(t, s.store, id); r.Shown() != bulkhead.RunRunning {
		t.Errorf("lifted, it is %s: %q", r.Shown(), r.Reason)
	}
}

func TestABrakeOutlivesTheServerAndEndsWithItsTime(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	s.brake(bulkhead.Scope{}, time.Hour)
	s.kill()
	s.start()
	if n := s.startAll(big(1)); n != 0 {
		t.Fatal("the next server started something")
	}
	s.clock.pass(59 * time.Minute)
	if n := s.startAll(big(1)); n != 0 || len(s.Brakes()) != 1 {
		t.Fatal("it is over too soon")
	}
	s.clock.pass(time.Minute)
	if n := s.startAll(big(1)); n != 1 || len(s.Brakes()) != 0 {
		t.Errorf("%s: %q", s.status(id).State, s.status(id).Reason)
	}
}

// A process counts the end of a brake from when it first saw it: reading it again
// changes nothing, unless it was changed.
func TestAClockThatWasSetBackMakesNoBrakeLongerThanItWasMeant(t *testing.T) {
	s := serve(t)
	s.submit(1, bulkhead.Spec{})
	b := s.brake(bulkhead.Scope{}, time.Hour)
	s.kill()
	s.clock.pass(-24 * time.Hour)
	s.start()
	s.clock.pass(30 * time.Minute)
	s.settle() // reads it again
	if n := s.startAll(big(1)); n != 0 {
		t.Fatal("it is over too soon")
	}
	s.clock.pass(30 * time.Minute)
	s.settle()
	if n := s.startAll(big(1)); n != 1 {
		t.Errorf("brake %d is on still: %+v", b.ID, s.Brakes())
	}
}

func TestWhatWasHeldComesBackByARamp(t *testing.T) {
	s := serve(t)
	id := s.submit(1000, bulkhead.Spec{Limit: 100})
	other := s.submit(1000, bulkhead.Spec{Class: "b", Limit: 100})
	b := s.brake(ofClass("a"), 0)
	agent := big(100)
	if n := s.startAll(agent); n != 0 {
		t.Fatalf("%d started", n)
	}
	s.lift(b)
	total := 0
	for _, want := range []int{10, 20, 40, 80} {
		total += s.startAll(agent)
		if c := s.counts(id); c.Running != int64(want) {
			t.Errorf("%d run, want %d", c.Running, want)
		}
		reason := fmt.Sprintf("limit: %d of 100: ramping up after: brake 1 on class a by ann: T1", want)
		if r := s.status(id); r.Reason != reason || r.Shown() != bulkhead.RunRunning {
			t.Errorf("%s: %q", r.Shown(), r.Reason)
		}
		if d := s.Demand("a"); d[0].Slots != want {
			t.Errorf("it wants %d slots, not %d", d[0].Slots, want)
		}
		if d := s.Demand("b"); d[0].Slots != 100 {
			t.Errorf("another class (run %d) wants %d slots", other, d[0].Slots)
		}
		s.clock.pass(10 * time.Second)
		s.settle()
	}
	s.startAll(agent)
	if r := s.status(id); r.Counts.Running != 100 || r.Reason != "limit: 100 at once" {
		t.Errorf("%d run: %q", r.Counts.Running, r.Reason)
	}
}

func TestARampIsOfAllRunsOfItsScopeTogether(t *testing.T) {
	s := serve(t)
	for range 50 {
		r := submit(t, s.store, bulkhead.Spec{Class: "a"}, 1)
		if err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	s.lift(s.brake(bulkhead.Scope{}, 0))
	if n := s.startAll(big(50)); n != 5 {
		t.Errorf("%d of 50 single scripts started at once", n)
	}
}

func TestAScopeThatIsStoppedAgainHasNoRampMeanwhile(t *testing.T) {
	s := serve(t)
	id := s.submit(100, bulkhead.Spec{})
	s.lift(s.brake(ofClass("a"), 0))
	again := s.brake(ofClass("a"), 0)
	if n := s.startAll(big(100)); n != 0 {
		t.Fatalf("%d started", n)
	}
	s.clock.pass(time.Hour) // is not a part of the next ramp
	s.lift(again)
	if n := s.startAll(big(100)); n != 10 {
		t.Errorf("%d started: %q", n, s.status(id).Reason)
	}
}

func TestASlowBrakeLeavesAShareAndLiftsFromThere(t *testing.T) {
	s := serve(t)
	id := s.submit(1000, bulkhead.Spec{Limit: 100})
	b, err := s.store.AddBrake(t.Context(), bulkhead.Brake{Scope: ofClass("a"), Reason: "T1", Owner: "ann", Factor: 0.5, Since: s.clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	s.settle()
	if n := s.startAll(big(100)); n != 50 {
		t.Errorf("%d started", n)
	}
	if r := s.status(id); r.Reason != "limit: 50 of 100: slowed: brake 1 on class a by ann: T1" || r.Held {
		t.Errorf("%q", r.Reason)
	}
	s.lift(b)
	s.startAll(big(100))
	if r := s.status(id); r.Counts.Running != 50 || !strings.HasPrefix(r.Reason, "limit: 50 of 100: ramping up") {
		t.Errorf("%d run: %q", r.Counts.Running, r.Reason)
	}
	s.clock.pass(10 * time.Second)
	s.startAll(big(100))
	if r := s.status(id); r.Counts.Running != 100 {
		t.Errorf("%d run: %q", r.Counts.Running, r.Reason)
	}
}

func TestRulingsOfOthersAreObeyedToo(t *testing.T) {
	st := openStore(t, t.TempDir())
	r := submit(t, st, bulkhead.Spec{Limit: 4}, 20)
	var rulings atomic.Pointer[[]bulkhead.Ruling]
	rulings.Store(&[]bulkhead.Ruling{{From: "guard", Verdict: bulkhead.Verdict{Level: bulkhead.Stop, Reason: "finding f1"}}})
	e := engine.New(engine.Options{Store: st, Ramp: time.Nanosecond, Rulings: func() []bulkhead.Ruling { return *rulings.Load() },
		Leased: func(*bulkhead.Run, bulkhead.Lease) {
			if len(*rulings.Load()) > 0 {
				t.Error("a lease was given under a stop")
			}
		}})
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		run(t, e, 4, succeed)
	}()
	for e.HeldRuns()["guard"] != 1 {
		e.Poke()
	}
	rulings.Store(&[]bulkhead.Ruling{})
	e.Poke()
	<-over
	if got := stored(t, st, r.ID); got.Counts.Succeeded != 20 || got.Held {
		t.Errorf("%s %+v", got.State, got.Counts)
	}
}

// However many brakes come and go while a run works, between the moment in which
// one is acknowledged and the one in which it is about to be lifted nothing is leased.
func TestNothingIsLeasedUnderABrakeThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	st, other := openStore(t, dir), openStore(t, dir)
	r := submit(t, st, bulkhead.Spec{Limit: 8}, 2_000)
	var on atomic.Bool
	var given atomic.Int64
	e := engine.New(engine.Options{Store: st, Ramp: time.Millisecond, Poll: time.Hour, Leased: func(*bulkhead.Run, bulkhead.Lease) {
		given.Add(1)
		if on.Load() {
			t.Error("a lease was given under a brake")
		}
	}})
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		run(t, e, 8, succeed)
	}()
	scopes := []bulkhead.Scope{{}, {Kind: bulkhead.ScopeRun, Name: r.ID.String()}}
	brakes := 0
	for i := 0; ; i++ {
		b, err := other.AddBrake(t.Context(), bulkhead.Brake{Scope: scopes[i%2], Reason: "T1", Owner: "ann", Since: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Look(t.Context())
		if err == nil && given.Load() < 2_000 {
			on.Store(true)
			brakes++
			// The loop turns, and has every reason to give leases but one.
			for range 3 {
				_ = e.Look(t.Context())
			}
			on.Store(false)
		}
		if _, err := other.LiftBrake(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		if err != nil || e.Look(t.Context()) != nil {
			break // the run is over
		}
	}
	<-over
	if got := stored(t, st, r.ID); got.Counts.Succeeded != 2_000 || brakes < 10 {
		t.Errorf("%s %+v after %d brakes", got.State, got.Counts, brakes)
	}
}

// A process that owns a run sees a brake that another one has set, when it is asked to
// look and by itself.
func TestABrakeOfAnotherProcessIsSeen(t *testing.T) {
	dir := t.TempDir()
	st, other := openStore(t, dir), openStore(t, dir)
	r := submit(t, st, bulkhead.Spec{Limit: 1}, 20_000)
	e := engine.New(engine.Options{Store: st})
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- runCtx(ctx, e, 1, succeed) }()
	defer func() {
		stop()
		if err := <-over; err == nil {
			t.Error("the run is over, and the brake was not seen")
		}
	}()
	if _, err := other.AddBrake(t.Context(), bulkhead.Brake{Reason: "T1", Owner: "ann", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	id, err := other.Ask(t.Context(), bulkhead.Request{Run: r.ID, Kind: bulkhead.RequestLook})
	if err != nil {
		t.Fatal(err)
	}
	for pending := true; pending; {
		if pending, err = other.Pending(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	before := stored(t, other, r.ID).Counts
	_ = e.Look(t.Context())
	_ = e.Look(t.Context())
	// What ran when it was acknowledged may have ended.
	if after := stored(t, other, r.ID).Counts; after.Queued != before.Queued {
		t.Errorf("%+v, then %+v", before, after)
	}
}

// countedStore counts how often rows are written.
type countedStore struct {
	*sqlite.Store
	rows atomic.Int64
}

func (c *countedStore) Commit(ctx context.Context, b *bulkhead.Batch) error {
	c.rows.Add(int64(len(b.Runs)))
	return c.Store.Commit(ctx, b)
}

// Who rules may change his mind with every look; what is written is bounded all the same.
func TestRulingsThatFlapAreNotWrittenEachTime(t *testing.T) {
	st := &countedStore{Store: openStore(t, t.TempDir())}
	r := submit(t, st.Store, bulkhead.Spec{Limit: 4}, 20)
	now := &clock{now: time.Now()}
	asked := 0
	e := engine.New(engine.Options{Store: st, Now: now.Now, Rulings: func() []bulkhead.Ruling {
		asked++
		v := bulkhead.Verdict{Level: bulkhead.Stop, Reason: fmt.Sprintf("finding f1, %d objects", asked)}
		return []bulkhead.Ruling{{From: "guard", Verdict: v}}[:asked%2]
	}})
	if err := e.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for range 100 { // ten seconds
		if err := e.CarryOut(t.Context()); err != nil {
			t.Fatal(err)
		}
		now.pass(100 * time.Millisecond)
	}
	if n := st.rows.Load(); asked < 100 || n > 11 {
		t.Errorf("%d rows were written for %d rulings", n, asked)
	}
}

// BenchmarkTurn is a turn of the loop with a thousand runs that wait.
func BenchmarkTurn(b *testing.B) {
	for _, rulings := range []int{0, 1, engine.MaxRulings} {
		b.Run(fmt.Sprintf("%d rulings", rulings), func(b *testing.B) {
			st := openStore(b, b.TempDir())
			given := make([]bulkhead.Ruling, rulings)
			for i := range given {
				given[i] = bulkhead.Ruling{From: "guard", Scope: ofClass(fmt.Sprint("c", i)), Verdict: brake1}
			}
			e := engine.New(engine.Options{Store: st, Rulings: func() []bulkhead.Ruling { return given }})
			for i := range 1000 {
				r := submit(b, st, bulkhead.Spec{Class: fmt.Sprint("c", i)}, 10)
				if err := e.Adopt(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			if err := e.CarryOut(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := e.CarryOut(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
