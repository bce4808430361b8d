package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/handover"
	"bulkhead.dev/bulkhead/plan"
)

// handoverRuns is how many runs a page is made of at most.
const handoverRuns = 2000

func (a *app) handoverCmd() *cobra.Command {
	var since, format string
	cmd := &cobra.Command{
		Use:        "handover",
		SuggestFor: []string{"shift", "report", "summary"},
		Short:      "Print a page for the next shift: what ran and runs, and what to do about it",
		Long: `Print a page for the next shift: what ran and runs, whose, why, where it stands,
when it will end (an estimate, with what it is made from), what waits for what,
what failed or was lost, what the classes have in the cluster, and which commands
to type next. What does not fit a page is counted. Times are in the zone of this
machine ($TZ), which the page names.

-o json is an object: at, since, where, partial; totals; open and ended (runs, those
that are alike as one: run, last_run, runs, name, owner, comment, class, state,
reason, counts, created, started, finished, exit_code, estimate {end, seconds_left,
items_per_second, basis}, no_estimate), open_more, ended_more; waits (reason, runs,
more, items), waits_more; cluster {known, per_run, classes, more}; next (command,
what), next_more.`,
		Example: `  bulkhead handover
  bulkhead handover --since 12h -o markdown >handover.md
  bulkhead handover -o json | jq '.open[] | {run, state, reason, end: .estimate.end}'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := plan.ParseDuration(since)
			if err != nil {
				return fmt.Errorf("--since: %w", err)
			}
			if format != "text" && format != "markdown" && format != "json" {
				return usage("text, markdown or json", "-o %q is not a format", format)
			}
			return a.handover(cmd.Context(), d, format)
		},
	}
	cmd.Flags().StringVar(&since, "since", "8h", "how far back to look for what has ended: 8h, 1d; a bare number is seconds")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "`format`: text, markdown or json")
	completeNoFiles(cmd, "since")
	completeFlag(cmd, "output", "text", "markdown", "json")
	return cmd
}

func (a *app) handover(ctx context.Context, since time.Duration, format string) error {
	h, err := a.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	now := time.Now()
	in := handover.Input{Now: now, Since: now.Add(-since), Where: h.where(), Command: a.typed}
	// One more than are shown says that there are more.
	in.Runs, err = recent(ctx, h, bulkhead.RunQuery{Unfinished: true, FinishedAfter: in.Since, Limit: handoverRuns + 1})
	if err != nil {
		return err
	}
	if len(in.Runs) > handoverRuns {
		in.Runs, in.More = in.Runs[:handoverRuns], true
	}
	if s, ok := h.(*remote); ok {
		in.Server = true
		if in.Classes, err = s.Classes(ctx); err != nil {
			return err
		}
	}
	page := handover.Compose(in)
	switch format {
	case "json":
		return writeJSON(a.stdout, page)
	case "markdown":
		return page.Markdown(a.stdout)
	}
	return page.Text(a.stdout)
}

// recent returns the runs of a query, with the reasons that are to be shown.
func recent(ctx context.Context, h home, q bulkhead.RunQuery) ([]*bulkhead.Run, error) {
	runs, err := h.Recent(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if err := checkOwner(h, r); err != nil {
			return nil, err
		}
		r.Reason = reasonOf(r)
	}
	return runs, nil
}
