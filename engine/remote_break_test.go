package engine_test

import (
	"errors"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// waiting is an ask that is on its way, once the engine has it.
func (s *server) waiting(q engine.Ask) <-chan error {
	s.t.Helper()
	got := make(chan error, 1)
	go func() {
		_, err := s.Next(s.t.Context(), q)
		got <- err
	}()
	for known := false; !known; s.settle() {
		for _, a := range s.Agents("") {
			known = known || a.Name == q.Agent.Name && a.Process == q.Agent.Process
		}
	}
	return got
}

func TestTwoProcessesOfOneNameNeverGetTheSameLease(t *testing.T) {
	s := serve(t)
	former := s.waiting(engine.Ask{Agent: who("pod", 1)})
	later := s.waiting(engine.Ask{Agent: who("pod", 2)})
	s.submit(1, bulkhead.Spec{})
	if err := <-former; !errors.Is(err, bulkhead.ErrFormer) {
		t.Errorf("the former process got %v", err)
	}
	if err := <-later; err != nil {
		t.Errorf("the later process got %v", err)
	}
}

func TestALeaseThatIsGivenAgainIsKeptFromThenOn(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{Retries: 1, RetryDelay: 1})
	first := s.lease(who("pod", 1), 0) // the answer is lost
	s.clock.pass(50 * time.Second)
	again := s.lease(who("pod", 1), 0) // the agent counts from here
	if again.Token != first.Token {
		t.Fatal("another lease")
	}
	s.clock.pass(50 * time.Second)
	s.settle()
	if c := s.counts(id); c.Running != 1 {
		t.Errorf("the item was given away while its agent may run it: %+v", c)
	}
}

func TestWhatAFormerProcessHeldRunsAgainOnlyWhenItHasEndedForSure(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{Retries: 1, RetryDelay: 1})
	l := s.lease(who("pod", 1), 0)
	if a, err := s.ask(engine.Ask{Agent: who("pod", 2)}); err != nil || a != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	s.clock.pass(time.Second)
	if a, err := s.ask(engine.Ask{Agent: who("other", 1)}); err != nil || a != nil {
		t.Fatalf("an item was given to a second agent while the first may run it: %+v, %v", a, err)
	}
	if _, err := s.Renew(who("pod", 1), held(l)); !errors.Is(err, bulkhead.ErrFormer) {
		t.Errorf("the former process renewed: %v", err)
	}
	s.clock.pass(2 * time.Minute)
	s.settle()
	s.clock.pass(time.Second)
	if again := s.lease(who("other", 1), 0); again.Attempt != 2 {
		t.Errorf("%+v", again)
	}
	if c := s.counts(id); c.Running != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAnAgentSaysNothingOfAnothersLease(t *testing.T) {
	other := who("pod", 1) // of the same name, even
	other.Class = "b"
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{Retries: 1})
	l := s.lease(who("pod", 1), 0)
	for name, agent := range map[string]bulkhead.Agent{"of another class": other, "of the same class": who("pod2", 1)} {
		s.hand(agent, l)
		if c := s.counts(id); c.Running != 1 {
			t.Errorf("an agent %s ended the attempt: %+v", name, c)
		}
		if r := s.renew(agent, l); len(r.Stop) != 1 {
			t.Errorf("an agent %s renewed the lease", name)
		}
	}
	if r := s.renew(who("pod", 1), l); len(r.Stop) != 0 {
		t.Error("the agent lost its lease to one of the same name and another class")
	}
	s.hand(who("pod", 1), l)
	if c := s.counts(id); c.Succeeded != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAServerThatEndsSendsAgentsToTheNextOneAtOnce(t *testing.T) {
	s := serve(t)
	id := s.submit(1, bulkhead.Spec{})
	l := s.lease(who("pod", 1), 0)
	before := s.renew(who("pod", 1), l)
	waits := s.waiting(engine.Ask{Agent: who("idle", 1)})
	s.HandOver()
	if err := <-waits; !errors.Is(err, bulkhead.ErrClosed) {
		t.Errorf("who waited for a lease got %v", err)
	}
	<-before.News
	if _, err := s.Renew(who("pod", 1), held(l)); !errors.Is(err, bulkhead.ErrClosed) {
		t.Errorf("who waited for news got %v", err)
	}
	more := s.submit(1, bulkhead.Spec{})
	_, err := s.ask(engine.Ask{Agent: who("pod", 1), Done: &engine.Done{Lease: l, Result: succeed(l)}})
	if c := s.counts(id); !errors.Is(err, bulkhead.ErrClosed) || c.Succeeded != 1 {
		t.Errorf("%v, %+v", err, c)
	}
	if c := s.counts(more); c.Queued != 1 {
		t.Errorf("an agent got a lease of a server that ends: %+v", c)
	}
}
