package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func (a *app) resumeCmd() *cobra.Command {
	var how resumption
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run that was paused, interrupted, or whose process died",
		Long: `Go on with a run that was paused, interrupted, or whose process died.

If its process lives, it goes on there. Otherwise this process takes the run
over: items that were running when the former one died are lost (they may have
started, nobody saw the end) and are not run again unless the run has --retries
or bulkhead retry --lost says so. Nothing else runs twice.

Input files are read again and compared; if they changed since the run was
accepted, the run is refused. --accepted goes on with the items as accepted. If
one of several inputs cannot be read again, such as standard input, none is
compared.

At a server it lets a paused run go on, with the items as they were accepted.`,
		Example: "  bulkhead resume 7\n  bulkhead resume -d 7",
		Args:    exactly("RUN"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				if r.State.Finished() {
					return finished(r)
				}
				return h.resume(cmd.Context(), r, how)
			})
		},
	}
	cmd.Flags().BoolVarP(&how.detach, "detach", "d", false, "go on in the background")
	cmd.Flags().BoolVar(&how.accepted, "accepted", false, "do not compare the input, use the items as they were accepted")
	return cmd
}

func (f *folder) resume(ctx context.Context, r *bulkhead.Run, how resumption) error {
	if r.State.Finished() {
		return finished(r)
	}
	if r.State == bulkhead.RunAccepting {
		return f.resumeAccepting(ctx, r, how)
	}
	if err := f.checkFilesOf(r); err != nil {
		return err
	}
	if !how.accepted {
		if err := f.app.compareInput(&r.Spec, r.Hash, -1, r.Counts.Total()); err != nil {
			return err
		}
	}
	owner, err := f.deliver(ctx, r, bulkhead.Request{Kind: bulkhead.RequestResume})
	if err != nil {
		return err
	}
	if !owner {
		return f.app.say(ctx, f, r.ID)
	}
	return f.takeOver(ctx, r.ID, takeover{detach: how.detach})
}

// compareInput reads the first n items of the input again (-1: all) and refuses
// what differs from what was accepted. Input that cannot be read again, such as
// standard input, is taken as it was accepted.
func (a *app) compareInput(spec *bulkhead.Spec, hash string, n, accepted int64) error {
	const hint = "put the input back as it was, or resume --accepted to go on with the items as they were accepted"
	for _, src := range spec.Inputs {
		if gone(src, spec.InputDir) {
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Hint: hint,
				Message: fmt.Sprintf("the input cannot be compared with what was accepted: there is no %s any more", bulkhead.Quote(src.From))}
		}
		if !plan.Rereadable(src, plan.Options{Dir: spec.InputDir}) {
			return nil
		}
	}
	if len(spec.Inputs) == 0 {
		return nil
	}
	now, count, err := plan.HashOf(spec.Inputs, plan.Options{Dir: spec.InputDir}, n)
	if err != nil {
		return fmt.Errorf("read the input again: %w", err)
	}
	if now == hash {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeConflict,
		Message: fmt.Sprintf("the input changed since the run was accepted: it was sha256 %s (%d items), it is sha256 %s (%d items)", hash, accepted, now, count),
		Hint:    hint}
}

// gone reports whether a source was a file that could be read again, if it were
// still there.
func gone(src bulkhead.Source, dir string) bool {
	path := strings.TrimPrefix(src.From, "file:")
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if plan.Rereadable(src, plan.Options{Dir: dir}) || src.From == "-" ||
		strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/") {
		return false
	}
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// unreadable is a source that cannot be read from its start again; nil if all can.
func unreadable(spec *bulkhead.Spec) *bulkhead.Source {
	for i, src := range spec.Inputs {
		if !plan.Rereadable(src, plan.Options{Dir: spec.InputDir}) {
			return &spec.Inputs[i]
		}
	}
	return nil
}

// resumeAccepting reads on where accepting was cut off.
func (f *folder) resumeAccepting(ctx context.Context, r *bulkhead.Run, how resumption) error {
	if own, err := f.ownSoon(ctx, r.ID); err != nil {
		return err
	} else if !own {
		return stillReading(r)
	}
	// Its last owner may have come further since we looked.
	r, err := f.Run(ctx, r.ID)
	if err != nil {
		return err
	}
	if r.State != bulkhead.RunAccepting {
		return f.resume(ctx, r, how)
	}
	if how.accepted {
		return &bulkhead.Error{Code: bulkhead.CodeConflict,
			Message: fmt.Sprintf("run %d was cut off before all of its items were accepted, so --accepted does not say which to run", r.ID),
			Hint:    afterCutOff(r)}
	}
	if err := f.checkFilesOf(r); err != nil {
		return err
	}
	sum, stored := plan.NewSum(r.Spec.Columns), int64(0)
	err = f.Accepted(ctx, r.ID, func(it bulkhead.Item) {
		sum.Add(it)
		stored = it.Index
	})
	if err != nil {
		return err
	}
	if src := unreadable(&r.Spec); src != nil {
		return &bulkhead.Error{Code: bulkhead.CodeConflict,
			Message: fmt.Sprintf("run %d was cut off after %d items of an input that cannot be read again (%s)", r.ID, stored, src.From),
			Hint:    fmt.Sprintf("nothing of it ran; bulkhead rm %d, and run it again", r.ID)}
	}
	if err := f.app.compareInput(&r.Spec, sum.Hash(), stored, stored); err != nil {
		return err
	}
	in, err := plan.Open(r.Spec.Inputs, plan.Options{Dir: r.Spec.InputDir})
	if err != nil {
		return err
	}
	l := &local{app: f.app, ctx: ctx, store: f.Store}
	if err := l.acceptBatches(ctx, r, in, stored); err != nil {
		return err
	}
	return f.takeOver(ctx, r.ID, takeover{detach: how.detach})
}
