package census

import (
	"cmp"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

// object is what is read of one.
type object struct {
	family.Object

	uid     types.UID
	parent  types.UID // of the owner that made it
	created time.Time
	rules   uint32
}

// entry is what is kept of one object: eight bytes, beside eight for the hash of its
// uid. Its name, labels and the rest are not.
type entry struct {
	step   uint32 // when it was born, in quarters of an hour; the uppermost bit: it has an owner
	family id
	round  uint16 // in which list it was seen last
}

const ownedBit = 1 << 31

func (e entry) born() uint32 { return e.step &^ ownedBit }
func (e entry) owned() int64 { return int64(e.step >> 31) }

// table holds the objects of one stream: those of a kind, or of a kind in a namespace.
type table struct {
	kind      string
	namespace string // "": all
	objects   map[uint64]entry
	rules     map[uint64]uint32 // of policies; those without any are left out
	round     uint16
	complete  bool // a list has come to its end
	closed    bool // the kind is gone; what is still on its way does not count
	most      int  // objects it held since it was made anew
}

// counts is the state of a census. It does no I/O and knows no time but what it is given.
type counts struct {
	*families

	facts  factKeys
	tables map[string][]*table // by kind
}

func newCounts(facts []string) *counts {
	return &counts{families: newFamilies(), facts: newFactKeys(facts), tables: map[string][]*table{}}
}

// open starts a table.
func (c *counts) open(kind, namespace string) *table {
	t := &table{kind: kind, namespace: namespace, objects: map[uint64]entry{}, rules: map[uint64]uint32{}}
	c.tables[kind] = append(c.tables[kind], t)
	return t
}

// close takes a kind away that the API no longer has, with all of its objects.
func (c *counts) close(t *table, now time.Time) {
	t.round++
	c.end(t, now)
	t.closed = true
	c.tables[t.kind] = slices.DeleteFunc(c.tables[t.kind], func(other *table) bool { return other == t })
	if len(c.tables[t.kind]) == 0 {
		delete(c.tables, t.kind)
	}
}

// begin says that a list of all objects begins. What their labels say is counted anew,
// since nobody remembers what those said that are gone.
func (c *counts) begin(t *table) {
	t.round++
	for _, family := range c.all {
		if family != nil && family.key.Kind == t.kind && (t.namespace == "" || family.key.Namespace == t.namespace) {
			c.families.facts -= len(family.facts)
			family.facts = nil
		}
	}
}

// end says that the list is complete: what it did not have is gone.
func (c *counts) end(t *table, now time.Time) {
	if t.closed {
		return
	}
	for hash, e := range t.objects {
		if e.round != t.round {
			c.remove(t, hash, e, now)
		}
	}
	t.complete = true
	t.shrink()
	c.tidy(stepOf(now)) // a family that is large now may take in others
}

// shrink gives memory back after many were deleted: a map keeps what it once took.
func (t *table) shrink() {
	const worth = 10_000
	t.most = max(t.most, len(t.objects))
	if t.most < worth || len(t.objects) > t.most/8 {
		return
	}
	objects := make(map[uint64]entry, len(t.objects))
	maps.Copy(objects, t.objects)
	t.objects, t.most = objects, len(objects)
}

func (c *counts) number(o *object) uint64 {
	if o.uid == "" { // as some aggregated APIs have it
		return maphash.String(c.seed, o.Namespace+"/"+o.Name)
	}
	return maphash.String(c.seed, string(o.uid))
}

// parentKey is that of the owner, if it is counted.
func (c *counts) parentKey(o *object) bulkhead.Key {
	if o.parent == "" || len(o.Owners) == 0 {
		return bulkhead.Key{}
	}
	hash := maphash.String(c.seed, string(o.parent))
	owner := o.Owners[0]
	kind := family.Resource(owner.Kind)
	if group, _, ok := strings.Cut(owner.APIVersion, "/"); ok {
		kind += "." + group
	}
	for _, t := range c.tables[kind] {
		if e, ok := t.objects[hash]; ok {
			_, family := c.get(e.family)
			return family.key
		}
	}
	return bulkhead.Key{}
}

// see counts an object that is there, or that is another than it was.
func (c *counts) see(t *table, o *object, now time.Time) {
	if t.closed {
		return
	}
	o.ParentKey = c.parentKey(o)
	hash := c.number(o)
	old, known := t.objects[hash]
	n := c.of(family.Key(o.Object))
	e := entry{step: stepOf(o.created), family: n, round: t.round}
	if len(o.Owners) > 0 {
		e.step |= ownedBit
	}
	_, to := c.get(n)
	if known {
		_, from := c.get(old.family)
		c.take(t, hash, old)
		from.left(now)
	} else if t.complete {
		to.created++
	}
	t.objects[hash] = e
	t.most = max(t.most, len(t.objects))
	to.refs++
	to.objects++
	to.owned += e.owned()
	to.births.add(e.born(), stepOf(now), 1)
	if o.rules > 0 {
		t.rules[hash] = o.rules
		to.rules += int64(o.rules)
	}
	if !known || old.round != t.round {
		c.say(to, o)
	}
	if !o.created.Before(to.example.Created) {
		to.example = bulkhead.Example{Name: family.Clean(o.Name, maxValue*2), Created: o.created}
	}
}

// say counts what labels and annotations say.
func (c *counts) say(to *tally, o *object) {
	c.facts.of(o.Object, func(key, value string) {
		c.families.facts += to.facts.add(key, value, c.families.facts < maxFacts)
	})
}

// take takes an object's part out of its family.
func (c *counts) take(t *table, hash uint64, e entry) {
	_, from := c.get(e.family)
	from.objects--
	from.owned -= e.owned()
	from.births.remove(e.born())
	if rules, ok := t.rules[hash]; ok {
		from.rules -= int64(rules)
		delete(t.rules, hash)
	}
	refs := c.all[e.family]
	refs.refs--
	if refs.into != e.family {
		c.release(e.family)
	}
}

// left notes when the last object of a family has gone.
func (t *tally) left(now time.Time) {
	if t.objects == 0 {
		t.emptied = stepOf(now)
	}
}

// remove counts an object as deleted.
func (c *counts) remove(t *table, hash uint64, e entry, now time.Time) {
	_, from := c.get(e.family)
	c.take(t, hash, e)
	delete(t.objects, hash)
	from.deleted++
	from.left(now)
}

// gone counts an object as deleted, if it was counted.
func (c *counts) gone(t *table, o *object, now time.Time) {
	hash := c.number(o)
	e, known := t.objects[hash]
	if !known {
		return
	}
	_, from := c.get(e.family)
	c.facts.of(o.Object, func(key, value string) { c.families.facts += from.facts.remove(key, value) })
	if from.example.Name == o.Name {
		from.example.Created = time.Time{} // the next one that is seen takes its place
	}
	c.remove(t, hash, e, now)
	if len(t.objects)&0xfff == 0 {
		t.shrink()
	}
}

// objectsOf is how many of a kind there are, and whether all were seen.
func (c *counts) objectsOf(kind string) (n int64, complete bool) {
	complete = len(c.tables[kind]) > 0
	for _, t := range c.tables[kind] {
		n += int64(len(t.objects))
		complete = complete && t.complete
	}
	return n, complete
}

// tell is what there is now, but of the kinds that are not ready, ordered by kind,
// namespace and family.
func (c *counts) tell(unready map[string]bool) []bulkhead.Tally {
	told := make([]bulkhead.Tally, 0, c.live)
	for i, t := range c.all {
		if t == nil || t.into != id(i) || unready[t.key.Kind] {
			continue
		}
		told = append(told, bulkhead.Tally{
			Key: t.key, Objects: t.objects, Rules: t.rules, Created: t.created, Deleted: t.deleted,
			Born: t.births.tell(), Facts: t.facts.tell(t.objects), Example: t.example,
			Keeps: bulkhead.Keep{Owned: t.owned, Nothing: t.objects - t.owned},
		})
	}
	slices.SortFunc(told, func(a, b bulkhead.Tally) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Family, b.Family),
			strings.Compare(a.Origin, b.Origin), strings.Compare(a.Manager, b.Manager))
	})
	return told
}
