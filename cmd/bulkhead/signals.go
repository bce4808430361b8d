package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// interruptible returns a context that ends with the first interrupt.
func (a *app) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	if len(a.signals) == 0 { // none would mean all
		return context.WithCancel(ctx)
	}
	return signal.NotifyContext(ctx, a.signals...)
}

// left reports whether an error only says that who followed has left.
func left(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// heeded are the signals to act on: not those that we were started to ignore, by
// nohup, or by a shell that started us in the background.
func heeded() (list []os.Signal) {
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}

// twinTime is how soon after a signal the same one is no further one: timeout(1)
// sends it to its child and to its whole process group. Ctrl-C comes once.
const twinTime = 100 * time.Millisecond

// handleSignals lets the first Ctrl-C drain the run, the second cancel it and
// the third kill what is left. A single script gets the first one itself. It
// returns what undoes it. Meanwhile a reader who has gone (… | head) makes a write
// fail, and does not end the run.
func (l *local) handleSignals(r *bulkhead.Run) (stop func()) {
	ch := make(chan os.Signal, 8)
	if len(l.app.signals) > 0 { // none would mean all
		signal.Notify(ch, l.app.signals...)
	}
	gone := make(chan os.Signal, 1) // nobody reads it; that it is notified is enough
	signal.Notify(gone, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		var last os.Signal
		var at time.Time
		for count := 1; ; {
			select {
			case s := <-ch:
				twin := s == last && s != os.Interrupt && time.Since(at) < twinTime
				if last, at = s, time.Now(); !twin {
					l.interrupt(r, s, count)
					count++
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		signal.Stop(gone)
		close(done)
	}
}

func (l *local) interrupt(r *bulkhead.Run, s os.Signal, count int) {
	switch {
	case count == 1 && r.Spec.Single():
		l.passOn(r, s)
	case s == syscall.SIGHUP || count == 1:
		why := "interrupted (" + called(s) + ")"
		l.announce("\nrun %d: %s: starting nothing more, waiting for what runs; once more cancels the run", r.ID, why)
		l.engine.Drain(fmt.Sprintf("%s; `bulkhead resume %d` goes on", why, r.ID))
	case count == 2:
		l.announce("run %d: cancelling: SIGTERM to what runs, SIGKILL %s later; once more kills at once", r.ID, r.Spec.Grace)
		l.cancel(r)
	default:
		l.worker.Kill()
		l.engine.Poke()
		if count > 3 {
			l.kill(worker.ErrKill) // not even the store answers
		}
	}
}

func (l *local) cancel(r *bulkhead.Run) {
	_, err := l.store.Ask(l.ctx, bulkhead.Request{Run: r.ID, Kind: bulkhead.RequestCancel, By: me(), At: time.Now()})
	if err != nil {
		l.app.tell("run %d: the cancellation cannot be stored (%v); killing what runs", r.ID, err)
		l.kill(worker.ErrKill)
	}
	l.engine.Poke()
}

// scriptTime is how long a script may take to end before it is said what a further
// signal does.
const scriptTime = time.Second

// called is a signal as people call it.
func called(s os.Signal) string {
	switch s {
	case os.Interrupt:
		return "Ctrl-C"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "hang-up"
	}
	return s.String()
}

// passOn gives a signal to the script that it was meant for, and lets no further
// attempt follow. A script that has not started yet never does.
func (l *local) passOn(r *bulkhead.Run, s os.Signal) {
	sig, ok := s.(syscall.Signal)
	if !ok || l.worker.Signal(sig) == 0 {
		l.cancel(r)
		return
	}
	l.engine.Drain(fmt.Sprintf("interrupted (%s); `bulkhead resume %d` goes on", called(s), r.ID))
	l.wg.Go(func() {
		select {
		case <-time.After(scriptTime):
			l.app.tell("run %d: the script got the signal (%s) and goes on; once more cancels the run", r.ID, called(s))
		case <-l.engine.Over():
		}
	})
}

// announce says what comes next, but does not wait for a terminal that is gone or
// stopped (Ctrl-S): that comes all the same.
func (l *local) announce(format string, args ...any) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		l.app.tell(format, args...)
	}()
	select {
	case <-said:
	case <-time.After(2 * drawTime):
	}
}

// tell says a line to people.
func (a *app) tell(format string, args ...any) {
	_, _ = io.WriteString(a.stderr, harmless(fmt.Sprintf(format+"\n", args...)))
}
