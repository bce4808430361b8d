package guard

import (
	"reflect"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

const (
	// looksToOpen is how often a growth must be seen before it is told of.
	looksToOpen = 2
	// holdFinding is how long it must not be seen before it has ended, and holdSeverity
	// how long it must be less severe before that is believed.
	holdFinding  = 15 * time.Minute
	holdSeverity = 10 * time.Minute
	// keepEvery is how often an open finding is written whatever it says. Who reads the
	// history should see how things stand: the worst keptEachLook are written as soon as
	// they say something else than before.
	keepEvery    = 10 * time.Minute
	keptEachLook = 20
	// holdBlind is how long a finding stands of whose kinds nothing is known.
	holdBlind = 24 * time.Hour
	// mostSeen bounds what is waited for.
	mostSeen = 200
)

// sighting is a finding from look to look.
type sighting struct {
	finding bulkhead.Finding
	looks   int       // that saw it
	last    time.Time // when it was seen last
	severe  time.Time // when it was as severe as it says
	kept    time.Time // when it was written
	written bulkhead.Finding
	unknown time.Duration // for how long nobody could see it
}

func (s *sighting) open() bool { return s.looks >= looksToOpen && s.finding.Ended.IsZero() }

// settle takes what a look has found, the worst first, and returns the findings to be
// written. What is of kinds of which nothing is known has not ended: nobody knows.
func (g *Guard) settle(found []bulkhead.Finding, now time.Time, blind func(kind string) bool) (changed []bulkhead.Finding) {
	g.resume(now)
	matched := g.match(found)
	for i := range found {
		f, s := &found[i], matched[i]
		if s == nil {
			if g.seen[f.ID] != nil || len(g.seen) >= mostSeen {
				continue // a worse one has its name, or there are too many
			}
			s = &sighting{finding: *f, severe: now}
			g.seen[f.ID] = s
		}
		s.see(*f, now)
		if i < keptEachLook && !reflect.DeepEqual(s.finding, s.written) {
			s.kept = time.Time{}
		}
	}
	for id, s := range g.seen {
		s.wait(now, blind)
		quiet := now.Sub(s.last)
		switch {
		case quiet < 0: // the clock went back
			s.last, s.severe, s.kept = now, now, time.Time{}
		case !s.open() && quiet > holdFinding:
			delete(g.seen, id)
		case s.open() && quiet > holdFinding:
			s.finding.Ended = now
			changed = append(changed, s.finding)
			delete(g.seen, id)
		case s.open() && now.Sub(s.kept) >= keepEvery:
			s.kept, s.written = now, s.finding
			changed = append(changed, s.finding)
		}
	}
	return changed
}

// resume leaves out of what is waited for the time in which nobody looked.
func (g *Guard) resume(now time.Time) {
	gap := now.Sub(g.settledAt)
	if !g.settledAt.IsZero() && gap > unseen {
		for _, s := range g.seen {
			s.last, s.severe = s.last.Add(gap), s.severe.Add(gap)
		}
	}
	g.settledAt = now
}

// wait lets no time pass for what nobody can see.
func (s *sighting) wait(now time.Time, blind func(kind string) bool) {
	gone := now.Sub(s.last)
	switch unknown := slices.ContainsFunc(s.finding.Members, func(m bulkhead.Member) bool { return blind(m.Kind) }); {
	case gone <= 0:
		s.unknown = 0
	case unknown && s.unknown < holdBlind:
		s.unknown += gone
		s.last, s.severe = now, s.severe.Add(gone)
	}
}

// match finds what is known already of growths: it has the same identity, or else a
// family in common; or what one of them has as a sum, because its families do not show yet, is
// a kind of the other. Each is one growth only, the worst of those that it could be.
func (g *Guard) match(found []bulkhead.Finding) []*sighting {
	matched, taken := make([]*sighting, len(found)), map[*sighting]bool{}
	for i := range found {
		if s := g.seen[found[i].ID]; s != nil && !taken[s] {
			matched[i], taken[s] = s, true
		}
	}
	for _, same := range []func(a, b bulkhead.Key) bool{func(a, b bulkhead.Key) bool { return a == b }, summed} {
		for i := range found {
			if matched[i] != nil || g.seen[found[i].ID] != nil {
				continue
			}
			var first *sighting
			for _, s := range g.seen {
				older := first == nil || s.finding.Since.Before(first.finding.Since)
				if !taken[s] && older && s.finding.Namespace == found[i].Namespace && share(s.finding.Members, found[i].Members, same) {
					first = s
				}
			}
			if first != nil {
				matched[i], taken[first] = first, true
			}
		}
	}
	return matched
}

// summed reports whether one of two keys is the sum of a kind that the other is of.
func summed(a, b bulkhead.Key) bool {
	return a.Kind == b.Kind && (a.Family == All) != (b.Family == All)
}

func share(a, b []bulkhead.Member, same func(a, b bulkhead.Key) bool) bool {
	for _, m := range a {
		for _, o := range b {
			if same(m.Key, o.Key) {
				return true
			}
		}
	}
	return false
}

// see notes that a look saw it again.
func (s *sighting) see(f bulkhead.Finding, now time.Time) {
	s.looks++
	s.last = now
	old := s.finding
	f.ID = old.ID
	switch {
	case rank(f.Severity) > rank(old.Severity):
		s.severe, s.kept = now, time.Time{}
	case f.Severity == old.Severity:
		s.severe = now
	case now.Sub(s.severe) < holdSeverity:
		f.Severity = old.Severity
	default:
		s.severe, s.kept = now, time.Time{}
	}
	// When it began is known better at first than when it is far back.
	if s.looks > looksToOpen && old.Since.Before(f.Since) {
		f.Since = old.Since
	}
	s.finding = f
}

// factsBefore remembers facts of an hour or two ago: what has come since then says who
// makes what grows now.
type factsBefore struct {
	older, newer     map[bulkhead.Key][]bulkhead.Fact
	olderAt, newerAt time.Time
}

const factsEvery = time.Hour

func (f *factsBefore) note(c bulkhead.Census) {
	if age := c.At.Sub(f.newerAt); f.newer != nil && age >= 0 && age < factsEvery {
		return
	}
	facts := map[bulkhead.Key][]bulkhead.Fact{}
	for i := range c.Tallies {
		t := &c.Tallies[i]
		if len(t.Facts) > 0 && len(facts) < mostTracks {
			facts[t.Key] = append([]bulkhead.Fact{{Key: countKey, Objects: t.Objects}}, t.Facts...)
		}
	}
	if f.older, f.olderAt = f.newer, f.newerAt; f.older == nil {
		f.older, f.olderAt = facts, c.At
	}
	f.newer, f.newerAt = facts, c.At
}
