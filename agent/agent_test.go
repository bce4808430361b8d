package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripts are a Runner: what a command does is a function.
type scripts struct {
	mu      sync.Mutex
	started []string // commands, in order
	jobs    []agent.Job
	do      map[string]func(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result
}

func (s *scripts) Run(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
	if ctx.Err() != nil {
		return bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	}
	s.mu.Lock()
	s.started = append(s.started, strings.Join(job.Args, " "))
	s.jobs = append(s.jobs, job)
	do := s.do[job.Args[0]]
	s.mu.Unlock()
	r := bulkhead.Result{Started: time.Now()}
	if do != nil {
		r = do(ctx, job, out)
		r.Started = time.Now()
	}
	if ctx.Err() != nil && r.How == bulkhead.HowExit && r.State == bulkhead.ItemSucceeded {
		r.State, r.How = bulkhead.ItemCancelled, bulkhead.HowCancel
	}
	return r
}

// write is how the worker writes: again and again until it is taken.
func write(ctx context.Context, out agent.Sink, stream int, text string) {
	for out.Write(stream, time.Now(), []byte(text)) != nil {
		wait, cancel := context.WithTimeout(ctx, time.Millisecond)
		<-wait.Done()
		cancel()
	}
}

// say writes its arguments.
func say(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
	for i, arg := range job.Args[1:] {
		write(ctx, out, 1+i%2, arg)
	}
	return bulkhead.Result{}
}

// flood writes as many bytes as its argument says.
func flood(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
	n, err := strconv.Atoi(job.Args[1])
	if err != nil {
		return bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowStart}
	}
	for at := 0; at < n; at += 32 << 10 {
		write(ctx, out, 1, text(at, min(at+32<<10, n)))
	}
	return bulkhead.Result{}
}

// text is a part of an endless text in which every place looks different.
func text(from, to int) string {
	var b strings.Builder
	for at := from &^ 7; at < to; at += 8 {
		fmt.Fprintf(&b, "%07x\n", at)
	}
	return b.String()[from&7 : from&7+to-from]
}

// wait runs until it is told to end.
func wait(ctx context.Context, _ agent.Job, _ agent.Sink) bulkhead.Result {
	<-ctx.Done()
	return bulkhead.Result{}
}

func newScripts() *scripts {
	return &scripts{do: map[string]func(context.Context, agent.Job, agent.Sink) bulkhead.Result{"say": say, "flood": flood, "wait": wait}}
}

// logged is a log for the test.
type logged struct{ t *testing.T }

func (l logged) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func options(t *testing.T, s *server, r agent.Runner) agent.Options {
	client, end := s.client()
	t.Cleanup(end)
	return agent.Options{
		Client: client, Runner: r, Spool: filepath.Join(t.TempDir(), "spool"),
		Agent: bulkhead.Agent{Name: "a", Kind: bulkhead.Kind{Class: "c"}, Slots: 2, Version: "test"}, API: 1,
		Log: slog.New(slog.NewTextHandler(logged{t}, nil)),
	}
}

// start runs an agent; stop interrupts it, and both return what Run did.
func start(t *testing.T, opts agent.Options) (stop, end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- agent.New(opts).Run(ctx) }()
	end = sync.OnceValue(func() error { return <-result })
	stop = func() error {
		cancel()
		return end()
	}
	t.Cleanup(func() { _ = stop() })
	return stop, end
}

func TestResultsAndOutputArriveOnce(t *testing.T) {
	s, r := newServer(t), newScripts()
	const items = 50
	for i := range items {
		s.add(lease("say", fmt.Sprintf("out %d\n", i), "err\n"))
	}
	stop, _ := start(t, options(t, s, r))
	s.until(t, "all are finished", func() bool { return s.finished() == items })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(l *bulkheadv1.Lease) string { return string(l.GetCommand()[1]) + "err\n" })
	if s.pushed != 0 {
		t.Errorf("%d bytes of short scripts came on their own", s.pushed)
	}
	if s.exchange > items+10 {
		t.Errorf("%d calls for %d items", s.exchange, items)
	}
	if len(s.left) != 2 {
		t.Errorf("%d slots said that they leave", len(s.left))
	}
}

// checkAll compares every attempt with what its script wrote, and the starts.
func checkAll(t *testing.T, s *server, r *scripts, wrote func(*bulkheadv1.Lease) string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range s.attempts {
		want := wrote(rec.lease)
		if string(rec.output) != want {
			t.Errorf("item %d: output of %d bytes instead of %d", rec.lease.GetItem(), len(rec.output), len(want))
		}
		if rec.results != 1 {
			t.Errorf("item %d has %d results", rec.lease.GetItem(), rec.results)
		}
		res := rec.result
		if res.GetState() != bulkheadv1.ItemState_ITEM_STATE_SUCCEEDED || res.GetOutputBytes() != int64(len(want)) || res.GetOutputDropped() != 0 {
			t.Errorf("item %d: %v", rec.lease.GetItem(), res)
		}
	}
	if len(r.started) != len(s.attempts) {
		t.Errorf("%d starts of %d attempts", len(r.started), len(s.attempts))
	}
}

func TestWhateverTheNetworkLosesNothingStartsTwiceAndAllArrives(t *testing.T) {
	s, r := newServer(t), newScripts()
	const items = 60
	for i := range items {
		if i%3 == 0 {
			s.add(lease("flood", strconv.Itoa(100_000*(1+i%5))))
		} else {
			s.add(lease("say", fmt.Sprint("out ", i), "err"))
		}
	}
	s.fault = func(string) fault {
		switch rand.IntN(10) {
		case 0, 1:
			return dropped
		case 2:
			return refused
		}
		return none
	}
	opts := options(t, s, r)
	opts.Agent.Slots = 4
	stop, _ := start(t, opts)
	s.until(t, "all are finished", func() bool { return s.finished() == items })
	s.set(func() { s.fault = nil })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(l *bulkheadv1.Lease) string {
		if string(l.GetCommand()[0]) == "say" {
			return string(bytes.Join(l.GetCommand()[1:], nil))
		}
		n, err := strconv.Atoi(string(l.GetCommand()[1]))
		if err != nil {
			t.Fatal(err)
		}
		return text(0, n)
	})
}

func TestScriptsGoOnWhileTheServerIsAway(t *testing.T) {
	s, r := newServer(t), newScripts()
	begin, finished := make(chan struct{}), make(chan struct{})
	r.do["long"] = func(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
		<-begin
		defer close(finished)
		return flood(ctx, job, out)
	}
	s.add(lease("long", "3000000"))
	opts := options(t, s, r)
	opts.Agent.Slots = 1
	stop, _ := start(t, opts)
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	s.set(func() { s.fault = func(string) fault { return refused } })
	close(begin)
	<-finished // which its output must not prevent
	s.set(func() { s.fault = nil })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string { return text(0, 3_000_000) })
	if left := names(t, opts.Spool); len(left) != 1 {
		t.Errorf("the spool has %q", left)
	}
}

func TestAFullSpoolMakesOnlyItsScriptWait(t *testing.T) {
	s, r := newServer(t), newScripts()
	tried := make(chan error, 1)
	begin := make(chan struct{})
	r.do["long"] = func(ctx context.Context, _ agent.Job, out agent.Sink) bulkhead.Result {
		<-begin
		n := 0
		for ; n < 100; n++ {
			if err := out.Write(1, time.Now(), []byte(text(n<<15, (n+1)<<15))); err != nil {
				tried <- err
				break
			}
		}
		for ; n < 100; n++ {
			write(ctx, out, 1, text(n<<15, (n+1)<<15))
		}
		return bulkhead.Result{}
	}
	s.add(lease("long"))
	opts := options(t, s, r)
	opts.SpoolLimit = 1 << 20
	stop, _ := start(t, opts)
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	s.set(func() { s.fault = func(string) fault { return refused } })
	close(begin)
	if err := <-tried; err == nil {
		t.Error("no error")
	}
	if n := bytesIn(t, opts.Spool); n > opts.SpoolLimit {
		t.Errorf("the spool has %d bytes", n)
	}
	s.set(func() { s.fault = nil })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string { return text(0, 100<<15) })
}

func TestOutputBeyondTheMostIsCountedAndNotSent(t *testing.T) {
	s, r := newServer(t), newScripts()
	l := lease("flood", "1000000")
	l.MaxOutput = 100_000
	s.add(l)
	stop, _ := start(t, options(t, s, r))
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	rec := s.attempts[l.GetToken()]
	if string(rec.output) != text(0, 100_000) || rec.lost != 0 ||
		rec.result.GetOutputBytes() != 100_000 || rec.result.GetOutputDropped() != 900_000 {
		t.Errorf("%d bytes, result %v", len(rec.output), rec.result)
	}
}

func TestTheServerEndsAnAttempt(t *testing.T) {
	s, r := newServer(t), newScripts()
	l := lease("wait")
	s.add(l)
	stop, _ := start(t, options(t, s, r))
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	s.set(func() { s.stop = []uint64{l.GetToken()} })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	res := s.attempts[l.GetToken()].result
	if res.GetState() != bulkheadv1.ItemState_ITEM_STATE_CANCELLED || res.GetHow() != bulkheadv1.How_HOW_CANCEL {
		t.Error(res)
	}
}

func TestAnInterruptedAgentHandsInWhatItEnded(t *testing.T) {
	s, r := newServer(t), newScripts()
	s.add(lease("wait"), lease("wait"))
	stop, _ := start(t, options(t, s, r))
	s.until(t, "they run", func() bool { return len(s.slots) == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, rec := range s.attempts {
		if rec.result.GetState() != bulkheadv1.ItemState_ITEM_STATE_FAILED || rec.result.GetHow() != bulkheadv1.How_HOW_INTERRUPT {
			t.Error(rec.result)
		}
	}
}

func TestAnAttemptThatCannotBeRenewedIsEndedInTime(t *testing.T) {
	s, r := newServer(t), newScripts()
	ended := make(chan struct{})
	r.do["wait"] = func(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
		defer close(ended)
		return wait(ctx, job, out)
	}
	s.poll = 100 * time.Millisecond
	l := lease("wait")
	l.Keep, l.Grace = durationpb.New(1500*time.Millisecond), durationpb.New(100*time.Millisecond)
	s.add(l)
	stop, _ := start(t, options(t, s, r))
	s.until(t, "it runs", func() bool { return len(s.slots) == 1 })
	before := s.renewals
	s.until(t, "it was renewed for longer than it is kept", func() bool { return s.renewals > before+8 })
	select {
	case <-ended:
		t.Fatal("it was ended though it was renewed")
	default:
	}
	s.set(func() { s.fault = func(string) fault { return refused } })
	<-ended
	s.set(func() { s.fault = nil })
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if res := s.attempts[l.GetToken()].result; res.GetHow() != bulkheadv1.How_HOW_INTERRUPT {
		t.Error(res)
	}
}
