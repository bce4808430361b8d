//go:build !quick

package main

import (
	"context"
	"fmt"
	"time"

	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/census"
)

// lookTime bounds one look at a cluster. 100,000 objects take some seconds.
const lookTime = 10 * time.Minute

// whyLook looks at the cluster of a kubeconfig, once.
func (a *app) whyLook(ctx context.Context, s *serverAddress, f *whyFlags) (answer, error) {
	budgets, err := budgetsOf(f.budgetsFile, f.budgets)
	if err != nil {
		return answer{}, err
	}
	config, err := cluster.Config(s.clusterOptions())
	if err != nil {
		return answer{}, err
	}
	a.tell("looking at the cluster %s once; this may take a while", printable(config.Host, 100))
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	c, err := census.Once(ctx, config, census.Options{})
	if err != nil {
		return answer{}, fmt.Errorf("look at the cluster: %w", err)
	}
	n := answer{from: "bulkhead why", looked: c.At, census: c, once: true}
	n.findings = guard.Analyze(guard.Input{Now: c.At, Census: c, Budgets: budgets})
	return n, nil
}
