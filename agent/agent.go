package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// Job is one attempt to be made, as package worker defines it.
type Job struct {
	Args      []string
	Env       []string // NAME=value, the complete environment
	Dir       string   // working folder; empty: that of this process
	Stdin     *string  // nil: nothing, or StdinFile
	StdinFile *os.File
	// Attach, if it is set, is called once the script runs, with what its stdin comes
	// from. With Terminal that is a terminal, as large as Window at first.
	Attach   func(Console)
	Terminal bool
	Window   bulkhead.Window
	Timeout  time.Duration // 0: none
	Grace    time.Duration // between SIGTERM and SIGKILL
	// Watch is called once the script runs, with a function that sets until when it
	// may. What goes on beyond that is to be killed by somebody who can do it also
	// when this process is stopped. Nil: nobody needs to.
	Watch func(limit func(until time.Time))
}

// Console is the input of a script; see package worker. Write waits while the script
// does not read, and fails once it will not any more, or has ended.
type Console interface {
	Write(p []byte) (int, error)
	End() error
	Resize(bulkhead.Window) error
}

// Sink takes what a script writes: stream 1 or 2, when it was read, and the
// bytes, which are valid during the call. After an error nothing was taken, and
// the call is repeated.
type Sink interface {
	Write(stream int, at time.Time, p []byte) error
}

// Runner makes attempts, one for each slot at once. Run returns when nothing of
// the attempt is left. When ctx ends it stops the script, with its grace; the
// result is then cancelled, with a zero Started if the script was never started.
type Runner interface {
	Run(ctx context.Context, job Job, sink Sink) bulkhead.Result
}

// Options of an Agent. Client, Runner and Agent.Name must be set.
type Options struct {
	Client bulkheadv1connect.AgentServiceClient
	Runner Runner

	// Agent introduces it. Slots: default 1. Process: default a random number.
	Agent bulkhead.Agent
	// API is the version of the service, rpc.APIVersion.
	API int

	// Environ makes the environment of an attempt from what is set for it; each
	// NAME=value takes the place of what has its name. Default: that alone.
	Environ func(set ...string) []string

	// Spool is the folder for output, results and files, which no other agent
	// may use. It is made if it is missing. Empty: output that does not fit into
	// memory waits at the script's pipe, results are lost with the process, and
	// runs with files cannot be run.
	Spool string
	// SpoolLimit is the most output in the folder, in bytes. Default: 256 MiB.
	SpoolLimit int64
	// FilesLimit is the most bytes of files of runs in the folder. Default: 1 GiB.
	FilesLimit int64

	// IdleTimeout, MaxItems and MaxAge end the agent: when it has had no lease for
	// so long, after so many leases, so long after its start. What runs is
	// finished first. 0: never.
	IdleTimeout time.Duration
	MaxItems    int64
	MaxAge      time.Duration
	// Linger is how long an agent that was interrupted tries to hand in its last
	// results once their scripts had their grace. Default: 10 s.
	Linger time.Duration

	// Echo gets the output of attempts whose lease says so, one JSON object a
	// line. Nil: nothing does.
	Echo io.Writer
	// Log is told what happens to the agent, not to its items. Default: nothing.
	Log *slog.Logger
}

// Defaults of Options.
const (
	DefaultSpoolLimit = 256 << 20
	DefaultFilesLimit = 1 << 30
	defaultLinger     = 10 * time.Second
)

// Agent runs attempts that a server leases to it.
type Agent struct {
	opts  Options
	self  *bulkheadv1.Agent
	link  *link
	spool *spool // nil: none
	files *files
	echo  *echo
	push  pusher

	// calls ends when the server is not called any more, wanted before, when no
	// more leases are wanted, and scripts when nothing may run any more.
	calls      context.Context
	endCalls   context.CancelFunc
	wanted     context.Context
	endWanted  context.CancelFunc
	scripts    context.Context
	endScripts context.CancelCauseFunc
	leaveOnce  sync.Once
	leftAt     atomic.Pointer[time.Time]

	attends sync.WaitGroup // consoles that the server is told of

	tickets atomic.Int64 // leases that were or may be asked for, if there is a MaxItems

	mu        sync.Mutex
	held      map[uint64]*attempt // by token, until the result is delivered
	started   recent              // tokens
	running   int                 // slots that have an attempt
	idleSince time.Time           // while running is 0
	fatal     error               // why it cannot go on
	kept      int                 // results that could not be delivered
}

// New readies an agent; Run starts it.
func New(opts Options) *Agent {
	opts.Agent.Slots = max(opts.Agent.Slots, 1)
	opts.SpoolLimit = cmp.Or(opts.SpoolLimit, DefaultSpoolLimit)
	opts.FilesLimit = cmp.Or(opts.FilesLimit, DefaultFilesLimit)
	opts.Linger = cmp.Or(opts.Linger, defaultLinger)
	for opts.Agent.Process == 0 {
		opts.Agent.Process = rand.Uint64()
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Environ == nil {
		opts.Environ = func(set ...string) []string { return set }
	}
	a := &Agent{
		opts: opts,
		self: &bulkheadv1.Agent{
			Name: opts.Agent.Name, Process: opts.Agent.Process, Class: opts.Agent.Class, Shape: opts.Agent.Shape,
			Slots: int32(opts.Agent.Slots), Api: int32(opts.API), Version: opts.Agent.Version,
		},
		link: newLink(opts.Log),
		held: map[uint64]*attempt{},
	}
	a.push.init(a)
	return a
}

// Run works until the agent is not wanted any more, and hands in what it has
// before it returns. When ctx ends, scripts are stopped with their grace; their
// results say that they were interrupted. An error is a server of another
// version, a spool folder that cannot be used, or results that could not be
// handed in. Run may be called once.
func (a *Agent) Run(ctx context.Context) (err error) {
	if err := a.openSpool(); err != nil {
		return err
	}
	defer a.spool.close()
	defer a.attends.Wait()
	a.calls, a.endCalls = context.WithCancel(context.WithoutCancel(ctx))
	defer a.endCalls()
	a.wanted, a.endWanted = context.WithCancel(a.calls)
	defer a.endWanted()
	a.scripts, a.endScripts = context.WithCancelCause(context.WithoutCancel(ctx))
	defer a.endScripts(nil)
	defer context.AfterFunc(ctx, a.interrupt)()

	var others, slots sync.WaitGroup
	a.echo = newEcho(a.opts.Echo)
	defer a.echo.close()
	over, stop := context.WithCancel(a.calls)
	others.Go(func() { a.push.run(over) })
	defer others.Wait()
	defer stop()
	refused := a.deliverLeftovers()

	a.idleSince = time.Now()
	others.Go(func() { a.renew(over) })
	others.Go(a.leaveInTime)
	for n := range a.opts.Agent.Slots {
		slots.Go(func() { (&slot{agent: a, n: int32(n)}).run() })
	}
	slots.Wait()
	a.leave("no slot may take more leases")
	a.forgetRefused(refused)
	return a.result()
}

// forgetRefused forgets results of former processes that a server did not want
// which did work with us.
func (a *Agent) forgetRefused(list []*attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range list {
		if a.fatal == nil {
			a.spool.forget(t)
		} else {
			t.out.abandon()
		}
	}
}

func (a *Agent) result() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fatal != nil:
		return a.fatal
	case a.kept > 0 && a.spool != nil:
		return fmt.Errorf("%d results could not be handed in; they are kept in %s", a.kept, a.spool.dir)
	case a.kept > 0:
		return fmt.Errorf("%d results could not be handed in and are lost", a.kept)
	}
	return nil
}

// leave lets no slot ask for another lease.
func (a *Agent) leave(reason string) {
	a.leaveOnce.Do(func() {
		now := time.Now()
		a.leftAt.Store(&now)
		a.endWanted()
		a.opts.Log.Info("leaving: taking no more leases, finishing what runs", "reason", reason)
	})
}

func (a *Agent) leaving() bool { return a.wanted.Err() != nil }

// Why all attempts end.
var (
	errInterrupted = errors.New("the worker was told to go")
	errReplaced    = errors.New("another process has the name of the worker")
)

// interrupt ends what runs. Afterwards there is the longest grace, and a while
// to hand in the results.
func (a *Agent) interrupt() {
	a.leave("interrupted")
	a.endScripts(errInterrupted)
	longest := time.Duration(0)
	a.mu.Lock()
	for _, t := range a.held {
		if !t.ended.Load() {
			longest = max(longest, t.grace)
		}
	}
	a.mu.Unlock()
	last := time.AfterFunc(longest+a.opts.Linger, a.endCalls)
	context.AfterFunc(a.calls, func() { last.Stop() })
}

// fail ends the agent because of what the server said of it. What runs goes on,
// unless another process has its name: then all of that is lost already, and may
// be given to others.
func (a *Agent) fail(err error) {
	if replaced(err) {
		a.endScripts(errReplaced)
	}
	err = refusal(err)
	a.mu.Lock()
	if a.fatal == nil {
		a.fatal = err
	}
	a.mu.Unlock()
	a.leave("the server refuses it")
}

// leaveInTime ends the agent when it is old, or has been idle for long.
func (a *Agent) leaveInTime() {
	var old, idle <-chan time.Time
	if a.opts.MaxAge > 0 {
		t := time.NewTimer(a.opts.MaxAge)
		defer t.Stop()
		old = t.C
	}
	for {
		if a.opts.IdleTimeout > 0 {
			left := a.opts.IdleTimeout - a.idleFor()
			if left <= 0 {
				a.leave("idle for " + a.opts.IdleTimeout.String())
				return
			}
			idle = time.After(left)
		}
		select {
		case <-old:
			a.leave("its age is " + a.opts.MaxAge.String())
			return
		case <-idle:
		case <-a.wanted.Done():
			return
		}
	}
}

// idleFor is how long no slot has had a lease.
func (a *Agent) idleFor() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running > 0 {
		return 0
	}
	return time.Since(a.idleSince)
}

// busy counts the slots that have an attempt, from its lease to its result.
func (a *Agent) busy(change int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running += change; a.running == 0 {
		a.idleSince = time.Now()
	}
}

// hold notes a lease, and reports whether its token is new here.
func (a *Agent) hold(t *attempt) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.started.has(t.token()) {
		return false
	}
	a.started.add(t.token())
	a.held[t.token()] = t
	return true
}

// drop forgets an attempt whose result the server has, or will not get from us.
func (a *Agent) drop(t *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held[t.token()] == t {
		delete(a.held, t.token())
	}
}

// holds reports whether an attempt with that token is not over yet.
func (a *Agent) holds(token uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[token] != nil
}

// holding is a snapshot of what is held.
func (a *Agent) holding() []*attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*attempt, 0, len(a.held))
	for _, t := range a.held {
		list = append(list, t)
	}
	return list
}

// recent remembers the last tokens that were given to it: tokens come twice when
// an answer was lost, and so a moment later or never.
type recent struct {
	set  map[uint64]struct{}
	ring []uint64
	next int
}

const recentTokens = 4096

func (r *recent) has(token uint64) bool {
	_, ok := r.set[token]
	return ok
}

func (r *recent) add(token uint64) {
	if r.set == nil {
		r.set = map[uint64]struct{}{}
	}
	if len(r.ring) < recentTokens {
		r.ring = append(r.ring, token)
	} else {
		delete(r.set, r.ring[r.next])
		r.ring[r.next] = token
		r.next = (r.next + 1) % recentTokens
	}
	r.set[token] = struct{}{}
}
