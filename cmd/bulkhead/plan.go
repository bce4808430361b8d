package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/footprint"
	"bulkhead.dev/bulkhead/plan"
)

// planFlags is the command line of plan.
type planFlags struct {
	every, rate, keep, lasts string
	times, nodes             int64
	budgets                  []string
	budgetsFile, now         string
	namespace                string
	noRelease, live          bool
	output                   outputFlag
}

func (a *app) planCmd() *cobra.Command {
	f := &planFlags{}
	cmd := &cobra.Command{
		Use:        "plan [flags] FILE…",
		SuggestFor: []string{"estimate", "footprint", "forecast"},
		Short:      "Say what manifests would leave behind in a cluster, before they are applied",
		Long: `Say what manifests would leave behind in a cluster, before they are applied.

It reads what kubectl apply would: YAML or JSON; - is standard input. It counts
what one invocation makes, with what follows from it (the pods of a Job, the
endpoint slices of a Service, events, Helm's record of the release), the rules of
network policies, and bytes; and how many of each there are at the peak if that
is done so often, and kept so long: a Job until its ttlSecondsAfterFinished, an
event for an hour, all else until somebody removes it (--keep after it was made;
without --keep nobody does). Each invocation is taken to have names of its own.

No cluster is asked, unless you say --live or --kube-context: then what is there
now is counted, and counts against the budgets: objects by the API server (a request
for each kind that answers with a number and one name), rules in the network policies,
page by page, bytes as its metrics have the size of its database. What you may not
see is not known, and then neither is whether its budget is crossed.

Budgets are the defaults, each with its source, those of --budgets and those of
--budget: KIND[.UNIT][@NAMESPACE]=LIMIT, where UNIT is objects, rules or bytes,
and NAMESPACE may be each. A budgets file has "budgets:" and below it lines such
as "networkpolicies: 1000".

Exit codes: 0 no budget is crossed; 1 one is, or with --live that is not known of one;
2 something cannot be read; 125 the cluster does not answer.

-o json is an object: documents, helm, times, every_seconds, keep_seconds,
last_start_seconds, rows (kind, unit, by, each, kept_seconds, now, peak, budget,
crossed_at, crossed_after_seconds), watchers (kind, on_each_node, central,
copies), agents (name, each, bytes, nodes), notes, crossed and unknown (names of budgets), and with
--now changes (kind, unit, was_each, each, was_kept_seconds, kept_seconds, factor).
What is null does not end, or is not known.`,
		Example: `  helm template x ./chart | bulkhead plan --times 1800 --every 16s --keep 7d -
  bulkhead plan --rate 224/h --budget networkpolicies=1000 --budget configmaps@mw-script=500 job.yaml
  helm template x ./chart | bulkhead plan --rate 224/h --keep 30d --now released.yaml -
  bulkhead plan --times 200 --kube-context production job.yaml`,
		Args: atLeast("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.plan(cmd, f, args) },
	}
	fl := cmd.Flags()
	fl.Int64Var(&f.times, "times", 0, "invocations `N` (default: one; with --every or --rate without end)")
	fl.StringVar(&f.every, "every", "", "`time` from one start to the next: 16s, 5m (default: all at once)")
	fl.StringVar(&f.rate, "rate", "", "starts per time instead: `224/h`, 30/m; a bare number is per second")
	fl.StringVar(&f.keep, "keep", "", "`time` after which who made it all removes it, as helm uninstall does: 7d (default: never)")
	fl.StringVar(&f.lasts, "lasts", "0", "`time` that a script runs; what is kept after its end is kept so much longer")
	fl.Int64Var(&f.nodes, "nodes", 0, "`N` nodes in the cluster, each of which holds some of it (with --live: as there are)")
	fl.StringArrayVar(&f.budgets, "budget", nil, "`KIND=LIMIT`: networkpolicies=1000, networkpolicies.rules=100k, pods@each=3000, bytes=2Gi; repeat")
	fl.StringVar(&f.budgetsFile, "budgets", "", "YAML `file` of budgets")
	fl.StringVar(&f.now, "now", "", "`file` with the manifests as they are used now, to compare")
	fl.StringVarP(&f.namespace, "namespace", "n", "", "`namespace` of objects that name none (default default)")
	fl.BoolVar(&f.noRelease, "no-release", false, "something else than Helm applies what Helm rendered, and keeps no record of the release")
	fl.BoolVar(&f.live, "live", false, "count what is in the cluster of --kube-context, or of the kubeconfig's current context, too")
	outputVar(cmd, &f.output, "text or json")
	completeNoFiles(cmd, "times", "every", "rate", "keep", "lasts", "nodes", "budget", "namespace")
	for _, name := range []string{"budgets", "now"} {
		_ = cmd.MarkFlagFilename(name, "yaml", "yml", "json") // it fails only for a flag that the command has not got
	}
	return cmd
}

func (a *app) plan(cmd *cobra.Command, f *planFlags, files []string) error {
	schedule, err := f.schedule(cmd)
	if err != nil {
		return err
	}
	if f.rate != "" && !strings.Contains(f.rate, "/") { // as elsewhere, and here an hour is as likely
		a.tell("--rate %s is read as %[1]s/s; per hour it is --rate %[1]s/h", f.rate)
	}
	against := footprint.Against{Nodes: f.nodes}
	if against.Budgets, err = budgetsOf(f.budgetsFile, f.budgets); err != nil {
		return err
	}
	if f.live = f.live || a.places.given("kube-context"); f.live {
		// Only the whole program can ask a cluster; nothing was read so far.
		if err := becomeWhole(); err != nil {
			return err
		}
		if against.Nodes, err = a.nodes(cmd.Context(), f.nodes); err != nil {
			return err
		}
	}
	if slices.Contains(files, "-") && f.now == "-" {
		return usage("save one of them to a file", "standard input (-) cannot be both what is planned and what is used now")
	}
	o := footprint.Options{Namespace: f.namespace, Nodes: against.Nodes, NoRelease: f.noRelease}
	planned, err := a.readManifests(files, o)
	if err != nil {
		return err
	}
	if f.live {
		against.Live = true
		if against.Now, err = a.count(cmd.Context(), planned.Counts(against.Budgets)); err != nil {
			return err
		}
	}
	p := planned.Plan(schedule, against)
	if f.now != "" {
		was, err := a.readManifests([]string{f.now}, o)
		if err != nil {
			return err
		}
		p.Changes = planned.Compare(was, schedule)
	}
	return a.showPlan(&p, f.output)
}

// showPlan prints a plan; its exit code says whether it fits.
func (a *app) showPlan(p *footprint.Plan, out outputFlag) error {
	if out == "json" {
		if err := writeJSON(a.stdout, p); err != nil {
			return err
		}
	} else if err := p.Text(a.stdout); err != nil {
		return err
	}
	if len(p.Crossed) > 0 || len(p.Unknown) > 0 {
		return exitError(exitFailed)
	}
	return nil
}

// schedule reads how often, and for how long.
func (f *planFlags) schedule(cmd *cobra.Command) (s footprint.Schedule, err error) {
	s.Times = f.times
	given := cmd.Flags().Changed
	switch {
	case given("times") && f.times < 1:
		return s, usage("", "--times %d is less than 1", f.times)
	case f.nodes < 0:
		return s, usage("", "--nodes %d is less than 0", f.nodes)
	case given("every") && given("rate"):
		return s, usage("each says how often; give one of them", "--every and --rate exclude each other")
	}
	for _, d := range []struct {
		flag, value string
		to          *time.Duration
		zero        bool // is a value
	}{{"every", f.every, &s.Rate.Per, false}, {"keep", f.keep, &s.Keep, false}, {"lasts", f.lasts, &s.Lasts, true}} {
		if !given(d.flag) {
			continue
		}
		if *d.to, err = plan.ParseDuration(d.value); err != nil {
			return s, fmt.Errorf("--%s: %w", d.flag, err)
		}
		if *d.to == 0 && !d.zero {
			return s, usage("leave it out, or give a longer time", "--%s is no time", d.flag)
		}
	}
	if s.Rate.Per > 0 {
		s.Rate.N = 1
	}
	if given("rate") {
		r, err := bulkhead.ParseRate(f.rate)
		if err != nil {
			return s, err
		}
		s.Rate = wholeRate(r)
	}
	return s, nil
}

// wholeRate is a rate in whole numbers, so that what comes of it is exact.
func wholeRate(r bulkhead.Rate) footprint.Rate {
	const parts = 1_000_000 // an hour of nanoseconds times this is an int64
	if r.Count == math.Trunc(r.Count) && r.Count < math.MaxInt64/2 {
		return footprint.Rate{N: int64(r.Count), Per: r.Per}
	}
	return footprint.Rate{N: max(1, int64(math.Min(r.Count*parts, math.MaxInt64/2))), Per: r.Per * parts}
}

// readManifests reads files as if they were one; - is standard input.
func (a *app) readManifests(files []string, o footprint.Options) (*footprint.Footprint, error) {
	var all *footprint.Footprint
	for _, name := range files {
		found, err := a.readManifest(name, o)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = found
			continue
		}
		all.Add(found)
	}
	if all.Objects == 0 {
		return nil, usage("manifests are YAML or JSON, as kubectl apply takes them", "there is no object in %s", named(files[0]))
	}
	return all, nil
}

func (a *app) readManifest(name string, o footprint.Options) (*footprint.Footprint, error) {
	o.Name = named(name)
	if name == "-" {
		return footprint.Read(a.stdin, o)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usage("name a file with manifests, or - for standard input", "%s: %v", bulkhead.Quote(name), errors.Unwrap(err))
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, usage(fmt.Sprintf("name its files: %s", shellLine([]string{name})+"/*.yaml"), "%s is a folder", bulkhead.Quote(name))
	}
	return footprint.Read(file, o)
}

// named is what a file is called in messages.
func named(name string) string {
	if name == "-" {
		return "standard input"
	}
	return printable(name, 0)
}

// nodes is how many nodes there are, if nobody said so.
func (a *app) nodes(ctx context.Context, said int64) (int64, error) {
	if said > 0 {
		return said, nil
	}
	nodes := footprint.Count{Kind: "nodes", Unit: budget.Objects}
	found, err := a.count(ctx, []footprint.Count{nodes})
	return found[nodes], err
}
