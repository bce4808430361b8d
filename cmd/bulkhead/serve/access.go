package serve

import (
	"cmp"
	"context"
	"strings"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/rpc"
)

// authenticator says who callers are: without a cluster, by the tokens in the state
// folder.
func (s *server) authenticator() rpc.Authenticator {
	tokens := rpc.Tokens{Secret: s.keys.token}
	if s.reviews == nil {
		return tokens
	}
	return cluster{reviews: s.reviews, workers: s.controller, tokens: tokens}
}

// authorizer says what they may do; nil: everything.
func (s *server) authorizer() rpc.Authorizer {
	if s.reviews == nil {
		return nil
	}
	return cluster{reviews: s.reviews, namespace: s.opts.Cluster.OwnNamespace}
}

// cluster lets a cluster say who callers are and what they may do. Whoever has the
// token of the state folder is its administrator: it works when the cluster does not.
type cluster struct {
	reviews *kube.Reviews
	workers *kube.Controller
	tokens  rpc.Tokens
	// namespace is the server's own.
	namespace string
}

// User implements rpc.Authenticator.
func (c cluster) User(ctx context.Context, cred rpc.Credentials) (rpc.Caller, error) {
	if c.tokens.Is(cred.Token) {
		return rpc.Caller{Name: "administrator"}, nil
	}
	u, err := c.reviews.User(ctx, cred.Token, cred.Certificates)
	if err != nil {
		return rpc.Caller{}, err
	}
	return rpc.Caller{Name: "user " + u.Name, Owner: u.Name, User: &u}, nil
}

// Agent implements rpc.Authenticator.
func (c cluster) Agent(ctx context.Context, cred rpc.Credentials) (rpc.Caller, error) {
	if cred.Token == "" {
		return rpc.Caller{}, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "an agent needs the token of a worker pod"}
	}
	namespace, name, uid, err := c.reviews.Pod(ctx, cred.Token)
	if err != nil {
		return rpc.Caller{}, err
	}
	kind, err := c.workers.Worker(ctx, namespace, name, uid)
	if err != nil {
		return rpc.Caller{}, err
	}
	worker := namespace + "/" + name
	return rpc.Caller{Name: "worker " + worker, Kind: kind, Worker: worker}, nil
}

// Authorize implements rpc.Authorizer.
func (c cluster) Authorize(ctx context.Context, who rpc.Caller, verb rpc.Verb, class string) error {
	if who.User == nil {
		return nil
	}
	namespace, _, found := strings.Cut(class, "/")
	if !found {
		namespace = "" // of the time before the server had a cluster
	}
	return c.reviews.May(ctx, *who.User, string(verb), "runs", namespace)
}

// AuthorizeIn implements rpc.ResourceAuthorizer. A server that does not know its own
// namespace asks for the right in all of them.
func (c cluster) AuthorizeIn(ctx context.Context, who rpc.Caller, verb rpc.Verb, on rpc.Resource, namespace string) error {
	if who.User == nil {
		return nil
	}
	return c.reviews.May(ctx, *who.User, string(verb), string(on), cmp.Or(namespace, c.namespace))
}
