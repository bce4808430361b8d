package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
	"bulkhead.dev/bulkhead/worker"
)

// local is the local setting: engine, store and workers in this process.
type local struct {
	app    *app
	ctx    context.Context
	store  *sqlite.Store
	began  time.Time
	told   bool          // it was said already what is to run
	up     chan struct{} // closed when worker or upErr is set
	worker *worker.Worker
	upErr  error

	spec    *bulkhead.Spec
	command []bulkhead.Template
	env     []bulkhead.Template
	stdin   *bulkhead.Template
	base    *environ // of every attempt
	tty     *tty     // ours, while its keys are the script's; nil: they are not

	engine *engine.Engine
	log    *output.Log
	kill   context.CancelCauseFunc // ends attempts without grace
	passed error                   // why the output of a single script went through only up to here

	mu      sync.Mutex
	workers int // goroutines
	wg      sync.WaitGroup
}

// adopt makes the folder the base of a local setting. The worker comes up,
// with its guardian, while the caller stores the run; see prepare. Grace is that
// of the run: should this process die, the guardian keeps to it.
func (f *folder) adopt(ctx context.Context, grace time.Duration) *local {
	l := &local{app: f.app, ctx: ctx, store: f.Store, began: time.Now(), up: make(chan struct{})}
	go func() {
		defer close(l.up)
		// The guardian holds the lock file: after a kill -9 the run counts as owned
		// until its scripts are gone.
		l.worker, l.upErr = worker.New(worker.Options{HoldFiles: []*os.File{f.OwnerFile()}, Grace: grace})
	}()
	return l
}

func (l *local) closeWorker() {
	<-l.up
	if l.worker != nil {
		_ = l.worker.Close()
	}
}

// prepare readies everything to work on a run that this process owns, and takes
// over what a former owner left.
func (l *local) prepare(r *bulkhead.Run) (err error) {
	if <-l.up; l.upErr != nil {
		return l.upErr
	}
	if r.Mark != l.worker.Mark() {
		if _, err := worker.KillMarked(l.ctx, r.Mark, r.Spec.Grace); err != nil {
			return fmt.Errorf("end what the former process of run %d left: %w", r.ID, err)
		}
		r.Mark = l.worker.Mark()
	}
	spec := r.Spec // a copy: the engine's loop writes to the run while workers read this
	l.spec = &spec
	if l.command, err = parseAll(r.Spec.Command, r.Spec.Columns); err != nil {
		return err
	}
	if l.env, err = parseAll(r.Spec.Env, r.Spec.Columns); err != nil {
		return err
	}
	if r.Spec.Stdin != nil {
		t, err := bulkhead.ParseTemplate(*r.Spec.Stdin, r.Spec.Columns)
		if err != nil {
			return err
		}
		l.stdin = &t
	}
	l.base = newEnviron(os.Environ())
	if l.log, err = output.OpenLog(output.Options{Dir: outputDir(l.store, r.ID)}); err != nil {
		return err
	}
	reserve := l.reserve(r.ID)
	l.wg.Go(func() { _ = reserve.Take() }) // without it a full disk is only told of later
	items, files := room()
	l.engine = engine.New(engine.Options{
		Store:      l.store,
		Room:       max(items, 1),
		RoomReason: fmt.Sprintf("ulimit -n is %d where it runs", files),
		Workers:    l.grow,
		Probe: func() error {
			if err := l.store.InPlace(); err != nil {
				return err
			}
			return reserve.Take()
		},
		Relieve: reserve.Give,
		Lost:    l.measure,
	})
	return l.engine.Adopt(l.ctx, r)
}

// own works on a run until it is over, with everything that a person in front
// of it expects, and returns its exit code as an error.
func (l *local) own(r *bulkhead.Run) error {
	ctx, kill := context.WithCancelCause(l.ctx)
	defer kill(nil)
	l.ctx, l.kill = ctx, kill
	if err := l.prepare(r); err != nil {
		return err
	}
	if err := l.engine.CarryOut(ctx); err != nil {
		return err
	}
	mine := *r // the engine's loop changes the original from here on
	r = &mine
	stop := l.handleSignals(r)
	defer stop()
	giveBack, err := l.takeTTY(r)
	if err != nil {
		return err
	}
	defer giveBack()
	show := l.progress().display(r)
	err = l.engine.Run(ctx)
	if err != nil {
		kill(err) // nobody would take the results of what still runs
	}
	l.wg.Wait()
	giveBack()
	show()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if cerr := l.log.Close(closing); cerr != nil && err == nil {
		fmt.Fprintf(l.app.stderr, "bulkhead: output of run %d is kept uncompressed: %v\n", r.ID, cerr)
	}
	if err != nil {
		return err
	}
	l.dropReserve(r.ID)
	return l.app.checkPassed(r, l.passed, l.checkKept(r, l.finish(r)))
}

// checkKept is the exit code of a run, unless it is 0 and its results went into a
// database that is not in the state folder any more.
func (l *local) checkKept(r *bulkhead.Run, code error) error {
	err := l.store.InPlace()
	if err == nil {
		return code
	}
	fmt.Fprintf(l.app.stderr, "bulkhead: results and output of run %d are lost: %v\n", r.ID, err)
	return cmp.Or[error](code, exitError(exitInternal))
}

// dropReserve removes what prepare took.
func (l *local) dropReserve(id bulkhead.RunID) { l.reserve(id).Give() }

func (l *local) reserve(id bulkhead.RunID) *sqlite.Reserve {
	return &sqlite.Reserve{Path: filepath.Join(l.store.Dir(), fmt.Sprintf("reserve.%d", id))}
}

// progress is how the run goes, as this process sees it.
func (l *local) progress() *progress {
	return &progress{app: l.app, status: l.engine.Status, command: l.command, began: l.began, told: l.told}
}

// finish says how the run ended and gives up its ownership.
func (l *local) finish(r *bulkhead.Run) error {
	end, err := l.store.Run(context.WithoutCancel(l.ctx), r.ID)
	if err != nil {
		return err
	}
	if err := l.store.Disown(r.ID); err != nil {
		return err
	}
	l.app.summary(end, l.progress().since(end))
	l.app.explain(l.ctx, l.store, end)
	return exitOf(end)
}

// explain says of a single script what its exit code and output leave open.
func (a *app) explain(ctx context.Context, h lister, r *bulkhead.Run) {
	if !r.Spec.Single() || r.State != bulkhead.RunFailed {
		return
	}
	// Its exit code is ours, whether or not we can say more.
	_ = h.Items(context.WithoutCancel(ctx), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		switch it.Attempt.How {
		case bulkhead.HowStart:
			a.tell("bulkhead: %s", it.Attempt.Error)
		case bulkhead.HowTimeout:
			fmt.Fprintf(a.stderr, "bulkhead: ended after its --timeout of %s\n", r.Spec.Timeout)
		case bulkhead.HowInterrupt:
			fmt.Fprintf(a.stderr, "bulkhead: its worker had to go and ended it; `bulkhead retry %d` runs it again\n", r.ID)
		case bulkhead.HowLost:
			fmt.Fprintf(a.stderr, "bulkhead: run %d is lost: it may have started and nobody saw the end; `bulkhead retry %[1]d --lost` runs it again\n", r.ID)
		}
		return nil
	})
}

// exitOf is the exit code of a run, as an error.
func exitOf(r *bulkhead.Run) error {
	switch {
	case r.State == bulkhead.RunSucceeded:
		return nil
	case r.Spec.Single() && r.Counts.Lost == 0 && r.State == bulkhead.RunFailed:
		return exitError(r.ExitCode)
	case r.State == bulkhead.RunFailed:
		return exitError(exitFailed)
	}
	return exitError(exitInterrupted)
}

// grow makes sure that there are n workers.
func (l *local) grow(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; l.workers < n; l.workers++ {
		slot := l.workers
		l.wg.Go(func() { l.work(slot) })
	}
}

// work is one worker: ask, run, report with the next question.
func (l *local) work(slot int) {
	out := l.log.Writer()
	var done *engine.Done
	for {
		a, err := l.engine.Next(l.ctx, engine.Ask{Slot: slot, Output: out.Position(), Done: done})
		if err != nil {
			return // the engine is closed or we are told to stop at once
		}
		done = &engine.Done{Lease: a.Lease, Result: l.attempt(a, out)}
	}
}

// attempt runs one attempt and returns its result once its output is written.
func (l *local) attempt(a *engine.Assignment, out *output.Writer) bulkhead.Result {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-a.Stop:
			cancel(context.Canceled)
		case <-over:
		}
	}()
	out.Begin(a.Lease.Item.Index, a.Lease.Attempt, time.Now(), l.spec.MaxOutput)
	sink := &sink{local: l, ctx: ctx, out: out, copies: l.spec.Single()}
	res := l.worker.Run(ctx, l.job(a.Lease), sink)
	dropped := res.Output.Dropped + sink.dropped
	res.Output = l.end(ctx, a.Lease, out)
	res.Output.Dropped += dropped
	return res
}

// end ends the output of an attempt. It waits for a disk that is full, but not
// on behalf of an attempt that was told to stop: of that it keeps what is there.
func (l *local) end(ctx context.Context, lease bulkhead.Lease, out *output.Writer) bulkhead.OutputRef {
	for {
		if !l.mustWait() || ctx.Err() != nil {
			ref, err := out.End()
			if err == nil {
				return ref
			}
			if l.store.InPlace() != nil {
				return l.measure(lease)
			}
			l.engine.Hold(fmt.Sprintf("output: %v", err))
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return l.measure(lease)
		}
	}
}

// mustWait: output waits until the run is held no more. A state folder that was
// removed does not come back, so nothing waits for that: scripts go on to their
// end, as well as their output can be kept.
func (l *local) mustWait() bool { return l.engine.Held() != "" && l.store.InPlace() == nil }

// measure finds the output of an attempt that nobody has ended. What cannot be
// measured is only not shown.
func (l *local) measure(lease bulkhead.Lease) bulkhead.OutputRef {
	ref, _ := output.Measure(outputDir(l.store, lease.Run), output.Attempt{Item: lease.Item.Index, N: lease.Attempt, Ref: lease.Output})
	return ref
}

func (l *local) job(lease bulkhead.Lease) worker.Job {
	set := append([]string{
		"BULKHEAD_RUN=" + lease.Run.String(),
		fmt.Sprintf("BULKHEAD_ITEM=%d", lease.Item.Index), fmt.Sprintf("BULKHEAD_ATTEMPT=%d", lease.Attempt),
	}, expandAll(l.env, lease.Item)...)
	job := worker.Job{
		Args: expandAll(l.command, lease.Item), Env: l.base.with(set...),
		Dir: l.spec.Dir, Timeout: l.spec.Timeout, Grace: l.spec.Grace,
	}
	switch {
	case l.tty != nil:
		job.Terminal, job.Window = true, l.tty.window()
		job.Attach = func(c *worker.Console) { l.converse(lease.Run, c) }
	case l.stdin != nil:
		text := l.stdin.Expand(lease.Item)
		job.Stdin = &text
	case l.spec.Single():
		// Like the script itself: it reads what we were given to read.
		job.StdinFile, _ = l.app.stdin.(*os.File)
	}
	return job
}

// sink takes the output of one attempt. The worker repeats a call that failed
// with the same bytes, while the writer has kept them: so a repeated call only
// flushes.
//
// While the run is held, also because the output of another script could not be
// written, nothing is: room that was given back is for the store, to say so.
type sink struct {
	local   *local
	ctx     context.Context
	out     *output.Writer
	copies  bool  // to our own streams as well
	kept    *byte // first of the bytes of the call that failed, which are in the writer
	dropped int64 // bytes that came when nobody waited for the disk any more
}

func (s *sink) Write(stream int, at time.Time, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	again := s.kept == &p[0]
	err := s.held()
	switch {
	case err != nil:
	case again:
		err = s.out.Flush()
	default:
		if s.copies {
			s.copy(stream, p)
		}
		err = s.out.Write(output.Stream(stream), at, p)
		again = true // the writer has it
	}
	s.kept = nil
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil, s.local.store.InPlace() != nil: // told to stop, or there is no place for it
		if !again {
			s.dropped += int64(len(p))
		}
		return nil
	case again:
		s.kept = &p[0]
	}
	if !errors.Is(err, errHeld) {
		s.local.engine.Hold(fmt.Sprintf("output: %v", err))
	}
	return err
}

var errHeld = errors.New("the run is held")

func (s *sink) held() error {
	if s.local.mustWait() {
		return errHeld
	}
	return nil
}

// copy passes output through. That our reader is gone must not end the script:
// its output is kept all the same. After a failure there comes nothing more, or
// what stands there would have a hole.
func (s *sink) copy(stream int, p []byte) {
	if stream == worker.Stderr {
		_, _ = s.local.app.stderr.Write(p)
	} else if s.local.passed == nil {
		if s.local.tty != nil {
			s.local.tty.seen.note(p)
		}
		_, s.local.passed = s.local.app.stdout.Write(p)
	}
}

// checkPassed is the exit code of a script, unless it is 0 and what it wrote did
// not all go through. A reader who went away knows.
func (a *app) checkPassed(r *bulkhead.Run, passed, code error) error {
	if passed == nil || errors.Is(passed, syscall.EPIPE) {
		return code
	}
	fmt.Fprintf(a.stderr, "bulkhead: the output of run %d is not all here: %v\n  `bulkhead logs %[1]d` has it\n", r.ID, passed)
	return cmp.Or[error](code, exitError(exitInternal))
}
