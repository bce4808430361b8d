package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// The model: what one item may be, as a person would count it on paper. The
// machine drives the real engine over a real store with workers that it holds
// in its hand, in any order: finish, fail, pause, resume, limit, cancel, retry,
// crash. After every step the counters, the rows and the model must agree.
type machine struct {
	t     *rapid.T
	dir   string
	store *sqlite.Store
	runs  []*modelRun // oldest first

	engine *engine.Engine
	stop   context.CancelFunc
	ended  chan struct{} // closed when the engine's loop is
	hands  []*hand

	fresh []*engine.Assignment // leases that were seen since they were last looked at
}

// modelRun is what the model knows of a run by itself.
type modelRun struct {
	id    bulkhead.RunID
	age   int // position among the runs
	spec  bulkhead.Spec
	items int64

	forgiven bulkhead.Counts // what it had when items were last retried: a halt counts what comes after

	starts  map[int64]int // of each item, ever
	allowed map[int64]int // starts that the user asked for

	paused bool  // somebody paused it, or its canary did, and nobody has resumed it
	barred bool  // nothing of it may start until somebody asks for it
	seen   int64 // how many attempts it had when that began, or else at the last check
	ends   bool  // somebody cancelled it, or it may halt: only then items are cancelled
}

// hand is one worker of the model: it asks, and holds what it got.
type hand struct {
	work chan *engine.Assignment
	done chan *engine.Done
	held *engine.Assignment
	gone bool
}

const modelHands = 3

func newMachine(t *rapid.T) *machine {
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir}
	m.open()
	var runs []*bulkhead.Run
	for i := range rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "runs") {
		runs = append(runs, m.submit(i))
	}
	m.begin(runs)
	return m
}

// submit accepts a run.
func (m *machine) submit(age int) *bulkhead.Run {
	t := m.t
	mr := &modelRun{age: age, starts: map[int64]int{}, allowed: map[int64]int{}}
	mr.items = rapid.Int64Range(0, 12).Draw(t, "items")
	mr.spec = bulkhead.Spec{Columns: []string{"1"}, Command: []string{"x"}}
	mr.spec.Owner = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "owner")
	mr.spec.Priority = rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "priority")
	mr.spec.Limit = rapid.IntRange(1, 4).Draw(t, "limit")
	mr.spec.Retries = rapid.IntRange(0, 2).Draw(t, "retries")
	mr.spec.RetryDelay = 1 // due at once: the model has no clock
	mr.spec.Canary = rapid.SampledFrom([]int{0, 0, 2}).Draw(t, "canary")
	mr.spec.Halt = rapid.SampledFrom([]bulkhead.Halt{{}, {}, {Fail: 2}, {Now: true, Fail: 1}, {Percent: 50}}).Draw(t, "halt")
	mr.ends = mr.spec.Halt != (bulkhead.Halt{})
	if rapid.Bool().Draw(t, "pooled") {
		mr.spec.Pools = []bulkhead.PoolUse{{Name: "db", Key: "{1}", Slots: rapid.IntRange(1, 2).Draw(t, "slots")}}
	}
	r := &bulkhead.Run{Spec: mr.spec, Created: time.Now()}
	m.must(m.store.Create(context.Background(), r))
	var items []bulkhead.Item
	for i := int64(1); i <= mr.items; i++ {
		items = append(items, bulkhead.Item{Index: i, Values: []string{key(i)}})
		mr.allowed[i] = 1 + mr.spec.Retries
	}
	m.must(m.store.Accept(context.Background(), r, items, mr.items, "hash"))
	mr.id = r.ID
	m.runs = append(m.runs, mr)
	return r
}

// key is the pool key of an item: three keys for all.
func key(item int64) string { return fmt.Sprint(item % 3) }

func (m *machine) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) open() {
	st, err := sqlite.Open(context.Background(), m.dir)
	m.must(err)
	m.store = st
}

// begin starts an engine that owns the runs.
func (m *machine) begin(runs []*bulkhead.Run) {
	m.engine = engine.New(engine.Options{Store: m.store, Poll: time.Hour})
	for _, r := range runs {
		if ok, err := m.store.Own(r.ID); err != nil || !ok {
			m.t.Fatalf("own: %v %v", ok, err)
		}
		m.must(m.engine.Adopt(context.Background(), r))
	}
	m.must(m.engine.CarryOut(context.Background()))
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.ended = stop, make(chan struct{})
	e, ended := m.engine, m.ended
	go func() {
		defer close(ended)
		_ = e.Run(ctx) // a crash is an error, the rows say the rest
	}()
	m.hands = nil
	for slot := range modelHands {
		h := &hand{work: make(chan *engine.Assignment, 1), done: make(chan *engine.Done, 1)}
		m.hands = append(m.hands, h)
		go h.live(e, slot)
	}
}

func (h *hand) live(e *engine.Engine, slot int) {
	defer close(h.work)
	var done *engine.Done
	for {
		work, err := e.Next(context.Background(), engine.Ask{Slot: slot, Done: done})
		if err != nil {
			return
		}
		h.work <- work
		if done = <-h.done; done == nil {
			return
		}
	}
}

// settle waits until the engine has nothing to do without us: every hand holds
// work or the engine gives it none. It asks the engine, not a clock.
func (m *machine) settle() {
	look := time.NewTicker(200 * time.Microsecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-look.C {
		for _, h := range m.hands {
			h.look(m)
		}
		if m.quiet() {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("the engine does not come to rest: %+v", m.engine.Status(9))
		}
	}
}

func (h *hand) look(m *machine) {
	if h.held != nil || h.gone {
		return
	}
	select {
	case work, ok := <-h.work:
		if !ok {
			h.gone = true
			return
		}
		h.held = work
		m.of(work).starts[work.Lease.Item.Index]++
		m.fresh = append(m.fresh, work)
	default:
	}
}

// of is the run of a lease.
func (m *machine) of(work *engine.Assignment) *modelRun {
	return m.runs[slices.IndexFunc(m.runs, func(mr *modelRun) bool { return mr.id == work.Lease.Run })]
}

// holding are the leases in the hands.
func (m *machine) holding() (held []*engine.Assignment) {
	for _, h := range m.hands {
		if h.held != nil {
			held = append(held, h.held)
		}
	}
	return held
}

// quiet reports whether what the engine shows leaves nothing to wait for.
func (m *machine) quiet() bool {
	held := m.holding()
	over := true
	for i, st := range m.engine.Status(0).Runs {
		mr, running := m.runs[i], 0
		for _, work := range held {
			if m.of(work) == mr {
				running++
			}
		}
		// The engine counts what is not committed yet; at rest both are the same.
		if int(st.Counts.Running) != running || m.hasToAct(&st.Run) || st.Counts != m.stored(mr).Counts {
			return false
		}
		if len(held) < modelHands && m.startable(mr, &st.Run, held, false) {
			return false
		}
		over = over && st.State.Finished()
	}
	return !over || m.hands[0].gone && m.hands[1].gone && m.hands[2].gone
}

// hasToAct reports whether the engine has something to do for which it needs no
// worker.
func (m *machine) hasToAct(r *bulkhead.Run) bool {
	if r.State.Finished() {
		return false
	}
	return r.Ending != 0 && r.Counts.Queued > 0 || r.Counts.Queued+r.Counts.Running == 0 // it must cancel, or end
}

// startable is the model's own idea of whether something of a run may start
// while the given leases are held; first: an item that has never run.
func (m *machine) startable(mr *modelRun, r *bulkhead.Run, held []*engine.Assignment, first bool) bool {
	if r.State != bulkhead.RunRunning || r.Ending != 0 {
		return false
	}
	limit := r.Limit
	if mr.spec.Canary > 0 && !r.CanaryDone && r.Counts.Succeeded < int64(mr.spec.Canary) {
		limit = min(limit, mr.spec.Canary-int(r.Counts.Succeeded))
	}
	running, used := 0, map[string]int{}
	isHeld := map[int64]bool{}
	for _, work := range held {
		other := m.of(work)
		if other == mr {
			running++
			isHeld[work.Lease.Item.Index] = true
		}
		if len(other.spec.Pools) > 0 { // they share it
			used[work.Lease.Item.Values[0]]++
		}
	}
	if running >= limit {
		return false
	}
	found := false
	m.must(m.store.Items(context.Background(), m.stored(mr), bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		waits := it.State == bulkhead.ItemQueued && (!first || it.Attempt.N == 0) ||
			it.State == bulkhead.ItemRunning && it.Attempt.N == 1 && !isHeld[it.Index] // it did, at the moment asked for
		found = found || waits && (len(mr.spec.Pools) == 0 || used[it.Values[0]] < mr.spec.Pools[0].Slots)
		return nil
	}))
	return found
}

func (m *machine) stored(mr *modelRun) *bulkhead.Run {
	r, err := m.store.Run(context.Background(), mr.id)
	m.must(err)
	return r
}

// finish ends one attempt that a hand holds.
func (m *machine) finish(t *rapid.T) {
	var busy []*hand
	for _, h := range m.hands {
		if h.held != nil {
			busy = append(busy, h)
		}
	}
	if len(busy) == 0 {
		t.Skip("no hand is busy")
	}
	h := rapid.SampledFrom(busy).Draw(t, "hand")
	res := bulkhead.Result{Started: time.Now()}
	select {
	case <-h.held.Stop:
		res.State, res.How = bulkhead.ItemCancelled, bulkhead.HowCancel
	default:
		if rapid.IntRange(0, 2).Draw(t, "fails") == 0 {
			res.State, res.ExitCode = bulkhead.ItemFailed, 1
		}
	}
	h.done <- &engine.Done{Lease: h.held.Lease, Result: res}
	h.held = nil
}

// pick is the run that somebody asks something of.
func (m *machine) pick(t *rapid.T) *modelRun { return rapid.SampledFrom(m.runs).Draw(t, "run") }

func (m *machine) ask(mr *modelRun, q bulkhead.Request) {
	q.Run, q.By, q.At = mr.id, "bob", time.Now()
	id, err := m.store.Ask(context.Background(), q)
	m.must(err)
	look := time.NewTicker(200 * time.Microsecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-look.C {
		m.engine.Poke()
		for _, h := range m.hands {
			h.look(m)
		}
		pending, err := m.store.Pending(context.Background(), id)
		m.must(err)
		if !pending {
			return
		}
		select {
		case <-m.ended:
			m.crash() // nobody runs it: the next owner carries it out
			return
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatal("the request is not carried out")
		}
	}
}

// active reports whether a run can still be paused, resumed or cancelled.
func (m *machine) active(mr *modelRun) bool {
	r := m.stored(mr)
	return !r.State.Finished() && r.Ending == 0
}

// bar notes that nothing of a run may start from now on.
func (m *machine) bar(mr *modelRun) { mr.barred, mr.seen = true, m.attempts(mr) }

// attempts is how many a run has had, by its rows.
func (m *machine) attempts(mr *modelRun) (n int64) {
	m.must(m.store.Items(context.Background(), m.stored(mr), bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		n += int64(it.Attempt.N)
		return nil
	}))
	return n
}

func (m *machine) pause(t *rapid.T) {
	mr := m.pick(t)
	active := m.active(mr)
	m.ask(mr, bulkhead.Request{Kind: bulkhead.RequestPause})
	if active {
		mr.paused = true
		m.bar(mr)
	}
}

func (m *machine) resume(t *rapid.T) {
	mr := m.pick(t)
	if m.active(mr) {
		mr.paused, mr.barred = false, false
	}
	m.ask(mr, bulkhead.Request{Kind: bulkhead.RequestResume})
}

func (m *machine) cancel(t *rapid.T) {
	mr := m.pick(t)
	if rapid.IntRange(0, 3).Draw(t, "really") != 0 {
		return
	}
	mr.ends = mr.ends || !m.stored(mr).State.Finished()
	m.ask(mr, bulkhead.Request{Kind: bulkhead.RequestCancel})
	m.bar(mr)
	if r := m.stored(mr); r.Ending == 0 && !r.State.Finished() {
		t.Fatalf("run %d was cancelled and is %s", mr.id, r.State)
	}
}

// retry asks for failed and lost items to run again.
func (m *machine) retry(t *rapid.T) {
	mr := m.pick(t)
	sel := bulkhead.Selection{Failed: rapid.Bool().Draw(t, "failed"), Lost: rapid.Bool().Draw(t, "lost"), Cancelled: rapid.Bool().Draw(t, "cancelled")}
	for i := int64(1); i <= mr.items; i++ {
		mr.allowed[i]++ // at most; the rows say the rest
	}
	r := m.stored(mr)
	if r.State.Finished() {
		mr.barred = false
	}
	m.ask(mr, bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel})
	if now := m.stored(mr).Counts; now.Finished() < r.Counts.Finished() {
		mr.forgiven = now
	}
}

func results(c bulkhead.Counts) int64 { return c.Succeeded + c.Failed + c.Lost }

// crash is a kill -9: the engine is gone in the middle, its workers too, and
// another one takes the run over.
func (m *machine) crash() {
	m.stop()
	<-m.ended
	m.drainHands()
	m.must(m.store.Close())
	m.open()
	runs := make([]*bulkhead.Run, len(m.runs))
	for i, mr := range m.runs {
		runs[i] = m.stored(mr)
	}
	m.begin(runs)
	m.fresh = nil
}

func (m *machine) drainHands() {
	for _, h := range m.hands {
		close(h.done)
		if work, ok := <-h.work; ok && work != nil {
			m.of(work).starts[work.Lease.Item.Index]++
			for range h.work {
			}
		}
	}
}

func (m *machine) close() {
	m.stop()
	<-m.ended
	m.drainHands()
	_ = m.store.Close()
	_ = os.RemoveAll(m.dir)
}

// check compares the engine, the store and the model.
func (m *machine) check(t *rapid.T) {
	m.settle()
	held := m.holding()
	for i, st := range m.engine.Status(0).Runs {
		mr, r := m.runs[i], m.stored(m.runs[i])
		n := m.checkCounts(t, mr, r)
		if st.Counts != r.Counts {
			t.Fatalf("run %d: the engine says %+v, the store %+v", mr.id, st.Counts, r.Counts)
		}
		m.checkStops(t, mr, r, n)
	}
	used, most := map[string]int{}, 0
	for _, mr := range m.runs {
		for _, p := range mr.spec.Pools {
			most = max(most, p.Slots)
		}
	}
	for _, work := range held {
		if k := work.Lease.Item.Values[0]; len(m.of(work).spec.Pools) > 0 {
			if used[k]++; used[k] > most {
				t.Fatalf("%d items of pool db:%s run, it has %d slots", used[k], k, most)
			}
		}
	}
	m.fresh = nil
}

// checkCounts returns how many attempts the run has had.
func (m *machine) checkCounts(t *rapid.T, mr *modelRun, r *bulkhead.Run) (attempts int64) {
	var rows bulkhead.Counts
	m.must(m.store.Items(context.Background(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		*rows.Of(it.State)++
		attempts += int64(it.Attempt.N)
		return nil
	}))
	if rows != r.Counts {
		t.Fatalf("run %d: the counters say %+v, the rows %+v", mr.id, r.Counts, rows)
	}
	if r.Counts.Total() != mr.items {
		t.Fatalf("run %d: %d items became %d", mr.id, mr.items, r.Counts.Total())
	}
	for item, n := range mr.starts {
		if n > mr.allowed[item] {
			t.Fatalf("run %d: item %d started %d times, allowed %d", mr.id, item, n, mr.allowed[item])
		}
	}
	if c := r.Counts; r.State.Finished() && (c.Queued > 0 || c.Running > 0) {
		t.Fatalf("run %d is %s with %+v", mr.id, r.State, c)
	}
	return attempts
}

// checkStops: what was paused, halted or cancelled starts nothing, and what
// should be is.
func (m *machine) checkStops(t *rapid.T, mr *modelRun, r *bulkhead.Run, n int64) {
	if mr.barred && n != mr.seen {
		t.Fatalf("run %d started %d attempts while it was %s (ending %d)", mr.id, n-mr.seen, r.State, r.Ending)
	}
	ending := r.State.Finished() || r.Ending != 0
	switch {
	case ending:
		mr.paused = false
	case mr.paused && r.State != bulkhead.RunPaused:
		t.Fatalf("run %d was paused, nobody resumed it, and it is %s", mr.id, r.State)
	case r.State == bulkhead.RunPaused && !mr.paused && mr.spec.Canary == 0:
		t.Fatalf("run %d paused by itself: %s", mr.id, r.Reason)
	default:
		mr.paused = r.State == bulkhead.RunPaused
	}
	if c := r.Counts.Since(mr.forgiven); !ending && haltIsDue(mr.spec.Halt, c) {
		t.Fatalf("run %d goes on (%s) with %+v, and was to halt at %s", mr.id, r.State, c, mr.spec.Halt)
	}
	if r.Counts.Cancelled > 0 && !mr.ends {
		t.Fatalf("run %d has %d cancelled items, and nobody cancelled it", mr.id, r.Counts.Cancelled)
	}
	mr.barred, mr.seen = ending || mr.paused, n
}

// haltIsDue is the documented rule: so many failures, or such a share of what
// has a result, of three failures on.
func haltIsDue(h bulkhead.Halt, c bulkhead.Counts) bool {
	bad := c.Failed + c.Lost
	return h.Fail > 0 && bad >= h.Fail || h.Percent > 0 && bad >= 3 && 100*float64(bad) >= h.Percent*float64(results(c))
}

// checkStopped: a result that halts its run, or pauses it, lets nothing of it
// start any more, in the same turn of the engine either.
func (m *machine) checkStopped(t *rapid.T) {
	for _, mr := range m.runs {
		r := m.stored(mr)
		if r.State == bulkhead.RunRunning && r.Ending == 0 {
			continue
		}
		if n := m.attempts(mr); n != mr.seen {
			t.Fatalf("run %d started %d attempts after the result for which it is %s (ending %d)", mr.id, n-mr.seen, r.State, r.Ending)
		}
	}
}

// checkFair takes back, one by one, what started since an attempt ended. At that
// moment no run that could have started an item may have been before the one
// that did: fair between owners, then by priority, then by age.
func (m *machine) checkFair(t *rapid.T) {
	m.settle()
	held := m.holding()
	slices.SortFunc(m.fresh, func(a, b *engine.Assignment) int { return cmp.Compare(b.Lease.Token, a.Lease.Token) })
	for _, work := range m.fresh { // the latest first
		at := slices.Index(held, work)
		if at < 0 {
			return
		}
		held = slices.Delete(held, at, at+1)
		owners := map[string]int{}
		for _, other := range held {
			owners[m.of(other).spec.Owner]++
		}
		chosen := m.of(work)
		for _, mr := range m.runs {
			if mr != chosen && before(mr, chosen, owners) && m.startable(mr, m.stored(mr), held, true) {
				t.Fatalf("run %d (%s, priority %d) started an item before run %d (%s, priority %d); the owners had %v",
					chosen.id, chosen.spec.Owner, chosen.spec.Priority, mr.id, mr.spec.Owner, mr.spec.Priority, owners)
			}
		}
	}
}

// before reports whether run a starts before run b.
func before(a, b *modelRun, owners map[string]int) bool {
	if d := owners[a.spec.Owner] - owners[b.spec.Owner]; a.spec.Owner != b.spec.Owner && d != 0 {
		return d < 0
	}
	if a.spec.Priority != b.spec.Priority {
		return a.spec.Priority > b.spec.Priority
	}
	return a.age < b.age
}

func TestEngineAgreesWithAModelInAnyOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer m.close()
		finish := func(t *rapid.T) {
			m.finish(t)
			m.checkFair(t)
			m.checkStopped(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"finish":  finish,
			"finish2": finish,
			"finish3": finish,
			"pause":   m.pause,
			"resume":  m.resume,
			"limit": func(t *rapid.T) {
				m.ask(m.pick(t), bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: rapid.IntRange(1, 4).Draw(t, "limit")})
			},
			"cancel": m.cancel,
			"retry":  m.retry,
			"crash":  func(*rapid.T) { m.crash() },
			"":       m.check,
		})
	})
}
