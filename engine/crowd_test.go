package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// names are the agents of class a.
func (s *server) names() (names []string) {
	for _, g := range s.Agents("a") {
		names = append(names, g.Name)
	}
	return names
}

func checkNames(t *testing.T, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func TestWhoIntroducesAgentsWithoutEndIsRememberedForAFew(t *testing.T) {
	s := serveFew(t, 4)
	for i := range 1000 {
		s.clock.pass(time.Millisecond)
		if _, err := s.ask(engine.Ask{Agent: who(fmt.Sprintf("pod-%03d", i), 1)}); err != nil {
			t.Fatal(err)
		}
	}
	checkNames(t, "the last ones", s.names(), []string{"pod-996", "pod-997", "pod-998", "pod-999"})
}

func TestAnAgentThatWorksIsNotForgottenForOthers(t *testing.T) {
	s := serveFew(t, 3)
	s.submit(3, bulkhead.Spec{})
	l := s.lease(who("working", 1), 0)
	wait, stop := context.WithCancel(t.Context())
	defer stop()
	asked := make(chan error, 1)
	other := who("waiting", 1)
	other.Shape = "large"
	go func() {
		_, err := s.Next(wait, engine.Ask{Agent: other})
		asked <- err
	}()
	for len(s.Agents("a")) < 2 {
		s.settle()
	}
	for i := range 20 {
		s.clock.pass(time.Second)
		idle := who(fmt.Sprint("idle-", i), 1)
		idle.Shape = "small"
		if _, err := s.ask(engine.Ask{Agent: idle}); err != nil {
			t.Fatal(err)
		}
	}
	checkNames(t, "agents", s.names(), []string{"idle-19", "waiting", "working"})
	if r := s.renew(who("working", 1), l); len(r.Stop) > 0 {
		t.Errorf("it is told to stop: %v", r)
	}
	stop()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAnAgentForWhichThereIsNoRoomIsToldSo(t *testing.T) {
	s := serveFew(t, 2)
	s.submit(9, bulkhead.Spec{})
	s.lease(who("one", 1), 0)
	l := s.lease(who("two", 1), 0)
	for range 3 {
		_, err := s.ask(engine.Ask{Agent: who("three", 1)})
		if !errors.Is(err, bulkhead.ErrCrowded) || err.Error() != "class a has 2 agents: the server keeps track of no more" {
			t.Fatal(err)
		}
	}
	if _, err := s.Renew(who("three", 1), nil); !errors.Is(err, bulkhead.ErrCrowded) {
		t.Fatal(err)
	}
	elsewhere := who("three", 1)
	elsewhere.Class = "b"
	if _, err := s.ask(engine.Ask{Agent: elsewhere}); err != nil {
		t.Errorf("an agent of another class: %v", err)
	}
	s.hand(who("two", 1), l)
	s.clock.pass(2 * time.Second)
	s.lease(who("three", 1), 0)
	checkNames(t, "agents", s.names(), []string{"one", "three"})

	s.kill() // a server that takes over keeps what was leased, however little room it has
	s.most = 1
	s.start()
	checkNames(t, "agents of the next server", s.names(), []string{"one", "three"})
}
