package census

import (
	"hash/maphash"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

// Bounds of what families there can be.
const (
	// maxFamilies is how many are told apart. What comes on top is one family of its kind.
	maxFamilies = 20_000
	// maxNumbers is how many numbers of families are in use, with those that became part of
	// another. It leaves room for one family of each kind.
	maxNumbers = 60_000
	// manyWords is how many families that differ in one word are one: names of persons
	// or wikis, which no rule can tell from fixed words.
	manyWords = 64
	// manyNamespaces is how many namespaces may have the same family before they are
	// taken together, where their names look like words.
	manyNamespaces = 500
	// manyMadeUp is how large a family with a * must be to take in those that differ from
	// it only by a word in that place: a random one that reads like a word.
	manyMadeUp = 20
	// emptyFor is how long a family without objects is still told.
	emptyFor = 24 * time.Hour
)

// id is the number of a family, which each object keeps: two bytes.
type id uint16

// tally is what is known of one family.
type tally struct {
	key     bulkhead.Key
	objects int64
	rules   int64
	owned   int64
	created int64
	deleted int64
	births  births
	facts   facts
	example bulkhead.Example
	emptied uint32 // step in which the last object went
	refs    int32  // objects that have its number
	into    id     // the family it became part of; itself
}

// families are all of them. Nothing in here looks at a clock or at the cluster.
type families struct {
	seed   maphash.Seed
	byKey  map[bulkhead.Key]id
	all    []*tally // by number; nil: free
	free   []id
	live   int // those that are not part of another
	groups map[uint64]*group
	facts  int             // values kept, of all
	rest   map[string]bool // kinds of which some are in one family because there are too many
}

// group is a family with a * that may come to be: the families that would be in it,
// until they are.
type group struct {
	members []id
	merged  bool
}

func newFamilies() *families {
	return &families{seed: maphash.MakeSeed(), byKey: map[bulkhead.Key]id{}, groups: map[uint64]*group{}, rest: map[string]bool{}}
}

func (f *families) hash(k bulkhead.Key) uint64 { return maphash.Comparable(f.seed, k) }

// get is the family that a number stands for now.
func (f *families) get(n id) (id, *tally) {
	t := f.all[n]
	for t.into != n {
		n = t.into
		t = f.all[n]
	}
	return n, t
}

// wider calls yield with the keys that differ from k by a * for one word, or for the
// namespace, and how many of them may be apart.
func wider(k bulkhead.Key, yield func(w bulkhead.Key, most int) (more bool)) {
	for _, word := range family.Words(k) {
		if w := family.Star(k, word); w != k && !yield(w, manyWords) {
			return
		}
	}
	if k.Namespace == "" || k.Namespace == "*" {
		return
	}
	w, most := k, manyWords
	if w.Namespace = family.Name(k.Namespace, family.Hints{}); w.Namespace == k.Namespace {
		w.Namespace, most = "*", manyNamespaces
	}
	yield(w, most)
}

// of is the number of the family with this key.
func (f *families) of(k bulkhead.Key) id {
	if n, ok := f.byKey[k]; ok {
		n, _ = f.get(n)
		return n
	}
	for again := true; again; {
		again = false
		wider(k, func(w bulkhead.Key, _ int) bool {
			if g := f.groups[f.hash(w)]; g != nil && g.merged {
				k, again = w, true
			}
			return !again
		})
	}
	if n, ok := f.byKey[k]; ok {
		n, _ = f.get(n)
		return n
	}
	return f.found(k)
}

// found starts a family, and those with a * that it makes too many.
func (f *families) found(k bulkhead.Key) id {
	if f.live >= maxFamilies || len(f.free) == 0 && len(f.all) >= maxNumbers {
		k = bulkhead.Key{Kind: k.Kind, Family: "*"}
		f.rest[k.Kind] = true
		if n, ok := f.byKey[k]; ok {
			n, _ = f.get(n)
			return n
		}
	}
	n, united := f.add(k), false
	wider(k, func(w bulkhead.Key, most int) bool {
		h := f.hash(w)
		g := f.groups[h]
		if g == nil {
			g = &group{}
			f.groups[h] = g
		}
		g.members = append(g.members, n)
		if united = len(g.members) > most; united {
			f.unite(w, g)
		}
		return !united
	})
	if united {
		return f.of(k)
	}
	return n
}

func (f *families) add(k bulkhead.Key) id {
	t := &tally{key: k}
	if last := len(f.free) - 1; last >= 0 {
		t.into = f.free[last]
		f.free = f.free[:last]
		f.all[t.into] = t
	} else {
		t.into = id(len(f.all))
		f.all = append(f.all, t)
	}
	f.byKey[k] = t.into
	f.live++
	return t.into
}

// unite makes the families of a group one, for good.
func (f *families) unite(w bulkhead.Key, g *group) {
	members := g.members
	g.members, g.merged = nil, true
	to, into := f.get(f.of(w))
	for _, n := range members {
		if t := f.all[n]; n != to && t != nil && t.into == n {
			f.fold(t, into)
			t.into = to
			f.live--
			f.leave(n)
			f.release(n)
		}
	}
}

// fold adds what is known of one family to another.
func (f *families) fold(from, to *tally) {
	to.objects += from.objects
	to.rules += from.rules
	to.owned += from.owned
	to.created += from.created
	to.deleted += from.deleted
	to.births.merge(from.births, 0)
	before := len(to.facts) + len(from.facts)
	to.facts.merge(from.facts)
	f.facts += len(to.facts) - before
	if from.example.Created.After(to.example.Created) {
		to.example = from.example
	}
	into := from.into
	*from = tally{key: from.key, refs: from.refs, into: into}
}

// leave takes a family out of the groups that it might become part of.
func (f *families) leave(n id) {
	wider(f.all[n].key, func(w bulkhead.Key, _ int) bool {
		h := f.hash(w)
		g := f.groups[h]
		if g == nil || g.merged {
			return true
		}
		g.members = slices.DeleteFunc(g.members, func(m id) bool { return m == n })
		if len(g.members) == 0 {
			delete(f.groups, h)
		}
		return true
	})
}

// release frees the number of a family that is part of another or empty, if no object
// has it.
func (f *families) release(n id) {
	t := f.all[n]
	if t.refs > 0 {
		return
	}
	if t.into == n {
		f.live--
		f.facts -= len(t.facts)
		f.leave(n)
	}
	delete(f.byKey, t.key)
	f.all[n] = nil
	f.free = append(f.free, n)
}

// tidy does what need not be done at each change: steps of time grow older, empty
// families are forgotten, large families with a * take in what belongs to them.
func (f *families) tidy(now uint32) {
	patience := uint32(emptyFor / time.Second / quarter)
	if f.live > maxFamilies*3/4 {
		patience = 0
	}
	for i := range f.all {
		n, t := id(i), f.all[i]
		switch {
		case t == nil || t.into != n:
		case t.objects == 0 && t.refs == 0 && t.emptied != 0 && now-t.emptied >= patience:
			f.release(n)
		default:
			t.births.age(now)
			if g := f.groups[f.hash(t.key)]; g != nil && !g.merged && t.objects >= manyMadeUp {
				f.unite(t.key, g)
			}
		}
	}
}
