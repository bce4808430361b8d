package guard

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// Maker is a user who made objects, as the API server has seen it. The one without a
// name stands for those who are not told apart.
type Maker struct {
	User    string
	Client  string // of the user agent: kubectl/v1.31.0
	Objects int64
}

// Makers says who made the objects of a family since a time, as far as that is known.
// Named: those were told by their names; otherwise they are the makers of all objects
// of that kind in that namespace.
type Makers func(key bulkhead.Key, since time.Time) (makers []Maker, named bool)

const (
	// leastShare is what somebody must have made of what grows, to be named.
	leastShare = 0.05
	// byLabel follows a user whom labels name, where the API server has seen others.
	byLabel = " (by label)"
)

// users are those who made a growth: by the API server's audit log, with their share,
// and by what labels and annotations say. Whom both name is named once.
func (a *analysis) users(group []*growth, labels []string) (users []string, client string) {
	shares, client := a.shares(group)
	for _, s := range shares {
		users = append(users, clean(s.text))
	}
	for _, name := range labels {
		switch {
		case len(shares) == 0 && !strings.Contains(name, "%"): // else it might look like a share
			users = append(users, name)
		case !slices.ContainsFunc(shares, func(s portion) bool { return clean(s.user) == name }):
			users = append(users, clean(name+byLabel))
		}
	}
	return users[:min(len(users), mostUsers)], clean(client)
}

// withShare are the users whom the audit log names.
func withShare(users []string) []string {
	return slices.DeleteFunc(slices.Clone(users), func(u string) bool {
		return strings.HasSuffix(u, byLabel) || !strings.Contains(u, " %")
	})
}

// portion is how much of a growth a user made.
type portion struct{ user, text string }

// seen is what the API server has seen of a growth being made: objects by user.
type seen struct {
	by      map[string]float64
	clients map[string]string
	all     float64
}

func (s *seen) add(makers []Maker, each float64) {
	for _, m := range makers {
		s.by[m.User] += each * float64(m.Objects)
		s.clients[m.User] = m.Client
		s.all += each * float64(m.Objects)
	}
}

// shares are those of the users whom the API server has seen, the largest first. What
// has an owner in the group was made by a controller: who made the owner counts.
func (a *analysis) shares(group []*growth) (shares []portion, client string) {
	if a.Makers == nil {
		return nil, ""
	}
	known, all, gain := newSeen(), newSeen(), 0.0
	for _, g := range group {
		if slices.ContainsFunc(group, func(o *growth) bool { return owns(&o.Key, &g.Key) }) {
			continue
		}
		makers, each, named := a.makersOf(g)
		if named {
			known.add(makers, each)
			gain += g.gain
		} else {
			all.add(makers, each)
		}
	}
	if known.all == 0 {
		return all.shares(" of all made there")
	}
	if known.all < gain/2 { // it began before anybody read the log
		return known.shares(fmt.Sprintf(" of the %s seen", Number(known.all)))
	}
	return known.shares("")
}

func newSeen() seen { return seen{by: map[string]float64{}, clients: map[string]string{}} }

func (s *seen) shares(of string) (shares []portion, client string) {
	delete(s.by, "")
	users := slices.SortedFunc(maps.Keys(s.by), func(a, b string) int { return cmp.Or(cmp.Compare(s.by[b], s.by[a]), cmp.Compare(a, b)) })
	for _, user := range users {
		if part := s.by[user] / s.all; part >= leastShare {
			client = cmp.Or(client, s.clients[user])
			shares = append(shares, portion{user, fmt.Sprintf("%s (%.0f %%%s)", user, math.Floor(100*part), of)})
		}
	}
	return shares, client
}

// makersOf are those who made what grows, or what it comes of, and how many objects of
// the growth stand for each that they made.
func (a *analysis) makersOf(g *growth) (makers []Maker, each float64, named bool) {
	kind, of, found := strings.Cut(g.Origin, "/")
	if found && kind != "release" && kind != "nodes" {
		// It may be older than what comes of it.
		makers, named := a.Makers(bulkhead.Key{Kind: kind, Namespace: g.Namespace, Family: of}, time.Time{})
		made := int64(0)
		for _, m := range makers {
			made += m.Objects
		}
		if named && made > 0 {
			return makers, g.gain / float64(made), true
		}
	}
	makers, named = a.Makers(g.Key, g.trend.Since)
	return makers, 1, named && len(makers) > 0
}
