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
func agentsOf(how string, config *rest.Config, now func() time.Time) (func(context.Context) ([]guard.AgentSample, error), error) {
	var source agents.Source
	var err error
	address, prometheus := strings.CutPrefix(how, AgentsPrometheus)
	switch {
	case how == "" || how == AgentsOff:
		return nil, nil
	case how == AgentsKubelets:
		source, err = agents.Kubelets(config, agents.KubeletOptions{Now: now})
	case prometheus:
		source, err = agents.Prometheus(address, agents.PrometheusOptions{})
	default:
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("agents %s: not a way to measure them", bulkhead.Quote(how)),
			Hint: "off, kubelets, or prometheus=URL"}
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]guard.AgentSample, error) {
		ctx, cancel := context.WithTimeout(ctx, measuring)
		defer cancel()
		samples, err := source.Read(ctx)
		var out []guard.AgentSample
		for _, s := range agents.Fullest(samples) {
			out = append(out, guard.AgentSample{Agent: s.Agent, Namespace: s.Namespace, Version: s.Version, Memory: s.WorkingSet, Limit: s.Limit})
		}
		return out, err
	}, nil
}
