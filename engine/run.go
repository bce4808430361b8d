package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// run is a run that this engine owns.
type run struct {
	*bulkhead.Run
	pools  []keyedPool
	scopes []bulkhead.Scope // that rulings about it may have

	groups  []*group
	byNeeds map[string]*group
	waiting int // items in groups
	window  int // how many there may be
	bytes   int // of their values

	cursor    int64 // next index to read from the chunks
	total     int64
	touchedTo int64           // items up to here may have rows: check before loading
	requeued  map[int64]bool  // items in groups that have a row among the requeued
	unread    bool            // more requeued items are due than the window may hold
	nextDue   time.Time       // when to look for requeued items next; zero: there are none
	recent    []bulkhead.Item // rest of the chunk that was read last for a requeued item

	leases      map[int64]*live
	nextStart   time.Time // by the run's rate
	wait        string    // why its next item does not start, as last decided
	dirty       bool      // Run differs from what is stored
	savedAt     time.Time // when its row was last part of a batch
	savedReason string    // that was in it
	savedHeld   bool      // likewise
	judged      int       // by which Engine.ruled the next two were found
	verdict     bulkhead.Verdict
	from        string // who gives it
	rests       bool   // its canary paused it: its process need not wait for what a person makes of that
	stopNow     bool   // running attempts were told to stop
	begins      bool   // its next lease is its first
	again       bool   // it has run before, and items of it were retried
	ends        bool   // it is over, which nobody was told yet

	watch    chan struct{} // closed at the next change; nil: nobody watches
	failures []Failure     // the last ones, oldest first
}

// keyedPool is a PoolUse with its key template parsed.
type keyedPool struct {
	bulkhead.PoolUse
	key bulkhead.Template
}

// live is a lease in force.
type live struct {
	bulkhead.Lease
	run   *run
	needs []Need
	stop  chan struct{} // closed once

	agent   *agent // that holds it; nil: a worker of this process
	expires time.Time
	lost    bool // its agent is gone
}

// group holds the waiting items that need the same pools.
type group struct {
	needs []Need
	items []int64 // ascending; parallel to wait
	wait  []waiting
}

type waiting struct {
	bulkhead.Item
	attempt int
}

func newRun(stored *bulkhead.Run) (*run, error) {
	r := &run{
		Run: stored, byNeeds: map[string]*group{}, requeued: map[int64]bool{}, leases: map[int64]*live{},
		cursor: stored.Next, total: stored.Counts.Total(), begins: stored.Started.IsZero(),
		scopes: bulkhead.ScopesOf(stored.ID, &stored.Spec),
	}
	for _, p := range stored.Spec.Pools {
		key, err := bulkhead.ParseTemplate(p.Key, stored.Spec.Columns)
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", p.Name, err)
		}
		r.pools = append(r.pools, keyedPool{p, key})
	}
	return r, nil
}

// needs are the pool slots that an item takes.
func (r *run) needs(it bulkhead.Item) []Need {
	needs := make([]Need, len(r.pools))
	for i, p := range r.pools {
		needs[i] = Need{PoolKey{p.Name, p.key.Expand(it)}, p.Slots}
	}
	return needs
}

// push puts an item into the group that needs the same pools, in index order.
func (r *run) push(it bulkhead.Item, attempt int) {
	var needs []Need
	var name strings.Builder
	if len(r.pools) > 0 {
		needs = r.needs(it)
		for _, n := range needs {
			fmt.Fprintf(&name, "%d:%s", len(n.Pool.Key), n.Pool.Key)
		}
	}
	g := r.byNeeds[name.String()]
	if g == nil {
		g = &group{needs: needs}
		r.byNeeds[name.String()] = g
		r.groups = append(r.groups, g)
	}
	r.insert(g, waiting{it, attempt})
}

func (r *run) insert(g *group, w waiting) {
	at := len(g.items)
	if at > 0 && g.items[at-1] > w.Index {
		at, _ = slices.BinarySearch(g.items, w.Index)
	}
	g.items = slices.Insert(g.items, at, w.Index)
	g.wait = slices.Insert(g.wait, at, w)
	r.waiting++
	r.bytes += w.Size()
}

// pop takes the first item of a group.
func (r *run) pop(index int) (waiting, []Need) {
	g := r.groups[index]
	w := g.wait[0]
	g.wait[0] = waiting{}
	g.items, g.wait = g.items[1:], g.wait[1:]
	r.waiting--
	r.bytes -= w.Size()
	return w, g.needs
}

// prune forgets groups without items, so that a key per item does not pile up.
// It must not run between a snapshot and its decision.
func (r *run) prune() {
	kept := r.groups[:0]
	for _, g := range r.groups {
		if len(g.items) > 0 {
			kept = append(kept, g)
		}
	}
	if len(kept) == len(r.groups) {
		return
	}
	clear(r.groups[len(kept):])
	r.groups = kept
	for name, g := range r.byNeeds {
		if len(g.items) == 0 {
			delete(r.byNeeds, name)
		}
	}
}

// lowest is the lowest index that was never leased.
func (r *run) lowest() int64 {
	low := r.cursor
	for _, g := range r.groups {
		for i, index := range g.items {
			if g.wait[i].attempt == 1 {
				low = min(low, index)
				break
			}
		}
	}
	return low
}

// lease takes the first item of a group for a worker.
func (e *Engine) lease(r *run, group int, to *ask, now time.Time) *live {
	w, needs := r.pop(group)
	if w.attempt > 1 {
		delete(r.requeued, w.Index)
		if r.unread && len(r.requeued) < windowRequeued/2 {
			r.nextDue = now
		}
	}
	l := &live{run: r, needs: needs, stop: make(chan struct{}), Lease: bulkhead.Lease{
		Run: r.ID, Item: w.Item, Attempt: w.attempt, Token: e.opts.Token(), Slot: to.Slot, Since: now, Output: to.Output,
	}}
	if to.agent != nil {
		e.give(l, to.agent)
	}
	r.leases[w.Index] = l
	for _, n := range needs {
		e.inUse[n.Pool]++
	}
	e.held[r.Spec.Owner]++
	r.Counts.Queued--
	r.Counts.Running++
	if r.Started.IsZero() {
		r.Started = now
	}
	r.dirty = true
	return l
}

// release gives back what a lease took.
func (e *Engine) release(r *run, l *live) {
	delete(r.leases, l.Item.Index)
	if l.agent != nil {
		l.agent.drop(l)
		e.stirred[l.agent.Class] = true
	}
	for _, n := range l.needs {
		if e.inUse[n.Pool]--; e.inUse[n.Pool] == 0 {
			delete(e.inUse, n.Pool)
		}
	}
	if e.held[r.Spec.Owner]--; e.held[r.Spec.Owner] == 0 {
		delete(e.held, r.Spec.Owner)
	}
	r.Counts.Running--
	r.dirty = true
}

// unlease takes back a lease that could not be made durable.
func (e *Engine) unlease(r *run, index int64) {
	l := r.leases[index]
	e.release(r, l)
	if l.agent != nil {
		e.opts.Remote.Output.Drop(l.Lease)
	}
	r.Counts.Queued++
	if l.Attempt > 1 {
		r.requeued[index] = true
	}
	r.push(l.Item, l.Attempt)
}

// finish takes the result of an attempt into the batch: it ends the lease and
// decides whether the item gets another attempt.
func (e *Engine) finish(b *bulkhead.Batch, d *Done, now time.Time) error {
	r := e.byID[d.Lease.Run]
	if r == nil {
		return fmt.Errorf("result for run %d, which is not ours", d.Lease.Run)
	}
	l := r.leases[d.Lease.Item.Index]
	if l == nil || l.Token != d.Lease.Token {
		return fmt.Errorf("result for run %d item %d without its lease", r.ID, d.Lease.Item.Index)
	}
	if notStarted(d.Result) && r.Ending == 0 {
		b.Returned = append(b.Returned, l.Lease)
		e.unlease(r, l.Item.Index)
		return nil
	}
	e.release(r, l)
	if l.agent != nil {
		e.settled = append(e.settled, l.Lease)
	}
	a := bulkhead.Attempt{Run: r.ID, Item: l.Item.Index, N: l.Attempt, Final: true, Result: d.Result}
	if r.retries(a) {
		a.Final = false
		due := now.Add(jitter(retryDelay(r.Spec.RetryDelay, a.N)))
		b.Requeued = append(b.Requeued, bulkhead.Requeue{Run: r.ID, Item: a.Item, Attempt: a.N + 1, Due: due})
		r.Counts.Queued++
		if r.nextDue.IsZero() || due.Before(r.nextDue) {
			r.nextDue = due
		}
	} else {
		*r.Counts.Of(a.State)++
	}
	b.Ended = append(b.Ended, a)
	if r.Spec.Single() {
		r.ExitCode = exitCode(a.Result)
	}
	if a.State == bulkhead.ItemFailed || a.State == bulkhead.ItemLost {
		e.noteFailure(r, Failure{l.Item, a, now})
	}
	if a.Final {
		r.judge(a)
	}
	return nil
}

// notStarted: the worker got the lease when it was about to go, and says that it
// made no use of it.
func notStarted(r bulkhead.Result) bool { return r.How == bulkhead.HowInterrupt && r.Started.IsZero() }

// retries reports whether a failed attempt is followed by another one.
func (r *run) retries(a bulkhead.Attempt) bool {
	bad := a.State == bulkhead.ItemFailed || a.State == bulkhead.ItemLost
	return bad && a.N <= r.Spec.Retries && r.Ending == 0
}

// retryDelay doubles with every attempt.
func retryDelay(first time.Duration, attempt int) time.Duration {
	d := first
	for i := 1; i < attempt && d < bulkhead.MaxRetryDelay; i++ {
		d *= 2
	}
	return min(d, max(bulkhead.MaxRetryDelay, first))
}

// exitCode is what a shell would call the end of a process.
func exitCode(r bulkhead.Result) int {
	switch {
	case r.Signal != 0:
		return 128 + r.Signal
	case r.State == bulkhead.ItemSucceeded:
		return 0
	case r.ExitCode == 0:
		return 1
	}
	return r.ExitCode
}

// judge looks at the counters after an item got its last result.
func (r *run) judge(a bulkhead.Attempt) {
	if r.Ending != 0 || r.State.Finished() {
		return
	}
	if why := r.Spec.Halt.Reached(r.Counts.Since(r.Forgiven)); why != "" {
		r.Ending, r.Reason, r.stopNow = bulkhead.RunFailed, why, r.Spec.Halt.Now
		return
	}
	if r.inCanary() && a.State != bulkhead.ItemSucceeded {
		r.rests = true
		r.State, r.Reason = bulkhead.RunPaused, fmt.Sprintf(
			"canary: item %d %s; `bulkhead resume %d` goes on, `bulkhead cancel %d` stops", a.Item, a.State, r.ID, r.ID)
	}
}

func (r *run) inCanary() bool {
	return r.Spec.Canary > 0 && !r.CanaryDone && r.Counts.Succeeded < int64(r.Spec.Canary)
}

// view is what a decision may know of the run.
func (r *run) view(draining string) RunView {
	v := RunView{
		ID: r.ID, Kind: r.Spec.Kind(), Owner: r.Spec.Owner, Priority: r.Spec.Priority, Running: len(r.leases),
		Limit: r.Limit, LimitReason: fmt.Sprintf("limit: %d at once", r.Limit),
		NextStart: r.nextStart, Interval: r.Spec.Rate.Interval(), Stop: r.stop(),
	}
	if v.Stop == "" && draining != "" {
		v.Stop = bulkhead.Stopping + draining
	}
	if r.inCanary() {
		if left := r.Spec.Canary - int(r.Counts.Succeeded); left < v.Limit {
			v.Limit = left
			v.LimitReason = fmt.Sprintf("canary: %d of %d succeeded so far", r.Counts.Succeeded, r.Spec.Canary)
		}
	}
	v.Groups = make([]Group, len(r.groups))
	for i, g := range r.groups {
		v.Groups[i] = Group{g.needs, g.items}
	}
	if len(r.requeued) == 0 {
		v.NextDue = r.nextDue
	}
	return v
}

// stop is why nothing of the run may start.
func (r *run) stop() string {
	switch {
	case r.State == bulkhead.RunPaused, r.Ending != 0:
		return r.Reason
	case r.State != bulkhead.RunRunning:
		return r.State.String()
	}
	return ""
}
