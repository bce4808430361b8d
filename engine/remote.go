package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// Remote is what an engine needs whose workers are agents: processes that come
// and go, and that cannot be reached when something is to be said. Then leases
// expire, runs are added while the engine works, and it goes on when all are
// finished.
type Remote struct {
	// Keep is how long an agent may hold a lease without being heard of, when its
	// item would not run again by itself. The longer, the longer a cut network is
	// survived; after it the item is lost. Default: 15 minutes.
	Keep time.Duration
	// KeepRetried is the same for an item that would: the shorter, the sooner it
	// does. Default: a minute. The grace of the run comes on top, twice.
	KeepRetried time.Duration
	// MaxAgents is how many agents of a class are known at once. Default: 10,000.
	MaxAgents int
	// Output is where output of agents goes.
	Output Outputs
	// Fetch makes this process the owner of a run that somebody asked something of
	// and returns it; nil, if another process owns it.
	Fetch func(context.Context, bulkhead.RunID) (*bulkhead.Run, error)
	// Changed is told of a class whose demand has changed. It must not block.
	Changed func(class string)
	// Finished is told of a run that the engine has forgotten because it is finished.
	Finished func(bulkhead.RunID)
}

// Outputs keeps the output of attempts that run elsewhere.
type Outputs interface {
	// Begin says where output of a new lease will be. It must be quick.
	Begin(bulkhead.Lease, *bulkhead.Spec) bulkhead.OutputRef
	// Prepare is told of all leases of a run, before Resume goes on with some.
	Prepare(bulkhead.RunID, []bulkhead.Lease) error
	// Resume goes on with the output of a lease that was given before this process
	// began.
	Resume(bulkhead.Lease, *bulkhead.Spec) error
	// Lost ends the output of a lost lease.
	Lost(bulkhead.Lease) bulkhead.OutputRef
	// Drop forgets a lease that came to nothing or has ended for good.
	Drop(bulkhead.Lease)
}

const (
	defaultKeep        = 15 * time.Minute
	defaultKeepRetried = time.Minute
	// checkEvery is how often it is looked whether a lease has expired.
	checkEvery = time.Second
	// agentGone is after how long an agent that holds nothing is forgotten.
	agentGone = 5 * time.Minute
	// keptFormer is how many former processes of an agent are known as such.
	keptFormer = 8
)

// agent is a remote worker as the engine sees it.
type agent struct {
	bulkhead.Agent
	former  []uint64
	slots   map[int]*live
	asking  map[int]*ask
	seen    time.Time
	since   time.Time
	leased  time.Time // when it last got a lease, or had
	retired bool
	news    chan struct{} // closed and replaced when a renewal would say something new
}

func (g *agent) drop(l *live) {
	if g.slots[l.Slot] == l {
		delete(g.slots, l.Slot)
	}
	g.tell()
}

// asks reports whether it waits for an answer. It is called by the loop.
func (g *agent) asks() bool {
	for _, a := range g.asking {
		if !a.over {
			return true
		}
	}
	return false
}

// tell wakes the renewal that waits.
func (g *agent) tell() {
	close(g.news)
	g.news = make(chan struct{})
}

// agentKey is what one agent is known by: a name of one class says nothing about
// the same name of another.
type agentKey struct{ class, name string }

// greet notes who asks, and reports whether the ask may go on.
func (e *Engine) greet(a *ask) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.makeRoom(a.Agent)
	g, err := e.meet(a.Agent)
	if err != nil {
		a.answer(nil, err)
		return false
	}
	a.agent = g
	if old := g.asking[a.Slot]; old != nil {
		old.answer(nil, bulkhead.ErrReplaced)
	}
	g.asking[a.Slot] = a
	return true
}

// meet returns the agent of that name. A new process of it holds nothing of what
// the former one had: that is lost. What would run again by itself is left to its
// lease's end: a former process may still run it, on a node that is cut off or
// because two agents were given one name, and it is told to stop only when it asks.
func (e *Engine) meet(who bulkhead.Agent) (*agent, error) {
	now := e.opts.Now()
	key := agentKey{who.Class, who.Name}
	g := e.agents[key]
	if g == nil && e.crowded(who.Class) {
		return nil, fmt.Errorf("class %s has %d agents: %w", who.Class, e.mostAgents(), bulkhead.ErrCrowded)
	}
	if g == nil {
		g = e.introduce(who, now)
	}
	if slices.Contains(g.former, who.Process) {
		return nil, bulkhead.ErrFormer
	}
	if g.Process != who.Process {
		for _, l := range g.slots {
			l.lost = !again(l.Lease, &l.run.Spec)
		}
		g.former = append(g.former, g.Process)
		g.former = g.former[max(0, len(g.former)-keptFormer):]
		g.slots, g.asking, g.since, g.retired = map[int]*live{}, map[int]*ask{}, now, false
		e.lastCheck = time.Time{} // look for what is lost in this turn
		g.tell()
	}
	if g.seen.IsZero() {
		e.stirred[who.Class] = true
	}
	g.Agent, g.seen = who, now
	return g, nil
}

// give makes an agent the holder of a lease.
func (e *Engine) give(l *live, g *agent) {
	l.Worker, l.Process, l.agent = g.Name, g.Process, g
	g.leased = l.Since
	e.renewed(l)
	l.Output = e.opts.Remote.Output.Begin(l.Lease, &l.run.Spec)
	g.slots[l.Slot] = l
	e.stirred[g.Class] = true
}

// Keep is how long a lease is kept for an agent that is not heard of. The agent
// must have ended the script before, in case the item is given to another one.
func (e *Engine) Keep(l bulkhead.Lease, spec *bulkhead.Spec) time.Duration {
	if again(l, spec) {
		return orDefault(e.opts.Remote.KeepRetried, defaultKeepRetried) + 2*spec.Grace
	}
	return orDefault(e.opts.Remote.Keep, defaultKeep) + 2*spec.Grace
}

// again reports whether the item of a lease runs again by itself if this attempt
// is lost.
func again(l bulkhead.Lease, spec *bulkhead.Spec) bool { return l.Attempt <= spec.Retries }

// renewed counts the time that a lease is kept from now on.
func (e *Engine) renewed(l *live) {
	l.expires = e.opts.Now().Add(e.Keep(l.Lease, &l.run.Spec))
}

// leaseOf is the lease in force of which an agent speaks, nil if there is none: it
// is over, or another agent's.
func (e *Engine) leaseOf(g *agent, h bulkhead.Held) *live {
	r := e.byID[h.Run]
	if r == nil {
		return nil
	}
	l := r.leases[h.Item]
	if l == nil || l.Token != h.Token || l.agent != g || l.Process != g.Process {
		return nil
	}
	return l
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// takeUp reads what there is of leases that may go on.
func (e *Engine) takeUp(ctx context.Context, r *run, leases []bulkhead.Lease) error {
	for i := range leases {
		if e.opts.Remote == nil || leases[i].Worker == "" {
			continue
		}
		it, err := e.item(ctx, r, leases[i].Item.Index)
		if err != nil {
			return fmt.Errorf("run %d: read item %d: %w", r.ID, leases[i].Item.Index, err)
		}
		leases[i].Item = detach(it)
	}
	r.recent = nil
	if e.opts.Remote == nil || len(leases) == 0 {
		return nil
	}
	return e.opts.Remote.Output.Prepare(r.ID, leases)
}

// keepLease goes on with a lease that an agent got from a former process. It
// reports false for one that is lost: its worker was part of that process.
func (e *Engine) keepLease(r *run, l *live) bool {
	if e.opts.Remote == nil || l.Worker == "" {
		return false
	}
	g := e.holder(l)
	if g.Process != l.Process && !again(l.Lease, &r.Spec) {
		return false
	}
	if err := e.opts.Remote.Output.Resume(l.Lease, &r.Spec); err != nil {
		e.holdLocked(fmt.Sprintf("output: %v", err)) // the attempt goes on; its output is missing
	}
	l.agent, l.needs = g, r.needs(l.Item)
	for _, n := range l.needs {
		e.inUse[n.Pool]++
	}
	e.renewed(l)
	if g.Process == l.Process {
		g.slots[l.Slot] = l
	}
	return true
}

// holder is the agent that has a lease from a former server. Of several processes
// of a name the one that got its lease last was there last; what the others had
// and runs again by itself is kept until its end, see meet.
func (e *Engine) holder(l *live) *agent {
	who := bulkhead.Agent{Name: l.Worker, Process: l.Process, Kind: l.run.Spec.Kind()}
	g := e.agents[agentKey{who.Class, who.Name}]
	unknown := g == nil
	if unknown {
		g = e.introduce(who, e.opts.Now()) // however many there are: it has a lease
	}
	if unknown || g.Process != l.Process && !slices.Contains(g.former, l.Process) && !l.Since.Before(g.leased) {
		g, _ = e.meet(who) // it is no former one
		g.leased = l.Since
	}
	if g.Process != l.Process && !slices.Contains(g.former, l.Process) {
		g.former = append(g.former, l.Process)
	}
	return g
}

// expire takes into the batch what is lost: leases of agents that were not heard
// of for too long, or that are known to be gone.
func (e *Engine) expire(b *bulkhead.Batch, now time.Time) error {
	if len(e.agents) == 0 || now.Sub(e.lastCheck) < checkEvery {
		return nil
	}
	e.lastCheck = now
	for _, r := range e.runs {
		for _, l := range r.leases {
			if l.agent == nil || !l.lost && !l.expires.Before(now) {
				continue
			}
			res := bulkhead.Result{State: bulkhead.ItemLost, How: bulkhead.HowLost, Started: l.Since,
				Output: e.opts.Remote.Output.Lost(l.Lease)}
			if err := e.finish(b, &Done{Lease: l.Lease, Result: res}, now); err != nil {
				return err
			}
		}
	}
	for key, g := range e.agents {
		if g.idle() && now.Sub(g.seen) > agentGone {
			e.forget(key)
		}
	}
	return nil
}

// dropSettled lets go of what is only kept until a result is durable.
func (e *Engine) dropSettled() {
	for _, l := range e.settled {
		e.opts.Remote.Output.Drop(l)
	}
	e.settled = nil
}

// Renew says that an agent lives and holds these leases. It works while the store
// does not.
func (e *Engine) Renew(who bulkhead.Agent, held []bulkhead.Held) (bulkhead.Renewal, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.meet(who)
	if err != nil {
		return bulkhead.Renewal{}, err
	}
	out := bulkhead.Renewal{News: g.news, Leave: g.retired}
	for _, h := range held {
		l := e.leaseOf(g, h)
		if l == nil || l.lost || l.halted() {
			out.Stop = append(out.Stop, h.Token)
		}
		if l != nil && !l.lost {
			e.renewed(l)
		}
	}
	// What it was leased since it asked it does not name, and may be cancelled already.
	for _, l := range g.slots {
		if l.halted() && !slices.Contains(out.Stop, l.Token) {
			out.Stop = append(out.Stop, l.Token)
		}
	}
	if e.handingOver {
		return bulkhead.Renewal{}, bulkhead.ErrClosed
	}
	return out, nil
}

// named are the agents of a name, of whatever class.
func (e *Engine) named(name string) (list []*agent) {
	for key, g := range e.agents {
		if key.name == name {
			list = append(list, g)
		}
	}
	return list
}

// Retire asks an agent to finish what it runs and end.
func (e *Engine) Retire(name string) {
	e.mu.Lock()
	for _, g := range e.named(name) {
		if !g.retired {
			g.retired = true
			g.tell()
		}
	}
	e.mu.Unlock()
	e.Poke()
}

// Gone says that an agent will never be heard of again: what it held is lost.
func (e *Engine) Gone(name string) {
	e.mu.Lock()
	for _, g := range e.named(name) {
		for _, l := range g.slots {
			l.lost = true
		}
		g.seen = time.Time{}
		e.lastCheck = time.Time{}
	}
	e.mu.Unlock()
	e.Poke()
}
