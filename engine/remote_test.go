package engine_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// clock is a clock that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// server is an engine whose workers are elsewhere, as long as it lives.
type server struct {
	t     *testing.T
	dir   string
	clock *clock
	store *sqlite.Store
	shelf *output.Shelf
	*engine.Engine
	most  int // agents of a class; 0: the default
	rules atomic.Pointer[[]bulkhead.Ruling]
	stop  context.CancelFunc
	ended chan error
}

func serve(t *testing.T) *server { return serveFew(t, 0) }

// serveFew is a server that knows at most so many agents of a class.
func serveFew(t *testing.T, most int) *server {
	s := &server{t: t, dir: t.TempDir(), clock: &clock{now: time.Now()}, most: most}
	s.rules.Store(&[]bulkhead.Ruling{})
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start brings up what a server is made of, with the runs that the store has.
func (s *server) start() {
	s.t.Helper()
	var err error
	if s.store, err = sqlite.Open(s.t.Context(), s.dir); err != nil {
		s.t.Fatal(err)
	}
	s.shelf = &output.Shelf{Dir: func(id bulkhead.RunID) string { return filepath.Join(s.dir, "output", id.String()) }}
	s.Engine = engine.New(engine.Options{Store: s.store, Now: s.clock.Now, Rulings: s.rulings, Remote: &engine.Remote{
		MaxAgents: s.most, Output: s.shelf,
		Fetch: func(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error) {
			return s.store.Run(ctx, id)
		},
	}})
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.ended = stop, make(chan error, 1)
	go func() { s.ended <- s.Run(ctx) }()
	runs, err := s.store.Unfinished(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range runs {
		if err := s.Add(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *server) rulings() []bulkhead.Ruling { return *s.rules.Load() }

// kill ends everything, as kill -9 would: nobody says good-bye.
func (s *server) kill() {
	s.stop()
	if err := <-s.ended; err == nil {
		s.t.Error("the engine ended by itself")
	}
	_ = s.shelf.CloseAll()
	_ = s.store.Close()
}

// submit accepts a run of class a with so many items.
func (s *server) submit(items int64, spec bulkhead.Spec) bulkhead.RunID {
	s.t.Helper()
	if spec.Class == "" {
		spec.Class = "a"
	}
	spec.Limit = max(spec.Limit, 100)
	r := submit(s.t, s.store, spec, items)
	if err := s.Add(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
	return r.ID
}

func (s *server) counts(id bulkhead.RunID) bulkhead.Counts { return stored(s.t, s.store, id).Counts }

func who(name string, process uint64) bulkhead.Agent {
	return bulkhead.Agent{Name: name, Process: process, Kind: bulkhead.Kind{Class: "a"}, Slots: 2}
}

// ask asks once; without a lease to give the engine answers at once.
func (s *server) ask(q engine.Ask) (*engine.Assignment, error) {
	q.Until = s.clock.Now()
	return s.Next(s.t.Context(), q)
}

// lease asks for one and fails the test if there is none.
func (s *server) lease(agent bulkhead.Agent, slot int) bulkhead.Lease {
	s.t.Helper()
	a, err := s.ask(engine.Ask{Agent: agent, Slot: slot})
	if err != nil || a == nil {
		s.t.Fatalf("no lease: %v", err)
	}
	return a.Lease
}

// hand hands in a result and wants nothing more.
func (s *server) hand(agent bulkhead.Agent, l bulkhead.Lease) {
	s.t.Helper()
	if _, err := s.ask(engine.Ask{Agent: agent, Slot: l.Slot, Leaving: true, Done: &engine.Done{Lease: l, Result: succeed(l)}}); err != nil {
		s.t.Fatal(err)
	}
}

func held(l bulkhead.Lease) []bulkhead.Held {
	return []bulkhead.Held{{Run: l.Run, Item: l.Item.Index, Token: l.Token}}
}

func (s *server) renew(agent bulkhead.Agent, l bulkhead.Lease) bulkhead.Renewal {
	s.t.Helper()
	r, err := s.Renew(agent, held(l))
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// settle makes the loop turn once with the time that it is now.
func (s *server) settle() {
	s.t.Helper()
	if err := s.Look(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Look(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func TestALeaseWhoseAnswerWasLostIsGivenAgain(t *testing.T) {
	s := serve(t)
	id := s.submit(5, bulkhead.Spec{})
	first := s.lease(who("pod", 1), 0)
	again := s.lease(who("pod", 1), 0)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if other := s.lease(who("pod", 1), 1); other.Token == first.Token {
		t.Error("another slot got the same lease")
	}
	if c := s.counts(id); c.Running != 2 || c.Queued != 3 {
		t.Errorf("%+v", c)
	}
}

func TestAResultThatIsRepeatedCountsOnce(t *testing.T) {
	s := serve(t)
	id := s.submit(2, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	s.hand(who("pod", 1), l)
	s.hand(who("pod", 1), l)
	next := s.lease(who("pod", 1), 0)
	s.hand(who("pod", 1), l) // late: the slot has another lease
	if again := s.lease(who("pod", 1), 0); again.Token != next.Token {
		t.Error("a late result ended another lease")
	}
	if c := s.counts(id); c.Succeeded != 1 || c.Running != 1 {
		t.Errorf("%+v", c)
	}
}

func TestALeaseThatIsNotRenewedExpires(t *testing.T) {
	for name, c := range map[string]struct {
		retries    int
		after      time.Duration
		lost, open int64
	}{
		"not yet, where the item would not run again by itself": {after: 14 * time.Minute, open: 1},
		"in the end":                      {after: 16 * time.Minute, lost: 1},
		"soon, where the item runs again": {retries: 1, after: 2 * time.Minute, open: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			id := s.submit(1, bulkhead.Spec{Retries: c.retries, RetryDelay: 1})
			l := s.lease(who("pod", 1), 0)
			s.clock.pass(c.after)
			s.settle()
			if got := s.counts(id); got.Lost != c.lost || got.Running+got.Queued != c.open {
				t.Errorf("%+v", got)
			}
			if c.retries > 0 {
				if r := s.renew(who("pod", 1), l); !slices.Contains(r.Stop, l.Token) {
					t.Error("the agent is not told to stop what was given away")
				}
			}
		})
	}
}

func TestARenewalKeepsALease(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	for range 10 {
		s.clock.pass(10 * time.Minute)
		if r := s.renew(who("pod", 1), l); len(r.Stop) > 0 {
			t.Fatal("stopped")
		}
		s.settle()
	}
	s.hand(who("pod", 1), l)
	if got := s.counts(id); got.Succeeded != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAResultAfterTheItemWasLostChangesNothing(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	s.clock.pass(time.Hour)
	s.settle()
	s.hand(who("pod", 1), l)
	if got := s.counts(id); got.Lost != 1 || got.Succeeded != 0 {
		t.Errorf("%+v", got)
	}
}

func TestWhatAFormerProcessHeldIsLost(t *testing.T) {
	s := serve(t)
	id := s.submit(3, bulkhead.Spec{})
	s.lease(who("pod", 1), 0)
	next := s.lease(who("pod", 2), 0)
	s.settle()
	if got := s.counts(id); got.Lost != 1 || got.Running != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := s.ask(engine.Ask{Agent: who("pod", 1), Slot: 0}); !errors.Is(err, bulkhead.ErrFormer) {
		t.Errorf("the former process got %v", err)
	}
	if again := s.lease(who("pod", 2), 0); again.Token != next.Token {
		t.Error("a late message of the former process ended a lease of its successor")
	}
}

func TestAServerThatTakesOverGoesOnWithLeasesAndOutput(t *testing.T) {
	s := serve(t)
	id := s.submit(2, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 1)
	piece := func(offset int64, text string) {
		t.Helper()
		chunk := bulkhead.Chunk{Stream: bulkhead.Stdout, At: s.clock.Now(), Data: []byte(text)}
		have, known, err := s.shelf.Write(l.Token, offset, []bulkhead.Chunk{chunk})
		if want := offset + int64(len(text)); have != want || !known || err != nil {
			t.Fatalf("have %d, not %d (%v, %v)", have, want, known, err)
		}
	}
	piece(0, "one ")
	s.kill()
	s.clock.pass(time.Hour) // that the server was away is not the agent's fault
	s.start()
	if again := s.lease(who("pod", 1), 1); again.Token != l.Token || !slices.Equal(again.Item.Values, l.Item.Values) {
		t.Errorf("%+v", again)
	}
	piece(0, "one ") // its answer was lost
	piece(4, "two")
	ref, _, err := s.shelf.End(l.Token, 0)
	if err != nil {
		t.Fatal(err)
	}
	res := succeed(l)
	res.Output = ref
	if _, err := s.ask(engine.Ask{Agent: who("pod", 1), Slot: 1, Leaving: true, Done: &engine.Done{Lease: l, Result: res}}); err != nil {
		t.Fatal(err)
	}
	var got string
	at := output.Attempt{Item: l.Item.Index, N: 1, Ref: ref}
	if err := output.Read(s.shelf.Dir(id), at, func(c bulkhead.Chunk) error { got += string(c.Data); return nil }); err != nil || got != "one two" {
		t.Errorf("%q, %v", got, err)
	}
	if c := s.counts(id); c.Succeeded != 1 || c.Lost != 0 {
		t.Errorf("%+v", c)
	}
}

func TestAnAgentIsToldToStopWhatIsCancelled(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	before := s.renew(who("pod", 1), l)
	if _, err := s.store.Ask(t.Context(), bulkhead.Request{Run: id, Kind: bulkhead.RequestCancel, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	s.settle()
	<-before.News
	if r := s.renew(who("pod", 1), l); !slices.Equal(r.Stop, []uint64{l.Token}) {
		t.Errorf("told to stop %v", r.Stop)
	}
}

func TestAnAgentThatIsNotWantedLeavesWhenItHasNothingToDo(t *testing.T) {
	s := serve(t)
	s.submit(2, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	s.Retire("pod")
	if r := s.renew(who("pod", 1), l); !r.Leave || len(r.Stop) > 0 {
		t.Errorf("%+v", r)
	}
	_, err := s.ask(engine.Ask{Agent: who("pod", 1), Done: &engine.Done{Lease: l, Result: succeed(l)}})
	if !errors.Is(err, bulkhead.ErrLeave) {
		t.Errorf("got %v", err)
	}
}

func TestWhatAnAgentHeldThatIsGoneIsLostAtOnce(t *testing.T) {
	s := serve(t)
	id := s.submit(2, bulkhead.Spec{})
	s.lease(who("pod", 1), 0)
	s.Gone("pod")
	s.settle()
	if c := s.counts(id); c.Lost != 1 || c.Queued != 1 {
		t.Errorf("%+v", c)
	}
}

func TestALeaseThatComesBackUnusedIsGivenToAnother(t *testing.T) {
	s := serve(t)
	id := s.submit(2, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	unused := bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowInterrupt}
	if _, err := s.ask(engine.Ask{Agent: who("pod", 1), Leaving: true, Done: &engine.Done{Lease: l, Result: unused}}); err != nil {
		t.Fatal(err)
	}
	if c := s.counts(id); c.Queued != 2 || c.Running+c.Failed != 0 {
		t.Errorf("%+v", c)
	}
	s.kill()
	s.start() // it is so in the store, too
	for range 2 {
		s.hand(who("other", 1), s.lease(who("other", 1), 0))
	}
	if c := s.counts(id); c.Succeeded != 2 {
		t.Errorf("%+v", c)
	}
}

func TestAWorkerGetsOnlyWhatIsOfItsKind(t *testing.T) {
	s := serve(t)
	s.submit(1, bulkhead.Spec{Class: "b"})
	shaped := bulkhead.Spec{Class: "a", Shape: bulkhead.Shape{Image: "x"}}
	s.submit(1, shaped)
	if a, err := s.ask(engine.Ask{Agent: who("pod", 1)}); err != nil || a != nil {
		t.Errorf("%+v, %v", a, err)
	}
	agent := who("other", 1)
	agent.Kind = shaped.Kind()
	s.lease(agent, 0)
}

func TestARunThatIsFinishedIsTakenUpForARetry(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	if _, err := s.ask(engine.Ask{Agent: who("pod", 1), Leaving: true, Done: &engine.Done{Lease: l, Result: fail(l)}}); err != nil {
		t.Fatal(err)
	}
	s.settle()
	if _, _, _, ok := s.StatusOf(id, 0); ok {
		t.Error("a finished run is kept in memory")
	}
	q := bulkhead.Request{Run: id, Kind: bulkhead.RequestRetry, Selection: bulkhead.Selection{Failed: true}}
	if _, err := s.store.Ask(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	s.settle()
	s.hand(who("pod", 1), s.lease(who("pod", 1), 0))
	if r := stored(t, s.store, id); r.State != bulkhead.RunSucceeded {
		t.Errorf("%s %+v", r.State, r.Counts)
	}
}

func TestAnAgentThatHasLeftIsNotBusy(t *testing.T) {
	s := serve(t)
	first := s.submit(1, bulkhead.Spec{})
	lease := s.lease(who("pod", 1), 0)
	id := s.submit(1, bulkhead.Spec{})
	reason := func() string {
		s.settle()
		st, _, _, _ := s.StatusOf(id, 0)
		return st.Reason
	}
	if got := reason(); got != "worker: all are busy" {
		t.Errorf("while run %d runs: %q", first, got)
	}
	s.hand(who("pod", 1), lease)
	if got := reason(); got != "worker: none of class a is there yet" {
		t.Errorf("after the goodbye: %q", got)
	}
}

func TestARunWaitsWithTheReasonWhyNoWorkerComes(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	s.Block("a", "pods of class a cannot start: quota")
	s.settle()
	st, _, _, ok := s.StatusOf(id, 0)
	if want := "worker: pods of class a cannot start: quota"; !ok || st.Reason != want {
		t.Errorf("reason %q, want %q", st.Reason, want)
	}
	want := []bulkhead.Demand{{Kind: bulkhead.Kind{Class: "a"}, Queued: 1, Slots: 1}}
	if diff := cmp.Diff(want, s.Demand("a")); diff != "" {
		t.Error(diff)
	}
}

func TestWhoWatchesARunIsToldWhatWasAskedOfIt(t *testing.T) {
	s := serve(t)
	id := s.submit(2, bulkhead.Spec{})
	s.settle()
	for _, q := range []bulkhead.Request{
		{Kind: bulkhead.RequestPause}, {Kind: bulkhead.RequestLimit, Limit: 3}, {Kind: bulkhead.RequestResume},
	} {
		_, _, changed, _ := s.StatusOf(id, 0)
		q.Run = id
		if _, err := s.store.Ask(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		s.settle()
		select {
		case <-changed:
		default:
			t.Errorf("nobody was told of a %s", q.Kind)
		}
	}
}

func TestAnAskThatIsRepeatedWhileTheFirstWaitsGetsTheLease(t *testing.T) {
	s := serve(t)
	first := make(chan error, 1)
	go func() {
		_, err := s.Next(t.Context(), engine.Ask{Agent: who("pod", 1)})
		first <- err
	}()
	got := make(chan *engine.Assignment, 1)
	waiting := func() bool { return len(s.Agents("a")) == 1 }
	for !waiting() { // the first is there
		s.settle()
	}
	go func() {
		a, err := s.Next(t.Context(), engine.Ask{Agent: who("pod", 1)})
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	if err := <-first; !errors.Is(err, bulkhead.ErrReplaced) {
		t.Errorf("the first ask got %v", err)
	}
	s.submit(2, bulkhead.Spec{})
	if a := <-got; a == nil || a.Lease.Item.Index != 1 {
		t.Error(fmt.Sprint(a))
	}
}
