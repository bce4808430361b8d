package engine

import (
	"bulkhead.dev/bulkhead"
)

// Attends reports whether an agent holds a lease and may connect its attempt with
// who is attached. A former process, or an agent of another class that has heard of
// the token, may not.
func (e *Engine) Attends(who bulkhead.Agent, held bulkhead.Held) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.agents[agentKey{who.Class, who.Name}]
	if g == nil || g.Process != who.Process {
		return false
	}
	l := e.leaseOf(g, held)
	return l != nil && !l.lost
}
