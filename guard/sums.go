package guard

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// All in the place of a namespace or a family means all of them: a sum. No object of a
// cluster can have such a name.
const All = "/all"

// agentKind and agentCPUKind are the kinds of the series that are about agents, and not
// objects: bytes of memory, and thousandths of a core.
const (
	agentKind    = "agents:memory"
	agentCPUKind = "agents:cpu"
)

func ofAgents(kind string) bool { return kind == agentKind || kind == agentCPUKind }

// Known leaves out what a census does not know yet: while a kind is being listed its
// count rises from none to all, which is no growth. Of a kind that only the API server
// counts there are no families, but the total is good.
func Known(c bulkhead.Census) bulkhead.Census {
	exact := make(map[string]bool, len(c.Kinds))
	for _, k := range c.Kinds {
		exact[k.Kind] = k.Exact
	}
	tallies := make([]bulkhead.Tally, 0, len(c.Tallies))
	for i := range c.Tallies {
		t := c.Tallies[i]
		if is, listed := exact[t.Kind]; !is && listed {
			if t.Namespace != "" || t.Family != serverCounts {
				continue
			}
			t.Key = total(t.Kind)
			if t.Kind == events && t.Keeps.TTL == 0 {
				t.Keeps.TTL = eventsFor
			}
		}
		tallies = append(tallies, t)
	}
	c.Tallies = tallies
	return c
}

// Events are not watched, and the API server forgets them by itself (--event-ttl).
const (
	events    = "events"
	eventsFor = time.Hour
)

// unknown tells kinds of which nothing is known for now: the API server does not answer,
// or their list goes on. Who has taken away the right to see a kind did so on purpose.
// It is nil when nothing is known of any. The census is one with sums.
func unknown(c bulkhead.Census) func(kind string) bool {
	is, some := map[string]bool{}, len(c.Kinds) == 0 && len(c.Tallies) > 0
	for _, k := range c.Kinds {
		if k.Kind == serverCounts { // the API server's own counts are old
			return nil
		}
		some = some || k.Exact
		is[k.Kind] = !k.Exact && !strings.HasPrefix(k.Reason, "not permitted")
	}
	for i := range c.Tallies {
		if t := &c.Tallies[i]; t.Key == total(t.Kind) {
			is[t.Kind], some = false, true
		}
	}
	if !some {
		return nil
	}
	return func(kind string) bool { return is[kind] }
}

// serverCounts is the family, in no namespace, of what only the API server counts.
const serverCounts = "*"

// total is the key of all objects of a kind.
func total(kind string) bulkhead.Key {
	return bulkhead.Key{Kind: kind, Namespace: All, Family: All}
}

// Sums adds to a census what its families are together: each kind in a namespace, each
// family over the namespaces, each kind. Names that no rule makes one family of, and
// growth that is a little everywhere, show in these.
func Sums(c bulkhead.Census) bulkhead.Census {
	sums := map[bulkhead.Key]*sum{}
	add := func(key bulkhead.Key, t *bulkhead.Tally) {
		s := sums[key]
		if s == nil {
			s = &sum{Tally: bulkhead.Tally{Key: key}}
			sums[key] = s
		}
		s.parts++
		s.Objects += t.Objects
		s.Rules += t.Rules
		s.Bytes += t.Bytes
		s.Keeps.Owned += t.Keeps.Owned
		s.Keeps.Nothing += t.Keeps.Nothing
		s.Keeps.TTL = max(s.Keeps.TTL, t.Keeps.TTL)
		if t.Example.Created.After(s.Example.Created) {
			s.Example = t.Example
		}
	}
	for i := range c.Tallies {
		t := &c.Tallies[i]
		if t.Key == total(t.Kind) { // as the API server counts it
			continue
		}
		for _, key := range sumsOf(t.Key) {
			add(key, t)
		}
	}
	out := slices.Clip(c.Tallies)
	for _, s := range sums {
		// What is one small family needs no sum, except that a kind always has one.
		alone := s.parts == 1 && s.Namespace == All && s.Family != All // is that family itself
		if s.parts > 1 || s.Objects >= least && !alone || s.Key == total(s.Kind) {
			out = append(out, s.Tally)
		}
	}
	slices.SortFunc(out, func(a, b bulkhead.Tally) int { return compareKeys(a.Key, b.Key) })
	c.Tallies = out
	return c
}

// sumsOf are the sums that a family is in.
func sumsOf(k bulkhead.Key) []bulkhead.Key {
	if k.Namespace == "" {
		return []bulkhead.Key{total(k.Kind)}
	}
	return []bulkhead.Key{total(k.Kind), {Kind: k.Kind, Namespace: k.Namespace, Family: All},
		{Kind: k.Kind, Namespace: All, Family: k.Family, Origin: k.Origin, Manager: k.Manager}}
}

// isSum is whether a key is one of several families together.
func isSum(k bulkhead.Key) bool { return k.Namespace == All || k.Family == All }

type sum struct {
	bulkhead.Tally
	parts int
}

func compareKeys(a, b bulkhead.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Family, b.Family),
		cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Manager, b.Manager))
}
