package serve

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/lookout"
	"bulkhead.dev/bulkhead/guard/tell"
	"bulkhead.dev/bulkhead/rpc"
)

// startGuard watches the cluster until ctx ends, if that was asked for. Only the server
// of the state folder does, so that of two servers one tells. That it cannot go on is
// told to fail: who looks at a server with a guard should not see one without.
func (s *server) startGuard(ctx context.Context, fail chan<- error) error {
	if s.opts.Guard == nil {
		return nil
	}
	o := *s.opts.Guard
	o.Config, o.State, o.Log, o.Runs = s.cluster, s.opts.State, s.log, true
	if c := s.opts.Cluster; c != nil && o.Events {
		o.Tell.Events = &tell.Events{Namespace: c.OwnNamespace}
	}
	o.Class = func(name string) bool {
		_, there := s.classes.Class(name)
		return there
	}
	o.Exempt = func(finding string) *bulkhead.Exemption { return bulkhead.ExemptionOf(s.engine.Brakes(), finding) }
	var last []bulkhead.Ruling
	o.Looked = func(changes []lookout.Change, rulings []bulkhead.Ruling) {
		for _, c := range changes {
			s.log.Info("finding "+string(c.What), "finding", c.Finding.ID, "severity", string(c.Finding.Severity),
				"title", bulkhead.OneLine(c.Finding.Title, mostTitle))
		}
		// The engine asks at each decision; it is told when there is a reason to decide.
		if !reflect.DeepEqual(last, rulings) {
			last = rulings
			s.engine.Poke()
		}
	}
	l, err := lookout.New(o)
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	for _, c := range l.Collectors() {
		if err := s.metrics.Register(c); err != nil {
			_ = l.Close()
			return fmt.Errorf("start the guard: %w", err)
		}
	}
	s.guard.Store(l)
	s.watching.Go(func() {
		if err := l.Run(ctx); err != nil && ctx.Err() == nil {
			fail <- fmt.Errorf("watch the cluster: %w", err)
		}
		if err := l.Close(); err != nil {
			s.log.Error("the guard's history is not closed", "error", err)
		}
	})
	return nil
}

// mostTitle is how much of a finding's title the log has, in characters.
const mostTitle = 200

// rulings are what the guard says of runs.
func (s *server) rulings() []bulkhead.Ruling {
	if l := s.guard.Load(); l != nil && !s.opts.Advise {
		return l.Rulings()
	}
	return nil
}

// guardView is the guard as the API needs it; nil if there is to be none.
func (s *server) guardView() rpc.Guard {
	if s.opts.Guard == nil {
		return nil
	}
	return guardView{s}
}

type guardView struct{ *server }

// Findings implements rpc.Guard.
func (g guardView) Findings() (findings []bulkhead.Finding, looked, began time.Time) {
	if l := g.guard.Load(); l != nil {
		findings, looked = l.Findings()
		began = l.Began()
	}
	return findings, looked, began
}

// Census implements rpc.Guard.
func (g guardView) Census() bulkhead.Census {
	if l := g.guard.Load(); l != nil {
		return l.Census()
	}
	return bulkhead.Census{}
}
