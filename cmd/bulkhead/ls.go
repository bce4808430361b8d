package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

func (a *app) lsCmd() *cobra.Command {
	var out outputFlag
	var limit int
	var states []string
	cmd := &cobra.Command{
		Use:        "ls",
		SuggestFor: []string{"ps", "get", "jobs", "status"},
		Aliases:    []string{"list"},
		Short:      "List runs, newest first",
		Long: `List runs, newest first.

-o json is an array of what bulkhead show -o json prints for one run:
id, name, state, reason, comment, owner, created, started, finished (RFC 3339 or
null), counts {queued, running, succeeded, failed, lost, cancelled}, command,
limit, class of a run at a server, and exit_code of a finished single script.`,
		Example: `  bulkhead ls
  bulkhead ls --in running --in held
  bulkhead ls -o json | jq '.[0].counts.failed'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage("0 is all", "--last %d is less than 0", limit)
			}
			for _, s := range states {
				if !strings.Contains(runStates, " "+s+" ") {
					return usage("one of "+strings.TrimSpace(runStates), "--in %q is not a state of a run", s)
				}
			}
			return a.ls(cmd.Context(), limit, states, out)
		},
	}
	outputVar(cmd, &out, "text or json")
	cmd.Flags().IntVarP(&limit, "last", "n", 0, "only the last `N` runs (0: all)")
	cmd.Flags().StringArrayVar(&states, "in", nil, "only runs in this `state`; repeat")
	completeNoFiles(cmd, "last")
	completeFlag(cmd, "in", strings.Fields(runStates)...)
	return cmd
}

const runStates = " accepting running held paused succeeded failed cancelled "

func (a *app) ls(ctx context.Context, limit int, states []string, out outputFlag) error {
	h, err := a.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	runs, err := h.Runs(ctx, limit)
	if err != nil {
		return err
	}
	views := []runView{}
	for _, r := range runs {
		if err := checkOwner(h, r); err != nil {
			return err
		}
		if len(states) == 0 || slices.Contains(states, r.Shown().String()) {
			views = append(views, newRunView(r))
		}
	}
	if out == "json" {
		return writeJSON(a.stdout, views)
	}
	if len(views) == 0 {
		fmt.Fprintf(a.stderr, "no runs %s\n", h.where())
		return nil
	}
	return printRuns(a.stdout, views, time.Now())
}

func printRuns(w io.Writer, views []runView, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "RUN\tNAME\tSTATE\tDONE\tFAILED\tLOST\tCANCELLED\tOWNER\tAGE\tCOMMENT\tREASON")
	for _, v := range views {
		c := v.Counts
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d/%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", v.ID, printable(v.Name, 30), v.State, c.Done(), c.Total(),
			c.Failed, c.Lost, c.Cancelled, shownOwner(v.Owner, 30), age(now.Sub(*v.Created)), printable(v.Comment, 30), printable(v.Reason, 0))
	}
	return tw.Flush()
}

func (a *app) showCmd() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:               "show RUN",
		SuggestFor:        []string{"describe", "info"},
		Short:             "Show how one run stands",
		Example:           "  bulkhead show 7\n  bulkhead show 7 -o json | jq .reason",
		Args:              exactly("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				if err := checkOwner(h, r); err != nil {
					return err
				}
				if out == "json" {
					return writeJSON(a.stdout, newRunView(r))
				}
				return showRun(a.stdout, r)
			})
		},
	}
	outputVar(cmd, &out, "text or json")
	return cmd
}

// shownText is the most columns of one thing of a run; -o json has all of it.
const shownText = 2000

func showRun(w io.Writer, r *bulkhead.Run) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	c, s := r.Counts, r.Spec
	line := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s:\t%s\n", name, printable(fmt.Sprintf(format, args...), shownText))
	}
	optional := func(name, value string) {
		if value != "" {
			line(name, "%s", value)
		}
	}
	line("Run", "%d", r.ID)
	line("Name", "%s", s.Name)
	line("State", "%s", r.Shown())
	optional("Reason", reasonOf(r))
	optional("Comment", s.Comment)
	line("Owner", "%s", s.Owner)
	switch {
	case s.Terminal:
		line("Reads", "what is typed by who is attached, in a terminal")
	case s.Interactive:
		line("Reads", "what comes from who is attached")
	}
	line("Command", "%s", shellLine(s.Command))
	optional("Class", s.Class)
	optional("Folder", s.Dir)
	line("Items", "%d: %d queued, %d running, %d succeeded, %d failed, %d lost, %d cancelled",
		c.Total(), c.Queued, c.Running, c.Succeeded, c.Failed, c.Lost, c.Cancelled)
	line("Limit", "%d at once", r.Limit)
	showLimits(&s, line)
	showAttempts(&s, line)
	line("Created", "%s", r.Created.Format(time.RFC3339))
	if !r.Started.IsZero() {
		line("Started", "%s", r.Started.Format(time.RFC3339))
	}
	if !r.Finished.IsZero() {
		line("Finished", "%s, after %s", r.Finished.Format(time.RFC3339), age(r.Finished.Sub(r.Created)))
	}
	if s.Single() && r.State.Finished() {
		line("Exit code", "%d", r.ExitCode)
	}
	return tw.Flush()
}

// showLimits prints what was set of the limits of a run.
func showLimits(s *bulkhead.Spec, line func(name, format string, args ...any)) {
	if s.Rate.Count > 0 {
		line("Rate", "%s", s.Rate)
	}
	for _, p := range s.Pools {
		name := p.Name
		if p.Key != "" {
			name += ":" + p.Key
		}
		line("Pool", "%s, %d at once", name, p.Slots)
	}
	if s.Halt != (bulkhead.Halt{}) {
		line("Halt", "%s", s.Halt)
	}
	if s.Canary > 0 {
		line("Canary", "%s", counted(int64(s.Canary)))
	}
	if s.Priority != 0 {
		line("Priority", "%d", s.Priority)
	}
}

// showAttempts prints what was set of an attempt. Of the environment it names the
// variables only: a value may be a secret.
func showAttempts(s *bulkhead.Spec, line func(name, format string, args ...any)) {
	if s.Timeout > 0 {
		line("Timeout", "%s", s.Timeout)
	}
	if s.Grace != 0 && s.Grace != bulkhead.DefaultGrace {
		line("Grace", "%s", s.Grace)
	}
	if s.Retries > 0 {
		line("Retries", "%d, after %s and longer", s.Retries, s.RetryDelay)
	}
	if s.MaxOutput != 0 && s.MaxOutput != bulkhead.DefaultMaxOutput {
		line("Max output", "%d bytes per attempt", s.MaxOutput)
	}
	if len(s.Env) > 0 {
		names := make([]string, len(s.Env))
		for i, v := range s.Env {
			names[i] = nameOf(v)
		}
		line("Environment", "%s", strings.Join(names, " "))
	}
	if s.Stdin != nil {
		line("Stdin", "%s", shellLine([]string{*s.Stdin}))
	}
	if s.StdinFile != "" {
		line("Stdin", "a file, sha256 %s", s.StdinFile)
	}
	for _, f := range s.Files {
		line("File", "%s, %d bytes", f.Path, f.Size)
	}
	for _, c := range []struct{ name, value string }{{"Image", s.Shape.Image}, {"CPU", s.Shape.CPU}, {"Memory", s.Shape.Memory}} {
		if c.value != "" {
			line(c.name, "%s", c.value)
		}
	}
}

// parseRun reads a run's number.
func parseRun(text string) (bulkhead.RunID, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usage("bulkhead ls shows the runs and their numbers", "%q is not the number of a run", text)
	}
	return bulkhead.RunID(n), nil
}

// withRun opens the home, looks a run up and calls fn.
func (a *app) withRun(ctx context.Context, text string, fn func(home, *bulkhead.Run) error) error {
	id, err := parseRun(text)
	if err != nil {
		return err
	}
	h, err := a.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	r, err := h.Run(ctx, id)
	if err != nil {
		return err
	}
	return fn(h, r)
}
