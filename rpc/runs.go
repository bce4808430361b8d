package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

func notFound(format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf(format, args...)}
}

func conflict(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// ownerOf is who makes a call: whom the token belongs to, or else whom the call
// names, or else otherwise.
func ownerOf(ctx context.Context, otherwise string) string {
	owner := CallerOf(ctx).Owner
	if call, ok := connect.CallInfoForHandlerContext(ctx); ok && owner == "" {
		owner = call.RequestHeader().Get(OwnerHeader)
	}
	if owner == "" {
		owner = otherwise
	}
	return cleanOwner(owner)
}

// cleanOwner makes a name that can be shown in a line.
func cleanOwner(owner string) string {
	const most = 100 // characters
	kept := []rune(strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) && !unicode.IsSpace(r) && r != unicode.ReplacementChar {
			return r
		}
		return -1
	}, owner))
	if len(kept) == 0 {
		return "somebody"
	}
	return string(kept[:min(len(kept), most)])
}

// GetRun implements RunServiceHandler.
func (s *Server) GetRun(ctx context.Context, req *bulkheadv1.GetRunRequest) (*bulkheadv1.GetRunResponse, error) {
	r, err := s.run(ctx, req.GetRun(), VerbGet)
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.GetRunResponse{Run: s.message(r)}, nil
}

// ListRuns implements RunServiceHandler.
func (s *Server) ListRuns(ctx context.Context, req *bulkheadv1.ListRunsRequest) (*bulkheadv1.ListRunsResponse, error) {
	size := int(req.GetPageSize())
	if size <= 0 {
		size = maxRunsPage
	}
	size = min(size, maxRunsPage)
	res := &bulkheadv1.ListRunsResponse{}
	q, bytes := bulkhead.RunQuery{Before: bulkhead.RunID(max(req.GetBefore(), 0)), Unfinished: req.GetUnfinished(),
		FinishedAfter: timeOf(req.GetFinishedAfter())}, 0
	denied := 0
	for len(res.Runs) < size && bytes < maxRunsBytes {
		// In small pages: a spec may be large. But not one by one through what is not his.
		const page = 50
		q.Limit = min(page, max(size-len(res.Runs), denied))
		runs, err := s.opts.Store.Recent(ctx, q)
		if err != nil {
			return nil, err
		}
		res.More = len(runs) == q.Limit
		for _, r := range runs {
			q.Before = r.ID
			switch err := s.may(ctx, VerbList, r.Spec.Class); bulkhead.CodeOf(err) {
			case bulkhead.CodeDenied:
				denied++
				continue // as if it was not there
			default:
				if err != nil {
					return nil, err
				}
			}
			if len(res.Runs) == size {
				res.More = true
				break
			}
			m := s.message(r)
			res.Runs, bytes = append(res.Runs, m), bytes+proto.Size(m)
		}
		if !res.More {
			break
		}
	}
	if len(res.Runs) == 0 {
		return res, s.someMay(ctx, VerbList)
	}
	return res, nil
}

// ListAttempts implements RunServiceHandler.
func (s *Server) ListAttempts(ctx context.Context, req *bulkheadv1.ListAttemptsRequest) (*bulkheadv1.ListAttemptsResponse, error) {
	if _, err := s.run(ctx, req.GetRun(), VerbGet); err != nil {
		return nil, err
	}
	attempts, err := s.opts.Store.Attempts(ctx, bulkhead.RunID(req.GetRun()), req.GetItem())
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.ListAttemptsResponse{Attempts: each(attempts, AttemptMessage)}, nil
}

// PauseRun implements RunServiceHandler.
func (s *Server) PauseRun(ctx context.Context, req *bulkheadv1.PauseRunRequest) (*bulkheadv1.PauseRunResponse, error) {
	r, err := s.ask(ctx, req.GetRun(), bulkhead.Request{Kind: bulkhead.RequestPause}, unfinished)
	return &bulkheadv1.PauseRunResponse{Run: r}, err
}

// ResumeRun implements RunServiceHandler.
func (s *Server) ResumeRun(ctx context.Context, req *bulkheadv1.ResumeRunRequest) (*bulkheadv1.ResumeRunResponse, error) {
	r, err := s.ask(ctx, req.GetRun(), bulkhead.Request{Kind: bulkhead.RequestResume}, unfinished)
	return &bulkheadv1.ResumeRunResponse{Run: r}, err
}

// CancelRun implements RunServiceHandler.
func (s *Server) CancelRun(ctx context.Context, req *bulkheadv1.CancelRunRequest) (*bulkheadv1.CancelRunResponse, error) {
	r, err := s.ask(ctx, req.GetRun(), bulkhead.Request{Kind: bulkhead.RequestCancel}, func(r *bulkhead.Run) error {
		if r.State == bulkhead.RunCancelled {
			return nil // the answer to an earlier call did not arrive
		}
		return unfinished(r)
	})
	return &bulkheadv1.CancelRunResponse{Run: r}, err
}

// LimitRun implements RunServiceHandler.
func (s *Server) LimitRun(ctx context.Context, req *bulkheadv1.LimitRunRequest) (*bulkheadv1.LimitRunResponse, error) {
	limit := int(req.GetLimit())
	if limit < 1 || limit > bulkhead.MaxLimit {
		return nil, usage(nil, "bulkhead pause stops a run from starting anything", "limit %d is not between 1 and %d", limit, bulkhead.MaxLimit)
	}
	now, err := s.run(ctx, req.GetRun(), VerbUpdate)
	if err != nil {
		return nil, err
	}
	if class, ok := s.opts.Classes.Class(now.Spec.Class); ok {
		limit = class.AtMost(limit)
	}
	r, err := s.ask(ctx, req.GetRun(), bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: limit}, unfinished)
	return &bulkheadv1.LimitRunResponse{Run: r}, err
}

// RetryRun implements RunServiceHandler.
func (s *Server) RetryRun(ctx context.Context, req *bulkheadv1.RetryRunRequest) (*bulkheadv1.RetryRunResponse, error) {
	if n := len(req.GetItems()); n > maxRetryItems {
		return nil, usage(nil, "retry them by state, or in several calls", "%d items are more than %d", n, maxRetryItems)
	}
	sel := bulkhead.Selection{Failed: req.GetFailed(), Lost: req.GetLost(), Cancelled: req.GetCancelled(),
		Items: slices.Compact(slices.Sorted(slices.Values(req.GetItems())))}
	if !sel.Failed && !sel.Lost && !sel.Cancelled && len(sel.Items) == 0 {
		sel.Failed = true
	}
	r, err := s.ask(ctx, req.GetRun(), bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel}, func(r *bulkhead.Run) error {
		return s.checkRetry(ctx, r, sel)
	})
	return &bulkheadv1.RetryRunResponse{Run: r}, err
}

func (s *Server) checkRetry(ctx context.Context, r *bulkhead.Run, sel bulkhead.Selection) error {
	if r.State == bulkhead.RunAccepting {
		return unfinished(r)
	}
	var listed []bulkhead.ItemStatus
	for _, n := range sel.Items {
		if n < 1 || n > r.Counts.Total() {
			return usage(nil, "", "%d is not an item of run %d, which has items 1 to %d", n, r.ID, r.Counts.Total())
		}
		err := s.opts.Store.Items(ctx, r, bulkhead.ItemQuery{From: n, To: n}, func(it bulkhead.ItemStatus) error {
			it.Values = nil
			listed = append(listed, it)
			return nil
		})
		if err != nil {
			return err
		}
	}
	_, _, err := bulkhead.CheckRetry(r, sel, listed)
	return err
}

// ask asks something of a run that allows it, and says how the run stands then.
func (s *Server) ask(ctx context.Context, id int64, q bulkhead.Request, allowed func(*bulkhead.Run) error) (*bulkheadv1.Run, error) {
	r, unlock, err := s.locked(ctx, id, VerbUpdate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := allowed(r); err != nil {
		return nil, err
	}
	if !r.State.Finished() || q.Kind == bulkhead.RequestRetry {
		q.Run, q.By, q.At = r.ID, ownerOf(ctx, ""), s.opts.Now()
		// It is carried out also when the caller has gone: it cannot know.
		if err := s.opts.Engine.Ask(context.WithoutCancel(ctx), q); err != nil {
			return nil, err
		}
		if r, err = s.opts.Store.Run(ctx, r.ID); err != nil {
			return nil, err
		}
	}
	return RunMessage(r), nil
}

// unfinished refuses what makes no sense for a run that is finished, or that has
// not got all of its items yet.
func unfinished(r *bulkhead.Run) error {
	switch {
	case r.State == bulkhead.RunAccepting:
		return conflict("wait for it, or end it where it was started: nothing of it ran", "run %d is still reading its input", r.ID)
	case r.State.Finished():
		return conflict(fmt.Sprintf("bulkhead retry %d runs items of it again", r.ID), "run %d has ended (%s)", r.ID, r.State)
	}
	return nil
}

// DeleteRun implements RunServiceHandler.
func (s *Server) DeleteRun(ctx context.Context, req *bulkheadv1.DeleteRunRequest) (*bulkheadv1.DeleteRunResponse, error) {
	r, unlock, err := s.locked(ctx, req.GetRun(), VerbDelete)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !r.State.Finished() && r.State != bulkhead.RunAccepting {
		return nil, conflict(fmt.Sprintf("bulkhead cancel %d first", r.ID), "run %d is %s", r.ID, r.Shown())
	}
	ctx = context.WithoutCancel(ctx)
	// The output first: what is left without its run nobody would find.
	if err := s.opts.Outputs.Remove(ctx, r.ID); err != nil {
		return nil, err
	}
	if err := s.opts.Store.Delete(ctx, r.ID); err != nil {
		return nil, err
	}
	s.note(r.ID, nil)
	return &bulkheadv1.DeleteRunResponse{}, nil
}

// ListClasses implements RunServiceHandler.
func (s *Server) ListClasses(ctx context.Context, _ *bulkheadv1.ListClassesRequest) (*bulkheadv1.ListClassesResponse, error) {
	res := &bulkheadv1.ListClassesResponse{}
	for _, class := range s.opts.Classes.Statuses() {
		err := s.may(ctx, VerbList, class.Name)
		if err != nil && bulkhead.CodeOf(err) != bulkhead.CodeDenied {
			return nil, err
		}
		if err == nil {
			res.Classes = append(res.Classes, ClassMessage(class))
		}
	}
	if len(res.Classes) == 0 {
		return res, s.someMay(ctx, VerbList)
	}
	return res, nil
}

// ListPools implements RunServiceHandler.
func (s *Server) ListPools(ctx context.Context, req *bulkheadv1.ListPoolsRequest) (*bulkheadv1.ListPoolsResponse, error) {
	size := int(req.GetPageSize())
	if size <= 0 {
		size = defaultPoolsPage
	}
	size = min(size, maxPoolsPage)
	res := &bulkheadv1.ListPoolsResponse{}
	for _, p := range s.opts.Engine.Pools() {
		// The key of a pool may say something of a run: of one that the caller may see.
		if !slices.ContainsFunc(p.Classes, func(class string) bool { return s.may(ctx, VerbList, class) == nil }) {
			continue
		}
		if len(res.Pools) < size {
			res.Pools = append(res.Pools, PoolStatusMessage(p))
		} else {
			res.More++
		}
	}
	return res, nil
}

// StatFile implements RunServiceHandler.
func (s *Server) StatFile(ctx context.Context, req *bulkheadv1.StatFileRequest) (*bulkheadv1.StatFileResponse, error) {
	if err := s.may(ctx, VerbCreate, req.GetClass()); err != nil {
		return nil, err
	}
	have, complete, err := s.opts.Files.Stat(req.GetSha256())
	return &bulkheadv1.StatFileResponse{Have: have, Complete: complete}, err
}

// PutFile implements RunServiceHandler.
func (s *Server) PutFile(ctx context.Context, req *bulkheadv1.PutFileRequest) (*bulkheadv1.PutFileResponse, error) {
	if err := s.may(ctx, VerbCreate, req.GetClass()); err != nil {
		return nil, err
	}
	if n := len(req.GetData()); n > MaxPiece {
		return nil, usage(nil, "send it in several", "a piece of %d bytes is more than %d", n, MaxPiece)
	}
	have, complete, err := s.opts.Files.Put(req.GetSha256(), req.GetSize(), req.GetOffset(), req.GetData())
	return &bulkheadv1.PutFileResponse{Have: have, Complete: complete}, err
}
