package guard

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

const (
	// Growths of one cause begin at one time: within this, or within a share of how
	// long they last. Where their origin says that they belong together, the larger
	// ones do.
	startWithin, startShare       = 15 * time.Minute, 0.2
	startWithinKin, startShareKin = time.Hour, 0.6
	mostParts                     = 20   // of one kind with one step of a growth
	ratioWithin                   = 0.12 // how far a ratio may be from a whole number
	alike                         = 0.6  // correlation of what they gain from step to step
	fewestSteps, mostSteps        = 6, 60
	incomparable                  = -2.0
)

// together puts growths of one cause together. They are in one namespace.
func together(all []*growth) [][]*growth {
	parent := make([]int, len(all))
	for i := range parent {
		parent[i] = i
	}
	var root func(int) int
	root = func(i int) int {
		if parent[i] != i {
			parent[i] = root(parent[i])
		}
		return parent[i]
	}
	for i := range all {
		for j := range i {
			if root(i) != root(j) && inStep(all[i], all[j]) {
				parent[root(i)] = root(j)
			}
		}
	}
	byRoot := map[int][]*growth{}
	for i, g := range all {
		byRoot[root(i)] = append(byRoot[root(i)], g)
	}
	var groups [][]*growth
	for i := range all {
		if members := byRoot[i]; len(members) > 0 {
			groups = append(groups, members)
		}
	}
	return groups
}

// inStep reports whether two growths are one: they are in one namespace, began
// together, and are of one origin, or gain together in a simple ratio.
func inStep(a, b *growth) bool {
	if a.Namespace != b.Namespace || (a.Family == All) != (b.Family == All) {
		return false
	}
	if kin(a, b) {
		return begin(a, b, startWithinKin, startShareKin) || mayBegin(a, b) || mayBegin(b, a)
	}
	if !begin(a, b, startWithin, startShare) {
		return false
	}
	c := correlation(a, b)
	return wholeRatio(a.gain, b.gain) && (c >= alike || c == incomparable && a.Manager == b.Manager)
}

func begin(a, b *growth, within time.Duration, share float64) bool {
	longest := max(a.trend.At.Sub(a.trend.Since), b.trend.At.Sub(b.trend.Since))
	return a.trend.Since.Sub(b.trend.Since).Abs() <= max(within, time.Duration(share*float64(longest)))
}

// kin reports whether two families are of one origin: the same, one of the other, or
// one person's for one purpose.
func kin(a, b *growth) bool {
	if related(&a.Key, &b.Key) {
		return true
	}
	if a.Manager != b.Manager {
		return false
	}
	for _, f := range a.tally.Facts {
		if common(f, a) && slices.ContainsFunc(b.tally.Facts, func(o bulkhead.Fact) bool {
			return o.Key == f.Key && o.Value == f.Value && common(o, b)
		}) {
			return true
		}
	}
	return false
}

// common reports whether most of a family has a fact that says something of a cause.
func common(f bulkhead.Fact, g *growth) bool {
	return 2*f.Objects > g.tally.Objects && f.Value != "" && !strings.HasPrefix(f.Key, "app.kubernetes.io/")
}

// wholeRatio reports whether a ratio is near a whole number, or one over it.
func wholeRatio(a, b float64) bool {
	if a < b {
		a, b = b, a
	}
	ratio := a / b
	near := math.Round(ratio)
	return near <= mostParts && math.Abs(ratio-near) <= ratioWithin*near
}

// correlation says how far two growths gain in the same steps of time, from −1 to 1. It
// is incomparable when one gains the same in each.
func correlation(a, b *growth) float64 {
	from := a.trend.Since
	if b.trend.Since.After(from) {
		from = b.trend.Since
	}
	length := a.trend.At.Sub(from)
	n := min(mostSteps, int(length/time.Minute))
	if n < fewestSteps {
		return incomparable
	}
	step := length / time.Duration(n)
	x, y := gains(a.points, from, step, n), gains(b.points, from, step, n)
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, syy, sxy = sxx+x[i]*x[i], syy+y[i]*y[i], sxy+x[i]*y[i]
	}
	count := float64(n)
	vx, vy := sxx-sx*sx/count, syy-sy*sy/count
	if vx < 1e-9 || vy < 1e-9 {
		return incomparable
	}
	return (sxy - sx*sy/count) / math.Sqrt(vx*vy)
}

// gains are how much a series gained in each of n steps.
func gains(points []bulkhead.Point, from time.Time, step time.Duration, n int) []float64 {
	out := make([]float64, n)
	before := valueAt(points, from).Objects
	for i := range out {
		now := valueAt(points, from.Add(time.Duration(i+1)*step)).Objects
		out[i], before = float64(now-before), now
	}
	return out
}

// unit is what one step of a growth adds of a family: most families of a cause gain
// the same, one object each.
func unit(group []*growth) float64 {
	best, bestCount := group[0].gain, 0
	sorted := slices.SortedFunc(slices.Values(group), func(a, b *growth) int { return cmp.Compare(a.gain, b.gain) })
	for _, g := range sorted {
		count := 0
		for _, o := range group {
			if math.Abs(o.gain-g.gain) <= ratioWithin*g.gain {
				count++
			}
		}
		if count > bestCount {
			best, bestCount = g.gain, count
		}
	}
	return best
}

// ratio makes a whole number of what is near one.
func ratio(part, whole float64) float64 {
	r := part / whole
	if near := math.Round(r); near > 0 && math.Abs(r-near) <= ratioWithin*near {
		return near
	}
	return math.Round(r*10) / 10
}
