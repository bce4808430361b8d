package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"bulkhead.dev/bulkhead"
)

// reasonEvery bounds how often a run's row is written only because the reason
// of its wait changed.
const reasonEvery = time.Second

// setWait notes why the run's next item does not start.
func (r *run) setWait(why string) { r.wait = why }

// settle ends the run when nothing of it is left to do.
func (r *run) settle(now time.Time) {
	if r.State != bulkhead.RunRunning && r.State != bulkhead.RunPaused {
		return
	}
	if r.Counts.Queued > 0 || len(r.leases) > 0 {
		return
	}
	c := r.Counts
	switch {
	case r.Ending != 0:
		r.State = r.Ending
	case c.Failed+c.Lost > 0:
		r.State, r.Reason = bulkhead.RunFailed, ""
	case c.Cancelled > 0:
		r.State, r.Reason = bulkhead.RunCancelled, ""
	default:
		r.State, r.Reason = bulkhead.RunSucceeded, ""
	}
	r.Ending, r.Held, r.wait = 0, false, ""
	r.Finished = now
	r.dirty, r.ends = true, true
}

// changed reports whether the run's row has to be written.
func (r *run) changed(b *bulkhead.Batch, now time.Time) bool {
	news := r.shown() != r.savedReason || r.Held != r.savedHeld
	return r.dirty || news && (!b.Empty() || now.Sub(r.savedAt) >= reasonEvery)
}

// shown is the reason to show: of the state, or else of the wait.
func (r *run) shown() string {
	if r.State == bulkhead.RunRunning && r.Ending == 0 {
		return r.wait
	}
	return r.Reason
}

// saved is the row to write. It is a copy: the commit reads it while Status
// may look at the run.
func (r *run) saved(now time.Time) *bulkhead.Run {
	c := *r.Run
	c.Reason = r.shown()
	r.dirty, r.savedAt, r.savedReason, r.savedHeld = false, now, c.Reason, c.Held
	return &c
}

// endRuns carries out what a halt or a cancellation asks for: nothing queued
// starts any more and, if so asked, what runs is told to stop.
func (e *Engine) endRuns(ctx context.Context) (again bool, err error) {
	for _, r := range e.runs {
		if r.Ending == 0 {
			continue
		}
		if r.Counts.Queued > 0 {
			if err := e.cancelQueued(ctx, r, 0); err != nil {
				return again, err
			}
			again = true
		}
		if r.stopNow {
			e.mu.Lock()
			for _, l := range r.leases {
				l.halt()
			}
			r.stopNow = false
			e.mu.Unlock()
		}
	}
	return again, nil
}

func (l *live) halt() {
	if l.halted() {
		return
	}
	close(l.stop)
	if l.agent != nil {
		l.agent.tell()
	}
}

// cancelQueued empties the window of a run and cancels what is queued.
func (e *Engine) cancelQueued(ctx context.Context, r *run, request int64) error {
	next := *r.Run
	next.Next = r.lowest()
	err := e.persist(ctx, func() error { return e.opts.Store.CancelQueued(ctx, &next, request) })
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	*r.Run = next
	r.forget()
	return nil
}

// forget empties the window; what it held is read again if it is ever needed.
func (r *run) forget() {
	r.groups, r.byNeeds, r.requeued = nil, map[string]*group{}, map[int64]bool{}
	r.waiting, r.bytes, r.nextDue, r.unread = 0, 0, time.Time{}, false
	r.cursor, r.dirty = r.Next, true
}

// commit makes the batch durable. When the store cannot take it, the leases in
// it are taken back, so that nothing new starts; the results stay and are
// tried again until they are stored or ctx ends.
func (e *Engine) commit(ctx context.Context, b *bulkhead.Batch, grants []*grant) error {
	if b.Empty() {
		return nil
	}
	return e.persist(ctx, func() error {
		err := e.opts.Store.Commit(ctx, b)
		if err != nil {
			e.takeBack(b, grants, err)
			grants = nil
		}
		return err
	})
}

// takeBack undoes the leases of a batch that could not be committed and writes
// the reason into the rows that will be tried next.
func (e *Engine) takeBack(b *bulkhead.Batch, grants []*grant, cause error) {
	now := e.opts.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	back := make([]*ask, len(grants), len(grants)+len(e.idle))
	for i, g := range grants {
		e.unlease(g.run, g.work.Lease.Item.Index)
		g.undone = true
		back[i] = g.to
	}
	e.idle = append(back, e.idle...)
	b.Leases, b.Runs = nil, nil
	e.holdLocked(storeReason(cause))
	for _, r := range e.runs {
		r.Next = r.lowest()
		b.Runs = append(b.Runs, r.saved(now))
	}
}

// persist repeats write until it succeeds, with growing pauses.
func (e *Engine) persist(ctx context.Context, write func() error) error {
	err := write()
	if err == nil {
		return nil
	}
	e.Hold(storeReason(err))
	if e.opts.Relieve != nil {
		e.opts.Relieve() // others want the room too: do not wait before the next try
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		if err = write(); err == nil {
			return nil
		}
		e.Hold(storeReason(err))
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-e.poke:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("results were not stored: %w", err)
		}
		timer.Stop()
	}
}

// jitter spreads pauses by a quarter, so that processes that failed together
// do not try again together.
func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - d/8 + time.Duration(rand.Int64N(int64(d/4)))
}

func storeReason(err error) string { return "store: " + err.Error() }

const maxProbePause = 15 * time.Second

// Hold lets nothing start, for the given reason, until Options.Probe finds that
// the state folder can be written again.
func (e *Engine) Hold(reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holdLocked(reason)
}

func (e *Engine) holdLocked(reason string) {
	if now := e.opts.Now(); e.hold == "" {
		// What fails again soon after it was found well is asked less and less often.
		if now.Sub(e.nextProbe) < time.Minute {
			e.probePause = min(2*e.probePause, maxProbePause)
		} else {
			e.probePause = 250 * time.Millisecond
		}
		e.nextProbe = now.Add(e.probePause)
	}
	news := e.hold != reason
	e.hold = reason
	for _, r := range e.runs {
		// What is looked at ten times a second is not written as often.
		if r.State == bulkhead.RunRunning && (news || !r.Held) {
			r.Held, r.wait, r.dirty = true, reason, true
		}
	}
}

// Held is why nothing may start: the reason of a Hold that has not ended, or "".
func (e *Engine) Held() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hold
}

// probe ends a hold when the state folder can be written again.
func (e *Engine) probe(force bool) {
	now := e.opts.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hold == "" || now.Before(e.nextProbe) && !force {
		return
	}
	if err := e.opts.Probe(); err != nil {
		e.probePause = min(2*e.probePause, maxProbePause)
		e.nextProbe = now.Add(jitter(e.probePause))
		return
	}
	e.hold = ""
	for _, r := range e.runs {
		r.Held, r.dirty = false, true
	}
}
