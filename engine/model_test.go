package engine_test

import (
	"context"
	"fmt"
	"os"
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
	id    bulkhead.RunID
	spec  bulkhead.Spec
	items int64

	engine *engine.Engine
	stop   context.CancelFunc
	ended  chan struct{} // closed when the engine's loop is
	hands  []*hand

	starts  map[int64]int // of each item, ever
	allowed map[int64]int // starts that the user asked for
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
	m := &machine{t: t, dir: dir, starts: map[int64]int{}, allowed: map[int64]int{}}
	m.items = rapid.Int64Range(0, 12).Draw(t, "items")
	m.spec = bulkhead.Spec{Columns: []string{"1"}, Owner: "ann", Command: []string{"x"}}
	m.spec.Limit = rapid.IntRange(1, 4).Draw(t, "limit")
	m.spec.Retries = rapid.IntRange(0, 2).Draw(t, "retries")
	m.spec.RetryDelay = 1 // due at once: the model has no clock
	m.spec.Canary = rapid.SampledFrom([]int{0, 0, 2}).Draw(t, "canary")
	m.spec.Halt = rapid.SampledFrom([]bulkhead.Halt{{}, {}, {Fail: 2}, {Now: true, Fail: 1}, {Percent: 50}}).Draw(t, "halt")
	if rapid.Bool().Draw(t, "pooled") {
		m.spec.Pools = []bulkhead.PoolUse{{Name: "db", Key: "{1}", Slots: rapid.IntRange(1, 2).Draw(t, "slots")}}
	}
	m.open()
	r := &bulkhead.Run{Spec: m.spec, Created: time.Now()}
	m.must(m.store.Create(context.Background(), r))
	var items []bulkhead.Item
	for i := int64(1); i <= m.items; i++ {
		items = append(items, bulkhead.Item{Index: i, Values: []string{key(i)}})
		m.allowed[i] = 1 + m.spec.Retries
	}
	m.must(m.store.Accept(context.Background(), r, items, m.items, "hash"))
	m.id = r.ID
	m.begin(r)
	return m
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

// begin starts an engine that owns the run.
func (m *machine) begin(r *bulkhead.Run) {
	if ok, err := m.store.Own(m.id); err != nil || !ok {
		m.t.Fatalf("own: %v %v", ok, err)
	}
	m.engine = engine.New(engine.Options{Store: m.store, Poll: time.Hour})
	m.must(m.engine.Adopt(context.Background(), r))
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
		work, err := e.Next(context.Background(), slot, bulkhead.OutputRef{}, done)
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
		m.starts[work.Lease.Item.Index]++
	default:
	}
}

// quiet reports whether what the engine shows leaves nothing to wait for.
func (m *machine) quiet() bool {
	held := 0
	for _, h := range m.hands {
		if h.held != nil {
			held++
		}
	}
	st := m.engine.Status(0).Runs[0]
	// The engine counts what is not committed yet; at rest both are the same.
	if int(st.Counts.Running) != held || st.Counts != m.stored().Counts {
		return false
	}
	if st.State.Finished() {
		return m.hands[0].gone && m.hands[1].gone && m.hands[2].gone
	}
	return held == modelHands || !m.startable(&st.Run)
}

// startable is the model's own idea of whether the engine must start something.
func (m *machine) startable(r *bulkhead.Run) bool {
	if r.Ending != 0 {
		return r.Counts.Queued > 0 || r.Counts.Running == 0 // it must cancel, or end
	}
	if r.State != bulkhead.RunRunning {
		return false
	}
	limit := r.Limit
	if m.spec.Canary > 0 && !r.CanaryDone && r.Counts.Succeeded < int64(m.spec.Canary) {
		limit = min(limit, m.spec.Canary-int(r.Counts.Succeeded))
	}
	if r.Counts.Running >= int64(limit) {
		return false
	}
	if r.Counts.Queued == 0 {
		return r.Counts.Running == 0 // it must finish
	}
	if len(m.spec.Pools) == 0 {
		return true
	}
	used := map[string]int{}
	for _, h := range m.hands {
		if h.held != nil {
			used[h.held.Lease.Item.Values[0]]++
		}
	}
	found := false
	queued := bulkhead.ItemQueued
	m.must(m.store.Items(context.Background(), m.stored(), bulkhead.ItemQuery{State: &queued}, func(it bulkhead.ItemStatus) error {
		found = found || used[it.Values[0]] < m.spec.Pools[0].Slots
		return nil
	}))
	return found
}

func (m *machine) stored() *bulkhead.Run {
	r, err := m.store.Run(context.Background(), m.id)
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

func (m *machine) ask(q bulkhead.Request) {
	q.Run, q.By, q.At = m.id, "bob", time.Now()
	id, err := m.store.Ask(context.Background(), q)
	m.must(err)
	if m.stored().State.Finished() {
		m.crash() // nobody runs it: the next owner carries it out
		return
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
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
			m.crash()
			return
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatal("the request is not carried out")
		}
	}
}

// retry asks for failed and lost items to run again.
func (m *machine) retry(t *rapid.T) {
	sel := bulkhead.Selection{Failed: rapid.Bool().Draw(t, "failed"), Lost: rapid.Bool().Draw(t, "lost"), Cancelled: rapid.Bool().Draw(t, "cancelled")}
	for i := int64(1); i <= m.items; i++ {
		m.allowed[i]++ // at most; the rows say the rest
	}
	m.ask(bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel})
}

// crash is a kill -9: the engine is gone in the middle, its workers too, and
// another one takes the run over.
func (m *machine) crash() {
	m.stop()
	<-m.ended
	m.drainHands()
	m.must(m.store.Close())
	m.open()
	m.begin(m.stored())
}

func (m *machine) drainHands() {
	for _, h := range m.hands {
		close(h.done)
		if work, ok := <-h.work; ok && work != nil {
			m.starts[work.Lease.Item.Index]++
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
	r := m.stored()
	var rows bulkhead.Counts
	m.must(m.store.Items(context.Background(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		*rows.Of(it.State)++
		return nil
	}))
	if rows != r.Counts {
		t.Fatalf("the counters say %+v, the rows %+v", r.Counts, rows)
	}
	if got := m.engine.Status(0).Runs[0].Counts; got != r.Counts {
		t.Fatalf("the engine says %+v, the store %+v", got, r.Counts)
	}
	if r.Counts.Total() != m.items {
		t.Fatalf("%d items became %d", m.items, r.Counts.Total())
	}
	for item, n := range m.starts {
		if n > m.allowed[item] {
			t.Fatalf("item %d started %d times, allowed %d", item, n, m.allowed[item])
		}
	}
	used := map[string]int{}
	for _, h := range m.hands {
		if h.held != nil {
			used[h.held.Lease.Item.Values[0]]++
		}
	}
	for _, p := range m.spec.Pools {
		for k, n := range used {
			if n > p.Slots {
				t.Fatalf("%d items of pool db:%s run, it has %d slots", n, k, p.Slots)
			}
		}
	}
	if c := r.Counts; r.State.Finished() && (c.Queued > 0 || c.Running > 0) {
		t.Fatalf("the run is %s with %+v", r.State, c)
	}
}

func TestEngineAgreesWithAModelInAnyOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer m.close()
		t.Repeat(map[string]func(*rapid.T){
			"finish":  m.finish,
			"finish2": m.finish,
			"finish3": m.finish,
			"pause":   func(*rapid.T) { m.ask(bulkhead.Request{Kind: bulkhead.RequestPause}) },
			"resume":  func(*rapid.T) { m.ask(bulkhead.Request{Kind: bulkhead.RequestResume}) },
			"limit": func(t *rapid.T) {
				m.ask(bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: rapid.IntRange(1, 4).Draw(t, "limit")})
			},
			"cancel": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					m.ask(bulkhead.Request{Kind: bulkhead.RequestCancel})
				}
			},
			"retry": m.retry,
			"crash": func(*rapid.T) { m.crash() },
			"":      m.check,
		})
	})
}
