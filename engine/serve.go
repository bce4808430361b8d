package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"bulkhead.dev/bulkhead"
)

// do runs fn in the loop and returns its error.
func (e *Engine) do(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	select {
	case e.calls <- func() { done <- fn() }:
	case <-e.done:
		return bulkhead.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done(): // it is carried out all the same
		return ctx.Err()
	}
}

// Add makes the engine responsible for a run that this process owns, while it works.
func (e *Engine) Add(ctx context.Context, stored *bulkhead.Run) error {
	loop := context.WithoutCancel(ctx)
	return e.do(ctx, func() error {
		if e.byID[stored.ID] != nil {
			return nil
		}
		return e.Adopt(loop, stored)
	})
}

// HandOver gives agents no more leases, because this process is about to end: who
// waits for one, or for news of its leases, is told to come again. Results are
// taken all the same.
func (e *Engine) HandOver() {
	e.mu.Lock()
	e.handingOver = true
	for _, g := range e.agents {
		g.tell()
	}
	e.mu.Unlock()
	e.Poke()
}

// Look carries out what was asked of runs, and returns when that is durable.
func (e *Engine) Look(ctx context.Context) error {
	loop := context.WithoutCancel(ctx)
	return e.do(ctx, func() error { return e.lookForRequests(loop, true) })
}

// Obey looks at the brakes, and returns when it was decided by them: what is shown then
// of a run that they held is why it waits now.
func (e *Engine) Obey(ctx context.Context) error {
	if err := e.Look(ctx); err != nil {
		return err
	}
	return e.do(ctx, func() error { return nil }) // after the decision that follows a look
}

// asked returns the runs of which something is asked, oldest first. It takes up
// those that the engine does not have, because they are finished or because another
// process had them. A server has many runs that wait: it does not look at each.
func (e *Engine) asked(ctx context.Context) ([]*run, error) {
	if e.opts.Remote == nil {
		return slices.Clone(e.runs), nil
	}
	ids, err := e.opts.Store.Requested(ctx)
	if err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	var list []*run
	for _, id := range ids {
		if err := e.fetch(ctx, id); err != nil {
			return nil, fmt.Errorf("take up run %d: %w", id, err)
		}
		if r := e.byID[id]; r != nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// fetch takes up a run, unless the engine has it or another process owns it.
func (e *Engine) fetch(ctx context.Context, id bulkhead.RunID) error {
	if e.byID[id] != nil {
		return nil
	}
	r, err := e.opts.Remote.Fetch(ctx, id)
	if err != nil || r == nil {
		return err
	}
	return e.Adopt(ctx, r)
}

// insert adds a run; the oldest come first.
func (e *Engine) insert(r *run) {
	at, _ := slices.BinarySearchFunc(e.runs, r.ID, func(r *run, id bulkhead.RunID) int { return cmp.Compare(r.ID, id) })
	e.runs = slices.Insert(e.runs, at, r)
	e.byID[r.ID] = r
}

// dropFinished forgets finished runs: a server's memory is bounded by what is live.
func (e *Engine) dropFinished() {
	if e.opts.Remote == nil {
		return
	}
	var dropped []bulkhead.RunID
	e.mu.Lock()
	e.runs = slices.DeleteFunc(e.runs, func(r *run) bool {
		if !r.State.Finished() || len(r.leases) > 0 || r.dirty {
			return false
		}
		delete(e.byID, r.ID)
		dropped = append(dropped, r.ID)
		r.tell()
		return true
	})
	e.mu.Unlock()
	for _, id := range dropped {
		if e.opts.Remote.Finished != nil {
			e.opts.Remote.Finished(id)
		}
	}
}

// noWorker is why no worker takes items of the run; "": because all are busy.
// Idle says how many slots wait for a lease. An agent that neither waits nor holds
// a lease has said goodbye or died: it is known for a while, and is no worker.
func (e *Engine) noWorker(r *run, idle map[bulkhead.Kind]int) string {
	if e.opts.Remote == nil {
		return ""
	}
	if why := e.blocked[r.Spec.Class]; why != "" {
		return "worker: " + why
	}
	if idle[r.Spec.Kind()] > 0 {
		return ""
	}
	for _, g := range e.agents {
		if g.Kind == r.Spec.Kind() && !g.retired && len(g.slots) > 0 {
			return ""
		}
	}
	return fmt.Sprintf("worker: none of class %s is there yet", r.Spec.Class)
}

// Block notes why no worker of a class comes, for people who wait for one; "" ends
// that.
func (e *Engine) Block(class, why string) {
	e.mu.Lock()
	changed := e.blocked[class] != why
	if why == "" {
		delete(e.blocked, class)
	} else {
		e.blocked[class] = why
	}
	e.mu.Unlock()
	if changed {
		e.Poke()
	}
}

// Blocked is what Block said of a class.
func (e *Engine) Blocked(class string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.blocked[class]
}

// Demand is what the runs of a class can use, by shape.
func (e *Engine) Demand(class string) []bulkhead.Demand {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []bulkhead.Demand
	for _, r := range e.runs {
		if r.Spec.Class != class || r.Counts.Queued+r.Counts.Running == 0 {
			continue
		}
		at := slices.IndexFunc(out, func(d bulkhead.Demand) bool { return d.Kind == r.Spec.Kind() })
		if at < 0 {
			at = len(out)
			out = append(out, bulkhead.Demand{Kind: r.Spec.Kind(), Pod: r.Spec.Shape})
		}
		out[at].Queued += r.Counts.Queued
		out[at].Running += r.Counts.Running
		out[at].Slots += e.slots(r)
	}
	return out
}

// slots is how many attempts a run could have at once if there were workers.
func (e *Engine) slots(r *run) int {
	v := r.view(e.draining)
	if v.Stop != "" || e.hold != "" || r.verdict.Stops() {
		return v.Running
	}
	n := int(min(int64(r.verdict.Slowed(v.Limit)), r.Counts.Queued+r.Counts.Running))
	n = min(n, e.rules.rampLimit(r))
	for _, p := range r.Spec.Pools {
		if p.Key == "" {
			n = min(n, p.Slots)
		}
	}
	return max(n, v.Running)
}

// tellDemand says which classes' demand has changed.
func (e *Engine) tellDemand() {
	e.mu.Lock()
	now := map[bulkhead.Kind]int{}
	for _, r := range e.runs {
		if n := e.slots(r); n > 0 {
			now[r.Spec.Kind()] += n
		}
	}
	changed := map[string]bool{}
	for kind, n := range now {
		if e.wanted[kind] != n {
			changed[kind.Class] = true
		}
	}
	for kind := range e.wanted {
		if now[kind] == 0 {
			changed[kind.Class] = true
		}
	}
	e.wanted = now
	// Leases come and go with every item: of that a word in a second is enough.
	if at := e.opts.Now(); len(e.stirred) > 0 && at.Sub(e.stirredAt) >= checkEvery {
		maps.Copy(changed, e.stirred)
		e.stirred, e.stirredAt = map[string]bool{}, at
	}
	e.mu.Unlock()
	for class := range changed {
		if e.opts.Remote.Changed != nil {
			e.opts.Remote.Changed(class)
		}
	}
}

// Agents returns the agents of a class, or all for "", by name.
func (e *Engine) Agents(class string) []bulkhead.AgentStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []bulkhead.AgentStatus
	for _, g := range e.agents {
		if class == "" || g.Class == class {
			out = append(out, bulkhead.AgentStatus{Agent: g.Agent, Busy: len(g.slots), Since: g.since, Seen: g.seen, Retired: g.retired})
		}
	}
	slices.SortFunc(out, func(a, b bulkhead.AgentStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// StatusOf returns how one run stands and what failed of it lately, oldest first.
// Changed is closed when that is not so any more. It reports false for a run that
// the engine does not have: then the store has the last word.
func (e *Engine) StatusOf(id bulkhead.RunID, live int) (st RunStatus, failures []Failure, changed <-chan struct{}, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.byID[id]
	if r == nil {
		return st, nil, nil, false
	}
	if r.watch == nil {
		r.watch = make(chan struct{})
	}
	st = RunStatus{Run: *r.Run, Live: longest(r.leases, live)}
	st.Reason = r.shown()
	return st, slices.Clone(r.failures), r.watch, true
}

// tell wakes those who watch the run.
func (r *run) tell() {
	if r.watch != nil {
		close(r.watch)
		r.watch = nil
	}
}

func (l *live) halted() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}
