package rpc

import (
	"cmp"
	"context"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Guard is what watches the cluster of a server.
type Guard interface {
	// Findings are those that go on, and those that have ended lately; looked is when
	// the guard looked last, zero if it has not yet, and began since when it looks without
	// a gap.
	Findings() (findings []bulkhead.Finding, looked, began time.Time)
	// Census is what it counts now. What it returns is not the caller's to change.
	Census() bulkhead.Census
}

// maxFamilies bounds the families of one answer.
const maxFamilies = 1000

// errNoGuard says that nobody watches.
func errNoGuard() error {
	return conflict("start it with --guard, or run `bulkhead guard` beside it", "this server has no guard")
}

// ListFindings implements GuardServiceHandler.
func (s *Server) ListFindings(ctx context.Context, req *bulkheadv1.ListFindingsRequest) (*bulkheadv1.ListFindingsResponse, error) {
	seen, err := s.guarded(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	findings, looked, began := s.opts.Guard.Findings()
	res := &bulkheadv1.ListFindingsResponse{Looked: timeMessage(looked), Began: timeMessage(began)}
	for i := range findings {
		show, err := seen(findings[i].Namespace)
		if err != nil {
			return nil, err
		}
		if show {
			res.Findings = append(res.Findings, FindingMessage(&findings[i]))
		}
	}
	return res, nil
}

// GetCensus implements GuardServiceHandler. How many objects a kind has in the whole
// cluster is for those who may see all of it.
func (s *Server) GetCensus(ctx context.Context, req *bulkheadv1.GetCensusRequest) (*bulkheadv1.GetCensusResponse, error) {
	seen, err := s.guarded(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	all, err := allowed(s.mayIn(ctx, VerbList, ResourceFindings, ""))
	if err != nil {
		return nil, err
	}
	if !all && req.GetNamespace() == "" {
		// To ask of each namespace of a cluster would be many questions.
		return nil, denied("name one with --namespace", "the census of all namespaces is for those who may list findings in the server's own")
	}
	census := s.opts.Guard.Census()
	res := &bulkheadv1.GetCensusResponse{At: timeMessage(census.At)}
	if all && req.GetNamespace() == "" {
		res.Kinds = each(census.Kinds, kindStatusMessage)
	}
	var shown []*bulkhead.Tally
	for i := range census.Tallies {
		t := &census.Tallies[i]
		show, err := seen(t.Namespace)
		if err != nil {
			return nil, err
		}
		if show {
			shown = append(shown, t)
		}
	}
	slices.SortStableFunc(shown, func(a, b *bulkhead.Tally) int { return cmp.Compare(b.Objects, a.Objects) })
	res.Families = int32Of(len(shown))
	limit := int(req.GetLimit())
	if limit <= 0 || limit > maxFamilies {
		limit = maxFamilies
	}
	res.Tallies = each(shown[:min(len(shown), limit)], TallyMessage)
	return res, nil
}

// guarded says of namespaces whether the caller sees what is in them, of those that
// are asked for. It is an error if there is no guard, or he may see nothing.
func (s *Server) guarded(ctx context.Context, only string) (seen func(namespace string) (bool, error), err error) {
	if s.opts.Guard == nil {
		return nil, errNoGuard()
	}
	refusal := s.mayIn(ctx, VerbList, ResourceFindings, "")
	everything, err := allowed(refusal)
	if err != nil {
		return nil, err
	}
	answers := map[string]bool{}
	may := func(namespace string) (bool, error) {
		if everything || namespace == "" {
			return everything, nil
		}
		show, known := answers[namespace]
		if !known {
			if show, err = allowed(s.mayIn(ctx, VerbList, ResourceFindings, namespace)); err != nil {
				return false, err
			}
			answers[namespace] = show
		}
		return show, nil
	}
	if only == "" {
		if everything || s.someNamespace(may) {
			return may, nil
		}
		return nil, refusal
	}
	show, err := may(only)
	if err == nil && !show {
		err = s.mayIn(ctx, VerbList, ResourceFindings, only)
	}
	return func(namespace string) (bool, error) { return namespace == only, nil }, err
}

// someNamespace reports whether there is a class in whose namespace the caller may see
// findings: an empty answer to somebody who may see nothing would look as if all was
// well.
func (s *Server) someNamespace(may func(string) (bool, error)) bool {
	for _, class := range s.opts.Classes.Names() {
		if show, err := may(bulkhead.NamespaceOf(class)); err == nil && show {
			return true
		}
	}
	return false
}

// allowed tells a refusal from an error.
func allowed(err error) (bool, error) {
	if bulkhead.CodeOf(err) == bulkhead.CodeDenied {
		return false, nil
	}
	return err == nil, err
}
