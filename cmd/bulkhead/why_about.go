package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

// What `bulkhead why` is asked about: a kind, a namespace, a finding; and what is said of
// those that there are not.

// about says which kind or finding is meant.
func (f *whyFlags) about(text string) (err error) {
	if findingID.MatchString(text) {
		f.finding = text
		return nil
	}
	f.kind, err = kindOf(text)
	return err
}

// kindOf is a kind as the census has it.
func kindOf(text string) (string, error) {
	kind, known := budget.Resource(strings.ToLower(text))
	if !known && !strings.Contains(text, ".") {
		return "", usage("a kind as kubectl names it; a custom resource with its group: foos.example.com", "there is no kind %s", bulkhead.Quote(text))
	}
	return kind, nil
}

func completeKinds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"configmaps", "events", "jobs", "networkpolicies", "pods", "secrets", "services"}, cobra.ShellCompDirectiveNoFileComp
}

// knows refuses a question about what nobody has seen.
func (n *answer) knows(f *whyFlags) error {
	if f.namespace != "" && n.once && !slices.ContainsFunc(n.census.Tallies, func(t bulkhead.Tally) bool { return t.Namespace == f.namespace }) {
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is nothing in a namespace %s", bulkhead.Quote(f.namespace)),
			Hint: "kubectl get namespaces lists them"}
	}
	// A server does not tell which kinds it counts to who asks for one namespace.
	if f.kind == "" || len(n.census.Kinds) == 0 || slices.ContainsFunc(n.census.Kinds, func(k bulkhead.KindStatus) bool { return k.Kind == f.kind }) ||
		slices.ContainsFunc(n.findings, func(of bulkhead.Finding) bool { return of.About(f.kind) }) {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("no %s were counted: there are none, or the cluster has no such kind", bulkhead.Quote(f.kind)),
		Hint: "`kubectl api-resources` lists the kinds of a cluster; what a guard leaves out it counts with --kinds +" + f.kind}
}

// named says that there is no such finding among what is left.
func (n *answer) named(f *whyFlags) error {
	if f.finding == "" || len(n.findings) > 0 {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no finding %s", bulkhead.Quote(f.finding)),
		Hint: "bulkhead why --all lists those that there are; one that has ended is told for a day"}
}
