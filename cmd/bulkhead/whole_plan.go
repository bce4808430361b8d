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
	found, notKnown, err := cluster.Count(ctx, o, counts)
	if err != nil {
		return nil, err
	}
	for _, what := range notKnown {
		a.tell("bulkhead: not known is how much there is now of %s", what)
	}
	return found, nil
}
