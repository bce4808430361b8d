//go:build !quick

package main

import (
	"context"

	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/guard/footprint"
)

// count asks the cluster that the command line names how much there is of something.
func (a *app) count(ctx context.Context, counts []footprint.Count) (map[footprint.Count]int64, error) {
	o := cluster.Options{Kubeconfig: a.places.kubeconfig, Context: a.places.kubeContext, UserAgent: "bulkhead/" + version}
	kinds := make([]cluster.Kind, len(counts))
	for i, c := range counts {
		kinds[i] = cluster.Kind{Resource: c.Kind, Namespace: c.Namespace}
	}
	found, denied, err := cluster.Count(ctx, o, kinds)
	if err != nil {
		return nil, err
	}
	for _, what := range denied {
		a.tell("bulkhead: not counted, what is there now is taken to be 0: %s", what)
	}
	now := make(map[footprint.Count]int64, len(counts))
	for i, c := range counts {
		if n, ok := found[kinds[i]]; ok {
			now[c] = n
		}
	}
	return now, nil
}
