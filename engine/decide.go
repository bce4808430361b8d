package engine

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"time"

	"bulkhead.dev/bulkhead"
)

// PoolKey names one pool: for a keyed pool each key is a pool of its own.
type PoolKey struct{ Name, Key string }

func (k PoolKey) String() string {
	if k.Key == "" {
		return k.Name
	}
	return k.Name + ":" + k.Key
}

// Need is one slot of a pool that an item takes while it runs. The limit comes
// with the need, as PoolCounter's clients send theirs, and is compared with
// what is in use at that moment.
type Need struct {
	Pool  PoolKey
	Slots int
}

// Group is the items of a run that wait and need the same pools, by index.
// Items that wait for the same thing are looked at once, not one by one.
type Group struct {
	Needs []Need
	Items []int64 // ascending
}

// RunView is what a decision may depend on of one run.
type RunView struct {
	ID       bulkhead.RunID
	Kind     bulkhead.Kind // of the workers that can run it
	Owner    string
	Priority int
	Limit    int // at once
	// LimitReason says in words where Limit comes from.
	LimitReason string
	Running     int
	// Stop, when not empty, is why nothing of this run may start.
	Stop string
	// NextStart is the earliest start that the run's rate allows, Interval the
	// time between two starts. Interval 0: no rate.
	NextStart time.Time
	Interval  time.Duration
	Groups    []Group
	// NextDue is when the next item that waits for another attempt may start;
	// zero: none waits.
	NextDue time.Time
	// NoWorker is why no worker takes what may start; "": all are busy.
	NoWorker string
	// Verdict is what rulings come to for this run. One that slows multiplies Limit.
	Verdict bulkhead.Verdict
	// Caps are those that count this run, as indices into Snapshot.Caps.
	Caps []int
}

// Cap is a limit that several runs share.
type Cap struct {
	Limit, Running int    // at once; live leases
	Reason         string // in words where Limit comes from
}

// Snapshot is everything a decision depends on. Decide reads it and changes
// nothing.
type Snapshot struct {
	Now time.Time
	// Idle is how many workers ask for work.
	Idle  map[bulkhead.Kind]int
	InUse map[PoolKey]int  // live leases by pool
	Held  map[string]int   // live leases by owner of the run
	Runs  []RunView        // oldest first
	Stop  bulkhead.Verdict // nothing may start: the store cannot be written
	Caps  []Cap
	// Pools are the verdicts on single pools: who needs one that is stopped does not start,
	// and of one that is slowed the slots are multiplied.
	Pools map[PoolKey]bulkhead.Verdict
}

// Start says that the first waiting item of a group gets a lease.
type Start struct{ Run, Group int } // indices into Snapshot.Runs and their Groups

// Decision is what to do now.
type Decision struct {
	Starts    []Start
	NextStart []time.Time // of each run, after Starts
	Waits     []string    // of each run: why its next item does not start; "" when nothing waits
	Held      []bool      // of each run: items wait, and a verdict lets none of them start
	Wake      time.Time   // when to decide again without an event; zero: not before an event
}

// rateSlack is how far a run may fall behind its rate and still catch up. It
// lets a rate of thousands per second hold without a timer per start.
const rateSlack = 100 * time.Millisecond

// Decide chooses what starts now: fair between owners (the one with the fewest
// live leases first), then by priority, then by age, and within a run in the
// order of its input. It is a pure function.
func Decide(s Snapshot) Decision {
	d := newDecider(&s)
	for best := d.best(); best >= 0; best = d.best() {
		d.start(best)
	}
	for i := range d.runs {
		d.out.Waits[i] = d.wait(i)
	}
	return d.out
}

// decider is the working copy of one decision.
type decider struct {
	s    *Snapshot
	idle map[bulkhead.Kind]int // less those that got something to do
	used map[PoolKey]int       // taken by this decision, on top of s.InUse
	held map[string]int        // likewise by owner
	caps []int                 // likewise by Snapshot.Caps
	runs []candidate
	out  Decision
}

// candidate is a run within one decision.
type candidate struct {
	running int
	next    time.Time // NextStart so far
	queue   groupHeap // groups that may still have a startable item
	limit   int       // Limit, slowed
	blocked Need      // the first pool that kept an item back
	isFull  bool      // blocked is set
	free    bool      // some pool kept an item back that is not stopped
}

func newDecider(s *Snapshot) *decider {
	d := &decider{s: s, idle: maps.Clone(s.Idle), used: map[PoolKey]int{}, held: map[string]int{},
		caps: make([]int, len(s.Caps)), runs: make([]candidate, len(s.Runs))}
	d.out.NextStart = make([]time.Time, len(s.Runs))
	d.out.Waits, d.out.Held = make([]string, len(s.Runs)), make([]bool, len(s.Runs))
	for i := range s.Runs {
		r := &s.Runs[i]
		c := &d.runs[i]
		c.running, c.next, c.limit = r.Running, r.NextStart, r.Verdict.Slowed(r.Limit)
		d.out.NextStart[i] = r.NextStart
		if r.Stop != "" || s.Stop.Stops() || r.Verdict.Stops() || s.Idle[r.Kind] == 0 {
			continue
		}
		for g := range r.Groups {
			if len(r.Groups[g].Items) > 0 {
				c.queue = append(c.queue, cursor{group: g, items: r.Groups[g].Items})
			}
		}
		heap.Init(&c.queue)
	}
	return d
}

// best returns the run whose item starts next, or -1.
func (d *decider) best() int {
	best := -1
	for i := range d.runs {
		if d.startable(i) && (best < 0 || d.before(i, best)) {
			best = i
		}
	}
	return best
}

func (d *decider) before(a, b int) bool {
	ra, rb := &d.s.Runs[a], &d.s.Runs[b]
	if ra.Owner != rb.Owner {
		ha, hb := d.s.Held[ra.Owner]+d.held[ra.Owner], d.s.Held[rb.Owner]+d.held[rb.Owner]
		if ha != hb {
			return ha < hb
		}
	}
	if ra.Priority != rb.Priority {
		return ra.Priority > rb.Priority
	}
	return a < b
}

// startable reports whether the run has an item that may start, and leaves
// that item's group on top of the queue.
func (d *decider) startable(i int) bool {
	r, c := &d.s.Runs[i], &d.runs[i]
	if c.running >= c.limit || len(c.queue) == 0 || d.idle[r.Kind] == 0 || d.capped(r) >= 0 {
		return false
	}
	if r.Interval > 0 && c.next.After(d.s.Now) {
		return false
	}
	for len(c.queue) > 0 {
		need, full := d.full(r.Groups[c.queue[0].group].Needs)
		if !full {
			return true
		}
		if !c.isFull {
			c.blocked, c.isFull = need, true
		}
		c.free = c.free || !d.s.Pools[need.Pool].Stops()
		heap.Pop(&c.queue) // pools only fill up within a decision
	}
	return false
}

func (d *decider) full(needs []Need) (Need, bool) {
	for _, n := range needs {
		v := d.s.Pools[n.Pool]
		if v.Stops() || d.s.InUse[n.Pool]+d.used[n.Pool] >= v.Slowed(n.Slots) {
			return n, true
		}
	}
	return Need{}, false
}

// capped is the first cap that the run has reached, or -1.
func (d *decider) capped(r *RunView) int {
	for _, i := range r.Caps {
		if d.s.Caps[i].Running+d.caps[i] >= d.s.Caps[i].Limit {
			return i
		}
	}
	return -1
}

func (d *decider) start(i int) {
	r, c := &d.s.Runs[i], &d.runs[i]
	top := &c.queue[0]
	d.out.Starts = append(d.out.Starts, Start{Run: i, Group: top.group})
	for _, n := range r.Groups[top.group].Needs {
		d.used[n.Pool]++
	}
	d.held[r.Owner]++
	d.idle[r.Kind]--
	for _, at := range r.Caps {
		d.caps[at]++
	}
	c.running++
	if r.Interval > 0 {
		if earliest := d.s.Now.Add(-rateSlack); c.next.Before(earliest) {
			c.next = earliest
		}
		c.next = c.next.Add(r.Interval)
		// A slow rate gets no burst: two starts a second apart stay a second apart.
		if r.Interval > rateSlack && c.next.Before(d.s.Now.Add(r.Interval)) {
			c.next = d.s.Now.Add(r.Interval)
		}
		d.out.NextStart[i] = c.next
	}
	top.items = top.items[1:]
	if len(top.items) == 0 {
		heap.Pop(&c.queue)
	} else {
		heap.Fix(&c.queue, 0)
	}
}

// wait says in one line why the run's next item does not start.
func (d *decider) wait(i int) string {
	r, c := &d.s.Runs[i], &d.runs[i]
	waiting := r.Running - c.running // less what starts now
	for _, g := range r.Groups {
		waiting += len(g.Items)
	}
	if waiting == 0 && r.NextDue.IsZero() {
		return ""
	}
	capped := d.capped(r)
	switch {
	case d.s.Stop.Stops():
		d.out.Held[i] = true
		return d.s.Stop.Reason
	case r.Stop != "":
		return r.Stop
	case r.Verdict.Stops():
		d.out.Held[i] = true
		return r.Verdict.Reason
	case c.running >= c.limit && c.limit < r.Limit:
		return fmt.Sprintf("limit: %d of %d: slowed: %s", c.limit, r.Limit, r.Verdict.Reason)
	case c.running >= c.limit:
		return r.LimitReason
	case capped >= 0:
		return d.s.Caps[capped].Reason
	case waiting == 0:
		d.wake(r.NextDue)
		return "retry: the next attempt is due at " + r.NextDue.Format(time.TimeOnly)
	case r.Interval > 0 && c.next.After(d.s.Now):
		d.wake(c.next)
		return fmt.Sprintf("rate: one start every %s", r.Interval.Round(time.Millisecond))
	case c.isFull && len(c.queue) == 0:
		d.out.Held[i] = !c.free
		return d.poolReason(c.blocked)
	}
	return cmp.Or(r.NoWorker, "worker: all are busy")
}

func (d *decider) poolReason(n Need) string {
	v := d.s.Pools[n.Pool]
	slots := v.Slowed(n.Slots)
	switch {
	case v.Stops():
		return v.Reason
	case slots < n.Slots:
		return fmt.Sprintf("pool %s: all %d of %d in use: slowed: %s", n.Pool, slots, n.Slots, v.Reason)
	}
	return fmt.Sprintf("pool %s: all %d in use", n.Pool, n.Slots)
}

func (d *decider) wake(at time.Time) {
	if d.out.Wake.IsZero() || at.Before(d.out.Wake) {
		d.out.Wake = at
	}
}

// cursor is the rest of one group; groupHeap orders them by their first item.
type cursor struct {
	group int
	items []int64
}

type groupHeap []cursor

func (h groupHeap) Len() int           { return len(h) }
func (h groupHeap) Less(i, j int) bool { return h[i].items[0] < h[j].items[0] }
func (h groupHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *groupHeap) Push(x any)        { *h = append(*h, x.(cursor)) }
func (h *groupHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
