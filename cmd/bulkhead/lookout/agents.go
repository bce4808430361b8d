package lookout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/agents"
)

// How agents are measured.
const (
	AgentsOff        = "off"
	AgentsKubelets   = "kubelets"
	AgentsPrometheus = "prometheus=" // and the address
)

// measuring is how long a look waits for what agents take: it goes on without.
const measuring = 20 * time.Second

// agentsOf is what the guard asks how agents stand; nil: nobody.
func agentsOf(o *Options, config *rest.Config) (func(context.Context) ([]guard.AgentSample, error), error) {
	var source agents.Source
	var err error
	how, now := o.Agents, o.Tell.Now
	address, prometheus := strings.CutPrefix(how, AgentsPrometheus)
	switch {
	case how == "" || how == AgentsOff:
		return nil, nil
	case how == AgentsKubelets:
		source, err = agents.Kubelets(config, agents.KubeletOptions{Now: now, Containers: o.Containers})
	case prometheus:
		source, err = agents.Prometheus(address, agents.PrometheusOptions{Now: now, Containers: o.Containers, TokenFile: o.AgentsTokenFile})
	default:
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("agents %s: not a way to measure them", bulkhead.Quote(how)),
			Hint: "off, kubelets, or prometheus=URL"}
	}
	if err != nil {
		return nil, err
	}
	watch := agents.Watch{Source: source}
	told := map[string]agents.Stage{}
	return func(ctx context.Context) ([]guard.AgentSample, error) {
		ctx, cancel := context.WithTimeout(ctx, measuring)
		defer cancel()
		worst, signs, err := watch.Look(ctx)
		stages, words := map[string]agents.Stage{}, map[string]string{}
		for _, sign := range signs { // the worst at the front
			if _, ok := stages[sign.Agent]; ok {
				continue
			}
			stages[sign.Agent], words[sign.Agent] = sign.Stage, sign.String()
			if told[sign.Agent] != sign.Stage {
				o.Log.Warn("an agent is about to die", "agent", sign.Agent, "namespace", sign.Namespace, "sign", sign.String())
			}
		}
		told = stages
		var out []guard.AgentSample
		for _, s := range worst {
			out = append(out, guard.AgentSample{Agent: s.Agent, Namespace: s.Namespace, Version: s.Version, Memory: s.WorkingSet,
				Limit: s.Limit, CPU: s.CPU, CPULimit: s.CPULimit, Sign: words[s.Agent]})
		}
		return out, err
	}, nil
}
