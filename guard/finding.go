package guard

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"bulkhead.dev/bulkhead"
)

const (
	mostFacts      = 8
	mostUsers      = 5
	longestText    = 200  // of one thing that comes from the cluster
	longestCommand = 2000 // characters; a longer one is of no use in any shell
	// A title is to fit the page behind its severity.
	longestTitle = pageWidth - len("CRITICAL: ")
)

// finding makes one of a group of growths. It is not ok when the growth will not hurt.
func (a *analysis) finding(group []*growth) (bulkhead.Finding, bool) {
	sameStart(group)
	step := unit(group)
	f := bulkhead.Finding{Since: group[0].trend.Since, Namespace: group[0].Namespace, PerHour: stepsPerHour(group, step)}
	if f.Namespace == All {
		f.Namespace = ""
	}
	perHour, gain := 0.0, 0.0
	for _, g := range group {
		perHour, gain = perHour+g.trend.PerHour, gain+g.gain
		if g.trend.Since.Before(f.Since) {
			f.Since = g.trend.Since
		}
	}
	kinds := byKind(group)
	for _, k := range kinds {
		f.Members = append(f.Members, k.member(step))
	}
	f.Reaches = a.reaches(kinds)
	large := min(perHour, gain) >= largePerHour
	f.Severity = severity(a.caused(kinds, f.Reaches), large)
	if f.Severity == bulkhead.Notice && !foreseen(f, a.Now) {
		return bulkhead.Finding{}, false
	}
	firstHurts(f.Members, f.Reaches)
	f.ID = identity(group)
	f.Title = title(f)
	f.Client, f.Users, f.Facts = a.makers(group)
	f.Class = a.class(group, f.Namespace)
	f.Keeps = keeps(kinds)
	f.Advice = a.advice(f)
	return f, true
}

// foreseen reports whether a growth has gone on for long enough to say that it will reach
// a budget some day.
func foreseen(f bulkhead.Finding, now time.Time) bool {
	return len(f.Reaches) > 0 && f.Reaches[0].In <= farthest*now.Sub(f.Since)
}

func severity(reaches []bulkhead.Reach, large bool) bulkhead.Severity {
	switch {
	case slices.ContainsFunc(reaches, fails):
		return bulkhead.Critical
	case len(reaches) > 0 && reaches[0].In <= warningIn, large:
		return bulkhead.Warning
	}
	return bulkhead.Notice
}

// fails is whether something fails soon when that is reached.
func fails(r bulkhead.Reach) bool { return r.In <= criticalIn && !throttles(r) }

// stepsPerHour is how fast those families grow that gain one object with each step.
func stepsPerHour(group []*growth, step float64) float64 {
	var rates []float64
	for _, g := range group {
		if math.Abs(g.gain-step) <= ratioWithin*step {
			rates = append(rates, g.trend.PerHour)
		}
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// kindGrowth is what grows of one kind.
type kindGrowth struct {
	kind string
	all  []*growth
}

// first is the order in which people name kinds: what was asked for, then what came
// with it.
var first = []string{"jobs.batch", "pods", "networkpolicies.networking.k8s.io", "configmaps", "secrets"}

func byKind(group []*growth) (out []kindGrowth) {
	for _, g := range group {
		i := slices.IndexFunc(out, func(k kindGrowth) bool { return k.kind == g.Kind })
		if i < 0 {
			out = append(out, kindGrowth{kind: g.Kind})
			i = len(out) - 1
		}
		out[i].all = append(out[i].all, g)
	}
	slices.SortStableFunc(out, func(a, b kindGrowth) int { return compareKinds(a.kind, b.kind) })
	return out
}

func compareKinds(a, b string) int {
	place := func(kind string) int {
		if i := slices.Index(first, kind); i >= 0 {
			return i
		}
		return len(first)
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
}

// sum adds up something of the families of a kind.
func (k kindGrowth) sum(of func(*growth) float64) (s float64) {
	for _, g := range k.all {
		s += of(g)
	}
	return s
}

// member is a kind's part of a growth. Several families of it, such as the seven
// ConfigMaps of one release, are one.
func (k kindGrowth) member(step float64) bulkhead.Member {
	g := k.all[0]
	m := bulkhead.Member{Key: g.Key}
	gain := 0.0
	var newest time.Time
	var names []string
	for _, g := range k.all {
		names = append(names, g.Family)
		m.Objects += g.tally.Objects
		m.Rules += g.tally.Rules
		m.PerHour += g.trend.PerHour
		gain += g.gain
		if m.Example == "" || g.tally.Example.Created.After(newest) {
			m.Example, newest = clean(g.tally.Example.Name), g.tally.Example.Created
		}
	}
	if m.Namespace == All {
		m.Namespace = ""
	}
	m.Family = clean(pattern(names))
	m.Ratio = ratio(gain, step)
	return m
}

// pattern is what names have in common, with * for the rest.
func pattern(names []string) string {
	begin, end := names[0], names[0]
	for _, name := range names[1:] {
		for !strings.HasPrefix(name, begin) {
			begin = begin[:len(begin)-1]
		}
		for !strings.HasSuffix(name, end) {
			end = end[1:]
		}
	}
	shortest := len(slices.MinFunc(names, func(a, b string) int { return len(a) - len(b) }))
	if begin == names[0] && end == names[0] {
		return names[0]
	}
	// Nothing counts twice, and only one * is of use at a time.
	end = end[max(0, len(end)-(shortest-min(len(begin), shortest))):]
	return strings.TrimRight(begin, "*") + "*" + strings.TrimLeft(end, "*")
}

// firstHurts puts the member at the front whose budget is reached first.
func firstHurts(members []bulkhead.Member, reaches []bulkhead.Reach) {
	for _, r := range reaches {
		if i := slices.IndexFunc(members, func(m bulkhead.Member) bool { return m.Kind == r.Budget.Kind }); i >= 0 {
			hurts := members[i]
			copy(members[1:i+1], members[:i])
			members[0] = hurts
			return
		}
	}
}

// identity is the same for the same growth: it comes of where it is and of its origin,
// or else of the family that would be named first.
func identity(group []*growth) string {
	origin := ""
	for _, g := range group {
		if strings.HasPrefix(g.Origin, "release/") && (origin == "" || g.Origin < origin) {
			origin = g.Origin
		}
	}
	if origin == "" {
		g := slices.MinFunc(group, func(a, b *growth) int { return cmp.Or(compareKinds(a.Kind, b.Kind), compareKeys(a.Key, b.Key)) })
		origin = g.Kind + "/" + g.Family + "/" + g.Manager
	}
	sum := sha256.Sum256([]byte(group[0].Namespace + "\x00" + origin))
	return fmt.Sprintf("%x", sum[:5])
}

// title is what multiplies, and where.
func title(f bulkhead.Finding) string {
	if f.Namespace == "" {
		return multiply(&f, "the cluster")
	}
	return multiply(&f, clean(f.Namespace))
}

func multiply(f *bulkhead.Finding, where string) string {
	kinds := make([]string, 0, len(f.Members))
	for _, m := range sortedMembers(f.Members) {
		kinds = append(kinds, clean(short(m.Kind)))
	}
	const most = 3
	shown := len(kinds)
	if shown-most > 1 {
		shown = most
	}
	text := multiplying(kinds, shown, where)
	for shown > 1 && utf8.RuneCountInString(text) > longestTitle { // where it is matters more than the third kind
		shown--
		text = multiplying(kinds, shown, where)
	}
	return text
}

func multiplying(kinds []string, shown int, where string) string {
	named := slices.Clone(kinds[:shown])
	switch more := len(kinds) - shown; more {
	case 0:
	case 1:
		named = append(named, "1 more kind")
	default:
		named = append(named, fmt.Sprintf("%d more kinds", more))
	}
	return fmt.Sprintf("%s multiply in %s", list(named), where)
}

func sortedMembers(members []bulkhead.Member) []bulkhead.Member {
	return slices.SortedStableFunc(slices.Values(members), func(a, b bulkhead.Member) int { return compareKinds(a.Kind, b.Kind) })
}

// list is words as a sentence has them.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// makers say who: by what was added since somebody looked some time ago, so that the
// objects of others, which are there already, do not speak for the new ones.
func (a *analysis) makers(group []*growth) (client string, users []string, facts []bulkhead.Fact) {
	clients, best := map[string]float64{}, map[[2]string]int64{}
	for _, g := range group {
		// What has an owner in the group was made for it by a controller.
		if !slices.ContainsFunc(group, func(o *growth) bool { return owns(&o.Key, &g.Key) }) {
			clients[g.Manager] += g.gain
		}
		added, before := a.added(g)
		for _, f := range g.tally.Facts {
			// A value of a few of them says nothing of the rest: names of releases.
			if n := f.Objects - before[[2]string{f.Key, f.Value}]; n > 0 && 5*n >= added && f.Value != "" {
				id := [2]string{clean(f.Key), clean(f.Value)}
				best[id] = max(best[id], n)
			}
		}
	}
	for name, gain := range clients {
		if name != "" && (client == "" || gain > clients[client] || gain == clients[client] && name < client) {
			client = name
		}
	}
	for id, n := range best {
		facts = append(facts, bulkhead.Fact{Key: id[0], Value: id[1], Objects: n})
	}
	slices.SortFunc(facts, func(a, b bulkhead.Fact) int {
		return cmp.Or(cmp.Compare(b.Objects, a.Objects), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
	})
	facts = facts[:min(len(facts), mostFacts)]
	for _, f := range facts {
		if (f.Key == "username" || f.Key == "user" || strings.HasSuffix(f.Key, "/username")) && len(users) < mostUsers {
			users = append(users, f.Value)
		}
	}
	users, agent := a.users(group, users)
	return clean(cmp.Or(client, agent)), users, facts
}

// added is how many objects of a growth have come since its facts were kept, and how
// many had each value then, by key and value.
func (a *analysis) added(g *growth) (n int64, before map[[2]string]int64) {
	before = map[[2]string]int64{}
	for _, f := range a.Facts[g.Key] {
		before[[2]string{f.Key, f.Value}] = f.Objects
	}
	n = min(int64(g.gain), g.tally.Objects-before[[2]string{countKey}])
	if n < least { // since a restart, say: so few say nothing
		n = int64(g.gain)
		clear(before)
	}
	return n, before
}

// countKey is the key of a fact that says how many objects a family had when its facts
// were kept. No label has such a key.
const countKey = ""

// keeps says what will remove the objects.
func keeps(kinds []kindGrowth) string {
	var nothing, owned, ttl []string
	longest := time.Duration(0)
	for _, k := range kinds {
		var none, all, own float64
		for _, g := range k.all {
			none, all, own = none+float64(g.tally.Keeps.Nothing), all+float64(g.tally.Objects), own+float64(g.tally.Keeps.Owned)
			longest = max(longest, g.tally.Keeps.TTL)
		}
		name := clean(short(k.kind))
		switch {
		case 2*none >= all:
			nothing = append(nothing, name)
		case 2*own >= all:
			owned = append(owned, name)
		case k.sum(func(g *growth) float64 { return g.tally.Keeps.TTL.Hours() }) > 0:
			ttl = append(ttl, name)
		}
	}
	var parts []string
	if len(nothing) > 0 {
		parts = append(parts, "nothing removes the "+list(nothing))
	}
	if len(ttl) > 0 {
		parts = append(parts, fmt.Sprintf("%s go %s after their end", list(ttl), Duration(longest)))
	}
	if len(owned) > 0 {
		parts = append(parts, list(owned)+" go with their owner")
	}
	if len(parts) == 0 {
		return "it is not known what removes them"
	}
	return strings.Join(parts, "; ")
}

// clean is text of the cluster that is safe in a line.
func clean(text string) string { return bulkhead.OneLine(text, longestText) }
