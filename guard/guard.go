// Package guard watches the objects of a cluster for growth that will hurt, whoever
// makes them. It says what multiplies, since when, who makes it and when which budget
// is reached, and holds Bulkhead's own work back before users feel it.
//
//	census ──► Sums ──► memory, history ──► Analyze ──► findings ──► rulings
//	           in all    of a week, days      pure       settled       for the engine
//
// Analyze is a pure function from what was counted to findings: a forecast of each
// family and sum, those put together that grow in step (one release leaves eleven
// objects of four kinds), the budgets they reach, who and what for. A Guard looks
// once a minute and settles what Analyze says from one look to the next: a finding is
// told after it was seen twice, and ends when it was not seen for a quarter of an
// hour; a ruling holds for ten minutes at least. So nothing flaps.
//
// It is built for the loop of 2024-10-09 (Wikitech, "Incidents/2024-10-09
// calico-codfw"), which grew in silence for eight hours: it is found within a quarter
// of an hour.
package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
)

// History is what the guard keeps of what it saw. It is store/history's Store.
type History interface {
	Append(ctx context.Context, census bulkhead.Census) error
	Series(ctx context.Context, from, to time.Time) ([]bulkhead.Series, error)
	Spans(ctx context.Context, from, to time.Time) ([]bulkhead.Span, error)
}

// Ledger is what a History may be, too: it keeps findings.
type Ledger interface {
	Keep(ctx context.Context, findings []bulkhead.Finding) error
	Findings(ctx context.Context, all bool) ([]bulkhead.Finding, error)
}

// Options of a Guard. Snapshot is needed.
type Options struct {
	Snapshot func() bulkhead.Census // what is counted now; cheap
	History  History                // default none: what was seen is forgotten with the process
	Budgets  []bulkhead.Budget      // default budget.Defaults()
	// Agents are how agents stand that hold objects in memory. Default none: then only
	// budgets of objects are known. An error is no reason to stop, see Trouble.
	Agents func(ctx context.Context) ([]AgentSample, error)
	// TTL says after what time the cluster removes a Job, the example of a family; 0: it
	// does not. Default: nobody knows, and what somebody removes is known when he does.
	TTL func(ctx context.Context, key bulkhead.Key, example string) (time.Duration, error)
	// Class says whether there is a class of this name, NAMESPACE/NAME: a finding whose
	// objects are of one concerns that only. It must be quick. Default: there are none.
	Class func(name string) bool
	// Makers are who makes objects, by the audit log. Default: nobody knows.
	Makers Makers
	// Runs: it is the guard of a server, and its findings advise a brake on its runs, too.
	Runs bool
	Now  func() time.Time // default time.Now
}

// Guard looks at a cluster. Step is called by one goroutine, the rest by any.
type Guard struct {
	opts   Options
	memory *memory
	// recalled: the history has been read.
	recalled bool
	facts    factsBefore
	seen     map[string]*sighting
	lives    map[bulkhead.Key]life

	blind    error                    // why agents did not answer
	judged   map[bulkhead.Key]*growth // at the last look; nil: it does not grow
	judgedAt time.Time                // when all were

	settledAt time.Time // the last look that settled something
	sees      bool      // the last look saw something

	mu       sync.Mutex
	findings []bulkhead.Finding
	rulings  []bulkhead.Ruling
	held     map[ruled]holding
	trouble  string
	began    time.Time
}

// New returns a guard that has not looked yet.
func New(o Options) *Guard {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Guard{opts: o, seen: map[string]*sighting{}, held: map[ruled]holding{}}
}

// Step is one look: what is counted is remembered, kept and judged. It is to be called
// once a minute. An error is one of the history, and the look counts all the same: the
// guard goes on with what it has in memory.
func (g *Guard) Step(ctx context.Context) error {
	now := g.opts.Now()
	recalled := g.recall(ctx, now)
	census := Sums(g.withLives(ctx, Known(g.opts.Snapshot()), now))
	if census.At.IsZero() {
		return recalled // nothing was counted yet
	}
	blind := unknown(census)
	g.sees = blind != nil
	if !g.sees {
		g.publish(now, nil) // what holds goes on to hold
		return recalled
	}
	agents := g.readAgents(ctx)
	seen := withAgents(census, agents)
	if !g.memory.add(seen) {
		return recalled
	}
	var kept error
	if g.opts.History != nil {
		kept = g.opts.History.Append(ctx, seen)
	}
	found := g.analyze(census, agents)
	g.facts.note(census)
	changed := g.settle(found, census.At, blind)
	if kept == nil {
		kept = g.keep(ctx, changed)
	}
	g.publish(now, kept)
	if kept != nil && bulkhead.CodeOf(kept) != bulkhead.CodeConflict { // another guard keeps it: see Trouble
		return errors.Join(recalled, fmt.Errorf("keep history: %w", kept))
	}
	return recalled
}

// agentsTime is how long agents may take to answer: the next look must not wait.
const agentsTime = 20 * time.Second

func (g *Guard) readAgents(ctx context.Context) []AgentSample {
	if g.opts.Agents == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, agentsTime)
	defer stop()
	samples, err := g.opts.Agents(ctx)
	g.blind = err
	return worstOf(samples)
}

// analyze is Analyze without looking at every series each time.
func (g *Guard) analyze(census bulkhead.Census, agents []AgentSample) []bulkhead.Finding {
	calm := g.memory.calmed(g.judged, census.At)
	if age := census.At.Sub(g.judgedAt); age < 0 || age >= calmFor {
		calm, g.judgedAt = nil, census.At
	}
	a := newAnalysis(Input{Now: census.At, Census: census, Looked: g.memory.spans,
		Facts: g.facts.older, Budgets: g.opts.Budgets, Agents: agents, Makers: g.opts.Makers, Runs: g.opts.Runs, calm: calm, memory: g.memory})
	found := a.findings()
	for key := range calm {
		a.made[key] = nil
	}
	g.judged = a.made
	return found
}

// recall reads the history, once.
func (g *Guard) recall(ctx context.Context, now time.Time) (err error) {
	if g.recalled {
		return nil
	}
	memory, err := recall(ctx, g.opts.History, now)
	if g.memory == nil || err == nil {
		g.memory = memory // what was seen before it could be read is minutes, at most a gap
	}
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	ledger, ok := g.opts.History.(Ledger)
	if !ok {
		g.recalled = true
		return nil
	}
	findings, err := ledger.Findings(ctx, false)
	if err != nil {
		return fmt.Errorf("read findings: %w", err)
	}
	g.recalled = true
	for _, f := range findings {
		if g.seen[f.ID] != nil {
			continue
		}
		g.seen[f.ID] = &sighting{finding: f, looks: looksToOpen, last: now, severe: now}
	}
	return nil
}

func (g *Guard) keep(ctx context.Context, changed []bulkhead.Finding) error {
	ledger, ok := g.opts.History.(Ledger)
	if !ok || len(changed) == 0 {
		return nil
	}
	return ledger.Keep(ctx, changed)
}

// publish lets others see how things stand.
func (g *Guard) publish(now time.Time, kept error) {
	var findings []bulkhead.Finding
	for _, s := range g.seen {
		if s.open() {
			findings = append(findings, s.finding)
		}
	}
	slices.SortFunc(findings, Worse)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.findings = findings
	g.rulings = g.rule(findings, now)
	if n := len(g.memory.spans); n > 0 {
		g.began = g.memory.spans[n-1].From
	}
	var troubles []string
	switch {
	case !g.sees && len(findings)+len(g.rulings) > 0:
		troubles = append(troubles, nothingSeen+": what was found stands, and so do verdicts")
	case !g.sees:
		troubles = append(troubles, nothingSeen)
	}
	if kept != nil {
		troubles = append(troubles, "what the guard sees is kept in memory only: "+clean(kept.Error()))
	}
	if g.blind != nil {
		troubles = append(troubles, "agents were not measured: "+clean(g.blind.Error()))
	}
	g.trouble = strings.Join(troubles, "; ")
}

const nothingSeen = "nothing is known of the cluster"

// Blind reports whether the last look saw nothing at all.
func (g *Guard) Blind() bool { return strings.HasPrefix(g.Trouble(), nothingSeen) }

// Findings are those that are open, the worst first.
func (g *Guard) Findings() []bulkhead.Finding {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.findings)
}

// Began is since when it looks without a gap, the history included; zero: not yet.
func (g *Guard) Began() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.began
}

// Rulings are what the guard says of Bulkhead's own work. It is cheap.
func (g *Guard) Rulings() []bulkhead.Ruling {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.rulings)
}

// Trouble is what keeps the guard from its work, in one line; "" if nothing does.
func (g *Guard) Trouble() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble
}
