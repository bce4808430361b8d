package engine

import (
	"context"
	"fmt"

	"bulkhead.dev/bulkhead"
)

// look is lookForRequests for the loop: a store that cannot be read lets nothing
// start, and is asked again.
func (e *Engine) look(ctx context.Context, force bool) {
	err := e.lookForRequests(ctx, force || e.overlooked)
	e.overlooked = err != nil
	if err != nil && ctx.Err() == nil {
		e.Hold(storeReason(err))
	}
}

// lookForRequests carries out what others asked of our runs. Without force it
// looks only if somebody else wrote to the store.
func (e *Engine) lookForRequests(ctx context.Context, force bool) error {
	changed, unsure := e.opts.Store.Changed()
	if force {
		e.probe(true)
	}
	if !changed && !force {
		return unsure
	}
	if err := e.readBrakes(ctx); err != nil {
		return err
	}
	// Also when the store is not what it should be: that somebody cancels the run
	// may still come through.
	runs, err := e.asked(ctx)
	if err != nil {
		return err
	}
	for _, r := range runs {
		requests, err := e.opts.Store.Requests(ctx, r.ID)
		if err != nil {
			return fmt.Errorf("read requests: %w", err)
		}
		for _, q := range requests {
			if err := e.carryOut(ctx, r, q); err != nil {
				return fmt.Errorf("%s run %d: %w", q.Kind, r.ID, err)
			}
			e.mu.Lock()
			r.tell() // a pause or another limit changes nothing else
			e.mu.Unlock()
		}
	}
	return unsure
}

// carryOut does what a request asks and removes it, in one transaction. What a
// run's state does not allow is refused by whoever asks; a request that became
// pointless meanwhile is only removed.
func (e *Engine) carryOut(ctx context.Context, r *run, q bulkhead.Request) error {
	switch q.Kind {
	case bulkhead.RequestLook:
		// A brake may have come between the look at them and that at the requests.
		if err := e.readBrakes(ctx); err != nil {
			return err
		}
		return e.commit(ctx, &bulkhead.Batch{Requests: []int64{q.ID}}, nil)
	case bulkhead.RequestRetry:
		return e.retry(ctx, r, q)
	case bulkhead.RequestCancel:
		return e.cancel(ctx, r, q)
	}
	e.mu.Lock()
	active := !r.State.Finished() && r.Ending == 0
	switch {
	case q.Kind == bulkhead.RequestLimit:
		r.Limit = q.Limit
		if e.tooMany(q.Limit) {
			r.wait = e.roomReason(q.Limit) // for whoever asked; it may not be decided before they look
		}
	case q.Kind == bulkhead.RequestPause && active:
		r.State, r.Reason = bulkhead.RunPaused, "paused by "+q.By
	case q.Kind == bulkhead.RequestResume && active:
		e.nextProbe = e.opts.Now() // somebody may have made room on the disk
		r.CanaryDone = r.CanaryDone || r.State == bulkhead.RunPaused && r.inCanary()
		r.rests = false
		r.State, r.Reason, r.wait = bulkhead.RunRunning, "", "" // why it waited no longer holds
	}
	b := &bulkhead.Batch{Requests: []int64{q.ID}, Runs: []*bulkhead.Run{r.saved(e.opts.Now())}}
	e.mu.Unlock()
	return e.commit(ctx, b, nil)
}

func (e *Engine) cancel(ctx context.Context, r *run, q bulkhead.Request) error {
	e.mu.Lock()
	if !r.State.Finished() {
		r.Ending, r.Reason, r.stopNow = bulkhead.RunCancelled, "cancelled by "+q.By, true
	}
	e.mu.Unlock()
	if r.State.Finished() {
		b := &bulkhead.Batch{Requests: []int64{q.ID}}
		return e.commit(ctx, b, nil)
	}
	return e.cancelQueued(ctx, r, q.ID)
}

func (e *Engine) retry(ctx context.Context, r *run, q bulkhead.Request) error {
	if r.Ending != 0 {
		return e.commit(ctx, &bulkhead.Batch{Requests: []int64{q.ID}}, nil)
	}
	next, over := *r.Run, r.State.Finished()
	next.Next = r.lowest()
	err := e.persist(ctx, func() error {
		_, err := e.opts.Store.Retry(ctx, &next, q, e.opts.Now())
		return err
	})
	if err != nil {
		return err
	}
	touched, err := e.opts.Store.Highest(ctx, r.ID)
	if err != nil {
		return fmt.Errorf("read highest item: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	*r.Run = next
	r.touchedTo = max(r.touchedTo, touched)
	if over && !r.State.Finished() {
		r.begins, r.again = true, !r.Started.IsZero()
	}
	r.nextDue = e.opts.Now()
	return nil
}

// CarryOut does what was asked of the adopted runs and ends those that have
// nothing left to do, without starting anything. It is for a process that owns
// a run only for that moment; do not call it beside Run.
func (e *Engine) CarryOut(ctx context.Context) error {
	if err := e.lookForRequests(ctx, true); err != nil {
		return err
	}
	_, err := e.turn(ctx)
	return err
}
