package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

func TestAnAgentEndsByItself(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*agent.Options)
		items int
		runs  int // -1: any number
	}{
		"after as many items as it may run": {func(o *agent.Options) { o.MaxItems = 3 }, 10, 3},
		"after one item, with more slots":   {func(o *agent.Options) { o.MaxItems, o.Agent.Slots = 1, 4 }, 10, 1},
		"when it was idle for long":         {func(o *agent.Options) { o.IdleTimeout = 300 * time.Millisecond }, 5, 5},
		"when it is old":                    {func(o *agent.Options) { o.MaxAge = 300 * time.Millisecond }, 5, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := newServer(t), newScripts()
			for range c.items {
				s.add(lease("say", "hello"))
			}
			opts := options(t, s, r)
			c.set(&opts)
			if err := agent.New(opts).Run(t.Context()); err != nil {
				t.Error(err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if n := len(r.started); c.runs >= 0 && n != c.runs || s.finished() != n {
				t.Errorf("%d started, %d finished", n, s.finished())
			}
			if len(s.left) != opts.Agent.Slots {
				t.Errorf("%d of %d slots said goodbye", len(s.left), opts.Agent.Slots)
			}
			if len(s.slots) != 0 {
				t.Errorf("%d leases were left", len(s.slots))
			}
		})
	}
}

func TestAnAgentThatIsNotWantedFinishesWhatItRuns(t *testing.T) {
	s, r := newServer(t), newScripts()
	end := make(chan struct{})
	r.do["long"] = func(context.Context, agent.Job, agent.Sink) bulkhead.Result {
		<-end
		return bulkhead.Result{}
	}
	s.add(lease("long"))
	_, ended := start(t, options(t, s, r))
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	s.set(func() { s.leave = true })
	s.until(t, "the idle slot has left", func() bool { return len(s.left) == 1 })
	close(end)
	if err := ended(); err != nil {
		t.Error(err)
	}
	if s.finished() != 1 {
		t.Error("the result is missing")
	}
}

func TestALeaseThatComesWithTheGoodbyeIsRun(t *testing.T) {
	s, r := newServer(t), newScripts()
	// The first lease is given, and its answer is lost for as long as the agent
	// asks for one.
	s.fault = func(method string) fault {
		if method == "Exchange" && !s.leave {
			return dropped
		}
		return none
	}
	l := lease("say", "hello")
	s.add(l)
	opts := options(t, s, r)
	opts.Agent.Slots = 1
	_, ended := start(t, opts)
	s.until(t, "it was given", func() bool { return s.attempts[l.GetToken()].given > 0 })
	s.set(func() { s.leave = true })
	if err := ended(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string { return "hello" })
}

func TestALeaseThatComesToAnInterruptedAgentIsNotStarted(t *testing.T) {
	s, r := newServer(t), newScripts()
	ctx, cancel := context.WithCancel(context.Background())
	l := lease("say", "hello")
	leaving := make(chan struct{})
	s.fault = func(method string) fault {
		switch {
		case s.attempts[l.GetToken()].given > 0:
			cancel()
			<-leaving // or it would not know yet when the lease comes
		case method == "Exchange":
			return dropped
		}
		return none
	}
	s.add(l)
	opts := options(t, s, r)
	opts.Agent.Slots = 1
	opts.Log = slog.New(slog.NewTextHandler(&said{text: "leaving", told: leaving}, nil))
	s.set(func() { s.poll = time.Hour })
	if err := agent.New(opts).Run(ctx); err != nil {
		t.Error(err)
	}
	res := s.attempts[l.GetToken()].result
	if len(r.started) != 0 || res.GetHow() != bulkheadv1.How_HOW_INTERRUPT || res.GetStarted() != nil {
		t.Errorf("%d starts; %v", len(r.started), res)
	}
}

func TestTheNextProcessHandsInWhatTheLastCouldNot(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.add(lease("say", "short"), lease("flood", "2000000"))
	begin := make(chan struct{})
	for _, name := range []string{"say", "flood"} {
		do := r.do[name]
		r.do[name] = func(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
			<-begin
			return do(ctx, job, out)
		}
	}
	opts := options(t, s, r)
	opts.Linger = time.Second
	stop, _ := start(t, opts)
	s.until(t, "they run", func() bool { return len(s.slots) == 2 })
	s.set(func() { s.fault = func(string) fault { return refused } })
	close(begin)
	saved := func() (n int) {
		for _, name := range names(t, opts.Spool) {
			if filepath.Ext(name) == ".done" {
				n++
			}
		}
		return n
	}
	for saved() < 2 {
		<-time.After(10 * time.Millisecond)
	}
	if err := stop(); err == nil || !strings.Contains(err.Error(), opts.Spool) {
		t.Errorf("the error is %v", err)
	}
	s.set(func() { s.fault = nil })

	next := opts
	next.Agent.Process = 0
	stop, _ = start(t, next)
	s.until(t, "they are finished", func() bool { return s.finished() == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(l *bulkheadv1.Lease) string {
		if string(l.GetCommand()[0]) == "say" {
			return "short"
		}
		return text(0, 2_000_000)
	})
	if left := names(t, opts.Spool); len(left) != 1 {
		t.Errorf("the spool has %q", left)
	}
}

func TestAFolderThatAnotherAgentUsesIsRefused(t *testing.T) {
	s, r := newServer(t), newScripts()
	opts := options(t, s, r)
	stop, _ := start(t, opts)
	s.until(t, "it asks", func() bool { return s.asked > 0 })
	if err := agent.New(opts).Run(t.Context()); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Errorf("the second one: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAServerOfAnotherVersionEndsTheAgent(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.refuse = connect.NewError(connect.CodeFailedPrecondition, errors.New("agents of version 1, servers of version 3"))
	err := agent.New(options(t, s, r)).Run(t.Context())
	if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("the error is %v", err)
	}
}

func TestAnAgentWhoseNameAnotherProcessHasEndsItsScripts(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.add(lease("wait"))
	_, ended := start(t, options(t, s, r))
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	s.set(func() {
		s.refuse = connect.NewError(connect.CodeAlreadyExists, errors.New("another process has taken the name"))
	})
	if err := ended(); bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), "taken the name") {
		t.Errorf("the error is %v", err)
	}
}

func TestATokenThatIsRefusedMayBeTakenLater(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.refuse = connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
	stop, _ := start(t, options(t, s, r))
	s.until(t, "it was refused", func() bool { return s.exchange > 1 })
	s.add(lease("say", "hello"))
	s.set(func() { s.refuse = nil })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAnAgentThatIsRefusedEndsWhenItIsTold(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.refuse = connect.NewError(connect.CodePermissionDenied, errors.New("the token is that of another class"))
	opts := options(t, s, r)
	opts.Linger = time.Hour // nobody waits so long to say goodbye to a server that does not listen
	stop, _ := start(t, opts)
	s.until(t, "it was refused", func() bool { return s.exchange > 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestATokenIsStartedOnceWhateverTheServerGives(t *testing.T) {
	s, r := newServer(t), newScripts()
	l := lease("say", "hello")
	s.add(l)
	opts := options(t, s, r)
	opts.Agent.Slots = 1
	stop, _ := start(t, opts)
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	s.set(func() { // it forgets the result, and gives the lease again
		rec := s.attempts[l.GetToken()]
		rec.result = nil
		s.slots[rec.holder] = l.GetToken()
	})
	s.until(t, "the result has come again", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(r.started) != 1 || s.attempts[l.GetToken()].result.GetState() != bulkheadv1.ItemState_ITEM_STATE_SUCCEEDED {
		t.Errorf("%d starts, %v", len(r.started), s.attempts[l.GetToken()].result)
	}
}

func TestOutputThatTheServerLostIsAGapAndTheRestComes(t *testing.T) {
	s, r := newServer(t), newScripts()
	more := make(chan struct{})
	r.do["twice"] = func(ctx context.Context, _ agent.Job, out agent.Sink) bulkhead.Result {
		write(ctx, out, 1, text(0, 10_000))
		<-more
		write(ctx, out, 1, text(10_000, 20_000))
		return bulkhead.Result{}
	}
	l := lease("twice")
	s.add(l)
	stop, _ := start(t, options(t, s, r))
	rec := s.attempts[l.GetToken()]
	s.until(t, "the first part was pushed", func() bool { return len(rec.output) == 10_000 })
	s.set(func() { rec.output = rec.output[:4_000] })
	close(more)
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if rec.lost != 6_000 || string(rec.output[:4_000]) != text(0, 4_000) || string(rec.output[10_000:]) != text(10_000, 20_000) {
		t.Errorf("%d bytes, %d lost", len(rec.output), rec.lost)
	}
}

func TestAServerThatKeepsNothingIsNotAskedAllTheTime(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.deaf = true
	s.add(lease("flood", strconv.Itoa(3_000_000)))
	stop, _ := start(t, options(t, s, r))
	s.until(t, "it was asked some times", func() bool { return s.calls["PushOutput"] > 3 })
	s.mu.Lock()
	before := s.calls["PushOutput"]
	s.mu.Unlock()
	<-time.After(time.Second)
	s.mu.Lock()
	if n := s.calls["PushOutput"] - before; n > 3 {
		t.Errorf("%d calls in a second", n)
	}
	s.mu.Unlock()
	s.set(func() { s.deaf = false })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string { return text(0, 3_000_000) })
}

func TestALeaseThatComesTooLateIsNotStarted(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.fault = func(method string) fault {
		if method == "Exchange" && s.calls[method] == 1 {
			return slow
		}
		return none
	}
	l := lease("say", "hello")
	l.Keep, l.Grace = durationpb.New(200*time.Millisecond), durationpb.New(0)
	s.add(l)
	opts := options(t, s, r)
	opts.Agent.Slots = 1
	stop, _ := start(t, opts)
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if res := s.attempts[l.GetToken()].result; len(r.started) != 0 || res.GetHow() != bulkheadv1.How_HOW_INTERRUPT {
		t.Errorf("%d starts, %v", len(r.started), res)
	}
}

func TestWhatIsInTheFolderAndMakesNoSenseStopsNobody(t *testing.T) {
	s, r := newServer(t), newScripts()
	opts := options(t, s, r)
	if err := os.MkdirAll(opts.Spool, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"0000000000000001.done": "short", "0000000000000002.done": strings.Repeat("\xff", 100),
		"0000000000000003.out": "of a script whose end nobody saw", "0000000000000004.done.tmp": "",
	} {
		if err := os.WriteFile(filepath.Join(opts.Spool, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.add(lease("say", "hello"))
	stop, _ := start(t, opts)
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if left := names(t, opts.Spool); len(left) != 3 {
		t.Errorf("the spool has %q", left)
	}
}

// said tells when a text is logged.
type said struct {
	text string
	told chan struct{}
	once sync.Once
}

func (s *said) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.once.Do(func() { close(s.told) })
	}
	return len(p), nil
}
