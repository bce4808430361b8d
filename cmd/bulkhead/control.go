package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func (a *app) pauseCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pause RUN",
		Short: "Start nothing more of a run; what runs goes on",
		Args:  exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestPause}, unfinished)
		},
	}
}

func (a *app) cancelCmd() *cobra.Command {
	return &cobra.Command{
		Use:        "cancel RUN",
		SuggestFor: []string{"stop", "kill"},
		Short:      "End a run: SIGTERM to what runs, SIGKILL after its grace; what is queued is cancelled",
		Args:       exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestCancel}, unfinished)
		},
	}
}

func (a *app) limitCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "limit RUN N",
		Short: "Change how many items of a run may run at once",
		Long: `Change how many items of a run may run at once. The process that runs it uses
as many as its ulimit -n allows, and says so in the reason.`,
		Example: "  bulkhead limit 7 2",
		Args:    exactly("RUN", "N"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 || n > maxLimit {
				return usage("bulkhead pause stops a run from starting anything", "limit %q is not a number from 1 to %d", args[1], maxLimit)
			}
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: n}, unfinished)
		},
	}
}

func (a *app) retryCmd() *cobra.Command {
	var sel bulkhead.Selection
	var detach bool
	cmd := &cobra.Command{
		Use:   "retry RUN [ITEM…]",
		Short: "Run failed, lost or given items of a run again",
		Long: `Run items of a run again: failed ones by default, or those that the flags and
arguments say. Each gets one more attempt and as many retries as the run has
left for it. Earlier attempts keep their results and output. A paused run stays
paused: the items are queued, and bulkhead resume starts them. The --halt of the
run counts failures from now on.`,
		Example: "  bulkhead retry 7 --failed\n  bulkhead retry 7 --lost\n  bulkhead retry 7 12 13",
		Args:    atLeast("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRun(cmd.Context(), args[0], func(st *sqlite.Store, r *bulkhead.Run) error {
				var err error
				if sel.Items, err = parseItems(r, args[1:]); err != nil {
					return err
				}
				if !sel.Failed && !sel.Lost && !sel.Cancelled && len(sel.Items) == 0 {
					sel.Failed = true
				}
				return a.retry(cmd.Context(), st, r, sel, detach)
			})
		},
	}
	cmd.Flags().BoolVar(&sel.Failed, "failed", false, "all failed items")
	cmd.Flags().BoolVar(&sel.Lost, "lost", false, "all lost items; they may have done their work")
	cmd.Flags().BoolVar(&sel.Cancelled, "cancelled", false, "all cancelled items")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "run them in the background")
	return cmd
}

// unfinished refuses what makes no sense for a run that is finished, or that has
// not got all of its items yet.
func unfinished(st *sqlite.Store, r *bulkhead.Run) error {
	if r.State == bulkhead.RunAccepting {
		return accepting(st, r)
	}
	if r.State.Finished() {
		return finished(r)
	}
	return nil
}

func finished(r *bulkhead.Run) error {
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d has ended (%s)", r.ID, r.State),
		Hint: fmt.Sprintf("bulkhead retry %d runs items of it again", r.ID)}
}

// accepting says of a run that accepts items whether somebody still reads them,
// and what to do.
func accepting(st *sqlite.Store, r *bulkhead.Run) error {
	owned, err := st.Owned(r.ID)
	if err != nil {
		return err
	}
	if owned {
		return stillReading(r)
	}
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d was cut off while reading its input", r.ID),
		Hint: "nothing of it ran; " + afterCutOff(r)}
}

func stillReading(r *bulkhead.Run) error {
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d is still reading its input", r.ID),
		Hint: "wait for it, or end it where it was started: nothing of it ran"}
}

// afterCutOff is what can be done about a run whose process died while it read
// the input.
func afterCutOff(r *bulkhead.Run) string {
	if src := unreadable(&r.Spec); src != nil {
		return fmt.Sprintf("its input cannot be read again (%s): `bulkhead rm %d`, and run it again", src.From, r.ID)
	}
	return fmt.Sprintf("`bulkhead resume %d` reads on", r.ID)
}

// ask asks something of a run, waits until it is done and prints how it stands.
func (a *app) ask(ctx context.Context, arg string, q bulkhead.Request, allowed func(*sqlite.Store, *bulkhead.Run) error) error {
	return a.withRun(ctx, arg, func(st *sqlite.Store, r *bulkhead.Run) error {
		if err := allowed(st, r); err != nil {
			return err
		}
		owner, err := a.deliver(ctx, st, r, q)
		if err != nil {
			return err
		}
		if owner {
			if err := errors.Join(a.carryOut(ctx, st, r.ID), st.Disown(r.ID)); err != nil {
				return err
			}
		}
		return a.say(ctx, st, r.ID)
	})
}

// say prints how a run stands now.
func (a *app) say(ctx context.Context, st *sqlite.Store, id bulkhead.RunID) error {
	r, err := st.Run(ctx, id)
	if err != nil {
		return err
	}
	reason := reasonOf(r)
	if reason != "" {
		reason = ": " + reason
	}
	fmt.Fprintf(a.stderr, "run %d: %s, limit %d, %d running, %d queued%s\n", r.ID, standing(r), r.Limit, r.Counts.Running, r.Counts.Queued, reason)
	return nil
}

// askEvery is how often it is looked whether a request was carried out.
const askEvery = 20 * time.Millisecond

// deliver stores a request and waits until the run's owner has carried it out.
// If the run has no owner it reports true: this process owns it now, and the
// request still waits.
func (a *app) deliver(ctx context.Context, st *sqlite.Store, r *bulkhead.Run, q bulkhead.Request) (owner bool, err error) {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	q.Run, q.By, q.At = r.ID, me(), time.Now()
	id, err := st.Ask(ctx, q)
	if err != nil {
		return false, err
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	report := every(2 * time.Second)
	for {
		if pending, err := st.Pending(ctx, id); err != nil || !pending {
			return false, err
		}
		if own, err := st.Own(r.ID); err != nil || own {
			return own, err
		}
		if report() {
			fmt.Fprintf(a.stderr, "run %d: waiting for the process that owns it (it is busy, or its scripts are being ended)\n", r.ID)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, errors.Join(st.Withdraw(context.WithoutCancel(ctx), id), exitError(exitInterrupted))
		}
	}
}

// carryOut does what was asked of a run that this process owns.
func (a *app) carryOut(ctx context.Context, st *sqlite.Store, id bulkhead.RunID) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	r, err := st.Run(ctx, id)
	if err != nil {
		return err
	}
	l := a.adopt(working, st, r.Spec.Grace)
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

func (a *app) retry(ctx context.Context, st *sqlite.Store, r *bulkhead.Run, sel bulkhead.Selection, detach bool) error {
	if r.State == bulkhead.RunAccepting {
		return accepting(st, r)
	}
	again, err := checkRetry(ctx, st, r, sel)
	if err != nil {
		return err
	}
	if err := checkFilesOf(st, r); err != nil {
		return err
	}
	owner, err := a.deliver(ctx, st, r, bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "run %d: %s, limit %d\n", r.ID, again, r.Limit)
	if owner {
		stays, err := a.retryPaused(ctx, st, r.ID)
		if err != nil {
			return err
		}
		if !stays {
			return a.takeOver(ctx, st, r.ID, takeover{detach: detach, told: true})
		}
	}
	return a.sayRetried(ctx, st, r.ID)
}

// retryPaused carries out a retry of a run that this process owns and that is
// paused. It reports whether the run stays so; then it is owned no more.
func (a *app) retryPaused(ctx context.Context, st *sqlite.Store, id bulkhead.RunID) (stays bool, err error) {
	r, err := st.Run(ctx, id)
	if err != nil || r.State != bulkhead.RunPaused {
		return false, err
	}
	if err := a.carryOut(ctx, st, id); err != nil {
		return false, err
	}
	if r, err = st.Run(ctx, id); err != nil || r.State != bulkhead.RunPaused {
		return false, err // somebody else had asked to resume it
	}
	return true, st.Disown(id)
}

// sayRetried prints how a run stands now and, if it is paused, what starts the
// items.
func (a *app) sayRetried(ctx context.Context, st *sqlite.Store, id bulkhead.RunID) error {
	if err := a.say(ctx, st, id); err != nil {
		return err
	}
	r, err := st.Run(ctx, id)
	if err != nil || r.State != bulkhead.RunPaused {
		return err
	}
	fmt.Fprintf(a.stderr, "  the items are queued and wait, because the run is paused; `bulkhead resume %d` starts them\n", id)
	return nil
}

// checkRetry refuses a retry that would do nothing, or not what was meant, and
// says what it will do.
func checkRetry(ctx context.Context, st *sqlite.Store, r *bulkhead.Run, sel bulkhead.Selection) (again string, err error) {
	c, n, fine := r.Counts, int64(0), int64(0)
	wanted := map[bulkhead.ItemState]bool{
		bulkhead.ItemFailed: sel.Failed, bulkhead.ItemLost: sel.Lost, bulkhead.ItemCancelled: sel.Cancelled,
	}
	for state, is := range wanted {
		if is {
			n += *c.Of(state)
		}
	}
	check := func(it bulkhead.ItemStatus) error {
		switch {
		case it.State == bulkhead.ItemQueued || it.State == bulkhead.ItemRunning:
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("item %d of run %d is %s", it.Index, r.ID, it.State)}
		case it.Attempt.N == 0:
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("item %d of run %d never started", it.Index, r.ID),
				Hint: fmt.Sprintf("bulkhead retry %d --cancelled queues all that never started", r.ID)}
		case wanted[it.State]: // counted already
			return nil
		case it.State == bulkhead.ItemSucceeded:
			fine++
		}
		n++
		return nil
	}
	if items := slices.Compact(slices.Sorted(slices.Values(sel.Items))); len(items) > 0 {
		if err := eachItem(ctx, st, r, bulkhead.ItemQuery{}, items, check); err != nil {
			return "", err
		}
	}
	if n == 0 {
		return "", &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d has no such items: %d failed, %d lost, %d cancelled", r.ID, c.Failed, c.Lost, c.Cancelled)}
	}
	again = fmt.Sprintf("%d of %s again", n, counted(c.Total()))
	if fine > 0 {
		again += fmt.Sprintf(" (%d had succeeded)", fine)
	}
	return again, nil
}

func (a *app) waitCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "wait RUN",
		Short: "Wait for a run to end; the exit code is what the run's would be",
		Args:  exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return a.withRun(ctx, args[0], func(st *sqlite.Store, r *bulkhead.Run) error {
				return a.wait(ctx, st, r.ID)
			})
		},
	}
}

// waitEvery is how often wait looks.
const waitEvery = 100 * time.Millisecond

func (a *app) wait(ctx context.Context, st *sqlite.Store, id bulkhead.RunID) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	report, shown := every(statusEvery), bulkhead.RunRunning
	var m meter
	for {
		// The lock first: an owner that ends stores how before it lets go.
		owned, err := st.Owned(id)
		if err != nil {
			return err
		}
		r, err := st.Run(ctx, id)
		if err != nil {
			return err
		}
		if r.State.Finished() {
			a.summary(r, r.Started)
			a.explain(ctx, st, r)
			return exitOf(r)
		}
		if !owned {
			if err := checkOwner(st, r); err != nil {
				return err
			}
			a.summary(r, time.Time{})
			return exitError(exitInterrupted)
		}
		m.add(time.Now(), r.Counts.Finished())
		if now := r.Shown(); now != shown && now != bulkhead.RunAccepting || report() {
			fmt.Fprintln(a.stderr, statusLine(r, &m))
			shown = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintf(a.stderr, "run %d goes on; bulkhead cancel %d ends it\n", id, id)
			return exitError(exitInterrupted)
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
			st, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			if err := st.InheritOwner(os.NewFile(lockFD, "owners.lock")); err != nil {
				return err
			}
			if ok, err := st.Own(id); err != nil || !ok {
				return errors.Join(err, fmt.Errorf("run %d is not ours", id))
			}
			return a.takeOver(cmd.Context(), st, id, takeover{})
		},
	}
}
