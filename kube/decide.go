package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"bulkhead.dev/bulkhead"
)

// patience is how long a pod that has not started is kept when nothing needs it
// any more: what has gone may come again.
const patience = 30 * time.Second

// unproven is how many pods may be starting before any has started, and that
// others may be starting beside as many that have. If they cannot start, there
// are no more of them.
const unproven = 10

// worker is a pod as decide sees it.
type worker struct {
	name    string
	uid     types.UID
	version string // resource version
	shape   string // key
	ordinal int
	created time.Time
	agent   *AgentStatus // nil: the server knows none of this name

	ended    bool // finished; nothing of it runs
	final    bool // and the node has said so
	leaving  bool // it is being deleted, or belongs to another class of the same name
	outdated bool // made from something else than the class is now
	started  bool // an agent may have begun to run in it
	crashed  bool // its agent ended badly, and will be started again
	trouble  trouble
}

// free says that deleting the pod ends no script and loses nothing.
func (w *worker) free() bool { return (!w.started || w.crashed) && w.agent == nil }

func (w *worker) connected() bool { return w.agent != nil && w.agent.Connected }

// current says that the pod is, or will be, one that takes items.
func (w *worker) current() bool {
	return !w.ended && !w.leaving && !w.outdated && (w.agent == nil || !w.agent.Leaving)
}

// snapshot is all that a decision is made from.
type snapshot struct {
	class    string // its name, without the namespace
	max      int    // pods
	slots    int    // of a pod
	shapes   int    // besides the class as it is
	workers  []worker
	demand   []bulkhead.Demand
	now      time.Time
	backoff  backoff            // of what all of its pods need
	backoffs map[string]backoff // of the pods of a shape
	invalid  map[string]trouble // shapes that cannot have pods
	released bool               // the class is gone: nothing is made any more
	foreign  []string           // names that pods of somebody else have
}

// creation is a pod to make.
type creation struct {
	shape bulkhead.Shape
	name  string
}

// decision is what to do, in the order of the fields.
type decision struct {
	gone    []string // pods whose agents are over
	remove  []worker
	retire  []string // pods whose agents are to go
	create  []creation
	stuck   []trouble       // of pods that are wanted and do not become workers
	amiss   map[string]bool // shapes that have such pods
	short   map[string]bool // shapes that want more pods than they have
	unmet   int             // pods that are wanted and may not be made: max
	shapes  int             // shapes that wait for others to have no pods
	missing int             // pods that are wanted and were not made for trouble
	bare    bool            // the class has no ConfigMap yet, or no policy
	again   time.Duration   // when time alone may change the answer; 0: never
}

func (d *decision) lookAgain(after time.Duration) {
	if after > 0 && (d.again == 0 || after < d.again) {
		d.again = after
	}
}

// share is what a shape gets.
type share struct {
	demand bulkhead.Demand
	target int // pods
	live   []*worker
}

// decide says what to do about the pods of a class.
func decide(s *snapshot) decision {
	var d decision
	d.clear(s)
	shares := d.divide(s)
	d.makeRoom(s, shares)
	d.fill(s, shares)
	return d
}

// clear ends what has no place any more, whatever the demand.
func (d *decision) clear(s *snapshot) {
	for i := range s.workers {
		w := &s.workers[i]
		switch {
		case w.ended:
			if w.final {
				d.gone = append(d.gone, w.name)
			}
			if !w.leaving {
				d.remove = append(d.remove, *w)
			}
		case w.leaving:
		case (w.outdated || s.released) && w.free():
			d.remove = append(d.remove, *w)
		case (w.outdated || s.released) && w.agent != nil && !w.agent.Leaving:
			d.retire = append(d.retire, w.name)
		}
	}
}

// divide shares the pods that there may be between the shapes: each gets what it
// can use, and where that is too much, all get the same.
func (d *decision) divide(s *snapshot) []share {
	if s.released {
		return nil
	}
	live, busy := map[string][]*worker{}, map[string]int{}
	for i := range s.workers {
		w := &s.workers[i]
		if w.current() {
			live[w.shape] = append(live[w.shape], w)
		} else if w.agent != nil && !w.ended {
			busy[w.shape] += w.agent.Busy // its items need no other worker
		}
	}
	shares := d.admit(s, live)
	wanted := make([]int, len(shares))
	for i := range shares {
		shares[i].live = live[shares[i].demand.Shape]
		wanted[i] = podsFor(shares[i].demand.Slots-busy[shares[i].demand.Shape], s.slots)
	}
	for i, n := range fair(wanted, s.max) {
		shares[i].target = n
		d.unmet += wanted[i] - n
	}
	return shares
}

// admit picks the shapes that may have pods: the class as it is, those that have
// some, and others while there is room.
func (d *decision) admit(s *snapshot, live map[string][]*worker) []share {
	demand := slices.DeleteFunc(slices.Clone(s.demand), func(x bulkhead.Demand) bool {
		return s.invalid[x.Shape] != trouble{}
	})
	// Pods without demand hold a place, too.
	for shape := range live {
		if !slices.ContainsFunc(demand, func(x bulkhead.Demand) bool { return x.Shape == shape }) {
			demand = append(demand, bulkhead.Demand{Kind: bulkhead.Kind{Shape: shape}})
		}
	}
	rank := func(x bulkhead.Demand) int {
		switch {
		case x.Shape == "":
			return 0
		case len(live[x.Shape]) > 0:
			return 1
		}
		return 2
	}
	slices.SortFunc(demand, func(a, b bulkhead.Demand) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Shape, b.Shape))
	})
	var shares []share
	for _, x := range demand {
		others := len(shares)
		if len(shares) > 0 && shares[0].demand.Shape == "" {
			others--
		}
		if rank(x) == 2 && others >= s.shapes {
			if x.Slots > 0 {
				d.shapes++
			}
			continue
		}
		shares = append(shares, share{demand: x})
	}
	return shares
}

// makeRoom deletes pods that have not started and that nothing needs, and lets
// workers go where others have more use for their place. Otherwise a worker that
// has nothing to do ends by itself.
func (d *decision) makeRoom(s *snapshot, shares []share) {
	room := s.max - len(s.workers)
	short := 0
	for _, x := range shares {
		short += max(0, x.target-len(x.live))
	}
	for _, w := range s.workers {
		if w.ended || w.leaving || w.agent != nil && w.agent.Leaving || w.outdated {
			room++ // it will be free by itself
		}
	}
	need := max(0, short-room)
	for i := range shares {
		need = d.release(s, &shares[i], need)
	}
}

// release lets go what a shape has too much of, as far as it is free or others
// need so many places, and returns how many these still need.
func (d *decision) release(s *snapshot, x *share, need int) int {
	// Those that nobody misses first, then the idle, then the highest ordinals.
	slices.SortFunc(x.live, func(a, b *worker) int {
		return cmp.Or(-compareBool(a.free(), b.free()), compareBool(a.busy(), b.busy()), -cmp.Compare(a.ordinal, b.ordinal))
	})
	for _, w := range x.live[:max(0, len(x.live)-x.target)] {
		age := s.now.Sub(w.created)
		switch {
		case w.free() && need <= 0 && age < patience:
			d.lookAgain(patience - age)
		case w.free():
			d.remove = append(d.remove, *w)
			need--
		case need > 0 && w.agent != nil:
			d.retire = append(d.retire, w.name)
			need--
		}
	}
	return need
}

func (w *worker) busy() bool { return w.agent != nil && w.agent.Busy > 0 }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// fill makes the pods that are missing, as far as there is room and no trouble.
func (d *decision) fill(s *snapshot, shares []share) {
	room := s.max - len(s.workers)
	taken := map[string]bool{}
	for _, name := range s.foreign {
		taken[name] = true
	}
	for i := range s.workers {
		taken[s.workers[i].name] = true
	}
	if allowed, again := s.backoff.allows(len(s.workers), false, s.now); allowed < room {
		room = allowed
		d.lookAgain(again)
	}
	d.amiss, d.short = map[string]bool{}, map[string]bool{}
	for i := range shares {
		x := &shares[i]
		d.noteStuck(x)
		missing := max(0, x.target-len(x.live))
		d.short[x.demand.Shape] = missing > 0
		n := max(0, min(missing, room, d.may(s, x, missing)))
		d.missing += missing - n
		room -= n
		for ordinal := 0; n > 0; ordinal++ {
			name := workerName(s.class, x.demand.Shape, ordinal)
			if taken[name] {
				continue
			}
			d.create = append(d.create, creation{x.demand.Pod, name})
			n--
		}
	}
	for i := range s.workers {
		if w := &s.workers[i]; w.leaving && w.trouble != (trouble{}) && d.missing > 0 && room <= 0 {
			d.stuck = append(d.stuck, w.trouble) // its place is missed
			d.missing--
		}
	}
}

// may is how many pods of a shape may be made, of so many that are missing. Each
// shape has its own troubles: one that no node can take does not hold up others.
func (d *decision) may(s *snapshot, x *share, missing int) int {
	starting, ready := 0, 0
	for _, w := range x.live {
		if w.connected() {
			ready++
		} else {
			starting++
		}
	}
	may := max(unproven, ready) - starting
	backoff := s.backoffs[x.demand.Shape]
	allowed, again := backoff.allows(len(s.workers), d.amiss[x.demand.Shape], s.now)
	if allowed < min(may, missing) {
		d.lookAgain(again)
	}
	return min(may, allowed)
}

// noteStuck notes the troubles of the pods of a shape that are wanted.
func (d *decision) noteStuck(x *share) {
	if x.target == 0 {
		return
	}
	for _, w := range x.live {
		if w.trouble != (trouble{}) {
			d.stuck = append(d.stuck, w.trouble)
			d.amiss[x.demand.Shape] = true
		}
	}
}

// podsFor is how many pods have so many slots.
func podsFor(wanted, perPod int) int {
	if wanted <= 0 {
		return 0
	}
	return (wanted + perPod - 1) / perPod
}

// fair shares n between those that want so many each: nobody gets more than it
// wants, and who gets less than that gets as much as anybody, or one less.
func fair(wanted []int, n int) []int {
	got := make([]int, len(wanted))
	order := make([]int, len(wanted))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(wanted[a], wanted[b]) })
	for at, i := range order {
		left := len(order) - at
		got[i] = min(wanted[i], (n+left-1)/left)
		n -= got[i]
	}
	return got
}

// backoff bounds what is tried while pods cannot be made or cannot start.
type backoff struct {
	trouble trouble   // of the last pod that could not be made; zero: none
	at      time.Time // when
	began   bool      // that pod could be made, but ended before it began
	tries   int       // in a row
	until   time.Time // when to try again
	pods    int       // that there were when one was refused: with fewer, another may do
}

// Between two tries it takes a second, then twice as long each time, up to:
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// allows says how many pods may be made now, and when that may change.
func (b *backoff) allows(pods int, stuck bool, now time.Time) (n int, again time.Duration) {
	if b.trouble == (trouble{}) && !stuck {
		return 1 << 20, 0
	}
	if room := b.pods - pods; room > 0 {
		return room, 0
	}
	if wait := b.until.Sub(now); wait > 0 {
		return 0, wait
	}
	return 1, 0
}

// refused notes that a pod, or what it needs, could not be made. Jitter is in [0,1).
func (b *backoff) refused(t trouble, pods int, now time.Time, jitter float64) {
	*b = backoff{trouble: t, at: now, tries: b.tries, pods: pods}
	b.wait(now, jitter)
}

// failed notes that a pod has ended before it began.
func (b *backoff) failed(t trouble, now time.Time, jitter float64) {
	*b = backoff{trouble: t, at: now, began: true, tries: b.tries}
	b.wait(now, jitter)
}

// wait puts the next try off, each time for longer.
func (b *backoff) wait(now time.Time, jitter float64) {
	delay := min(firstRetry<<min(b.tries, 20), lastRetry)
	b.tries++
	b.until = now.Add(time.Duration(float64(delay) * (0.5 + jitter)))
}

// made notes that a pod was made, of which there were so many before.
func (b *backoff) made(pods int) {
	if !b.began && pods >= b.pods {
		*b = backoff{} // more than when one was refused
	}
}

// settle forgets what is over: a worker has connected since, or nothing is amiss.
func (b *backoff) settle(workers []worker, stuck bool) {
	since := func(w worker) bool { return w.connected() && w.agent.Since.After(b.at) }
	if b.began && slices.ContainsFunc(workers, since) {
		*b = backoff{}
	}
	if b.trouble == (trouble{}) && !stuck {
		*b = backoff{}
	}
}

// says is what blocks the class, in one line, of so many workers that are wanted.
func (d *decision) says(m *memory, wanted int) trouble {
	var all []trouble
	if m.backoff.trouble != (trouble{}) && (d.bare || d.missing+len(d.create) > 0) {
		all = append(all, m.backoff.trouble)
	}
	n := len(d.stuck) + d.missing
	for _, shape := range slices.Sorted(maps.Keys(m.backoffs)) {
		if t := m.backoffs[shape].trouble; t != (trouble{}) && d.short[shape] {
			all = append(all, t)
			for _, x := range d.create {
				if x.shape.Key() == shape {
					n++
				}
			}
		}
	}
	all = append(all, d.stuck...)
	if len(all) == 0 {
		return trouble{}
	}
	if wanted == 0 || n == 0 || n >= wanted {
		return trouble{all[0].Code, all[0].Text}
	}
	return trouble{all[0].Code, fmt.Sprintf("%d of %d workers cannot start: %s", n, wanted, all[0].Text)}
}
