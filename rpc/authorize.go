package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
)

// Verb is what a caller does with the runs of a class, in the words of Kubernetes'
// RBAC, where the resource is runs of the group bulkhead.dev.
type Verb string

// The verbs, and what they are for.
const (
	VerbCreate Verb = "create" // submit a run, and send its items and files
	VerbGet    Verb = "get"    // see a run, its items and its output
	VerbList   Verb = "list"   // see which runs there are
	VerbUpdate Verb = "update" // pause, resume, cancel, limit, retry
	VerbDelete Verb = "delete" // remove a run that is over, with its output
	VerbAttach Verb = "attach" // type into a run
)

// Authorizer says whether a caller may do something with the runs of a class. An
// error is a refusal (CodeDenied) that names what is missing and who can give it, or
// says why it cannot be known. If what was allowed before is to count while it cannot,
// the Authorizer says so, and for how long.
type Authorizer interface {
	Authorize(ctx context.Context, who Caller, verb Verb, class string) error
}

// Resource is what a right is about, beside runs.
type Resource string

// The resources, of the group bulkhead.dev.
const (
	ResourceBrakes   Resource = "brakes"
	ResourceFindings Resource = "findings" // of the guard, and its census
)

// ResourceAuthorizer is an Authorizer that says the same of other resources than runs,
// in a namespace; "" is the server's own. With one that does not, nobody may.
type ResourceAuthorizer interface {
	AuthorizeIn(ctx context.Context, who Caller, verb Verb, on Resource, namespace string) error
}

// askAgain is how often a stream is asked again whether its reader may have it.
const askAgain = time.Minute

// may is the error for a caller who may not do something with the runs of a class.
// Without an Authorizer every caller may do everything: who has a token is trusted.
func (s *Server) may(ctx context.Context, verb Verb, class string) error {
	if s.opts.Authorizer == nil {
		return nil
	}
	return s.opts.Authorizer.Authorize(ctx, CallerOf(ctx), verb, class)
}

// mayIn is may for a resource that is not runs.
func (s *Server) mayIn(ctx context.Context, verb Verb, on Resource, namespace string) error {
	if s.opts.Authorizer == nil {
		return nil
	}
	a, ok := s.opts.Authorizer.(ResourceAuthorizer)
	if !ok {
		return denied("", "this server lets nobody %s %s", verb, on)
	}
	return a.AuthorizeIn(ctx, CallerOf(ctx), verb, on, namespace)
}

// run is a run with which the caller may do something.
func (s *Server) run(ctx context.Context, id int64, verb Verb) (*bulkhead.Run, error) {
	r, err := s.opts.Store.Run(ctx, bulkhead.RunID(id))
	if err == nil {
		err = s.may(ctx, verb, r.Spec.Class)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// runFor is run with a context that ends when the caller may not any more: what he
// reads may go on for days.
func (s *Server) runFor(ctx context.Context, id int64, verb Verb) (context.Context, context.CancelFunc, *bulkhead.Run, error) {
	r, err := s.run(ctx, id, verb)
	if err != nil {
		return ctx, func() {}, nil, err
	}
	if s.opts.Authorizer == nil {
		return ctx, func() {}, r, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(askAgain)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			// Not known is not allowed: what was allowed counts for a while, see Authorizer.
			if err := s.may(ctx, verb, r.Spec.Class); err != nil {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }, r, nil
}

// own is the error for a caller who goes on with a run that somebody else has begun
// to submit.
func own(ctx context.Context, r *bulkhead.Run) error {
	who := CallerOf(ctx).Owner
	if who == "" || cleanOwner(who) == r.Spec.Owner {
		return nil
	}
	return fault(connect.CodePermissionDenied, denied("submit one of your own", "run %d is being submitted by %s", r.ID, r.Spec.Owner))
}

// someMay is the refusal of a caller who may do something with the runs of no class
// at all: an empty answer would look as if there was nothing.
func (s *Server) someMay(ctx context.Context, verb Verb) error {
	var refusal error
	for _, class := range s.opts.Classes.Names() {
		err := s.may(ctx, verb, class)
		if err == nil {
			return nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return refusal
}
