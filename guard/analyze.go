package guard

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/forecast"
)

// Input is all that a finding follows from.
type Input struct {
	Now time.Time
	// Census is the last look. What it has no series of is judged by when the objects
	// that are there were created, so that one look is enough to see a growth.
	Census bulkhead.Census
	// Series and Looked are the history: how the families went, sums too (see Sums), and
	// when somebody looked.
	Series []bulkhead.Series
	Looked []bulkhead.Span
	// Facts are what the facts of families were some time ago: what was added since says
	// who makes what grows now.
	Facts   map[bulkhead.Key][]bulkhead.Fact
	Budgets []bulkhead.Budget // default budget.Defaults()
	Agents  []AgentSample     // of each agent what is nearest to its limits
	Makers  Makers            // default: nobody knows
	// Runs: it is the guard of a server, which has runs that a brake can hold.
	Runs bool

	// Of a guard: what is known not to grow, and where the series are.
	calm   map[bulkhead.Key]bool
	memory *memory
}

const (
	// mostFindings and mostGrowths bound what one look can lead to.
	mostFindings = 50
	mostGrowths  = 500
	// horizon is how far ahead anybody plans: what reaches no budget in that time is
	// a finding only if it is large.
	horizon = 30 * 24 * time.Hour
	// criticalIn and warningIn are how near a budget is to be: a night's sleep is
	// longer than the first, and a working day shorter than the second.
	criticalIn = 4 * time.Hour
	warningIn  = 24 * time.Hour
	// farthest is how many times as long as a growth was seen somebody may be told of that
	// is not a matter of today. What has come since the morning may end with the day.
	farthest = 20
	// largePerHour objects are more than a cluster should get from one growth in an hour,
	// whatever the budgets say: 12,000 a day. It counts when there are as many. The incident
	// of 2024-10-09 made 2,464.
	largePerHour = 500
)

// analysis is one call of Analyze.
type analysis struct {
	Input
	tallies map[bulkhead.Key]*bulkhead.Tally
	series  map[bulkhead.Key][]bulkhead.Point
	status  map[string]bulkhead.KindStatus
	// Of a sum, the objects that are as many as somebody has asked for, and those of them
	// that scale.
	demand, scaled map[bulkhead.Key]int64
	// made remembers growths, also those that are none (nil).
	made   map[bulkhead.Key]*growth
	gained map[string]float64 // objects of a kind, by all families that grow
}

// Analyze finds the growths that will hurt, the worst first. It is a pure function of
// its input, and returns at most 50.
func Analyze(in Input) []bulkhead.Finding { return newAnalysis(in).findings() }

func (a *analysis) findings() []bulkhead.Finding {
	families, sums := a.growths()
	for _, g := range families {
		a.gained[g.Kind] += g.gain
	}
	groups := together(families)
	groups = append(groups, a.unexplained(families, sums)...)
	var findings []bulkhead.Finding
	for _, g := range groups {
		if f, ok := a.finding(g); ok {
			findings = append(findings, f)
		}
	}
	findings = append(findings, a.exceeded(findings)...)
	slices.SortFunc(findings, Worse)
	return findings[:min(len(findings), mostFindings)]
}

// Worse orders findings for people: the severest first, then what hurts first.
func Worse(a, b bulkhead.Finding) int {
	return cmp.Or(cmp.Compare(rank(b.Severity), rank(a.Severity)), cmp.Compare(soonest(a), soonest(b)),
		cmp.Compare(b.PerHour, a.PerHour), cmp.Compare(a.ID, b.ID))
}

func rank(s bulkhead.Severity) int {
	return slices.Index([]bulkhead.Severity{bulkhead.Notice, bulkhead.Warning, bulkhead.Critical}, s)
}

// soonest is when a finding reaches its first budget.
func soonest(f bulkhead.Finding) time.Duration {
	if len(f.Reaches) == 0 {
		return forecast.Far
	}
	return f.Reaches[0].In
}

func newAnalysis(in Input) *analysis {
	if in.Budgets == nil {
		in.Budgets = budget.Defaults()
	}
	if !slices.ContainsFunc(in.Census.Tallies, func(t bulkhead.Tally) bool { return t.Namespace == All }) {
		in.Census = Sums(Known(in.Census))
	}
	a := &analysis{Input: in, tallies: map[bulkhead.Key]*bulkhead.Tally{}, series: map[bulkhead.Key][]bulkhead.Point{},
		status: map[string]bulkhead.KindStatus{}, gained: map[string]float64{}, made: map[bulkhead.Key]*growth{},
		demand: map[bulkhead.Key]int64{}, scaled: map[bulkhead.Key]int64{}}
	for i := range in.Census.Tallies {
		t := &in.Census.Tallies[i]
		a.tallies[t.Key] = t
		if isSum(t.Key) {
			continue
		}
		for _, sum := range sumsOf(t.Key) {
			if followsDemand(t) {
				a.demand[sum] += t.Objects
			}
			if scales(t) {
				a.scaled[sum] += t.Objects
			}
		}
	}
	for _, s := range in.Series {
		a.series[s.Key] = s.Points
	}
	for _, k := range in.Census.Kinds {
		a.status[k.Kind] = k
	}
	return a
}

// pointsOf are those of a series; none if it is not known.
func (a *analysis) pointsOf(key bulkhead.Key) []bulkhead.Point {
	points, ok := a.series[key]
	if !ok && a.memory != nil {
		points = a.memory.points(key)
		a.series[key] = points
	}
	return points
}

// growths are the families that grow, and the sums that do.
func (a *analysis) growths() (families, sums []*growth) {
	keys := make([]bulkhead.Key, 0, len(a.series))
	for key := range a.series {
		keys = append(keys, key)
	}
	for key := range a.tallies {
		if _, ok := a.series[key]; !ok && !a.calm[key] {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, key := range keys {
		if ofAgents(key.Kind) {
			continue
		}
		g := a.growth(key)
		switch {
		case g == nil:
		case isSum(key):
			sums = append(sums, g)
		case !a.replaces(g):
			families = append(families, g)
		}
	}
	slices.SortFunc(families, faster)
	families = a.withKin(families[:min(len(families), mostGrowths)])
	slices.SortFunc(sums, faster)
	return families, sums[:min(len(sums), mostGrowths)]
}

func faster(a, b *growth) int {
	return cmp.Or(cmp.Compare(b.trend.PerHour, a.trend.PerHour), compareKeys(a.Key, b.Key))
}

// replaces reports whether a family only takes the place of others of its kind: then
// there are not more of them together in its namespace.
func (a *analysis) replaces(g *growth) bool {
	key := bulkhead.Key{Kind: g.Kind, Namespace: g.Namespace, Family: All}
	if g.Namespace == "" {
		key = total(g.Kind)
	}
	points := a.pointsOf(key)
	if len(points) == 0 || points[0].At.After(g.trend.Since) {
		return false
	}
	return float64(points[len(points)-1].Objects-valueAt(points, g.trend.Since).Objects) < g.gain/2
}

// unexplained are the sums that grow though no family or smaller sum in them does by
// as much: the names are not of one pattern, or it is a little everywhere.
func (a *analysis) unexplained(families, sums []*growth) (groups [][]*growth) {
	explained := slices.Clone(families)
	for _, level := range []func(bulkhead.Key) bool{
		func(k bulkhead.Key) bool { return k.Namespace != All },                    // a kind in a namespace
		func(k bulkhead.Key) bool { return k.Namespace == All && k.Family != All }, // a family everywhere
		func(k bulkhead.Key) bool { return k.Namespace == All && k.Family == All }, // a kind
	} {
		var rest []*growth
		for _, s := range sums {
			if level(s.Key) && !a.explains(explained, s) {
				rest = append(rest, s)
			}
		}
		groups = append(groups, together(rest)...)
		explained = append(explained, rest...)
	}
	return groups
}

// explains reports whether growths that are known already are at least a half of a
// sum's.
func (a *analysis) explains(known []*growth, s *growth) bool {
	perHour := 0.0
	for _, g := range known {
		in := g.Kind == s.Kind && (s.Namespace == All || g.Namespace == s.Namespace) && (s.Family == All || g.Family == s.Family)
		if in && g.Key != s.Key {
			perHour += g.trend.PerHour
		}
	}
	return perHour >= s.trend.PerHour/2
}

// short is the name of a kind without its group.
func short(kind string) string {
	name, _, _ := strings.Cut(kind, ".")
	return name
}
