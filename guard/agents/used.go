package agents

import "time"

// used is how much CPU a container has had since it started.
type used struct {
	at      time.Time // when that was measured, by its node's clock
	started time.Time
	seconds float64
	seen    time.Time // by ours
}

// usedFor is how long it is remembered what was used: between two looks at a container
// lies a minute, and some more where nodes are drawn.
const usedFor = 15 * time.Minute

// usage is what was used by the containers that were looked at lately, by
// namespace/pod/container.
type usage map[string]used

// cores are how many cores a container has used since the last look at it; 0 when that is
// not known: at the first look, after a restart, when a clock was set.
func (all usage) cores(name string, now used) float64 {
	before, ok := all[name]
	between := now.at.Sub(before.at)
	same := ok && now.started.Equal(before.started) && now.seconds >= before.seconds && between >= 0
	if same && between < leastBetween {
		before.seen = now.seen
		all[name] = before
		return 0 // it was not measured anew, or so short a time says little
	}
	all[name] = now
	if !same || between > usedFor {
		return 0
	}
	return (now.seconds - before.seconds) / between.Seconds()
}

// forget drops what is too old to compare with: containers that are gone, and nodes that
// were drawn once.
func (all usage) forget(now time.Time) {
	for name, u := range all {
		if now.Sub(u.seen).Abs() > usedFor {
			delete(all, name)
		}
	}
}
