package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/history"
)

func (s *remote) listBrakes(ctx context.Context) (bulkhead.Brakes, error) {
	return s.Brakes(ctx)
}

func (s *remote) setBrake(ctx context.Context, b bulkhead.Brake, long time.Duration) (bulkhead.BrakeStatus, bool, error) {
	return s.SetBrake(ctx, b, long)
}

func (s *remote) liftBrake(ctx context.Context, id int64) (bulkhead.BrakeStatus, error) {
	return s.LiftBrake(ctx, id)
}

// A brake of a state folder is a row that every process with a run in it looks for
// ten times a second. Who sets one waits until those that it concerns have seen it.

func (f *folder) listBrakes(ctx context.Context) (bulkhead.Brakes, error) {
	if f.Store == nil {
		return bulkhead.Brakes{}, nil
	}
	all, err := f.Brakes(ctx)
	if err != nil {
		return bulkhead.Brakes{}, err
	}
	now := time.Now()
	all = slices.DeleteFunc(all, func(b bulkhead.Brake) bool { return !b.Expires.IsZero() && !b.Expires.After(now) })
	if len(all) == 0 {
		return bulkhead.Brakes{}, nil
	}
	return f.statusOf(ctx, all...)
}

// statusOf is how brakes stand. What the guard says is known to the server alone.
func (f *folder) statusOf(ctx context.Context, all ...bulkhead.Brake) (bulkhead.Brakes, error) {
	runs, err := f.Unfinished(ctx)
	if err != nil {
		return bulkhead.Brakes{}, err
	}
	return bulkhead.StatusOfBrakes(all, nil, runs), nil
}

// oneOf is how one brake or exemption stands.
func (f *folder) oneOf(ctx context.Context, b bulkhead.Brake) (st bulkhead.BrakeStatus, err error) {
	all, err := f.statusOf(ctx, b)
	if err != nil {
		return st, err
	}
	return append(all.Brakes, all.Exemptions...)[0], nil
}

func (f *folder) setBrake(ctx context.Context, b bulkhead.Brake, _ time.Duration) (st bulkhead.BrakeStatus, changed bool, err error) {
	if id, exempts := b.Exempts(); exempts {
		b.Scope, err = f.findingScope(ctx, id)
	} else {
		err = f.checkScope(ctx, b.Scope)
	}
	if err != nil {
		return st, false, err
	}
	b.Owner = me()
	is, err := f.AddBrake(ctx, b)
	if err != nil {
		return st, false, err
	}
	if err := f.show(ctx, &is); err != nil {
		return st, false, err
	}
	if st, err = f.oneOf(ctx, is); err != nil {
		return st, false, err
	}
	return st, is.Since.Before(b.Since.Truncate(time.Microsecond)), nil
}

func (f *folder) liftBrake(ctx context.Context, id int64) (st bulkhead.BrakeStatus, err error) {
	if f.Store == nil {
		return st, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no brake %d: there is no state folder %s", id, f.dir),
			Hint: "give another one with --state or BULKHEAD_STATE"}
	}
	b, err := f.LiftBrake(ctx, id)
	if err != nil {
		return st, err
	}
	if st, err = f.oneOf(ctx, b); err != nil { // before it goes on
		return st, err
	}
	return st, f.show(ctx, &b)
}

// findingScope is the scope of a finding that the guard of the server that has this
// folder has found.
func (f *folder) findingScope(ctx context.Context, id string) (bulkhead.Scope, error) {
	none := &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no finding %s in %s", bulkhead.Quote(id), f.dir),
		Hint: "findings are those of a server with a guard: say which with --server, or give its state folder with --state"}
	if f.Store == nil {
		return bulkhead.Scope{}, none
	}
	h, err := history.Read(filepath.Join(f.dir, history.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return bulkhead.Scope{}, none
	}
	if err != nil {
		return bulkhead.Scope{}, err
	}
	defer func() { _ = h.Close() }()
	findings, err := h.Findings(ctx, false)
	if err != nil {
		return bulkhead.Scope{}, err
	}
	var names []string
	for _, of := range findings {
		if of.ID == id {
			return bulkhead.FindingScope("", of.ID), nil // who has the folder may let all go on
		}
		names = append(names, fmt.Sprintf("%s (%s)", of.ID, printable(of.Title, 80)))
	}
	if none.Hint = "the guard has found nothing that goes on"; len(names) > 0 {
		none.Hint = "there is " + strings.Join(names[:min(len(names), findingsNamed)], ", ")
	}
	return bulkhead.Scope{}, none
}

// findingsNamed is how many findings an error names.
const findingsNamed = 5

// checkScope refuses a run that there is not, and a class or namespace of which the
// folder has never had a run: there it is the state folder of a server.
func (f *folder) checkScope(ctx context.Context, scope bulkhead.Scope) error {
	var of func(class string) string
	switch scope.Kind {
	case bulkhead.ScopeRun:
		id, err := strconv.ParseInt(scope.Name, 10, 64)
		if err != nil {
			return err
		}
		r, err := f.Run(ctx, bulkhead.RunID(id))
		if err == nil && r.State.Finished() {
			err = finished(r)
		}
		return err
	case bulkhead.ScopeClass:
		of = func(class string) string { return class }
	case bulkhead.ScopeNamespace:
		of = bulkhead.NamespaceOf
	default:
		return nil
	}
	runs, err := f.Runs(ctx, runsLooked)
	if err != nil {
		return err
	}
	var known []string
	for _, r := range runs {
		known = append(known, of(r.Spec.Class))
	}
	if slices.Contains(known, scope.Name) {
		return nil
	}
	hint := "classes are those of a server: say which with --server or bulkhead context use"
	if near := bulkhead.Nearest(scope.Name, known); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return &bulkhead.Error{Code: bulkhead.CodeNotFound,
		Message: fmt.Sprintf("the state folder %s has no run of %s %s", f.dir, scope.Kind, bulkhead.Quote(scope.Name)), Hint: hint}
}

// seenTime is how long to wait for a process that does not look at the brakes, because
// it is stopped or waits for a disk: meanwhile it starts nothing either.
const seenTime = 10 * time.Second

// show waits until the processes that a brake concerns have seen it.
func (f *folder) show(ctx context.Context, b *bulkhead.Brake) error {
	ctx, stop := f.app.interruptible(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, seenTime)
	defer cancel()
	runs, err := f.Unfinished(ctx)
	if err != nil {
		return err
	}
	_, exempts := b.Exempts() // of it only a server knows
	server := false
	for _, r := range runs {
		concerned := b.Scope.Covers(r.ID, &r.Spec) || exempts && r.Spec.Class != ""
		if r.State == bulkhead.RunAccepting || !concerned {
			continue // who still reads its input looks when it begins
		}
		// A server has all the runs that have a class, and is asked once.
		if r.Spec.Class != "" && server {
			continue
		}
		owned, err := f.Owned(r.ID)
		if err != nil {
			return err
		}
		if !owned {
			continue
		}
		server = server || r.Spec.Class != ""
		if err := f.showTo(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// showTo waits until the owner of a run has looked at the brakes.
func (f *folder) showTo(ctx context.Context, r *bulkhead.Run) error {
	id, err := f.Ask(ctx, bulkhead.Request{Run: r.ID, Kind: bulkhead.RequestLook, By: me(), At: time.Now()})
	if err != nil {
		return err
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		pending, err := f.Pending(ctx, id)
		if err != nil || !pending {
			return err
		}
		if owned, err := f.Owned(r.ID); err != nil || !owned {
			return errors.Join(err, f.Withdraw(ctx, id))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.app.tell("the process that owns run %d has not looked at the brake yet (it is stopped, or waits for a disk); it obeys a moment after it goes on", r.ID)
			return f.Withdraw(context.WithoutCancel(ctx), id)
		}
	}
}
