package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// The model of agents: processes with slots that keep to what agents promise (a
// token is started once, a script has ended when its lease may be over), on a
// network that loses, delays and repeats what they say, on machines that die, are
// cut off, or are given the same name twice. The engine, the store and the output
// are real; the server dies, too.
type site struct {
	t      *rapid.T
	dir    string
	clock  *clock
	store  *sqlite.Store
	shelf  *output.Shelf
	engine *engine.Engine
	stop   context.CancelFunc
	ended  chan struct{}

	runs    map[bulkhead.RunID]*siteRun
	procs   []*proc
	current map[string]*proc // whom the engine knows by a name
	scripts []*modelScript   // that were started
	tokens  map[uint64]bool  // that were started
	rows    map[string]string
	late    []func() // what was said before and comes again
	numbers uint64
}

type siteRun struct {
	spec    bulkhead.Spec
	items   int64
	starts  map[int64]int
	allowed map[int64]int
	retried bool // by somebody, who may not have waited for what was lost to end
	ends    bool // it was cancelled
}

// proc is one process of an agent.
type proc struct {
	who   bulkhead.Agent
	dead  bool // it says nothing any more
	leave bool // it was told that another one has its name
	work  map[int]*modelScript
	calls map[int]*call
}

// String is for whoever reads a failure.
func (p *proc) String() string { return fmt.Sprintf("%s process %d", p.who.Name, p.who.Process) }

// modelScript is an attempt in the hands of a process.
type modelScript struct {
	p        *proc
	lease    bulkhead.Lease
	spec     *bulkhead.Spec
	keep     time.Duration
	until    time.Time // when it must have ended
	running  bool
	stopped  bool // the server said so
	gone     bool // the server was told that its agent is
	result   bulkhead.Result
	text     string
	received int64 // bytes of text that the server said to have
}

// String is for whoever reads a failure.
func (s *modelScript) String() string {
	return fmt.Sprintf("run %d item %d attempt %d of %s", s.lease.Run, s.lease.Item.Index, s.lease.Attempt, s.p)
}

// call is an Exchange under way.
type call struct {
	sent   time.Time
	done   *modelScript
	answer chan answered
	gone   bool // as of a script, for the lease that is in the answer
	answered
}

type answered struct {
	work *engine.Assignment
	err  error
}

const modelSlots = 2

func newSite(t *rapid.T) *site {
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		t.Fatal(err)
	}
	m := &site{t: t, dir: dir, clock: &clock{now: time.Unix(1e9, 0)}, runs: map[bulkhead.RunID]*siteRun{},
		tokens: map[uint64]bool{}, rows: map[string]string{}}
	m.begin()
	m.submit(t)
	for range rapid.IntRange(1, 3).Draw(t, "agents") {
		m.spawn(t)
	}
	return m
}

func (m *site) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *site) outputs(id bulkhead.RunID) string { return filepath.Join(m.dir, "output", id.String()) }

// begin starts a server on what the store has.
func (m *site) begin() {
	var err error
	m.store, err = sqlite.Open(context.Background(), m.dir)
	m.must(err)
	m.shelf = &output.Shelf{Dir: m.outputs}
	m.engine = engine.New(engine.Options{Store: m.store, Now: m.clock.Now, Poll: time.Hour, Remote: &engine.Remote{
		Output: m.shelf, Fetch: m.store.Run, Finished: m.shelf.Close,
	}})
	m.current = map[string]*proc{}
	ctx, stop := context.WithCancel(context.Background())
	e, ended := m.engine, make(chan struct{})
	m.stop, m.ended = stop, ended
	go func() {
		defer close(ended)
		_ = e.Run(ctx) // it is always ended
	}()
	runs, err := m.store.Unfinished(context.Background())
	m.must(err)
	var leases []bulkhead.Lease
	for _, r := range runs {
		m.must(m.engine.Add(context.Background(), r))
		more, err := m.store.Leases(context.Background(), r.ID)
		m.must(err)
		leases = append(leases, more...)
	}
	slices.SortFunc(leases, func(a, b bulkhead.Lease) int { return a.Since.Compare(b.Since) })
	for _, l := range leases {
		m.current[l.Worker] = m.procs[slices.IndexFunc(m.procs, func(p *proc) bool { return p.who.Process == l.Process })]
	}
}

func (m *site) kill() {
	m.stop()
	<-m.ended
	_ = m.shelf.CloseAll()
	_ = m.store.Close()
}

func (m *site) close() {
	m.kill()
	_ = os.RemoveAll(m.dir)
}

// settle lets the engine do what it can without us.
func (m *site) settle() {
	for range 3 {
		m.must(m.engine.Look(context.Background()))
	}
}

func (m *site) submit(t *rapid.T) {
	sr := &siteRun{starts: map[int64]int{}, allowed: map[int64]int{}}
	sr.items = rapid.Int64Range(1, 4).Draw(t, "items")
	sr.spec = bulkhead.Spec{Class: "a", Columns: []string{"1"}, Command: []string{"x"}, RetryDelay: 1, MaxOutput: -1}
	sr.spec.Limit = rapid.IntRange(1, 5).Draw(t, "limit")
	sr.spec.Retries = rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "retries")
	sr.spec.Grace = time.Duration(rapid.SampledFrom([]int{0, 0, 10}).Draw(t, "grace")) * time.Second
	if rapid.Bool().Draw(t, "pooled") {
		sr.spec.Pools = []bulkhead.PoolUse{{Name: "db", Key: "{1}", Slots: 1}}
	}
	var items []bulkhead.Item
	for i := int64(1); i <= sr.items; i++ {
		items = append(items, bulkhead.Item{Index: i, Values: []string{key(i)}})
		sr.allowed[i] = 1 + sr.spec.Retries
	}
	r := &bulkhead.Run{Spec: sr.spec, Created: m.clock.Now()}
	m.must(m.store.Submit(context.Background(), r, items, sr.items, "hash"))
	m.runs[r.ID] = sr
	own := *r
	m.must(m.engine.Add(context.Background(), &own))
}

// spawn starts a process, perhaps of a name that another one has, too.
func (m *site) spawn(t *rapid.T) {
	m.numbers++
	name := rapid.SampledFrom([]string{"pod-0", "pod-1"}).Draw(t, "name")
	m.procs = append(m.procs, &proc{who: bulkhead.Agent{Name: name, Process: m.numbers, Kind: bulkhead.Kind{Class: "a"}, Slots: modelSlots},
		work: map[int]*modelScript{}, calls: map[int]*call{}})
}

// alive draws a process that can do something.
func (m *site) alive(t *rapid.T) *proc {
	var list []*proc
	for _, p := range m.procs {
		if !p.dead {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		t.Skip("no process lives")
	}
	return rapid.SampledFrom(list).Draw(t, "process")
}

// met notes what the engine makes of a message of a process.
func (m *site) met(p *proc, err error) {
	if errors.Is(err, bulkhead.ErrFormer) || errors.Is(err, bulkhead.ErrClosed) {
		return
	}
	m.current[p.who.Name] = p
	for _, other := range m.procs {
		if other == p || other.who.Name != p.who.Name {
			continue
		}
		for _, s := range other.work {
			s.gone = true
		}
		for _, c := range other.calls {
			c.gone = true
		}
	}
}

// certain reports whether the server must take the lease for the script's.
func (m *site) certain(s *modelScript) bool {
	other := m.current[s.p.who.Name]
	return !s.gone && !m.clock.Now().After(s.until) && (other == nil || other == s.p)
}

// work is what happens when all is well: who has nothing to do is given something.
func (m *site) work(*rapid.T) {
	for _, p := range m.procs {
		for slot := 0; slot < modelSlots && !p.dead; slot++ {
			if p.calls[slot] == nil && m.canCall(p, slot) {
				m.call(p, slot, false, true)
			}
			if c := p.calls[slot]; c != nil && len(c.answer) > 0 {
				m.take(p, slot)
			}
		}
	}
}

func (m *site) canCall(p *proc, slot int) bool {
	s := p.work[slot]
	return p.calls[slot] == nil && !p.leave && (s == nil || !s.running)
}

// exchange begins a call of a slot.
func (m *site) exchange(t *rapid.T) {
	p, slot := m.alive(t), rapid.IntRange(0, modelSlots-1).Draw(t, "slot")
	if !m.canCall(p, slot) {
		t.Skip("it has nothing to say")
	}
	m.call(p, slot, rapid.IntRange(0, 9).Draw(t, "leaves") == 0, rapid.Bool().Draw(t, "at once"))
}

func (m *site) call(p *proc, slot int, leaving, atOnce bool) {
	s := p.work[slot]
	m.clock.pass(time.Microsecond) // by which it is seen that the engine has heard of it
	q := engine.Ask{Agent: p.who, Slot: slot, Leaving: leaving}
	if s != nil || atOnce {
		q.Until = m.clock.Now()
	}
	c := &call{sent: m.clock.Now(), done: s, answer: make(chan answered, 1)}
	p.calls[slot] = c
	if s != nil {
		m.deliver(s, q, c)
		return
	}
	e := m.engine
	go func() {
		work, err := e.Next(context.Background(), q)
		c.answer <- answered{work, err}
	}()
	for len(c.answer) == 0 && (!q.Until.IsZero() || !m.knows(p)) { // until it is answered, or waits
		m.settle()
	}
	m.late = append(m.late, func() { m.say(q) })
	if len(c.answer) == 0 {
		m.met(p, nil)
		return
	}
	got := <-c.answer
	c.answer <- got
	m.met(p, got.err)
}

// knows reports whether the engine has heard of a process just now.
func (m *site) knows(p *proc) bool {
	return slices.ContainsFunc(m.engine.Agents(""), func(a bulkhead.AgentStatus) bool {
		return a.Name == p.who.Name && a.Process == p.who.Process && a.Seen.Equal(m.clock.Now())
	})
}

// say is an ask to which nobody listens.
func (m *site) say(q engine.Ask) {
	q.Until = m.clock.Now()
	p := m.procs[slices.IndexFunc(m.procs, func(p *proc) bool { return p.who.Process == q.Agent.Process })]
	_, err := m.engine.Next(context.Background(), q)
	m.met(p, err)
}

// hand does what the API does with a result: the rest of the output comes first.
func (m *site) hand(s *modelScript, q engine.Ask) (*engine.Assignment, error) {
	m.piece(s, s.received)
	ref, _, err := m.shelf.End(s.lease.Token, 0)
	m.must(err)
	s.result.Output = ref
	q.Done = &engine.Done{Lease: s.lease, Result: s.result}
	work, err := m.engine.Next(context.Background(), q)
	m.met(s.p, err)
	return work, err
}

// deliver hands in the result of a script: what the engine says yes to is durable.
func (m *site) deliver(s *modelScript, q engine.Ask, c *call) {
	certain := m.certain(s)
	work, err := m.hand(s, q)
	c.answer <- answered{work, err}
	m.late = append(m.late, func() { _, _ = m.hand(s, q) })
	if !certain {
		return
	}
	if err != nil && !errors.Is(err, bulkhead.ErrLeave) {
		m.t.Fatalf("the result of %s was refused: %v", s, err)
	}
	if !s.result.Started.IsZero() {
		m.checkKept(s)
	}
	m.received(s)
}

// received: whatever comes of it later, its lease is over.
func (m *site) received(s *modelScript) { s.gone = true }

func (m *site) checkKept(s *modelScript) {
	attempts, err := m.store.Attempts(context.Background(), s.lease.Run, s.lease.Item.Index)
	m.must(err)
	at := slices.IndexFunc(attempts, func(a bulkhead.Attempt) bool { return a.N == s.lease.Attempt })
	if at < 0 || attempts[at].State != s.result.State {
		m.t.Fatalf("the result of %s was acknowledged, the store has %+v", s, attempts)
	}
	var text strings.Builder
	err = output.Read(m.outputs(s.lease.Run), output.Attempt{Item: s.lease.Item.Index, N: s.lease.Attempt, Ref: attempts[at].Output},
		func(c bulkhead.Chunk) error { text.Write(c.Data); return nil })
	if err != nil || text.String() != s.text {
		m.t.Fatalf("of what %s wrote, %q, the server has %q (%v)", s, s.text, text.String(), err)
	}
}

// receive brings a slot the answer to its call, or loses it.
func (m *site) receive(t *rapid.T) {
	p, slot := m.alive(t), rapid.IntRange(0, modelSlots-1).Draw(t, "slot")
	c := p.calls[slot]
	if c == nil {
		t.Skip("it did not call")
	}
	if rapid.Bool().Draw(t, "lost") {
		delete(p.calls, slot)
		return // it will call again
	}
	if len(c.answer) == 0 {
		t.Skip("there is no answer yet")
	}
	m.take(p, slot)
}

func (m *site) take(p *proc, slot int) {
	c := p.calls[slot]
	c.answered = <-c.answer
	delete(p.calls, slot)
	if c.err != nil && !errors.Is(c.err, bulkhead.ErrFormer) && !errors.Is(c.err, bulkhead.ErrLeave) {
		return // it will call again
	}
	if errors.Is(c.err, bulkhead.ErrFormer) {
		p.leave = true
		return
	}
	delete(p.work, slot)
	if c.work != nil {
		m.start(p, c)
	}
}

// start runs what a lease allows.
func (m *site) start(p *proc, c *call) {
	l := c.work.Lease
	s := &modelScript{p: p, lease: l, spec: c.work.Spec, keep: m.engine.Keep(l, c.work.Spec)}
	s.until, s.gone = c.sent.Add(s.keep), c.gone
	p.work[l.Slot] = s
	if !m.clock.Now().Before(s.until) {
		s.result = bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowInterrupt} // it was not started
		return
	}
	sr := m.runs[l.Run]
	if m.tokens[l.Token] {
		m.t.Fatalf("%s started a second time", s)
	}
	m.tokens[l.Token] = true
	sr.starts[l.Item.Index]++
	if n := sr.starts[l.Item.Index]; n > sr.allowed[l.Item.Index] {
		m.t.Fatalf("item %d of run %d started %d times, allowed %d", l.Item.Index, l.Run, n, sr.allowed[l.Item.Index])
	}
	for _, other := range m.scripts {
		if other.running && other.lease.Run == l.Run && other.lease.Item.Index == l.Item.Index && !sr.retried {
			m.t.Fatalf("%s runs beside %s", s, other)
		}
	}
	s.running = true
	m.scripts = append(m.scripts, s)
}

// running draws a script that runs.
func (m *site) running(t *rapid.T) *modelScript {
	m.scripts = slices.DeleteFunc(m.scripts, func(s *modelScript) bool { return !s.running })
	if len(m.scripts) == 0 {
		t.Skip("nothing runs")
	}
	return rapid.SampledFrom(m.scripts).Draw(t, "script")
}

func (m *site) finish(t *rapid.T) {
	s := m.running(t)
	res := bulkhead.Result{State: rapid.SampledFrom([]bulkhead.ItemState{bulkhead.ItemSucceeded, bulkhead.ItemFailed}).Draw(t, "state")}
	if s.stopped {
		res = bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	}
	m.end(s, res)
}

func (m *site) end(s *modelScript, res bulkhead.Result) {
	s.running, s.result = false, res
	s.result.Started = m.clock.Now()
}

// write lets a script write, and sends what the server does not have, or some of
// it, or too much.
func (m *site) write(t *rapid.T) {
	s := m.running(t)
	s.text += fmt.Sprintf("%d of %d;", len(s.text), s.lease.Item.Index)
	if s.p.leave || rapid.Bool().Draw(t, "kept") {
		return
	}
	from := rapid.Int64Range(0, s.received).Draw(t, "from")
	have := m.piece(s, from)
	m.late = append(m.late, func() { m.piece(s, from) })
	if rapid.Bool().Draw(t, "lost") {
		return
	}
	s.received = max(s.received, have)
}

// piece sends output from a byte on.
func (m *site) piece(s *modelScript, from int64) int64 {
	chunk := bulkhead.Chunk{Stream: bulkhead.Stdout, At: m.clock.Now(), Data: []byte(s.text[from:])}
	have, known, err := m.shelf.Write(s.lease.Token, from, []bulkhead.Chunk{chunk})
	m.must(err)
	if known && have > int64(len(s.text)) {
		m.t.Fatalf("the server has %d of %d bytes", have, len(s.text))
	}
	return have
}

// renew is one call of the loop that renews.
func (m *site) renew(t *rapid.T) {
	p := m.alive(t)
	sent := m.clock.Now()
	var held []bulkhead.Held
	var mine []*modelScript
	for slot := range modelSlots {
		if s := p.work[slot]; s != nil {
			mine = append(mine, s)
			held = append(held, bulkhead.Held{Run: s.lease.Run, Item: s.lease.Item.Index, Token: s.lease.Token})
		}
	}
	must := slices.Collect(func(yield func(*modelScript) bool) {
		for _, s := range mine {
			if m.certain(s) && !m.runs[s.lease.Run].ends && !yield(s) {
				return
			}
		}
	})
	r, err := m.engine.Renew(p.who, held)
	m.met(p, err)
	m.late = append(m.late, func() {
		_, err := m.engine.Renew(p.who, held)
		m.met(p, err)
	})
	for _, s := range must {
		if err != nil || slices.Contains(r.Stop, s.lease.Token) {
			m.t.Fatalf("%s was stopped (%v)", s, err)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
		return
	}
	if err != nil {
		p.leave = true
		return
	}
	for _, s := range mine {
		if slices.Contains(r.Stop, s.lease.Token) {
			s.stopped = true
		} else {
			s.until = sent.Add(s.keep)
		}
	}
}

// pass lets time pass. Agents end what they may have lost.
func (m *site) pass(t *rapid.T) {
	m.clock.pass(time.Duration(rapid.SampledFrom([]int{1, 20, 50, 50, 90, 1000}).Draw(t, "seconds")) * time.Second)
	for _, s := range m.scripts {
		if s.running && !m.clock.Now().Before(s.until) {
			m.end(s, bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowInterrupt})
		}
	}
}

// crash ends a process and what it runs. What it had spooled its successor hands in.
func (m *site) crash(t *rapid.T) {
	p := m.alive(t)
	p.dead = true
	for slot, s := range p.work {
		if s.running {
			s.running = false
			s.gone = true
		} else if !s.gone && rapid.Bool().Draw(t, "spooled") {
			_, _ = m.hand(s, engine.Ask{Agent: p.who, Slot: slot, Leaving: true})
		}
	}
	alone := !slices.ContainsFunc(m.procs, func(other *proc) bool { return !other.dead && other.who.Name == p.who.Name })
	if alone && rapid.Bool().Draw(t, "said") {
		m.engine.Gone(p.who.Name)
	}
}

func (m *site) restart(t *rapid.T) {
	m.kill()
	if rapid.Bool().Draw(t, "away") {
		m.pass(t)
	}
	m.begin()
}

func (m *site) ask(t *rapid.T) {
	id := bulkhead.RunID(rapid.IntRange(1, len(m.runs)).Draw(t, "run"))
	sr := m.runs[id]
	q := bulkhead.Request{Run: id, By: "bob", At: m.clock.Now()}
	q.Kind = rapid.SampledFrom([]bulkhead.RequestKind{bulkhead.RequestPause, bulkhead.RequestResume, bulkhead.RequestResume,
		bulkhead.RequestLimit, bulkhead.RequestRetry, bulkhead.RequestCancel}).Draw(t, "kind")
	switch q.Kind {
	case bulkhead.RequestLimit:
		q.Limit = rapid.IntRange(1, 5).Draw(t, "limit")
	case bulkhead.RequestRetry:
		q.Selection = bulkhead.Selection{Failed: rapid.Bool().Draw(t, "failed"), Lost: true, Cancelled: rapid.Bool().Draw(t, "cancelled")}
		sr.retried = true
		for i := range sr.allowed {
			sr.allowed[i]++
		}
	case bulkhead.RequestCancel:
		sr.ends = true
	}
	_, err := m.store.Ask(context.Background(), q)
	m.must(err)
	m.settle()
}

func (m *site) again(t *rapid.T) {
	if len(m.late) == 0 {
		t.Skip("nothing was said")
	}
	rapid.SampledFrom(m.late).Draw(t, "message")()
}

// check compares rows, counters and what was seen before.
func (m *site) check(t *rapid.T) {
	m.settle()
	for id, sr := range m.runs {
		r, err := m.store.Run(context.Background(), id)
		m.must(err)
		var rows bulkhead.Counts
		m.must(m.store.Items(context.Background(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
			*rows.Of(it.State)++
			return nil
		}))
		if rows != r.Counts || rows.Total() != sr.items {
			t.Fatalf("run %d: the counters say %+v, the rows %+v of %d items", id, r.Counts, rows, sr.items)
		}
		if st, _, _, ok := m.engine.StatusOf(id, 0); ok && st.Counts != r.Counts {
			t.Fatalf("run %d: the engine says %+v, the store %+v", id, st.Counts, r.Counts)
		}
		for i := int64(1); i <= sr.items; i++ {
			m.checkRows(t, id, i)
		}
	}
}

// checkRows: what is known of an attempt never changes.
func (m *site) checkRows(t *rapid.T, id bulkhead.RunID, item int64) {
	attempts, err := m.store.Attempts(context.Background(), id, item)
	m.must(err)
	for _, a := range attempts {
		if a.State == bulkhead.ItemRunning {
			continue
		}
		name, now := fmt.Sprintf("%d/%d/%d", id, item, a.N), fmt.Sprint(a.State, a.How)
		if before, ok := m.rows[name]; ok && before != now {
			t.Fatalf("attempt %s was %s, and is %s", name, before, now)
		}
		m.rows[name] = now
	}
}

// drain ends everything that was going on, and sees whether all can be finished.
func (m *site) drain(t *rapid.T) {
	for _, p := range m.procs {
		p.dead = true
	}
	m.clock.pass(time.Hour)
	m.settle()
	for id := range m.runs {
		_, err := m.store.Ask(context.Background(), bulkhead.Request{Run: id, Kind: bulkhead.RequestResume, By: "bob", At: m.clock.Now()})
		m.must(err)
	}
	m.settle()
	last := who("last", 1)
	for idle := 0; idle < 6; { // asks that nobody listens to get leases, too, which end after their time
		m.clock.pass(time.Hour) // what waits for another attempt is due
		m.settle()
		q := engine.Ask{Agent: last, Until: m.clock.Now()}
		work, err := m.engine.Next(context.Background(), q)
		m.must(err)
		if idle++; work == nil {
			continue
		}
		idle = 0
		q.Done, q.Leaving = &engine.Done{Lease: work.Lease, Result: succeed(work.Lease)}, true
		_, err = m.engine.Next(context.Background(), q)
		m.must(err)
	}
	m.check(t)
	for id := range m.runs {
		if r, err := m.store.Run(context.Background(), id); err != nil || !r.State.Finished() {
			t.Fatalf("run %d cannot be finished: %+v (%v)", id, r, err)
		}
	}
}

func TestAgentsOnABadNetworkRunNothingTwiceAndLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSite(t)
		defer m.close()
		t.Repeat(map[string]func(*rapid.T){
			"work": m.work, "work2": m.work, "exchange": m.exchange, "exchange2": m.exchange, "receive": m.receive, "receive2": m.receive,
			"finish": m.finish, "write": m.write, "renew": m.renew, "pass": m.pass, "pass2": m.pass,
			"crash": m.crash, "spawn": m.spawn, "submit": m.submit, "restart": m.restart, "ask": m.ask, "again": m.again,
			"": m.check,
		})
		m.drain(t)
	})
}
