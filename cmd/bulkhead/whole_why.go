//go:build !quick

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/cmd/bulkhead/lookout"
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
	var makers guard.Makers
	if f.audit != "" {
		if makers, err = lookout.AuditLog(ctx, f.audit); err != nil {
			a.tell("bulkhead: %v; users are known from labels only\n  %s", err, bulkhead.HintOf(err))
		}
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
	n.findings = guard.Analyze(guard.Input{Now: c.At, Census: c, Budgets: budgets, Makers: makers})
	if learnLives(ctx, config, c, n.findings) {
		n.findings = guard.Analyze(guard.Input{Now: c.At, Census: c, Budgets: budgets, Makers: makers})
	}
	return n, nil
}

// Bounds of what is asked for what was found.
const (
	livesOfOne = 3 // families of Jobs, of one finding
	livesOfAll = 20
	livesTime  = 10 * time.Second
)

// learnLives asks how long Jobs stay after their end, of the largest families of what was
// found: that is not in their metadata, and without it nothing seems to remove them. A
// guard asks, too, in its own time. It notes what it learns in the census.
func learnLives(ctx context.Context, config *rest.Config, c bulkhead.Census, findings []bulkhead.Finding) (learned bool) {
	ctx, stop := context.WithTimeout(ctx, livesTime)
	defer stop()
	asked := map[bulkhead.Key]bool{}
	for i := range findings {
		for _, t := range jobsOf(&findings[i], c) {
			if asked[t.Key] || len(asked) >= livesOfAll {
				continue
			}
			asked[t.Key] = true
			// An error says that the Job is gone, or that one may not read it: then it is not known.
			if ttl, err := census.TTL(ctx, config, t.Key, t.Example.Name); err == nil && ttl > 0 {
				t.Keeps.TTL, t.Keeps.Nothing, learned = ttl, 0, true
			}
		}
	}
	return learned
}

// jobsOf are the largest families of Jobs where a finding with Jobs is.
func jobsOf(f *bulkhead.Finding, c bulkhead.Census) (families []*bulkhead.Tally) {
	const jobs = "jobs.batch"
	if !f.About(jobs) {
		return nil
	}
	for i := range c.Tallies {
		if t := &c.Tallies[i]; t.Kind == jobs && (f.Namespace == "" || t.Namespace == f.Namespace) && t.Keeps.Nothing > 0 && t.Example.Name != "" {
			families = append(families, t)
		}
	}
	slices.SortStableFunc(families, func(a, b *bulkhead.Tally) int { return cmp.Compare(b.Objects, a.Objects) })
	return families[:min(len(families), livesOfOne)]
}
