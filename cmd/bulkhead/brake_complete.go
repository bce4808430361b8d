package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// completeBrakes completes the number of a brake, with what it is on beside it, and the
// id of a finding that holds something.
func (a *app) completeBrakes(ctx context.Context, args []string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	h, err := a.lookBraker(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer h.close()
	list, err := h.listBrakes(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	offer := func(id string, scope bulkhead.Scope, reason string) {
		if !slices.Contains(args, id) {
			out = append(out, cobra.CompletionWithDesc(id, printable(fmt.Sprintf("%s: %s", scope, reason), 60)))
		}
	}
	for _, st := range list.Brakes {
		offer(fmt.Sprint(st.ID), st.Scope, st.Reason)
	}
	for i := range list.Rulings {
		if r := &list.Rulings[i]; findingID.MatchString(r.Finding) && !list.Exempt(r) {
			offer(r.Finding, r.Scope, r.Verdict.Reason)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeExempt completes the id of a finding that is exempt.
func (a *app) completeExempt(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	h, err := a.lookBraker(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer h.close()
	list, err := h.listBrakes(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, st := range list.Exemptions {
		if id, _ := st.Exempts(); findingID.MatchString(id) {
			out = append(out, cobra.CompletionWithDesc(id, printable(st.Reason, 60)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeNamespaces completes the namespace of the classes that there are.
func (a *app) completeNamespaces(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
	classes, directive := a.completeClasses(cmd, nil, text)
	var out []string
	for _, class := range classes {
		if ns := bulkhead.NamespaceOf(class); ns != "" {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), directive
}

// poolsOffered is how many pools completion offers.
const poolsOffered = 100

// completePools completes the pools that are in use.
func (a *app) completePools(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	h, err := a.openHome(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer h.close()
	var out []string
	if s, ok := h.(*remote); ok {
		pools, _, err := s.Pools(cmd.Context(), poolsOffered)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, p := range pools {
			if out = append(out, p.Name); p.Key != "" {
				out = append(out, p.Name+":"+p.Key)
			}
		}
	} else {
		runs, err := h.Recent(cmd.Context(), bulkhead.RunQuery{Unfinished: true, Limit: runsLooked})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, r := range runs {
			for _, p := range r.Spec.Pools {
				out = append(out, p.Name)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), poolsOffered)], cobra.ShellCompDirectiveNoFileComp
}

// completeBrakedRuns completes the number of a run that is not over.
func (a *app) completeBrakedRuns(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	h, err := a.openHome(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer h.close()
	runs, err := h.Recent(cmd.Context(), bulkhead.RunQuery{Unfinished: true, Limit: runsOffered})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, r := range runs {
		out = append(out, cobra.CompletionWithDesc(r.ID.String(), fmt.Sprintf("%s, %s", shownName(r), r.State)))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
