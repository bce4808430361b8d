package engine

import (
	"cmp"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// Whoever has a class's token can say any number of names. So the agents that are
// known of a class are bounded, and those that are heard of least often make room:
// what is known of an agent that holds nothing and asks for nothing is only which
// processes of its name are over.

// defaultMaxAgents is more than a class has pods.
const defaultMaxAgents = 10_000

// crowd is how many agents of a class are known.
type crowd struct {
	known int
	full  time.Time // when all of them were found at work; zero: never
}

// introduce makes an agent known that is not.
func (e *Engine) introduce(who bulkhead.Agent, now time.Time) *agent {
	g := &agent{Agent: who, slots: map[int]*live{}, asking: map[int]*ask{}, since: now, news: make(chan struct{})}
	e.agents[agentKey{who.Class, who.Name}] = g
	c := e.crowds[who.Class]
	if c == nil {
		c = &crowd{}
		e.crowds[who.Class] = c
	}
	c.known++
	return g
}

// forget is the end of an agent that holds nothing.
func (e *Engine) forget(key agentKey) {
	delete(e.agents, key)
	if e.crowds[key.class].known--; e.crowds[key.class].known == 0 {
		delete(e.crowds, key.class)
	}
	e.stirred[key.class] = true
}

func (e *Engine) mostAgents() int { return cmp.Or(e.opts.Remote.MaxAgents, defaultMaxAgents) }

// crowded reports whether there is no room for another agent of a class.
func (e *Engine) crowded(class string) bool {
	c := e.crowds[class]
	return c != nil && c.known >= e.mostAgents()
}

// makeRoom makes room for an agent that asks, if it is not known and there is none:
// room for some more, and not again soon if there is nobody to forget, so that not
// each one that comes looks at all that are there. It is called by the loop.
func (e *Engine) makeRoom(who bulkhead.Agent) {
	if e.agents[agentKey{who.Class, who.Name}] != nil || !e.crowded(who.Class) {
		return
	}
	now := e.opts.Now()
	c := e.crowds[who.Class]
	if now.Sub(c.full) < checkEvery {
		return
	}
	var idle []agentKey
	for key, g := range e.agents {
		if key.class == who.Class && g.idle() {
			idle = append(idle, key)
		}
	}
	if len(idle) == 0 {
		c.full = now
		return
	}
	slices.SortFunc(idle, func(a, b agentKey) int {
		return cmp.Or(e.agents[a].seen.Compare(e.agents[b].seen), cmp.Compare(a.name, b.name))
	})
	for _, key := range idle[:min(len(idle), max(e.mostAgents()/10, 1))] {
		e.forget(key)
	}
}

// idle reports whether an agent holds nothing and asks for nothing. It is called by
// the loop.
func (g *agent) idle() bool { return len(g.slots) == 0 && !g.asks() }
