package announce

import (
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// maxGroups bounds how many kinds of alike runs are known at once. Those beyond are
// all alike: better a line that says little than memory without bound.
const maxGroups = 1000

// groupKey is what alike runs have in common.
type groupKey struct {
	owner, name, comment string
	class                string
}

// group is a kind of alike runs of which something was told lately.
type group struct {
	began, ended bool // of this window a start, an end was told
	opened       time.Time
	held         Line // what was gathered since
}

// gatherer makes one line of what alike runs do. It is the desk's.
type gatherer struct {
	window time.Duration
	groups map[groupKey]*group
}

// add returns the line to tell at once, if there is one.
func (g *gatherer) add(e Event, now time.Time) (Line, bool) {
	key := groupKey{e.Owner, e.Name, e.Comment, e.Class}
	k := g.groups[key]
	if k == nil && len(g.groups) >= maxGroups {
		key = groupKey{}
		e.Owner, e.Name, e.Comment = "many", "runs of many kinds", ""
		k = g.groups[key]
	}
	if k == nil {
		k = &group{opened: now}
		g.groups[key] = k
	}
	first := &k.began
	if e.Kind == KindEnd {
		first = &k.ended
	}
	if !*first && k.held.Gathered == nil && key != (groupKey{}) {
		*first = true
		line := Line{Event: e, asked: e.Announce}
		if e.Kind == KindEnd {
			line.ended = []bulkhead.RunID{e.Run}
		}
		return line, true
	}
	k.hold(e)
	return Line{}, false
}

func (k *group) hold(e Event) {
	if k.held.Gathered == nil {
		k.held = Line{Event: e, Gathered: &Gathered{First: e.Run, Last: e.Run}}
		k.held.Kind = KindMore
	}
	g := k.held.Gathered
	g.First, g.Last = min(g.First, e.Run), max(g.Last, e.Run)
	k.held.asked = k.held.asked || e.Announce
	if e.Kind == KindStart {
		g.Started++
		return
	}
	g.Ended++
	k.held.ended = append(k.held.ended, e.Run)
	switch e.State {
	case bulkhead.RunSucceeded:
		g.Succeeded++
	case bulkhead.RunCancelled:
		g.Cancelled++
	default:
		g.Failed++
	}
}

// due returns the lines of windows that are over. A group goes on gathering while it
// has something to tell, and is forgotten when a window was quiet.
func (g *gatherer) due(now time.Time) (lines []Line) {
	for key, k := range g.groups {
		// A clock that was set back opens the window again, once.
		if k.opened.After(now) {
			k.opened = now
		}
		if now.Sub(k.opened) < g.window {
			continue
		}
		if k.held.Gathered == nil {
			delete(g.groups, key)
			continue
		}
		lines = append(lines, k.tell(now))
		k.began, k.ended, k.opened = true, true, now
	}
	slices.SortFunc(lines, func(a, b Line) int { return int(a.Gathered.First - b.Gathered.First) })
	return lines
}

func (k *group) tell(now time.Time) Line {
	line := k.held
	line.At, k.held = now, Line{}
	return line
}

// flush returns all that was gathered.
func (g *gatherer) flush(now time.Time) (lines []Line) {
	for _, k := range g.groups {
		if k.held.Gathered != nil {
			lines = append(lines, k.tell(now))
		}
	}
	clear(g.groups)
	return lines
}
