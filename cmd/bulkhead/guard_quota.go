package main

import (
	"github.com/spf13/cobra"
)

// guardQuotaFlags is the command line of guard quota.
type guardQuotaFlags struct {
	guardFlags

	kinds             []string
	finding           string
	headroom, lasting string
	yes, wait, remove bool
	format            string
}

func (a *app) guardQuotaCommand() *cobra.Command {
	f := &guardQuotaFlags{}
	cmd := &cobra.Command{
		Use:   "quota [-n NAMESPACE] --kinds KIND,…|--finding ID|--remove [flags]",
		Short: "Stop a growth at the API itself, for a while",
		Long: `Stop a growth at the API itself, for a while: a ResourceQuota named bulkhead-guard
lets no more objects of these kinds be created in a namespace than are there now,
and some headroom. What is there stays and can be changed and deleted. Without
--yes it only says what that would be: the counts, who creates such objects now and
would be refused, what else would be, and the quotas that limit the same already.

Pods and replica sets are limited only if they are named: deployments need more of
them to roll.

It is removed by itself after its time, by a guard that runs in the cluster
(bulkhead guard, or bulkhead serve), or by this command with --wait, which stays
until then and removes it at once when it is interrupted.

-o yaml is the quota, for kubectl apply. -o json is an object: namespace, until,
headroom, kinds (kind, count, limit, makers {client, owner, lastHour, lastDay,
newest, at}, refuses), others (name, kind, used, hard), replaces, lifts (kinds that
the one that is there limits, and this one does not), notes, manifest, applied.

Exit codes: 0 it was written, removed, or only shown; 2 it cannot be; 3 interrupted (with
--wait the quota is removed then); 125 the API server does not answer.`,
		Example: `  bulkhead guard quota -n mw-script --kinds jobs.batch,networkpolicies,configmaps
  bulkhead guard quota -n mw-script --kinds jobs.batch,networkpolicies --headroom 20 --for 2h --yes
  bulkhead guard quota -n mw-script --remove`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			return a.guardQuota(cmd.Context(), f)
		},
	}
	f.defineCluster(cmd)
	fl := cmd.Flags()
	fl.StringSliceVar(&f.kinds, "kinds", nil, "`kinds` to limit, as kubectl takes them; repeat, or separate by commas")
	fl.StringVar(&f.finding, "finding", "", "`id` of a finding of bulkhead why: its kinds, but for pods and replica sets, and its namespace")
	fl.StringVar(&f.headroom, "headroom", "5%", "how many more than now there may be: a share, or a `number`")
	fl.StringVar(&f.lasting, "for", "2h", "`duration` for which it stays: 30m, 1d; at most 7d")
	fl.BoolVar(&f.yes, "yes", false, "write it")
	fl.BoolVar(&f.wait, "wait", false, "with --yes: stay until its time is over, and remove it then, or at once when interrupted")
	fl.BoolVar(&f.remove, "remove", false, "remove it now")
	fl.StringVarP(&f.format, "output", "o", "text", "`format`: text, yaml or json")
	completeFlag(cmd, "kinds", "jobs.batch", "networkpolicies.networking.k8s.io", "configmaps", "secrets", "services", "persistentvolumeclaims")
	completeFlag(cmd, "output", "text", "yaml", "json")
	completeNoFiles(cmd, "finding", "headroom", "for")
	return cmd
}

// check refuses flags that make no sense together.
func (f *guardQuotaFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.format != "text" && f.format != "yaml" && f.format != "json":
		return usage("text, yaml or json", "-o %q is not a format", f.format)
	case f.wait && !f.yes:
		return usage("without --yes nothing is written", "--wait goes with --yes")
	case f.finding != "" && given("kinds"):
		return usage("give one of them", "--finding and --kinds exclude each other")
	}
	if !f.remove {
		return nil
	}
	for _, name := range []string{"kinds", "finding", "headroom", "for", "yes", "wait", "output"} {
		if given(name) {
			return usage("it removes the quota, at once", "--%s is of no use with --remove", name)
		}
	}
	return nil
}
