package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/rpc"
)

// following is how to follow a run that a server works on.
type following struct {
	began time.Time // when we began to
	told  bool      // it was said already what is to run
	after int       // what attempts up to this one wrote is not printed, of a single script
}

// follow shows how a run goes until it has ended, with everything that a person in
// front of it expects, and returns its exit code as an error. Ctrl-C leaves the
// run to the server.
func (s *remote) follow(ctx context.Context, r *bulkhead.Run, f following) error {
	ctx, stop := s.app.interruptible(ctx)
	defer stop()
	// A reader who has gone (… | head) makes a write fail, and does not end us: the
	// exit code is still to come.
	gone := make(chan os.Signal, 1) // nobody reads it; that it is notified is enough
	signal.Notify(gone, syscall.SIGPIPE)
	defer signal.Stop(gone)
	var err error
	if r.Spec.Single() {
		err = s.followScript(ctx, r, f)
	} else {
		err = s.followBatch(ctx, r, f)
	}
	if left(ctx, err) {
		return s.app.leave(r)
	}
	return err
}

// latest is how a run stood when the server last said so.
type latest struct {
	mu sync.Mutex
	st rpc.Status
}

func (l *latest) set(st rpc.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.st = st
}

// status is what the engine of this process would say of a run of its own.
func (l *latest) status(live int) engine.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := engine.Status{Runs: []engine.RunStatus{{Run: l.st.Run, Live: l.st.Running[:min(live, len(l.st.Running))]}}}
	for _, f := range l.st.Failures {
		st.Failures = append(st.Failures, engine.Failure{Item: f.Item, Attempt: f.Attempt})
	}
	return st
}

func (s *remote) followBatch(ctx context.Context, r *bulkhead.Run, f following) error {
	command, err := parseAll(r.Spec.Command, r.Spec.Columns)
	if err != nil {
		return err
	}
	var last latest
	last.set(rpc.Status{Run: *r})
	p := &progress{app: s.app, status: last.status, command: command, began: f.began, told: f.told}
	show := p.display(r)
	err = s.Watch(ctx, r.ID, func(st rpc.Status) error {
		last.set(st)
		return nil
	})
	show()
	if err != nil {
		return err
	}
	end := &last.status(0).Runs[0].Run
	s.app.summary(end, p.since(end))
	return exitOf(end)
}

// watchScript says of a single script why it does not start, until it has ended.
// What it returns waits for that, and says how. If it cannot be known, stop is told:
// then there is nobody to wait for.
func (s *remote) watchScript(ctx context.Context, r *bulkhead.Run, stop context.CancelCauseFunc) func() (*bulkhead.Run, error) {
	end, watched := *r, make(chan error, 1)
	go func() {
		w := waiting{app: s.app}
		err := s.watch(ctx, r.ID, func(r *bulkhead.Run, _ bool) (bool, error) {
			end = *r
			w.look(r, time.Now())
			return r.State.Finished(), nil
		})
		if err != nil {
			stop(err)
		}
		watched <- err
	}()
	return func() (*bulkhead.Run, error) {
		err := <-watched
		return &end, err
	}
}

// followScript passes through what a single script writes.
func (s *remote) followScript(ctx context.Context, r *bulkhead.Run, f following) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := s.watchScript(ctx, r, stop)
	reader := &logReader{app: s.app, home: s, run: r}
	p, passed := newLinePrinter(reader, 1), error(nil)
	err := s.followRun(ctx, r.ID, reader.cannotRead, func(_ int64, attempt int, c bulkhead.Chunk) error {
		if attempt > f.after && passed == nil {
			passed = p.chunk(c)
		}
		return nil
	})
	passed = cmp.Or(passed, p.flush())
	if ctx.Err() == nil && err != nil {
		reader.cannotRead(err) // the exit code is to come all the same
	}
	end, err := ended()
	if err != nil {
		return err
	}
	s.app.summary(end, time.Time{})
	s.app.explain(ctx, s, end)
	return s.app.checkPassed(end, passed, cmp.Or(exitOf(end), reader.unreadable()))
}

// waitTime is how long a script waits for something before that is said: there is
// no display that shows it, and a worker that is free takes no time.
const waitTime = 2 * time.Second

// waiting says of a single script why it does not start.
type waiting struct {
	app   *app
	why   string
	since time.Time
	said  bool
}

func (w *waiting) look(r *bulkhead.Run, now time.Time) {
	why := ""
	if r.Counts.Running == 0 && !r.State.Finished() {
		why = waits(r)
	}
	if why != w.why {
		w.why, w.since, w.said = why, now, false
	}
	if why != "" && !w.said && now.Sub(w.since) >= waitTime {
		w.said = true
		w.app.tell("run %d: %s, %s", r.ID, standing(r), why)
	}
}
