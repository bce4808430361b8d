package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
)

// findingsNamed is how many findings an error names when there is not the one that was
// meant.
const findingsNamed = 5

// exempted is the whole scope of a finding that is to be exempt, of which callers know the
// id. Who may brake in a namespace may do that for findings of it; for one that holds
// everybody back, as for those of the whole cluster, one needs the server's own, and it
// counts for all.
func (s *Server) exempted(ctx context.Context, scope bulkhead.Scope) (bulkhead.Scope, error) {
	if s.opts.Guard == nil {
		return scope, errNoGuard()
	}
	id := scope.Name[strings.LastIndexByte(scope.Name, '/')+1:]
	findings, looked, _ := s.opts.Guard.Findings()
	at := slices.IndexFunc(findings, func(f bulkhead.Finding) bool { return f.ID == id })
	rulings := slices.DeleteFunc(s.opts.Brakes.Brakes().Rulings, func(r bulkhead.RulingStatus) bool { return r.Finding != id })
	switch {
	case at < 0 && looked.IsZero():
		return scope, conflict("ask again in a minute", "the guard has not looked yet, so there is no finding %s", bulkhead.Quote(id))
	case at < 0:
		return scope, s.noFinding(ctx, id, findings)
	}
	f := &findings[at]
	scope = bulkhead.FindingScope(f.Namespace, f.ID)
	if err := s.mayBrake(ctx, VerbCreate, scope); err != nil {
		return scope, err
	}
	if !f.Ended.IsZero() && len(rulings) == 0 {
		return scope, conflict("", "finding %s has ended, and holds nothing back", bulkhead.Quote(id))
	}
	for _, r := range rulings {
		if r.Scope.Kind != bulkhead.ScopeAll {
			continue
		}
		if err := s.mayBrake(ctx, VerbCreate, r.Scope); err != nil {
			return scope, err
		}
		scope = bulkhead.FindingScope("", f.ID)
	}
	return scope, nil
}

// noFinding says which findings there are, of those that the caller could exempt.
func (s *Server) noFinding(ctx context.Context, id string, findings []bulkhead.Finding) error {
	var names []string
	for i := range findings {
		f := &findings[i]
		if !f.Ended.IsZero() || len(names) >= findingsNamed {
			continue
		}
		may, err := allowed(s.mayBrake(ctx, VerbCreate, bulkhead.FindingScope(f.Namespace, f.ID)))
		if err != nil {
			return err
		}
		if may {
			names = append(names, fmt.Sprintf("%s (%s)", f.ID, bulkhead.OneLine(f.Title, findingTitle)))
		}
	}
	if err := s.mayBrake(ctx, VerbList, bulkhead.Scope{}); len(names) == 0 && err != nil && s.someMayBrake(ctx) != nil {
		return err
	}
	hint := "there is none of yours now; `bulkhead why` says what the guard has found"
	if len(names) > 0 {
		hint = "there is " + strings.Join(names, ", ")
	}
	return withHint(notFound("there is no finding %s", bulkhead.Quote(id)), hint)
}

// findingTitle is how much of a finding's title an error has, in characters.
const findingTitle = 80
