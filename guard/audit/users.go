package audit

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"bulkhead.dev/bulkhead/guard/family"
)

// Bounds of what is kept.
const (
	// maxFamilies is how many families are told apart, and maxInPlace how many of one
	// kind and namespace. What comes on top counts for the kind and namespace as a whole.
	maxFamilies = 20_000
	maxInPlace  = 2_000
	// maxMakers bounds the users of all families, and mostMakers those of one.
	maxMakers  = 60_000
	mostMakers = 8
	// keptHours is how far back it is known who made what.
	keptHours = 24
	maxUser   = 128 // bytes of a user's name, and of a client's
	maxPlace  = 253 // bytes of a kind and a namespace, as the API has them at most
)

// Maker is a user who made objects. The one without a name stands for those who are not
// told apart.
type Maker struct {
	User    string
	Client  string // used last
	Objects int64
}

// Answer says who made objects of a family.
type Answer struct {
	Makers []Maker // the one of most at the front, others at the end
	// Named: those of this family were told by their names. Otherwise the log has no
	// names of them, and these are the makers of all such objects in that namespace.
	Named bool
}

// Users counts who made what. The zero value is ready; methods may be called from any
// goroutine.
type Users struct {
	mu       sync.Mutex
	places   map[place]*spot
	families int
	makers   int
	hour     int32 // it was when it was tidied last
}

type place struct{ kind, namespace string }

// spot is one kind in one namespace. rest is what has no family of its own.
type spot struct {
	named map[string]*made
	rest  *made
}

// made is who made one family.
type made struct {
	makers []maker
	newest int32
}

type maker struct {
	user, client unique.Handle[string] // "": others
	hours        []hourly              // in their order
}

type hourly struct{ hour, objects int32 }

func hourOf(at time.Time) int32 { return int32(at.Unix() / int64(time.Hour/time.Second)) }

// Add counts a creation of a time, not after now. It is Made, or Unkept if there is no
// room.
func (u *Users) Add(c *Creation, at, now time.Time) Result {
	p := place{family.Clean(c.Kind, maxPlace), family.Clean(c.Namespace, maxPlace)}
	name := nameOf(c)
	user, client := unique.Make(family.Clean(c.User, maxUser)), unique.Make(family.Clean(c.Client, maxUser))
	u.mu.Lock()
	defer u.mu.Unlock()
	hour, this := hourOf(at), hourOf(now)
	if u.hour != this {
		u.hour = this
		u.tidy(this - keptHours)
	}
	if hour = min(hour, this); hour <= this-keptHours {
		return Made // nobody asks for it any more
	}
	m := u.of(p, name)
	if m == nil {
		return Unkept
	}
	m.newest = max(m.newest, hour)
	u.add(m, user, client, hour)
	return Made
}

// nameOf is the name of an object's family; "" if it has no name here.
func nameOf(c *Creation) string {
	switch {
	case c.Name == "" && c.GenerateName == "":
		return ""
	case c.Name == "":
		return family.Name(c.GenerateName+"*", family.Hints{})
	}
	if rest, ok := strings.CutPrefix(c.Name, c.GenerateName); ok && c.GenerateName != "" {
		return family.Name(c.Name, family.Hints{Known: []string{rest}})
	}
	return family.Name(c.Name, family.Hints{})
}

// of is where a family is counted; nil: there is no room.
func (u *Users) of(p place, name string) *made {
	s := u.places[p]
	if s != nil && name != "" && s.named[name] != nil {
		return s.named[name]
	}
	full := u.families >= maxFamilies
	if s == nil {
		if full {
			return nil
		}
		if u.places == nil {
			u.places = map[place]*spot{}
		}
		s = &spot{}
		u.places[p] = s
	}
	if name != "" && !full && len(s.named) < maxInPlace {
		if s.named == nil {
			s.named = map[string]*made{}
		}
		m := &made{}
		s.named[name] = m
		u.families++
		return m
	}
	if s.rest == nil && !full {
		s.rest = &made{}
		u.families++
	}
	return s.rest
}

// add counts one object of a family. A user who is new where there is no room takes the
// place of the one who made the fewest, of these the one who was seen longest ago, whose
// objects become those of others: who makes many is back at once.
func (u *Users) add(m *made, user, client unique.Handle[string], hour int32) {
	i := slices.IndexFunc(m.makers, func(of maker) bool { return of.user == user })
	if i < 0 {
		i = u.room(m, user)
	}
	of := m.makers[i]
	if of.user == user {
		of.client = client
	}
	of.count(hour, 1)
	of.hours = slices.DeleteFunc(of.hours, func(h hourly) bool { return h.hour <= hour-keptHours })
	// The one seen last is at the end.
	copy(m.makers[i:], m.makers[i+1:])
	m.makers[len(m.makers)-1] = of
}

// room is where a new user is counted.
func (u *Users) room(m *made, user unique.Handle[string]) int {
	others := slices.IndexFunc(m.makers, func(of maker) bool { return of.user == nobody })
	known := len(m.makers)
	if others >= 0 {
		known--
	}
	if user != nobody && known < mostMakers && u.makers < maxMakers {
		u.makers++
		m.makers = append(m.makers, maker{user: user})
		return len(m.makers) - 1
	}
	if others < 0 {
		m.makers = append(m.makers, maker{user: nobody, client: nobody})
		others = len(m.makers) - 1
	}
	fewest := -1
	for i := range m.makers {
		if i != others && (fewest < 0 || m.makers[i].objects(0) < m.makers[fewest].objects(0)) {
			fewest = i
		}
	}
	if fewest < 0 || user == nobody {
		return others
	}
	for _, h := range m.makers[fewest].hours {
		m.makers[others].count(h.hour, h.objects)
	}
	m.makers[fewest] = maker{user: user}
	return fewest
}

var nobody = unique.Make("")

// count adds objects of an hour.
func (m *maker) count(hour, objects int32) {
	i, found := slices.BinarySearchFunc(m.hours, hour, func(h hourly, hour int32) int { return cmp.Compare(h.hour, hour) })
	if !found {
		m.hours = slices.Insert(m.hours, i, hourly{hour: hour})
	}
	m.hours[i].objects += objects
}

// objects are those since the begin of an hour.
func (m *maker) objects(since int32) (n int64) {
	for _, h := range m.hours {
		if h.hour >= since {
			n += int64(h.objects)
		}
	}
	return n
}

// tidy forgets the families that got nothing new since an hour.
func (u *Users) tidy(before int32) {
	forget := func(m *made) {
		u.families--
		for i := range m.makers {
			if m.makers[i].user != nobody {
				u.makers--
			}
		}
	}
	for p, s := range u.places {
		for name, m := range s.named {
			if m.newest <= before {
				forget(m)
				delete(s.named, name)
			}
		}
		if s.rest != nil && s.rest.newest <= before {
			forget(s.rest)
			s.rest = nil
		}
		if len(s.named) == 0 && s.rest == nil {
			delete(u.places, p)
		}
	}
}

// Of says who made the objects of a family since a time, in whole hours. Namespace and
// name are patterns as the census has them; "*" alone stands for all.
func (u *Users) Of(kind, namespace, name string, since time.Time) Answer {
	u.mu.Lock()
	defer u.mu.Unlock()
	var spots []*spot
	if s := u.places[place{kind, namespace}]; s != nil {
		spots = append(spots, s)
	}
	if len(spots) == 0 && strings.Contains(namespace, "*") {
		for p, s := range u.places {
			if p.kind == kind && matches(namespace, p.namespace, true) {
				spots = append(spots, s)
			}
		}
	}
	hour := max(hourOf(since), u.hour-keptHours+1)
	// The family that the census has may be of what the name does not show to be made up:
	// one word each at first, then more.
	for _, loose := range []bool{false, true} {
		sum := sum{}
		for _, s := range spots {
			for of, m := range s.named {
				if matches(name, of, loose || name == "*") {
					sum.add(m, hour)
				}
			}
			if s.rest != nil && name == "*" {
				sum.add(s.rest, hour)
			}
		}
		if len(sum) > 0 {
			return Answer{Makers: sum.makers(), Named: true}
		}
	}
	sum := sum{}
	for _, s := range spots {
		if s.rest != nil {
			sum.add(s.rest, hour)
		}
	}
	return Answer{Makers: sum.makers()}
}

// sum adds up the objects of users.
type sum map[unique.Handle[string]]Maker

func (s sum) add(m *made, since int32) {
	for i := range m.makers {
		of := &m.makers[i]
		if n := of.objects(since); n > 0 {
			s[of.user] = Maker{User: of.user.Value(), Client: of.client.Value(), Objects: s[of.user].Objects + n}
		}
	}
}

// mostTold is how many makers are told; the rest are others.
const mostTold = 20

func (s sum) makers() []Maker {
	var others int64
	all := make([]Maker, 0, len(s))
	for _, m := range s {
		if m.User == "" {
			others += m.Objects
			continue
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Maker) int {
		return cmp.Or(cmp.Compare(b.Objects, a.Objects), cmp.Compare(a.User, b.User))
	})
	for _, m := range all[min(len(all), mostTold):] {
		others += m.Objects
	}
	if all = all[:min(len(all), mostTold)]; others > 0 {
		all = append(all, Maker{Objects: others})
	}
	return all
}
