package rpc

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Brakes keeps the brakes of a server.
type Brakes interface {
	// Brakes are those in force, with exemptions and what the guard says.
	Brakes() bulkhead.Brakes
	// SetBrake returns once the brake is durable and nothing of its scope is leased any
	// more; an exemption, once what it exempts is not obeyed. It says whether it has
	// changed one that there was.
	SetBrake(ctx context.Context, b bulkhead.Brake) (st bulkhead.BrakeStatus, changed bool, err error)
	// LiftBrake ends a brake, and returns it as it was.
	LiftBrake(ctx context.Context, id int64, by string) (bulkhead.BrakeStatus, error)
}

// ListBrakes implements BrakeServiceHandler.
func (s *Server) ListBrakes(ctx context.Context, _ *bulkheadv1.ListBrakesRequest) (*bulkheadv1.ListBrakesResponse, error) {
	res := &bulkheadv1.ListBrakesResponse{}
	all := s.opts.Brakes.Brakes()
	shown := map[bulkhead.Scope]bool{}
	see := func(scope bulkhead.Scope) (show bool, err error) {
		show, known := shown[scope]
		if !known {
			show, err = allowed(s.mayBrake(ctx, VerbList, scope))
			shown[scope] = show
		}
		return show, err
	}
	var err error
	if res.Brakes, err = seen(all.Brakes, see, func(b bulkhead.BrakeStatus) bulkhead.Scope { return b.Scope }, BrakeMessage); err != nil {
		return nil, err
	}
	if res.Exemptions, err = seen(all.Exemptions, see, func(b bulkhead.BrakeStatus) bulkhead.Scope { return b.Scope }, BrakeMessage); err != nil {
		return nil, err
	}
	if res.Rulings, err = seen(all.Rulings, see, func(r bulkhead.RulingStatus) bulkhead.Scope { return r.Scope }, RulingMessage); err != nil {
		return nil, err
	}
	if len(res.Brakes)+len(res.Exemptions)+len(res.Rulings) == 0 {
		// Nothing to see, and nobody to be shown it, are told apart by those who may see
		// the brakes of some class.
		if err := s.mayBrake(ctx, VerbList, bulkhead.Scope{}); err != nil && s.someMayBrake(ctx) != nil {
			return nil, err
		}
	}
	return res, nil
}

// seen are the messages of what is in scopes that the caller sees.
func seen[T, M any](all []T, see func(bulkhead.Scope) (bool, error), scope func(T) bulkhead.Scope, message func(T) M) (out []M, err error) {
	for _, one := range all {
		show, err := see(scope(one))
		if err != nil {
			return nil, err
		}
		if show {
			out = append(out, message(one))
		}
	}
	return out, nil
}

// someMayBrake is the refusal of a caller who may see the brakes of no class at all.
func (s *Server) someMayBrake(ctx context.Context) error {
	refusal := denied("", "there are no classes")
	seen := map[string]bool{}
	for _, class := range s.opts.Classes.Names() {
		ns := bulkhead.NamespaceOf(class)
		if seen[ns] {
			continue
		}
		seen[ns] = true
		if refusal = s.mayBrake(ctx, VerbList, bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: class}); refusal == nil {
			return nil
		}
	}
	return refusal
}

// SetBrake implements BrakeServiceHandler.
func (s *Server) SetBrake(ctx context.Context, req *bulkheadv1.SetBrakeRequest) (*bulkheadv1.SetBrakeResponse, error) {
	scope, err := ScopeOf(req.GetScope())
	if err != nil {
		return nil, err
	}
	now := s.opts.Now()
	b := bulkhead.Brake{Scope: scope, Reason: req.GetReason(), Factor: req.GetFactor(), Owner: ownerOf(ctx, ""), Since: now}
	if req.GetTime() != nil {
		b.Expires = now.Add(durationOf(req.GetTime()))
	}
	if err := b.Check(); err != nil {
		return nil, err
	}
	if b.Scope, err = s.maySet(ctx, scope); err != nil {
		return nil, err
	}
	// It is set also when the caller has gone: he cannot know.
	st, changed, err := s.opts.Brakes.SetBrake(context.WithoutCancel(ctx), b)
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.SetBrakeResponse{Brake: BrakeMessage(st), Changed: changed}, nil
}

// maySet is the error for a caller who may not put a brake on a scope, or when there is
// nothing of it. It returns the scope with its whole name.
func (s *Server) maySet(ctx context.Context, scope bulkhead.Scope) (bulkhead.Scope, error) {
	if scope.Kind == bulkhead.ScopeFinding {
		return s.exempted(ctx, scope)
	}
	if err := s.mayBrake(ctx, VerbCreate, scope); err != nil {
		return scope, err
	}
	return scope, s.checkScope(ctx, scope)
}

// LiftBrake implements BrakeServiceHandler.
func (s *Server) LiftBrake(ctx context.Context, req *bulkheadv1.LiftBrakeRequest) (*bulkheadv1.LiftBrakeResponse, error) {
	now := s.opts.Brakes.Brakes()
	all := slices.Concat(now.Brakes, now.Exemptions)
	at := slices.IndexFunc(all, func(b bulkhead.BrakeStatus) bool { return b.ID == req.GetBrake() })
	if at < 0 {
		if err := s.mayBrake(ctx, VerbList, bulkhead.Scope{}); err != nil && s.someMayBrake(ctx) != nil {
			return nil, err
		}
		e := notFound("there is no brake %d", req.GetBrake())
		return nil, withHint(e, "it may have been lifted, or its time is over; `bulkhead brake ls` shows those that there are")
	}
	if err := s.mayBrake(ctx, VerbDelete, all[at].Scope); err != nil {
		return nil, err
	}
	st, err := s.opts.Brakes.LiftBrake(context.WithoutCancel(ctx), req.GetBrake(), ownerOf(ctx, ""))
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.LiftBrakeResponse{Brake: BrakeMessage(st)}, nil
}

func withHint(err error, hint string) error {
	if e, ok := errors.AsType[*bulkhead.Error](err); ok {
		e.Hint = hint
	}
	return err
}

// mayBrake is the error for a caller who may not do something with the brakes on a
// scope.
func (s *Server) mayBrake(ctx context.Context, verb Verb, scope bulkhead.Scope) error {
	if s.opts.Authorizer == nil {
		return nil
	}
	namespace := ""
	switch scope.Kind {
	case bulkhead.ScopeNamespace:
		namespace = scope.Name
	case bulkhead.ScopeClass, bulkhead.ScopeFinding:
		namespace = bulkhead.NamespaceOf(scope.Name)
	case bulkhead.ScopeRun:
		r, err := s.runOf(ctx, scope)
		if err != nil && (verb == VerbCreate || bulkhead.CodeOf(err) != bulkhead.CodeNotFound) {
			return err
		}
		if err == nil { // else it was removed, and its brake is not
			namespace = bulkhead.NamespaceOf(r.Spec.Class)
		}
	}
	return s.mayIn(ctx, verb, ResourceBrakes, namespace)
}

func (s *Server) runOf(ctx context.Context, scope bulkhead.Scope) (*bulkhead.Run, error) {
	id, err := strconv.ParseInt(scope.Name, 10, 64)
	if err != nil {
		return nil, usage(nil, "", "%s is not the number of a run", bulkhead.Quote(scope.Name))
	}
	return s.opts.Store.Run(ctx, bulkhead.RunID(id))
}

// checkScope refuses what there is not: a brake on it would hold nothing, and whoever
// gave it would not know. Pools are there as long as runs use them.
func (s *Server) checkScope(ctx context.Context, scope bulkhead.Scope) error {
	var of func(class string) string
	switch scope.Kind {
	case bulkhead.ScopeRun:
		r, err := s.runOf(ctx, scope)
		if err == nil && r.State.Finished() {
			err = conflict("", "run %d has ended (%s)", r.ID, r.State)
		}
		return err
	case bulkhead.ScopeClass:
		of = func(class string) string { return class }
	case bulkhead.ScopeNamespace:
		of = bulkhead.NamespaceOf
	default:
		return nil
	}
	return s.checkOfClass(ctx, scope, of)
}

func (s *Server) classesKnown() bool { return s.opts.Classes.Known() == nil }

// checkOfClass refuses a class or a namespace of which there is neither a class nor a run.
func (s *Server) checkOfClass(ctx context.Context, scope bulkhead.Scope, of func(class string) string) error {
	var names []string
	for _, class := range s.opts.Classes.Names() {
		names = append(names, of(class))
	}
	// While the cluster does not say which classes there are, a brake must not wait for it.
	if !s.classesKnown() || slices.Contains(names, scope.Name) {
		return nil
	}
	runs, err := s.opts.Store.Unfinished(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(runs, func(r *bulkhead.Run) bool { return of(r.Spec.Class) == scope.Name }) {
		return nil // its class was removed
	}
	// Names of other namespaces are not his to see.
	names = slices.DeleteFunc(names, func(name string) bool {
		return scope.Kind == bulkhead.ScopeNamespace || bulkhead.NamespaceOf(name) != bulkhead.NamespaceOf(scope.Name)
	})
	hint := "`bulkhead class ls` shows the classes that there are"
	if near := bulkhead.Nearest(scope.Name, names); near != "" {
		hint = "did you mean " + near + "?"
	}
	return withHint(notFound("there is no %s %s", scope.Kind, bulkhead.Quote(scope.Name)), hint)
}
