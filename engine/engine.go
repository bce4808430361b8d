// Package engine decides which item starts next and keeps what became of it.
//
// It is one loop. Workers ask: each request carries the result of the worker's
// last attempt and waits for the next lease, so that a busy worker costs one
// round trip per item. Each turn of the loop takes every request that has
// arrived, decides (Decide is pure), commits results, leases and counters in
// one transaction, and only then answers. While a commit waits for the disk
// the next requests gather, so that many of them share the next sync: a
// commit per turn is the group commit.
//
// The order is the guarantee. A lease is on disk before its script starts, and
// a result is on disk before its worker gets another lease; so after a crash
// at any instant an item is queued, or finished, or it had a live lease and is
// lost, and there are never more of those than workers.
//
// When the store cannot be written nothing starts and nothing is thrown away:
// results stay in memory, their workers wait, and the loop tries again.
//
// Workers are goroutines of this process, or agents elsewhere (Options.Remote).
// What agents say can come twice, late or not at all, so a lease has a token, a
// holder and an end: see remote.go. Then runs come and go while the loop turns:
// see serve.go.
package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
)

// Store is what the engine needs kept. Its writes are durable on return.
type Store interface {
	Commit(context.Context, *bulkhead.Batch) error
	Items
	Requests
	// Brakes are those that there are, the expired ones too.
	Brakes(ctx context.Context) ([]bulkhead.Brake, error)
}

// Items reads what a run still has to do.
type Items interface {
	Chunk(ctx context.Context, run bulkhead.RunID, index int64) ([]bulkhead.Item, error)
	Leases(ctx context.Context, run bulkhead.RunID) ([]bulkhead.Lease, error)
	Highest(ctx context.Context, run bulkhead.RunID) (int64, error)
	Touched(ctx context.Context, run bulkhead.RunID, from, to int64) (map[int64]bool, error)
	Requeued(ctx context.Context, run bulkhead.RunID, limit int) ([]bulkhead.Requeue, error)
}

// Requests is how others talk to a run that this process owns.
type Requests interface {
	Changed() (bool, error)
	Requested(ctx context.Context) ([]bulkhead.RunID, error) // runs of which something is asked
	Requests(ctx context.Context, run bulkhead.RunID) ([]bulkhead.Request, error)
	Retry(ctx context.Context, r *bulkhead.Run, q bulkhead.Request, now time.Time) (int64, error)
	CancelQueued(ctx context.Context, r *bulkhead.Run, request int64) error
}

// Options of an Engine. Store is required.
type Options struct {
	Store Store
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Token makes fencing tokens; default counts up from a random number, or, for
	// agents, gives numbers that cannot be guessed.
	Token func() uint64
	// Probe reports whether the state folder can be written again after a
	// commit failed; default: it can. It may free and take back a reserve.
	Probe func() error
	// Relieve is called once when the disk has become full, before the first
	// retry: it may give back room that was kept in reserve.
	Relieve func()
	// Lost gives what is known of an attempt whose owner died, such as the
	// output it left; default: nothing.
	Lost func(bulkhead.Lease) bulkhead.OutputRef
	// Remote is for an engine whose workers are agents; nil: they are in this process.
	Remote *Remote
	// Room is how many attempts this process can have at once, whatever the limit
	// of a run says; 0: any number. RoomReason says why, in a few words.
	Room       int
	RoomReason string
	// Workers is told how many workers the runs can use whenever that changes.
	Workers func(n int)
	// Leased and Ended are told of every lease and of every result, once it is
	// durable. They must be quick, and the run is not theirs.
	Leased func(*bulkhead.Run, bulkhead.Lease)
	Ended  func(*bulkhead.Run, bulkhead.Attempt)
	// Began and Over are told likewise of a run that starts, when its first item does,
	// and of one that is over. One that goes on because items are retried starts again.
	Began func(r *bulkhead.Run, again bool)
	Over  func(*bulkhead.Run)
	// Rulings are verdicts beside the brakes in the store, at most MaxRulings; those of
	// findings that a brake exempts are not obeyed. It is asked before every decision: it
	// must be quick, and must not call the engine.
	Rulings func() []bulkhead.Ruling
	// Ramp is in what time the number of starts at once doubles after a verdict was
	// lifted; default 10 s.
	Ramp time.Duration
	// Poll is how often requests of other processes, and brakes, are looked for;
	// default 100 ms.
	Poll time.Duration
}

// Engine runs the runs of one process. Create it with New.
type Engine struct {
	opts Options
	asks chan *ask
	poke chan struct{}
	done chan struct{} // closed when Run returns

	mu       sync.Mutex // guards what follows, for Status
	runs     []*run     // oldest first
	byID     map[bulkhead.RunID]*run
	inUse    map[PoolKey]int
	held     map[string]int
	hold     string // why nothing may start: the store cannot be written
	draining string // why nothing more starts in this process; "" while it does
	failures []Failure
	pools    pools
	rules    rules

	idle    []*ask           // ask for a lease and have none yet
	ended   []*ask           // carry a result that is not durable yet
	workers int              // last told to Options.Workers
	settled []bulkhead.Lease // of agents, whose end is durable with the next commit

	agents    map[agentKey]*agent
	crowds    map[string]*crowd     // how many they are, by class
	wanted    map[bulkhead.Kind]int // slots that runs can use, as last told to Remote.Changed
	blocked   map[string]string     // why no worker of a class comes
	stirred   map[string]bool       // classes whose agents have come, gone, or got something to do
	stirredAt time.Time             // when that was last told
	calls     chan func()           // run by the loop, see do
	lastCheck time.Time             // of the leases of agents

	handingOver bool // agents are sent to the next server

	overlooked bool // requests could not be read: look again without a sign of change

	nextProbe  time.Time // while held
	probePause time.Duration
}

// New returns an engine without runs. See Adopt and Run.
func New(opts Options) *Engine {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Token == nil && opts.Remote != nil {
		opts.Token = unguessable()
	}
	if opts.Token == nil {
		opts.Token = tokens()
	}
	if opts.Probe == nil {
		opts.Probe = func() error { return nil }
	}
	if opts.Ramp == 0 {
		opts.Ramp = 10 * time.Second
	}
	if opts.Poll == 0 {
		opts.Poll = 100 * time.Millisecond
	}
	return &Engine{
		opts: opts, asks: make(chan *ask), poke: make(chan struct{}, 1), done: make(chan struct{}),
		inUse: map[PoolKey]int{}, held: map[string]int{}, byID: map[bulkhead.RunID]*run{},
		agents: map[agentKey]*agent{}, crowds: map[string]*crowd{}, wanted: map[bulkhead.Kind]int{},
		blocked: map[string]string{}, stirred: map[string]bool{}, calls: make(chan func()),
	}
}

// Poke makes the loop look for requests and probe the store now.
func (e *Engine) Poke() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// Over is closed when Run returns.
func (e *Engine) Over() <-chan struct{} { return e.done }

// Drain starts nothing more; Run returns once nothing runs. Unfinished runs are
// paused for the given reason, which is shown as that of stopping until then. It
// may be called from any goroutine.
func (e *Engine) Drain(reason string) {
	e.mu.Lock()
	e.draining = reason
	e.mu.Unlock()
	e.Poke()
}

// Run is the loop. It returns nil when every run is finished, drained, or paused
// by its canary. When ctx ends it returns at once: what runs then stays leased,
// and is lost.
func (e *Engine) Run(ctx context.Context) error {
	defer e.close()
	poll := time.NewTicker(e.opts.Poll)
	defer poll.Stop()
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case a := <-e.asks:
			e.take(a)
			e.takeAll()
		case <-wake.C:
		case call := <-e.calls:
			call()
		case <-e.poke:
			e.look(ctx, true)
		case <-poll.C:
			e.look(ctx, false)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		next, err := e.turn(ctx)
		if err != nil {
			return err
		}
		if e.over() {
			return nil
		}
		wake.Stop()
		if !next.IsZero() {
			wake.Reset(max(next.Sub(e.opts.Now()), 0))
		}
	}
}

// over reports whether Run is done.
func (e *Engine) over() bool {
	if e.opts.Remote != nil {
		return false // more runs may come
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runs {
		rests := (r.rests || e.draining != "") && r.State == bulkhead.RunPaused && r.Ending == 0
		if len(r.leases) > 0 || !r.State.Finished() && !rests {
			return false
		}
	}
	return true
}

// turn takes the results that arrived, decides, commits and answers. It returns
// when to turn again without an event.
func (e *Engine) turn(ctx context.Context) (time.Time, error) {
	e.probe(false)
	if err := e.refill(ctx); err != nil {
		e.Hold(storeReason(err)) // results are still taken and stored
	}
	now := e.opts.Now()
	given := e.given()
	b := &bulkhead.Batch{}
	e.mu.Lock()
	e.rules.set(given, now)
	err := e.finishEnded(b, now)
	if err == nil {
		err = e.expire(b, now)
	}
	if err != nil {
		e.mu.Unlock()
		return time.Time{}, err
	}
	rest := e.sort()
	d, grants := e.decide(b, now)
	e.endWaits(rest, now)
	e.collect(b, now)
	e.mu.Unlock()

	if err := e.commit(ctx, b, grants); err != nil {
		e.idle = append(e.idle, rest.asks...) // close answers them
		return time.Time{}, err
	}
	for _, g := range grants {
		if !g.undone {
			g.to.answer(g.work, nil)
		}
	}
	rest.answer()
	e.dropSettled()
	e.report(b, grants)
	again, err := e.endRuns(ctx)
	if err != nil {
		return time.Time{}, err
	}
	e.dropFinished()
	e.tellWorkers()
	if again {
		return e.opts.Now(), nil
	}
	return e.nextWake(d, rest.until), nil
}

// report tells who wants to know of what is durable now.
func (e *Engine) report(b *bulkhead.Batch, grants []*grant) {
	for _, g := range grants {
		if !g.undone && e.opts.Leased != nil {
			e.opts.Leased(g.run.Run, g.work.Lease)
		}
	}
	for _, a := range b.Ended {
		if e.opts.Ended != nil {
			e.opts.Ended(e.byID[a.Run].Run, a)
		}
	}
	e.reportRuns(b, grants)
}

// reportRuns tells of the runs that have begun and that are over.
func (e *Engine) reportRuns(b *bulkhead.Batch, grants []*grant) {
	for _, g := range grants {
		if g.undone || !g.run.begins {
			continue
		}
		if e.opts.Began != nil {
			e.opts.Began(g.run.Run, g.run.again)
		}
		g.run.begins = false
	}
	for _, r := range b.Runs {
		own := e.byID[r.ID]
		if !r.State.Finished() || !own.ends {
			continue
		}
		own.ends = false
		if e.opts.Over != nil {
			e.opts.Over(r)
		}
	}
}

// nextWake is when something may change without an event.
func (e *Engine) nextWake(d Decision, until time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	wake := sooner(sooner(d.Wake, until), e.rules.wake)
	if e.hold != "" {
		wake = sooner(wake, e.nextProbe)
	}
	if len(e.agents) > 0 {
		wake = sooner(wake, e.lastCheck.Add(checkEvery))
	}
	for _, r := range e.runs {
		// Items that a refill could load now do not wait for an event either.
		due := r.nextDue
		if r.canLoad() && len(e.idle) > 0 && r.stop() == "" {
			due = e.opts.Now()
		}
		if r.State == bulkhead.RunRunning {
			wake = sooner(wake, due)
		}
	}
	return wake
}

// sooner is the earlier of two times; zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// collect adds the rows of all changed runs to the batch.
func (e *Engine) collect(b *bulkhead.Batch, now time.Time) {
	for _, r := range e.runs {
		r.settle(now)
		if e.draining != "" && len(r.leases) == 0 && r.State == bulkhead.RunRunning && r.Ending == 0 {
			r.State, r.Reason, r.Held, r.dirty = bulkhead.RunPaused, e.draining, false, true
		}
		r.Next = r.lowest()
		if r.changed(b, now) {
			b.Runs = append(b.Runs, r.saved(now))
			r.tell()
		}
	}
}

func (e *Engine) snapshot(now time.Time) Snapshot {
	s := Snapshot{Now: now, Idle: map[bulkhead.Kind]int{}, InUse: e.inUse, Held: e.held, Runs: make([]RunView, len(e.runs))}
	if e.hold != "" {
		s.Stop = bulkhead.Verdict{Level: bulkhead.Stop, Reason: e.hold}
	}
	for _, a := range e.idle {
		s.Idle[a.Agent.Kind]++
	}
	for i, r := range e.runs {
		s.Runs[i] = r.view(e.draining)
		s.Runs[i].NoWorker = e.noWorker(r, s.Idle)
		if e.tooMany(s.Runs[i].Limit) {
			s.Runs[i].Limit, s.Runs[i].LimitReason = e.opts.Room, e.roomReason(r.Limit)
		}
		s.Runs[i].Verdict = e.rules.judge(r)
	}
	s.Pools = e.rules.pools
	e.capRamps(&s)
	return s
}

// tooMany reports whether there is no room for so many attempts at once.
func (e *Engine) tooMany(limit int) bool { return e.opts.Room > 0 && limit > e.opts.Room }

func (e *Engine) roomReason(limit int) string {
	return fmt.Sprintf("limit: %d at once, not %d: %s", e.opts.Room, limit, e.opts.RoomReason)
}

// Adopt makes the engine responsible for a run that this process owns. What its
// former owner left running is lost. Call it before Run.
func (e *Engine) Adopt(ctx context.Context, stored *bulkhead.Run) error {
	r, err := newRun(stored)
	if err != nil {
		return err
	}
	if !e.rules.read { // before anything starts
		if err := e.readBrakes(ctx); err != nil {
			return err
		}
	}
	leases, err := e.opts.Store.Leases(ctx, r.ID)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	if r.touchedTo, err = e.opts.Store.Highest(ctx, r.ID); err != nil {
		return fmt.Errorf("read highest item: %w", err)
	}
	if err := e.takeUp(ctx, r, leases); err != nil {
		return err
	}
	r.nextDue = e.opts.Now() // look for requeued items once
	b := &bulkhead.Batch{}
	e.mu.Lock()
	e.insert(r)
	for _, l := range leases {
		r.leases[l.Item.Index] = &live{Lease: l, run: r, stop: make(chan struct{})}
		e.held[r.Spec.Owner]++
		if e.keepLease(r, r.leases[l.Item.Index]) {
			continue
		}
		res := bulkhead.Result{State: bulkhead.ItemLost, How: bulkhead.HowLost, Started: l.Since}
		if e.opts.Lost != nil {
			res.Output = e.opts.Lost(l)
		}
		if err = e.finish(b, &Done{Lease: l, Result: res}, e.opts.Now()); err != nil {
			break
		}
	}
	if len(leases) > 0 || r.Held || r.Reason != "" && r.State == bulkhead.RunRunning {
		r.Held, r.dirty = false, true
		b.Runs = append(b.Runs, r.saved(e.opts.Now()))
	} else {
		// Nothing to say that was not said: a new run costs no commit here. Its
		// mark goes with its first lease, before which there is nothing to end.
		r.savedAt, r.savedReason, r.savedHeld = e.opts.Now(), r.shown(), r.Held
	}
	e.mu.Unlock()
	if err == nil {
		err = e.commit(ctx, b, nil)
	}
	if err == nil {
		e.tellWorkers()
	}
	return err
}

// tellWorkers says how many workers the runs can use, when that changed.
func (e *Engine) tellWorkers() {
	if e.opts.Remote != nil {
		e.tellDemand()
		return
	}
	e.mu.Lock()
	n := 0
	for _, r := range e.runs {
		n += int(min(int64(r.Limit), r.Counts.Queued+r.Counts.Running))
	}
	if e.tooMany(n) {
		n = e.opts.Room
	}
	changed := n != e.workers
	e.workers = n
	e.mu.Unlock()
	if changed && e.opts.Workers != nil {
		e.opts.Workers(n)
	}
}
