package census

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// pageSize is how many objects one request for a list brings, where the server cannot
	// stream it.
	pageSize = 500
	// idle is how long a streamed list may pause. A server that does not know the
	// question sends the objects and then never says that they were all.
	idle = time.Minute
	// silent is how long a watch may bring nothing. The API server says each minute how far
	// it is; what says nothing may be a proxy that has lost it, and nobody is told.
	silent = 10 * time.Minute
	// shortest and longest are the times between two tries after a failure. Where a right
	// is missing, patience is: nobody grants one every minute.
	shortest = time.Second
	longest  = 30 * time.Second
	patience = 10 * time.Minute
)

// stream follows the objects of one kind. The API server's watch cache sends it those
// that are there, one by one, and then each change; nothing is kept but counts.
type stream struct {
	census  *Census
	kind    kind
	source  source
	table   *table
	version string // of the last event: where a new watch goes on; "": list anew
	paged   bool   // the server cannot stream a list
	once    bool   // end with the list
	resumed int    // watches that failed to go on since the last event
}

// errListed ends a watch that was only for the list.
var errListed = errors.New("the list has ended")

// run follows the kind until ctx ends or, as it returns true, the API has it no more.
func (s *stream) run(ctx context.Context) (vanished bool) {
	wait := shortest
	for ctx.Err() == nil {
		began := s.census.now()
		err := s.turn(ctx)
		if ctx.Err() != nil {
			return false
		}
		if err == nil || s.census.now().Sub(began) > longest {
			wait = shortest
		}
		s.census.report(s, err)
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			s.version = "" // should it come back, nobody knows what was missed
			return true
		}
		if !s.census.pause(ctx, wait) {
			return false
		}
		limit := longest
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			limit, wait = patience, max(wait, longest/2)
		}
		wait = min(2*wait, limit)
	}
	return false
}

// turn lists if there is need, and watches until the watch ends.
func (s *stream) turn(ctx context.Context) error {
	if s.version == "" && s.paged {
		if err := s.list(ctx); err != nil || s.once {
			return err
		}
	}
	err := s.watch(ctx)
	switch {
	case errors.Is(err, errListed):
		return nil
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
		// What it would go on from is too old, or, after etcd was restored, unheard of.
		s.version = ""
	case err != nil && s.version != "":
		if s.resumed++; s.resumed > 5 {
			s.version, s.resumed = "", 0
		}
	case err != nil && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || errors.Is(err, errIdle)):
		s.paged = true
	}
	return err
}

// watch opens a watch, with a list in front of it if there is no version to go on from.
func (s *stream) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := metav1.ListOptions{AllowWatchBookmarks: true, ResourceVersion: s.version, FieldSelector: s.selector()}
	w := &watching{stream: s, listed: func() {}, alive: func() {}}
	if s.version == "" {
		release, err := s.census.turnToList(ctx)
		if err != nil {
			return err
		}
		defer release()
		yes := true
		o.SendInitialEvents, o.ResourceVersionMatch = &yes, metav1.ResourceVersionMatchNotOlderThan
		timer := time.AfterFunc(s.census.idle, func() { cancel(errIdle) })
		defer timer.Stop()
		w.listed = func() {
			release()
			timer.Reset(s.census.silent)
			w.alive = func() { timer.Reset(s.census.silent) }
		}
		w.alive = func() { timer.Reset(s.census.idle) }
		w.listing = true
		s.census.change(func(c *counts, _ time.Time) { c.begin(s.table) })
	}
	if !w.listing {
		timer := time.AfterFunc(s.census.silent, func() { cancel(errSilent) })
		defer timer.Stop()
		w.alive = func() { timer.Reset(s.census.silent) }
	}
	events, err := s.source.watch(ctx, o)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer events.Stop()
	if !w.listing {
		// A refused connection is an empty watch to client-go: what lasts is a watch.
		lasts := time.AfterFunc(atOnce, func() { s.census.report(s, nil) })
		defer lasts.Stop()
	}
	began, some := time.Now(), false
	for e := range events.ResultChan() {
		some = true
		if err := w.event(e); err != nil {
			// Of an end that is ours client-go says that it could not decode an event.
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	switch {
	case w.listing:
		return cmp.Or(context.Cause(ctx), errors.New("the watch ended before its list was complete"))
	case !some && time.Since(began) < atOnce:
		return errors.New("the watch ended at once: the API server does not answer")
	}
	return nil
}

// atOnce is how soon a watch ends that never was one.
const atOnce = 2 * time.Second

var errIdle = errors.New("the API server did not finish its list in time")

// errSilent ends a watch that brings nothing; another one goes on where it was.
var errSilent = errors.New("the API server says nothing")

// watching is one open watch.
type watching struct {
	*stream

	listing       bool // the list in front has not ended
	listed, alive func()
}

func (w *watching) event(e watch.Event) error {
	w.alive()
	switch e.Type {
	case watch.Error:
		return apierrors.FromObject(e.Object)
	case watch.Bookmark:
		return w.bookmark(e.Object)
	}
	o, err := read(w.kind.name, e.Object)
	if err != nil {
		return err
	}
	w.census.change(func(c *counts, now time.Time) {
		if e.Type == watch.Deleted {
			c.gone(w.table, o, now)
			return
		}
		c.see(w.table, o, now)
	})
	if w.listing {
		return nil // where it goes on is known at the list's end
	}
	w.resumed = 0
	if w.kind.name == definitions {
		w.census.poke()
	}
	return w.seen(e.Object)
}

// seen notes where another watch would go on.
func (s *stream) seen(o runtime.Object) error {
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("read a version: %w", err)
	}
	if v := m.GetResourceVersion(); v != "" {
		s.version = v
	}
	return nil
}

func (w *watching) bookmark(o runtime.Object) error {
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("read a bookmark: %w", err)
	}
	if w.listing && m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
		return nil
	}
	if err := w.seen(o); err != nil || !w.listing {
		return err
	}
	w.listing = false
	w.listed()
	w.complete()
	if w.once {
		return errListed
	}
	return nil
}

// complete says that all objects were seen.
func (s *stream) complete() {
	s.census.change(func(c *counts, now time.Time) { c.end(s.table, now) })
	s.census.report(s, nil)
}

// selector leaves out what is not counted: each node has a lease that it renews every
// ten seconds.
func (s *stream) selector() string {
	if s.kind.name == leases {
		return "metadata.namespace!=kube-node-lease"
	}
	return ""
}

// list reads all objects in pages.
func (s *stream) list(ctx context.Context) error {
	release, err := s.census.turnToList(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.census.change(func(c *counts, _ time.Time) { c.begin(s.table) })
	o := metav1.ListOptions{Limit: pageSize, FieldSelector: s.selector()}
	for {
		page, err := s.listPage(ctx, o)
		if err != nil {
			return err
		}
		if err := s.page(page); err != nil {
			return err
		}
		m, err := meta.ListAccessor(page)
		if err != nil {
			return fmt.Errorf("read a list: %w", err)
		}
		if o.Continue = m.GetContinue(); o.Continue == "" {
			s.version = m.GetResourceVersion()
			s.complete()
			return nil
		}
	}
}

// listPage asks for one page: no other kind is listed until it is there.
func (s *stream) listPage(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.census.idle, errIdle)
	defer cancel()
	page, err := s.source.list(ctx, o)
	if err != nil {
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	return page, nil
}

func (s *stream) page(page runtime.Object) error {
	return meta.EachListItem(page, func(item runtime.Object) error {
		o, err := read(s.kind.name, item)
		if err != nil {
			return err
		}
		s.census.change(func(c *counts, now time.Time) { c.see(s.table, o, now) })
		return nil
	})
}
