package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// In a state folder a run is changed by the process that owns it. Who asks
// something of a run without an owner becomes its owner, for as long as that takes.

func (f *folder) ask(ctx context.Context, r *bulkhead.Run, q bulkhead.Request) error {
	owner, err := f.deliver(ctx, r, q)
	if err != nil || !owner {
		return err
	}
	return errors.Join(f.carryOut(ctx, r.ID), f.Disown(r.ID))
}

// askEvery is how often it is looked whether a request was carried out.
const askEvery = 20 * time.Millisecond

// deliver stores a request and waits until the run's owner has carried it out.
// If the run has no owner it reports true: this process owns it now, and the
// request still waits.
func (f *folder) deliver(ctx context.Context, r *bulkhead.Run, q bulkhead.Request) (owner bool, err error) {
	ctx, stop := f.app.interruptible(ctx)
	defer stop()
	q.Run, q.By, q.At = r.ID, me(), time.Now()
	id, err := f.Ask(ctx, q)
	if err != nil {
		return false, err
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	report := every(2 * time.Second)
	for {
		if pending, err := f.Pending(ctx, id); err != nil || !pending {
			return false, err
		}
		if own, err := f.Own(r.ID); err != nil || own {
			return own, err
		}
		if report() {
			fmt.Fprintf(f.app.stderr, "run %d: waiting for the process that owns it (it is busy, or its scripts are being ended)\n", r.ID)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, errors.Join(f.Withdraw(context.WithoutCancel(ctx), id), exitError(exitInterrupted))
		}
	}
}

// carryOut does what was asked of a run that this process owns.
func (f *folder) carryOut(ctx context.Context, id bulkhead.RunID) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	r, err := f.Run(ctx, id)
	if err != nil {
		return err
	}
	l := f.adopt(working, r.Spec.Grace)
	defer l.closeWorker()
	if err := l.prepare(r); err != nil {
		return err
	}
	err = l.engine.CarryOut(ctx)
	stop() // its workers have asked for work, and there is none here
	l.wg.Wait()
	l.dropReserve(id)
	return errors.Join(err, l.log.Close(ctx))
}

func (f *folder) retry(ctx context.Context, r *bulkhead.Run, sel bulkhead.Selection, what string, detach bool) error {
	if err := f.checkFilesOf(r); err != nil {
		return err
	}
	owner, err := f.deliver(ctx, r, bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel})
	if err != nil {
		return err
	}
	fmt.Fprintf(f.app.stderr, "run %d: %s, limit %d\n", r.ID, what, r.Limit)
	if owner {
		stays, err := f.retryPaused(ctx, r.ID)
		if err != nil {
			return err
		}
		if !stays {
			return f.takeOver(ctx, r.ID, takeover{detach: detach, told: true})
		}
	}
	return f.app.sayRetried(ctx, f, r.ID)
}

// retryPaused carries out a retry of a run that this process owns and that is
// paused. It reports whether the run stays so; then it is owned no more.
func (f *folder) retryPaused(ctx context.Context, id bulkhead.RunID) (stays bool, err error) {
	r, err := f.Run(ctx, id)
	if err != nil || r.State != bulkhead.RunPaused {
		return false, err
	}
	if err := f.carryOut(ctx, id); err != nil {
		return false, err
	}
	if r, err = f.Run(ctx, id); err != nil || r.State != bulkhead.RunPaused {
		return false, err // somebody else had asked to resume it
	}
	return true, f.Disown(id)
}

// takeover is how to go on with a run.
type takeover struct {
	detach bool
	told   bool // what is to run was said already
}

// takeOver goes on with a run that this process owns.
func (f *folder) takeOver(ctx context.Context, id bulkhead.RunID, how takeover) error {
	if how.detach {
		// Before we return, so that whoever asks next sees a run that goes on.
		if err := f.carryOut(ctx, id); err != nil {
			return err
		}
	}
	r, err := f.Run(ctx, id)
	if err != nil {
		return err
	}
	if how.detach {
		return f.detach(r, "")
	}
	l := f.adopt(ctx, r.Spec.Grace)
	l.told = how.told
	defer l.closeWorker()
	return l.own(r)
}

// ownSoon is Own, with time for the guardian of a process that was just killed
// to see that nothing is left.
func (f *folder) ownSoon(ctx context.Context, id bulkhead.RunID) (bool, error) {
	ctx, stop := f.app.interruptible(ctx)
	defer stop()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	over := every(3 * time.Second)
	for {
		if own, err := f.Own(id); err != nil || own || over() {
			return own, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, exitError(exitInterrupted)
		}
	}
}

// lockFD is where a detached process finds the lock file of its parent.
const lockFD = 3

func (a *app) continueCmd() *cobra.Command {
	return &cobra.Command{
		Use: "continue-run RUN", Hidden: true, Args: exactly("RUN"),
		Short: "Go on with a run whose ownership is inherited (used by --detach)",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseRun(args[0])
			if err != nil {
				return err
			}
			f, err := a.openFolder(cmd.Context())
			if err != nil {
				return err
			}
			defer f.close()
			if err := f.InheritOwner(os.NewFile(lockFD, "owners.lock")); err != nil {
				return err
			}
			if ok, err := f.Own(id); err != nil || !ok {
				return errors.Join(err, fmt.Errorf("run %d is not ours", id))
			}
			return f.takeOver(cmd.Context(), id, takeover{})
		},
	}
}
