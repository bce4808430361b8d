package main

import (
	"github.com/spf13/cobra"
)

// guardFlags say which cluster a command is about, and where in it.
type guardFlags struct {
	kubeconfig, namespace string
	all                   bool
}

func (f *guardFlags) defineCluster(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default $KUBECONFIG, else ~/.kube/config)")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "`namespace` (default that of the kubeconfig)")
	completeNoFiles(cmd, "namespace")
}

// guardCleanFlags is the command line of guard clean.
type guardCleanFlags struct {
	guardFlags

	family, release, finding, kind string
	older, rate                    string
	alike, finished, yes           bool
	undo, restore                  string
	out                            outputFlag
}

// cleanKinds are the kinds of which guard clean removes single objects. The quick
// program has them, too, for its completion; a test compares them.
var cleanKinds = []string{"networkpolicies.networking.k8s.io", "configmaps", "secrets"}

func (a *app) guardCleanCommand() *cobra.Command {
	f := &guardCleanFlags{}
	cmd := &cobra.Command{
		Use:   "clean --family PATTERN|--release PATTERN|--finding ID [flags]",
		Short: "Remove what one family of objects or Helm releases has left over",
		Long: `Remove what one family of objects or of Helm releases has left over. Without --yes
it only lists what that would be, and what stays and why.

Left over are: Helm releases (--release) whose Jobs have finished or are gone, with
all their objects and Helm's records; of other objects (--family) NetworkPolicies
that select no pod and no pod template, and ConfigMaps and Secrets that nothing in
their namespace names, in any field. A pattern is a name with * for what varies, as
bulkhead why writes it, or the name of one; nothing removes all that is unused. Of
names that fit a pattern those are left out that look like words, not made up: a note
names them, and --alike takes them in.

What is used, selected, owned, younger than --older, has a finalizer or the
annotation bulkhead.dev/keep stays, and so does all of a release with anything in
it that is. Everything is looked at again immediately before it goes, and what
somebody begins to use just then is put back. What only another namespace, or a
program by way of the API, refers to is not seen: look at the list.

All that is deleted is in the undo file first, Secrets in the clear, readable by
you only. Jobs come back from it suspended, so that no script runs again.

-o json is an object: leftovers and spared (kind, namespace, name, release, uid,
created, why), releases, notes, undo, and after --yes done (deleted, gone, spared,
putBack, left, stopped).

Exit codes: 0 all was done, or nothing was to do; 1 it stopped, or the undo file has no
end; 2 it could not begin; 3 interrupted; 125 the API server does not answer.`,
		Example: `  bulkhead guard clean --release '*' -n mw-script
  bulkhead guard clean --release '*' -n mw-script --older 1d --rate 2/s --yes --undo undo.json
  bulkhead guard clean --family 'mediawiki-*-mail-config' --kind configmaps
  bulkhead guard clean --restore undo.json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cleanOrRestore(cmd, f) },
	}
	f.defineCluster(cmd)
	fl := cmd.Flags()
	fl.BoolVarP(&f.all, "all-namespaces", "A", false, "in all namespaces")
	fl.StringVar(&f.family, "family", "", "`pattern` of objects, for example 'mediawiki-*-mail-config'")
	fl.StringVar(&f.release, "release", "", "`pattern` of Helm releases; 'mediawiki-*', or '*' for names that are random")
	fl.StringVar(&f.finding, "finding", "", "`id` of a finding of bulkhead why: its families")
	fl.StringVar(&f.kind, "kind", "", "with --family: only this `kind`")
	fl.BoolVar(&f.alike, "alike", false, "what fits the pattern but is of another family, as a random name without digits may be, is meant, too")
	fl.StringVar(&f.older, "older", "1h", "grace, a `duration`: what is younger, or ended less than that ago, stays: 30m, 1d")
	fl.BoolVar(&f.finished, "finished", false, "what only finished Jobs and pods name or are is left over, too")
	fl.StringVar(&f.rate, "rate", "5/s", "deletes per time, at most: `5/s`, 60/m; a bare number is per second")
	fl.BoolVar(&f.yes, "yes", false, "delete it")
	fl.StringVar(&f.undo, "undo", "", "with --yes: a new `file` for what is deleted (default bulkhead-undo-TIME.json here)")
	fl.StringVar(&f.restore, "restore", "", "put back what this undo `file` has, and do nothing else")
	outputVar(cmd, &f.out, "text or json")
	completeFlag(cmd, "kind", cleanKinds...)
	completeNoFiles(cmd, "family", "release", "finding", "older", "rate")
	_ = cmd.MarkFlagFilename("restore", "json", "yaml") // it fails only for a flag that the command has not got
	return cmd
}

func (a *app) cleanOrRestore(cmd *cobra.Command, f *guardCleanFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	if f.restore != "" {
		return a.guardRestore(cmd.Context(), f)
	}
	return a.guardClean(cmd.Context(), f)
}

// check refuses flags that exclude each other.
func (f *guardCleanFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.all && given("namespace"):
		return usage("give one of them", "--namespace and --all-namespaces exclude each other")
	case given("undo") && !f.yes:
		return usage("without --yes nothing is deleted", "--undo goes with --yes")
	}
	if f.restore == "" {
		return nil
	}
	for _, name := range []string{"family", "release", "finding", "kind", "alike", "older", "finished", "yes", "undo", "namespace", "all-namespaces"} {
		if given(name) {
			return usage("the undo file says what is put back, and where", "--%s is of no use with --restore", name)
		}
	}
	return nil
}
