package worker

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// attempt is one call of Run.
type attempt struct {
	w    *Worker
	ctx  context.Context
	job  Job
	sink Sink

	path  string // the executable
	found lookup // how path was found in w.paths

	mark    uint64
	pid     int // the leader: the process that we start
	pidfd   int
	started time.Time
	leader  atomic.Int32 // pid until reaped, then 0
	reaping sync.Mutex   // held by who takes the leader's status, or relies on its number
	early   unix.Signal  // for the leader, before there is one; 0: none; under reaping
	process atomic.Pointer[os.File]
	conn    syscall.RawConn
	timeout time.Time // zero: none

	out, err stream
	console  *Console // nil: nobody is attached
	readers  sync.WaitGroup
	sinking  sync.Mutex   // a script's streams take turns
	dropped  int64        // under sinking
	gone     atomic.Int64 // when everything was, in Unix nanoseconds; 0: not yet

	stopped   bool // by us
	unlimited bool // its limit was taken away; under Worker.forking
	how       bulkhead.How
	hunt      hunt
	status    unix.WaitStatus
	usage     unix.Rusage
	stolen    bool // somebody else in this process took the leader's status
	note      string
}

// Run makes one attempt and returns when nothing of it is left. It never
// panics over a job: what is wrong with it is in the result.
//
// When ctx ends, the script is stopped: SIGTERM to all of its processes, after
// the grace SIGKILL to those that remain; its state is then cancelled. With the
// cause ErrKill there is no grace. An attempt that was not started because ctx
// had ended before has a zero Started.
//
// What a script leaves behind when it ends by itself has a second to end too
// (the tee at the end of a pipe), then it is stopped in the same way; that does
// not change the result. A nil sink discards the output.
//
// PeakMemory is 0 for scripts that need less than this process: Linux counts
// the memory of the forking process as the child's until exec (ru_maxrss), so a
// smaller value cannot be told from ours.
func (w *Worker) Run(ctx context.Context, job Job, sink Sink) bulkhead.Result {
	a := &attempt{w: w, ctx: ctx, job: job, sink: sink}
	if !w.begin(a) {
		return bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowStart,
			ExitCode: exitNotRunnable, Error: "the worker is closed", Started: time.Now()}
	}
	defer w.finish(a)
	if a.mustStop() {
		return bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	}
	if err := a.launch(); err != nil {
		return a.notStarted(err)
	}
	a.watch()
	defer a.limited()()
	a.read()
	if a.console != nil {
		defer a.console.close()
		job.Attach(a.console)
	}
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, a.poke)()
	}
	a.waitLeader()
	a.endRest()
	duration := time.Since(a.started)
	a.drain()
	return a.result(duration)
}

// read begins to pass on what the script writes.
func (a *attempt) read() {
	if a.out.file != nil {
		a.readers.Go(a.out.copy)
	}
	if a.err.file != nil {
		a.readers.Go(a.err.copy)
	}
}

func (a *attempt) notStarted(err error) bulkhead.Result {
	if passes(err) && a.mustStop() {
		return bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	}
	r := bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowStart, Started: a.started}
	if r.Started.IsZero() {
		r.Started = time.Now()
	}
	r.Error, r.ExitCode = explain(&a.job, a.path, err)
	return r
}

// watch gives the pidfd to the runtime's poller: to wait for a thousand scripts
// takes no thread. The deadline of the file is how the wait is interrupted.
func (a *attempt) watch() {
	a.hunt = hunt{
		procs: a.w.procs, owner: a.w.owner, mark: a.mark,
		session: a.pid, sessionSeen: a.started, since: a.pid, born: a.started,
	}
	nonblock(a.pidfd)
	f := os.NewFile(uintptr(a.pidfd), "pidfd")
	a.conn, _ = f.SyscallConn() // fails for nil only
	if a.job.Timeout > 0 {
		a.timeout = a.started.Add(a.job.Timeout)
		_ = f.SetReadDeadline(a.timeout)
	}
	a.process.Store(f) // from here on poke may change the deadline
}

// poke interrupts the wait for the leader.
func (a *attempt) poke() {
	if f := a.process.Load(); f != nil {
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
}

// mustStop: the context has ended or everything is to be killed.
func (a *attempt) mustStop() bool {
	return a.ctx.Err() != nil || a.hard()
}

// hard: no more grace.
func (a *attempt) hard() bool {
	select {
	case <-a.w.killed:
		return true
	default:
		return a.ctx.Err() != nil && errors.Is(context.Cause(a.ctx), ErrKill)
	}
}

// pause waits, but not beyond a change of mustStop or hard.
func (a *attempt) pause(d time.Duration) {
	var done <-chan struct{}
	if a.ctx.Err() == nil {
		done = a.ctx.Done()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	case <-a.w.killed:
	}
}

// signal sends a signal to the leader's process group, as soon as there is one;
// false once there is none any more.
func (a *attempt) signal(sig unix.Signal) bool {
	a.reaping.Lock()
	defer a.reaping.Unlock()
	if a.pid == 0 { // it is about to start, or does already, faster than we hear of it
		a.early = sig
		return true
	}
	pid := int(a.leader.Load())
	return pid != 0 && unix.Kill(-pid, sig) == nil
}

// lead notes the leader, and passes on what came for it before.
func (a *attempt) lead(pid int) {
	a.reaping.Lock()
	defer a.reaping.Unlock()
	a.pid = pid
	a.leader.Store(int32(pid))
	if a.early != 0 {
		_ = unix.Kill(-pid, a.early) // it may have ended
	}
}

// reap takes the leader's status if there is one.
func (a *attempt) reap() bool {
	a.reaping.Lock()
	defer a.reaping.Unlock()
	for {
		pid, err := unix.Wait4(a.pid, &a.status, unix.WNOHANG, &a.usage)
		if err == unix.EINTR {
			continue
		}
		a.stolen = err != nil
		if pid == 0 && err == nil {
			return false
		}
		a.hunt.sessionSeen = time.Now()
		a.leader.Store(0)
		return true
	}
}

func (a *attempt) reaped() bool { return a.leader.Load() == 0 }

// await waits for the leader until the deadline of its file.
func (a *attempt) await() bool {
	if a.reaped() {
		return true
	}
	err := a.conn.Read(func(uintptr) bool { return a.reap() })
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err == nil
	}
	// The poller would not have it (fs.epoll.max_user_watches).
	a.pause(lastLook)
	return a.reap()
}

// awaitUntil is await with another deadline; enough is asked after that is set,
// so that no poke is overlooked.
func (a *attempt) awaitUntil(t time.Time, enough func() bool) bool {
	_ = a.process.Load().SetReadDeadline(t)
	if enough() {
		return a.reaped()
	}
	return a.await()
}

// waitLeader returns when the leader has ended or has had its grace.
func (a *attempt) waitLeader() {
	if a.hard() {
		a.poke() // Kill may have come before there was anything to poke
	}
	for !a.await() {
		switch {
		case a.mustStop():
			a.stop(bulkhead.HowCancel)
			return
		case !a.timeout.IsZero() && !time.Now().Before(a.timeout):
			a.stop(bulkhead.HowTimeout)
			return
		}
	}
}

// drain waits for the readers. When nothing of the script is left its pipes
// have ended too, unless it gave them away: then the sweeper stops the readers.
// A sink that does not take what was read keeps us here.
func (a *attempt) drain() {
	a.gone.Store(time.Now().UnixNano())
	a.readers.Wait()
	a.out.close()
	a.err.close()
	a.process.Load().Close()
}

func (a *attempt) result(duration time.Duration) bulkhead.Result {
	r := bulkhead.Result{
		Started: a.started, Duration: duration, Error: a.note,
		CPU: time.Duration(a.usage.Utime.Nano() + a.usage.Stime.Nano()),
	}
	r.Output.Dropped = a.dropped
	if kib := a.usage.Maxrss; kib > ownPeak() {
		r.PeakMemory = kib << 10
	}
	switch {
	case a.status.Signaled():
		r.Signal = int(a.status.Signal())
		r.How = bulkhead.HowSignal
	default:
		r.ExitCode = a.status.ExitStatus()
	}
	switch {
	case a.stopped && a.how == bulkhead.HowCancel:
		r.State, r.How = bulkhead.ItemCancelled, a.how
	case a.stopped:
		r.State, r.How = bulkhead.ItemFailed, a.how
	case a.stolen:
		r.State, r.How, r.ExitCode = bulkhead.ItemLost, bulkhead.HowLost, 0
	case r.Signal != 0 || r.ExitCode != 0:
		r.State = bulkhead.ItemFailed
	}
	return r
}

// ownPeak is the most memory that this process has had, KiB.
func ownPeak() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u.Maxrss
}
