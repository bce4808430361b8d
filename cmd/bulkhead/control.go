package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

func (a *app) pauseCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pause RUN",
		Short: "Start nothing more of a run; what runs goes on",
		Args:  exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestPause})
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
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestCancel})
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
			if err != nil || n < 1 || n > bulkhead.MaxLimit {
				return usage("bulkhead pause stops a run from starting anything", "limit %q is not a number from 1 to %d", args[1], bulkhead.MaxLimit)
			}
			return a.ask(cmd.Context(), args[0], bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: n})
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
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				var err error
				if sel.Items, err = parseItems(r, args[1:]); err != nil {
					return err
				}
				if !sel.Failed && !sel.Lost && !sel.Cancelled && len(sel.Items) == 0 {
					sel.Failed = true
				}
				if r.State == bulkhead.RunAccepting {
					return accepting(h, r)
				}
				what, err := checkRetry(cmd.Context(), h, r, sel)
				if err != nil {
					return err
				}
				return h.retry(cmd.Context(), r, sel, what, detach)
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
func unfinished(h home, r *bulkhead.Run) error {
	if r.State == bulkhead.RunAccepting {
		return accepting(h, r)
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
func accepting(h home, r *bulkhead.Run) error {
	owned, err := h.Owned(r.ID)
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

// ask has something done to a run, and prints how it stands then.
func (a *app) ask(ctx context.Context, arg string, q bulkhead.Request) error {
	return a.withRun(ctx, arg, func(h home, r *bulkhead.Run) error {
		if err := unfinished(h, r); err != nil {
			return err
		}
		if err := h.ask(ctx, r, q); err != nil {
			return err
		}
		return a.say(ctx, h, r.ID)
	})
}

// say prints how a run stands now.
func (a *app) say(ctx context.Context, h home, id bulkhead.RunID) error {
	r, err := h.Run(ctx, id)
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

// sayRetried prints how a run stands now and, if it is paused, what starts the
// items.
func (a *app) sayRetried(ctx context.Context, h home, id bulkhead.RunID) error {
	if err := a.say(ctx, h, id); err != nil {
		return err
	}
	r, err := h.Run(ctx, id)
	if err != nil || r.State != bulkhead.RunPaused {
		return err
	}
	fmt.Fprintf(a.stderr, "  the items are queued and wait, because the run is paused; `bulkhead resume %d` starts them\n", id)
	return nil
}

// checkRetry refuses a retry that would do nothing, or not what was meant, and
// says what it will do.
func checkRetry(ctx context.Context, h home, r *bulkhead.Run, sel bulkhead.Selection) (what string, err error) {
	var listed []bulkhead.ItemStatus
	if items := slices.Compact(slices.Sorted(slices.Values(sel.Items))); len(items) > 0 {
		err := eachItem(ctx, h, r, bulkhead.ItemQuery{}, items, func(it bulkhead.ItemStatus) error {
			it.Values = nil
			listed = append(listed, it)
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	n, fine, err := bulkhead.CheckRetry(r, sel, listed)
	if err != nil {
		return "", err
	}
	what = fmt.Sprintf("%d of %s again", n, counted(r.Counts.Total()))
	if fine > 0 {
		what += fmt.Sprintf(" (%d had succeeded)", fine)
	}
	return what, nil
}

func (a *app) waitCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "wait RUN",
		Short: "Wait for a run to end; the exit code is what the run's would be",
		Args:  exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return a.withRun(ctx, args[0], func(h home, r *bulkhead.Run) error {
				return a.wait(ctx, h, r.ID)
			})
		},
	}
}

func (a *app) wait(ctx context.Context, h home, id bulkhead.RunID) error {
	report, shown := every(statusEvery), bulkhead.RunRunning
	var m meter
	err := h.watch(ctx, id, func(r *bulkhead.Run, owned bool) (bool, error) {
		if r.State.Finished() {
			a.summary(r, r.Started)
			a.explain(ctx, h, r)
			return true, exitOf(r)
		}
		if !owned {
			if err := checkOwner(h, r); err != nil {
				return true, err
			}
			a.summary(r, time.Time{})
			return true, exitError(exitInterrupted)
		}
		m.add(time.Now(), r.Counts.Finished())
		if now := r.Shown(); now != shown && now != bulkhead.RunAccepting || report() {
			fmt.Fprintln(a.stderr, statusLine(r, &m))
			shown = now
		}
		return false, nil
	})
	if left(ctx, err) {
		fmt.Fprintf(a.stderr, "run %d goes on; bulkhead cancel %d ends it\n", id, id)
		return exitError(exitInterrupted)
	}
	return err
}
