package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/plan"
)

// watchFlags say what a guard counts, what is too much, and who is told. The guard
// alone and that of a server have them, the latter with a prefix.
type watchFlags struct {
	kinds, namespaces    []string
	metricsOnly, events  bool
	budgetFile           string
	budgets              []string
	agents, every        string
	agentsToken          string
	containers, facts    []string
	audit                []string
	speed                float64
	webhook, webhookFile string
	tokenFile, ca        string
}

// define gives a command the flags.
func (f *watchFlags) define(cmd *cobra.Command, prefix string) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.kinds, prefix+"kinds", nil, "`KIND` to leave out (-events) or to count, too (+foos.example.org); -* leaves out what is not on; repeat, or separate by commas")
	fl.BoolVar(&f.metricsOnly, prefix+"metrics-only", false, "watch nothing: read the API server's own counts, which know no namespace and no family")
	fl.StringVar(&f.budgetFile, prefix+"budgets", "", "YAML `file` with budgets that come before the defaults")
	fl.StringArrayVar(&f.budgets, prefix+"budget", nil, "`KIND=LIMIT`, for example networkpolicies=1000 or configmaps@mw-script=500; repeat")
	fl.StringVar(&f.agents, prefix+"agents", "off", "how memory and CPU of agents are measured: `prometheus=URL`, kubelets or off")
	fl.StringVar(&f.agentsToken, prefix+"agents-token-file", "", "`file` with a bearer token for Prometheus")
	fl.StringArrayVar(&f.containers, prefix+"agent", nil, "`name` of a container to measure, in place of the known agents; repeat")
	fl.StringArrayVar(&f.facts, prefix+"fact", nil, "`key` of a label or annotation that says who or what for, beside username, script, comment, …; repeat")
	fl.StringArrayVar(&f.audit, prefix+"audit-log", nil, "`file` that an API server writes its audit log to: says which users make objects; repeat")
	fl.StringVar(&f.every, prefix+"every", "1m", "`duration` from one look at what was counted to the next")
	fl.Float64Var(&f.speed, prefix+"speed", 1, "to try it out: time runs so many times as fast for the guard")
	fl.BoolVar(&f.events, prefix+"events", false, "make an Event of each finding, in the namespace where it grows")
	fl.StringVar(&f.webhook, prefix+"webhook", "", "`URL` to post findings to, as Alertmanager does; for one that is a secret there is --"+prefix+"webhook-file")
	fl.StringVar(&f.webhookFile, prefix+"webhook-file", "", "`file` with that URL, for one that is a secret, as those of chats are: everybody can list arguments")
	fl.StringVar(&f.tokenFile, prefix+"webhook-token-file", "", "`file` with a token for the webhook, or with a header NAME: VALUE")
	fl.StringVar(&f.ca, prefix+"webhook-ca", "", "`file` with the certificates that may have signed the webhook's (default: the system's)")
	completeNoFiles(cmd, prefix+"kinds", prefix+"agent", prefix+"fact", prefix+"budget", prefix+"every", prefix+"webhook")
	completeFlag(cmd, prefix+"agents", "off", "kubelets", "prometheus=")
	// They fail only for flags that the command has not got.
	_ = fl.MarkHidden(prefix + "speed")
	_ = cmd.MarkFlagFilename(prefix+"budgets", "yaml", "yml", "json")
}

// check refuses flags that go with others, and names the kinds as the census does.
func (f *watchFlags) check(prefix string) (every time.Duration, err error) {
	if f.kinds, err = switchesOf(f.kinds); err != nil {
		return 0, fmt.Errorf("--%skinds: %w", prefix, err)
	}
	switch {
	case f.webhook != "" && f.webhookFile != "":
		return 0, usage("give one of them; the file, if the URL is a secret", "--%swebhook and --%[1]swebhook-file exclude each other", prefix)
	case f.webhook == "" && f.webhookFile == "" && (f.tokenFile != "" || f.ca != ""):
		return 0, usage("give one of these, too", "--%swebhook-token-file and --%[1]swebhook-ca are of use with --%[1]swebhook or --%[1]swebhook-file only", prefix)
	}
	if off := f.agents == "" || f.agents == "off"; off && (len(f.containers) > 0 || f.agentsToken != "") {
		return 0, usage("give that, too", "--%sagent and --%[1]sagents-token-file are of use with --%[1]sagents only", prefix)
	}
	if prefix != "" && slices.Contains(f.audit, "-") {
		return 0, usage("give a file, or run `bulkhead guard --audit-log -` beside the server", "--%saudit-log - is standard input, which a server does not read", prefix)
	}
	if err := f.checkCounts(prefix); err != nil {
		return 0, err
	}
	if every, err = plan.ParseDuration(f.every); err != nil {
		return 0, fmt.Errorf("--%severy: %w", prefix, err)
	}
	const least, most = time.Second, time.Hour
	if every < least || every > most {
		return 0, usage("growth is a matter of minutes", "--%severy %s is not between %s and %s", prefix, f.every, least, most)
	}
	if !(f.speed >= 1 && f.speed <= 1000) { // NaN, too
		return 0, usage("", "--%sspeed %v is not between 1 and 1000", prefix, f.speed)
	}
	return every, nil
}

// warn tells of secrets for the webhook that everybody can read.
func (f *watchFlags) warn(a *app) {
	a.warnOfSecret("webhook's URL", f.webhookFile)
	a.warnOfSecret("webhook's token", f.tokenFile)
}

// checkCounts refuses what the API server's own counts cannot say, and a guard that counts
// nothing.
func (f *watchFlags) checkCounts(prefix string) error {
	counts := !slices.Contains(f.kinds, "-*")
	for _, kind := range f.kinds {
		counts = counts || !strings.HasPrefix(kind, "-")
	}
	switch {
	case !counts:
		return usage("add what it is to watch: --"+prefix+"kinds -*,+networkpolicies", "--%skinds leaves nothing to watch", prefix)
	case !f.metricsOnly:
		return nil
	case len(f.namespaces) > 0:
		return usage("leave one of them out", "--%smetrics-only and --namespace exclude each other: the API server's own counts know no namespace", prefix)
	}
	own, err := ownBudgets(f.budgetFile, f.budgets)
	if err != nil {
		return err
	}
	for _, b := range own {
		switch {
		case b.Namespace != "":
			return usage("leave one of them out", "budget %s cannot be kept with --%smetrics-only: the API server's own counts know no namespace", bulkhead.Quote(b.Name), prefix)
		case b.Unit == budget.Rules:
			return usage("leave one of them out", "budget %s cannot be kept with --%smetrics-only: the API server does not count rules", bulkhead.Quote(b.Name), prefix)
		}
	}
	return nil
}

// guardWatchFlags is the command line of guard.
type guardWatchFlags struct {
	watchFlags

	kubeconfig, listen string
	out                outputFlag
}

func (a *app) guardCmd() *cobra.Command {
	f := &guardWatchFlags{}
	cmd := &cobra.Command{
		Use:        "guard",
		SuggestFor: []string{"watch", "monitor", "census"},
		Short:      "Watch a cluster for objects that multiply, and say who, why and when it will hurt",
		Long: `Watch a cluster for objects that multiply, whoever makes them: say what, since when,
made by which client, for whom, and when which budget is reached. It reads metadata
only, changes nothing, and needs no server: where kubectl works, it works.

It stays in the foreground and writes findings to standard output when they open,
change their severity or end, as bulkhead why shows them; with -o json one object a
line: event (opened, still open, changed, ended), at, finding. Standard error says what is
watched, and which rights are missing; bulkhead guard rbac prints those that a guard
needs. What was counted is kept in the state folder, 30 days back, so that a restart
forgets nothing; bulkhead why reads it there. Two guards of one cluster, each with a
state folder of its own, are told as one.

--audit-log reads what users the API server has seen making the objects, from its audit
log: the file that kube-apiserver --audit-log-path names, on the machine where it
runs, or - for standard input, where it is elsewhere. A policy of level Metadata is
enough. Only who made what is kept, in memory; no line of it is logged.

--listen serves /metrics, with alert rules from bulkhead guard rules, and /healthz.
As part of a server, bulkhead serve --guard, it also holds back the server's runs
while something multiplies.

A webhook's URL that is a secret, as those of chats are, goes into a file that only you
can read, and --webhook-file.

Exit codes: 0 it was ended by a signal; 2 the command line, the kubeconfig or another
guard of the state folder does not allow it; 125 it cannot go on.`,
		Example: `  bulkhead guard
  bulkhead guard --kube-context prod --kinds -secrets --listen 127.0.0.1:9095
  bulkhead guard --metrics-only --budget networkpolicies=1000 -o json
  ssh cp1 sudo tail -F /var/log/kubernetes/audit.log | bulkhead guard --audit-log -
  bulkhead guard --events --webhook https://alerts.example.org/hook --webhook-token-file hook.token
  bulkhead guard --webhook-file ~/.config/chat-hook.url`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			every, err := f.check("")
			if err != nil {
				return err
			}
			f.warn(a)
			return a.guardWatch(cmd.Context(), f, every)
		},
	}
	f.define(cmd, "")
	fl := cmd.Flags()
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default $KUBECONFIG, else ~/.kube/config, else the pod's own)")
	fl.StringArrayVarP(&f.namespaces, "namespace", "n", nil, "look at this `namespace` only, where all is not permitted; repeat")
	fl.StringVar(&f.listen, "listen", "", "`address` for /metrics and /healthz, for example 127.0.0.1:9095 (default: none)")
	outputVar(cmd, &f.out, "text or json")
	completeNoFiles(cmd, "namespace", "listen")
	cmd.AddCommand(a.guardCleanCommand(), a.guardQuotaCommand(), a.guardRulesCommand(), a.guardRBACCommand())
	return cmd
}

func (a *app) guardRulesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "Print the alert rules for what a guard measures",
		Long: `Print the alert rules for what a guard measures, with a runbook each: a rule file of
Prometheus. The chart has the same as a PrometheusRule (guard.prometheusRule).`,
		Example: "  bulkhead guard rules >/etc/prometheus/rules/bulkhead.yaml",
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return a.guardRules() },
	}
}

// guardRBACFlags is the command line of guard rbac.
type guardRBACFlags struct {
	kinds          []string
	events, agents bool
	name           string
}

func (a *app) guardRBACCommand() *cobra.Command {
	f := &guardRBACFlags{}
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "Print the ClusterRole that a guard needs",
		Long: `Print the ClusterRole that a guard needs: to list and watch the kinds that it
counts, and to read the API server's metrics.

It asks for metadata only, but RBAC cannot say so: who may list Secrets may read
them. So Secrets are not among the kinds here unless you add them, and custom
resources, whose groups nobody can know before, have to be added by name, too.`,
		Example: `  bulkhead guard rbac | kubectl apply -f -
  bulkhead guard rbac --kinds +secrets --kinds +workflows.argoproj.io --events`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return a.guardRBAC(f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.kinds, "kinds", nil, "`KIND` to leave out (-events) or to count, too (+foos.example.org); repeat, or separate by commas")
	fl.BoolVar(&f.events, "events", false, "the right to make Events, too")
	fl.BoolVar(&f.agents, "agents", false, "the right to measure agents by way of the kubelets, too")
	fl.StringVar(&f.name, "name", "bulkhead-guard", "`name` of the ClusterRole")
	completeNoFiles(cmd, "kinds", "name")
	return cmd
}

// switchesOf are the switches of kinds, which people name as kubectl lets them. One that
// nobody knows is an error: who means to keep a guard off Secrets must not think that
// it is.
func switchesOf(given []string) ([]string, error) {
	var all []string
	for _, text := range given {
		for one := range strings.SplitSeq(text, ",") {
			sign, name := "", one
			if strings.HasPrefix(one, "-") || strings.HasPrefix(one, "+") {
				sign, name = one[:1], one[1:]
			}
			resource, known := budget.Resource(name)
			switch {
			case strings.Contains(name, ".") && !strings.ContainsAny(name, "+/ "):
				resource = strings.ToLower(name)
			case !known && (name != "*" || sign == ""):
				hint := `-events leaves a kind out, +foos.example.org counts one, too: names as "kubectl api-resources -o name" has them`
				if near := budget.Near(name); near != "" {
					hint = "did you mean " + sign + near + "? " + hint
				}
				return nil, usage(hint, "there is no kind %s", bulkhead.Quote(name))
			}
			all = append(all, sign+resource)
		}
	}
	return all, nil
}
