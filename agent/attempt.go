package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// attempt is one lease and what becomes of it, until the server has its result.
type attempt struct {
	agent *Agent
	self  *bulkheadv1.Agent // who got the lease: this process, or a former one
	slot  int32
	lease *bulkheadv1.Lease
	grace time.Duration

	ctx   context.Context
	end   context.CancelCauseFunc
	keep  *time.Timer // nil: the lease does not end
	out   *backlog
	lines *lines   // nil: no echo
	con   *console // nil: it is not interactive

	limiting sync.Mutex
	until    time.Time       // what is left of the script then must be killed
	limit    func(time.Time) // says so to whoever does it; nil: nobody yet

	result *bulkheadv1.Result // nil: not yet
	cut    int64              // bytes of output that were not kept: too many, or nobody waited for the disk
	saved  bool               // in the spool
	ended  atomic.Bool        // there is a result
	late   atomic.Bool        // it could not be handed in at the first try
}

// Reasons to end a script besides errInterrupted.
var (
	errStopped = errors.New("the server said so")
	errExpired = errors.New("the lease could not be renewed")
)

func (t *attempt) token() uint64 { return t.lease.GetToken() }
func (t *attempt) name() string  { return fmt.Sprintf("%016x", t.token()) }

// begin readies an attempt for a lease that an exchange, sent then, has brought.
func (a *Agent) begin(slot int32, lease *bulkheadv1.Lease, sent time.Time) *attempt {
	t := &attempt{agent: a, self: a.self, slot: slot, lease: lease, grace: lease.GetGrace().AsDuration()}
	t.out = newBacklog(a.spool, t.name(), lease.GetMaxOutput(), heldInMemory(a.opts.Agent.Slots))
	t.ctx, t.end = context.WithCancelCause(a.scripts)
	if keep := lease.GetKeep().AsDuration(); keep > 0 {
		// A grace must fit into what a lease is kept, with room to renew before.
		t.grace = min(t.grace, keep/2)
		t.extend(sent)
		left := time.Until(t.latest(sent))
		if left <= 0 {
			t.end(errExpired) // before it was started
		}
		t.keep = time.AfterFunc(left, func() { t.end(errExpired) })
	}
	if lease.GetEcho() {
		t.lines = a.echo.lines(lease)
	}
	if lease.GetInteractive() {
		t.con = newConsole(t)
	}
	return t
}

// latest is when the script must be told to end if the last renewal was sent
// then: its grace before the lease is over, and a tenth of the time earlier for
// all that takes time besides.
func (t *attempt) latest(sent time.Time) time.Time {
	keep := t.lease.GetKeep().AsDuration()
	return sent.Add(keep - keep/10 - t.grace)
}

// renewed takes note of a renewal that was sent then. A script that was told to
// end ends all the same.
func (t *attempt) renewed(sent time.Time) {
	if t.keep != nil && t.ctx.Err() == nil {
		t.keep.Reset(time.Until(t.latest(sent)))
		t.extend(sent)
	}
}

// extend moves the end of a script that we could not end ourselves, because we were
// stopped, say: after we would have, and before its lease is over.
func (t *attempt) extend(sent time.Time) {
	t.limiting.Lock()
	defer t.limiting.Unlock()
	keep := t.lease.GetKeep().AsDuration()
	t.until = sent.Add(keep - keep/20)
	if t.limit != nil {
		t.limit(t.until)
	}
}

// watched begins to tell of that.
func (t *attempt) watched(limit func(time.Time)) {
	t.limiting.Lock()
	defer t.limiting.Unlock()
	t.limit = limit
	limit(t.until)
}

// release gives back what an attempt holds that does not run.
func (t *attempt) release() {
	if t.keep != nil {
		t.keep.Stop()
	}
	t.end(nil)
}

// run makes the attempt.
func (t *attempt) run() {
	job, done, err := t.job()
	var res bulkhead.Result
	switch {
	case t.ctx.Err() != nil:
		res = bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	case err != nil:
		res = bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowStart, Error: err.Error(), Started: time.Now(), ExitCode: exitNotStarted}
	default:
		res = t.agent.opts.Runner.Run(t.ctx, job, t)
	}
	done()
	if t.con != nil {
		t.con.end()
	}
	if t.lines != nil {
		t.lines.end()
	}
	t.finish(res)
}

// exitNotStarted is what shells and package worker give a command that cannot be
// started.
const exitNotStarted = 126

// finish turns the runner's result into the one to hand in.
func (t *attempt) finish(res bulkhead.Result) {
	cause := context.Cause(t.ctx)
	t.release()
	if res.How == bulkhead.HowCancel && cause != nil && !errors.Is(cause, errStopped) {
		res.State, res.How = bulkhead.ItemFailed, bulkhead.HowInterrupt
		if res.Error == "" {
			res.Error = cause.Error()
		}
	}
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	t.cut = t.out.dropped + res.Output.Dropped
	t.result = &bulkheadv1.Result{
		State: stateOf(res.State), How: bulkheadv1.How(res.How) + 1,
		ExitCode: int32(res.ExitCode), Signal: int32(res.Signal), Error: res.Error,
		Duration: durationpb.New(res.Duration), Cpu: durationpb.New(res.CPU), PeakMemory: res.PeakMemory,
	}
	t.ended.Store(true)
	if !res.Started.IsZero() {
		t.result.Started = timestamppb.New(res.Started)
	}
}

// stateOf: the messages have a zero value of their own before ours.
func stateOf(s bulkhead.ItemState) bulkheadv1.ItemState { return bulkheadv1.ItemState(s) + 1 }

// roomWait is how long output waits for room in memory while the server takes
// what there is, before it goes to the spool. A server that is only busy answers
// within it: a script that writes faster than it can take should be slowed down,
// not written to two disks.
const roomWait = time.Second

// Write is the sink of the script. Of one that was told to end it drops what
// there is no room for: nobody waits for it any more.
func (t *attempt) Write(stream int, at time.Time, p []byte) error {
	first, full, err := t.out.put(stream, at, p, t.agent.link.away())
	if err != nil && t.ctx.Err() == nil {
		t.agent.push.now()
		t.await(t.out.waitRoom())
		first, full, err = t.out.put(stream, at, p, true)
	}
	switch {
	case err != nil && t.ctx.Err() == nil:
		return err
	case err != nil:
		t.out.drop(int64(len(p)))
	case full:
		t.agent.push.now()
	case first:
		t.agent.push.soon()
	}
	if t.lines != nil {
		t.lines.write(stream, at, p)
	}
	if t.con != nil {
		t.con.wrote(stream, at, p)
	}
	return nil
}

func (t *attempt) await(room <-chan struct{}) {
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	select {
	case <-room:
	case <-timer.C:
	case <-t.ctx.Done():
	}
}

// job is what the runner gets; done must be called after it.
func (t *attempt) job() (job Job, done func(), err error) {
	l := t.lease
	job = Job{Dir: l.GetDir(), Timeout: l.GetTimeout().AsDuration(), Grace: t.grace}
	if t.keep != nil {
		job.Watch = t.watched
	}
	if t.con != nil {
		job.Attach, job.Terminal = t.con.attach, l.GetTerminal()
		job.Window = windowOf(l.GetWindow())
	}
	for _, arg := range l.GetCommand() {
		job.Args = append(job.Args, string(arg))
	}
	set := make([]string, 0, len(l.GetEnv())+5)
	for _, v := range l.GetEnv() {
		set = append(set, string(v))
	}
	set = append(set, fmt.Sprintf("BULKHEAD_RUN=%d", l.GetRun()), fmt.Sprintf("BULKHEAD_ITEM=%d", l.GetItem()),
		fmt.Sprintf("BULKHEAD_ATTEMPT=%d", l.GetAttempt()), "BULKHEAD_CLASS="+t.agent.opts.Agent.Class)
	done = func() {}
	if len(l.GetFiles()) > 0 || l.GetStdinFile() != "" {
		placed, err := t.agent.files.place(t)
		if err != nil {
			return job, done, err
		}
		if placed.dir != "" {
			set = append(set, "BULKHEAD_FILES="+placed.dir)
			if job.Dir == "" {
				job.Dir = placed.dir
			}
		}
		job.StdinFile = placed.stdin
		done = placed.close
	}
	if l.Stdin != nil {
		text := string(l.GetStdin())
		job.Stdin = &text
	}
	job.Env = t.agent.opts.Environ(set...)
	return job, done, nil
}

// request is what hands the result in. The output must be settled.
func (t *attempt) request() *bulkheadv1.ExchangeRequest {
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	return t.requestLocked()
}

func (t *attempt) requestLocked() *bulkheadv1.ExchangeRequest {
	t.result.OutputBytes = t.out.kept - t.out.lost
	t.result.OutputDropped = t.cut + t.out.lost
	return &bulkheadv1.ExchangeRequest{
		Agent: t.self, Slot: t.slot,
		Done: &bulkheadv1.Done{
			Run: t.lease.GetRun(), Item: t.lease.GetItem(), Token: t.token(),
			Result: t.result, Offset: t.out.base, Rest: t.out.mem,
		},
	}
}

// freeze returns what is to be saved, and where in the file the output goes on.
// From here on the file stays as it is.
func (t *attempt) freeze() (req *bulkheadv1.ExchangeRequest, position int64, err error) {
	b := t.out
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = true
	if b.file != nil && b.fileData > 0 {
		if err := b.file.Sync(); err != nil {
			return nil, 0, fmt.Errorf("sync spooled output: %w", err)
		}
	}
	return t.requestLocked(), b.filePos, nil
}

// placed is what place has readied for one attempt.
type placed struct {
	dir   string   // "": no files
	stdin *os.File // nil: none
	close func()
}
