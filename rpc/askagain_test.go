package rpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead.dev/bulkhead"
)

// oneRun is a Store as runFor needs it.
type oneRun struct{ Store }

func (oneRun) Run(context.Context, bulkhead.RunID) (*bulkhead.Run, error) {
	return &bulkhead.Run{ID: 1, Spec: bulkhead.Spec{Class: "a"}}, nil
}

// until is an Authorizer that allows everything until it cannot be asked any more.
type until time.Time

func (u until) Authorize(context.Context, Caller, Verb, string) error {
	if time.Now().Before(time.Time(u)) {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the cluster does not say"}
}

func TestAStreamEndsWhenItIsNotKnownAnyMoreThatItsReaderMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &Server{opts: Options{Store: oneRun{}, Authorizer: until(began.Add(16 * time.Minute))}}
		ctx, end, _, err := s.runFor(t.Context(), 1, VerbGet)
		defer end()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(24 * time.Hour):
		}
		if took := time.Since(began); took > 18*time.Minute || bulkhead.CodeOf(context.Cause(ctx)) != bulkhead.CodeUnavailable {
			t.Errorf("it goes on for %v: %v", took, context.Cause(ctx))
		}
	})
}
