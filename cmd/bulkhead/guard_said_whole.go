//go:build !quick

package main

import (
	"context"
	"fmt"
	"time"

	"bulkhead.dev/bulkhead"
)

// findingByID is the finding that `bulkhead why` shows under this id, of whoever it
// asks.
func (a *app) findingByID(ctx context.Context, f *guardFlags, id string) (bulkhead.Finding, error) {
	if f.kubeconfig != "" {
		a.places.kubeconfig = f.kubeconfig
	}
	said, err := a.askWhy(ctx, &whyFlags{all: true})
	if err != nil {
		return bulkhead.Finding{}, err
	}
	for _, finding := range said.findings {
		if finding.ID == id {
			return finding, nil
		}
	}
	return bulkhead.Finding{}, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no finding %s", bulkhead.Quote(id)),
		Hint: "`bulkhead why -o json` has the ids; a family can be given by itself, too"}
}

// brakesAsked is how long an answer about brakes is good for.
const brakesAsked = 5 * time.Second

// guardVerdict is what the brakes on everything say of a clean-up. Those on a part of
// the work do not count: to hold back who makes objects and then to remove them is
// what both are for. Where brakes cannot be asked for there is none; that is said once.
func (a *app) guardVerdict(ctx context.Context) func() bulkhead.Verdict {
	var last bulkhead.Verdict
	var asked time.Time
	var told bool
	return func() bulkhead.Verdict {
		if time.Since(asked) < brakesAsked {
			return last
		}
		verdict, err := a.brakesOnEverything(ctx)
		if err != nil && !told && ctx.Err() == nil {
			a.tell("bulkhead: it is not known whether a brake is on: %v", err)
			told = true
		}
		last, asked = verdict, time.Now()
		return last
	}
}

func (a *app) brakesOnEverything(ctx context.Context) (bulkhead.Verdict, error) {
	h, err := a.lookBraker(ctx)
	if err != nil {
		return bulkhead.Verdict{}, err
	}
	defer h.close()
	list, err := h.listBrakes(ctx)
	if err != nil {
		return bulkhead.Verdict{}, err
	}
	var rulings []bulkhead.Ruling
	for _, st := range list.Brakes {
		if st.Scope.Kind == bulkhead.ScopeAll {
			rulings = append(rulings, st.Ruling())
		}
	}
	verdict, _ := bulkhead.Strongest(rulings)
	return verdict, nil
}
