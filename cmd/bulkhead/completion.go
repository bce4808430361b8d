package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulkhead.dev/bulkhead"
)

// setCompletion gives root cobra's command for it, for the shells of the machines
// that Bulkhead runs on.
func setCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		// Cobra's takes any shell and prints its help.
		cmd.Args, cmd.RunE = unknownCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, shell := range cmd.Commands() {
			if shell.Name() == "powershell" {
				cmd.RemoveCommand(shell)
			}
		}
	}
}

// plainDescriptions takes the backquotes out of what flags say: they name the
// value for the help, and completion would show them as they are.
func plainDescriptions(cmd *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	cmd.Flags().VisitAll(plain)
	cmd.PersistentFlags().VisitAll(plain)
	for _, c := range cmd.Commands() {
		plainDescriptions(c)
	}
}

// completeFlag completes the values of a flag.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
	// It fails only for a flag that the command has not got.
	_ = cmd.RegisterFlagCompletionFunc(flag, complete)
}

// completeNoFiles says of flags that their values are no names of files.
func completeNoFiles(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		completeFlag(cmd, flag)
	}
}

// completeRuns completes the number of a run, with its name beside it.
func (a *app) completeRuns(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeMoreRuns(cmd, args, "")
}

// Completion offers up to so many runs, and looks for them among so many.
const (
	runsOffered = 100
	runsLooked  = 1000
)

// completeMoreRuns completes any number of runs, each once.
func (a *app) completeMoreRuns(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	h, err := a.openHome(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer h.close()
	runs, err := h.Runs(cmd.Context(), runsLooked)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, r := range runs {
		if slices.Contains(args, r.ID.String()) || !takes(cmd.Name(), h, r) {
			continue
		}
		out = append(out, cobra.CompletionWithDesc(r.ID.String(), fmt.Sprintf("%s, %s", shownName(r), r.State)))
		if len(out) == runsOffered {
			break
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// takes reports whether a command has something to do for a run. What cannot be
// told is not offered.
func takes(command string, h home, r *bulkhead.Run) bool {
	switch command {
	case "pause", "cancel", "limit":
		return unfinished(h, r) == nil
	case "resume":
		if r.State.Finished() || r.State == bulkhead.RunAccepting && unreadable(&r.Spec) != nil {
			return false
		}
		owned, err := h.Owned(r.ID)
		return err == nil && (!owned || r.State == bulkhead.RunPaused)
	case "rm":
		if r.State != bulkhead.RunAccepting {
			return r.State.Finished()
		}
		owned, err := h.Owned(r.ID)
		return err == nil && !owned
	}
	return true
}
