package rpc

import "context"

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
// error is a refusal that names what is missing and who can give it.
type Authorizer interface {
	Authorize(ctx context.Context, who Caller, verb Verb, class string) error
}

// may is the error for a caller who may not do something with the runs of a class.
// Without an Authorizer every caller may do everything: who has a token is trusted.
func (s *Server) may(ctx context.Context, verb Verb, class string) error {
	if s.opts.Authorizer == nil {
		return nil
	}
	return s.opts.Authorizer.Authorize(ctx, CallerOf(ctx), verb, class)
}
