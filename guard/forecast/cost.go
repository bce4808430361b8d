package forecast

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

// Cost is what an agent's memory, or its CPU, is made of: a base, and so much for each
// unit of something it must hold.
type Cost struct {
	Of      string  `json:"of"`      // "rules of networkpolicies", "networkpolicies", "pods"
	Base    float64 `json:"base"`    // bytes or cores
	PerUnit float64 `json:"perUnit"` // bytes or cores
	Error   float64 `json:"error"`   // of PerUnit, as a share of it, with 90 %
	// Source says where it comes from, for people: "learned", or who measured it.
	Source string `json:"source"`
}

// Memory is what so many units take.
func (c Cost) Memory(units float64) float64 { return c.Base + c.PerUnit*units }

// Units is how many units fit into a limit; 0 when not even the base does, and infinite
// when units cost nothing.
func (c Cost) Units(limit float64) float64 {
	if c.PerUnit <= 0 {
		return math.Inf(1)
	}
	return max(0, (limit-c.Base)/c.PerUnit)
}

// At is the cost of an agent that takes so much memory while it holds so many units:
// with its own base, and the cost of a unit that is known from others.
func (c Cost) At(memory, units float64) Cost {
	c.Base = max(0, memory-c.PerUnit*units)
	return c
}

const (
	// window is how long a garbage collector has to come by, in hours: the least
	// memory within it is what is really in use.
	window = 10.0 / 60
	// bins are the parts into which the range of what is held is cut, so that a week
	// at rest counts as much as the hour in which it doubled. A line is believed that has
	// fewBins of them.
	bins    = 24
	fewBins = 5
	// leastRange is the share by which what is held must change: from a few percent follows
	// nothing about the whole.
	leastRange = 0.05
	// unexplained is the share of its memory's change that a cost may leave open.
	unexplained = 0.3
)

// Learn finds what explains the memory of one agent, and what a unit of it costs. held
// are the candidates, by what they are called. It is not ok when nothing has changed
// enough to tell, or nothing explains it: then [Known] may help.
//
// Of candidates that explain it equally well, rules are preferred, for rules are what
// agents keep; then the first by name. What always grows in step cannot be told apart
// by anybody.
func Learn(memory []Point, held map[string][]Point) (Cost, bool) {
	return best(held, unexplained, func(held []Point) (Cost, float64, bool) { return explain(memory, held) })
}

// best is the cost by what explains most, and leaves less open than enough.
func best(held map[string][]Point, enough float64, explain func(held []Point) (c Cost, open float64, ok bool)) (Cost, bool) {
	var best Cost
	names := slices.SortedFunc(maps.Keys(held), func(a, b string) int {
		return cmp.Or(cmp.Compare(rulesFirst(a), rulesFirst(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		if c, open, ok := explain(held[name]); ok && open < enough {
			c.Of, c.Source = name, "learned"
			best, enough = c, 0.9*open
		}
	}
	return best, best.Of != ""
}

func rulesFirst(name string) int {
	if strings.HasPrefix(name, "rules") {
		return 0
	}
	return 1
}

// explain is the cost if memory came from this alone, and the share of memory's change
// that it leaves open.
func explain(memory, held []Point) (c Cost, open float64, ok bool) {
	return fit(binned(least(memory, held)))
}

// fit is the cost if y came from x alone, and the share of y's change that it leaves open.
func fit(x, y []float64) (c Cost, open float64, ok bool) {
	if len(x) < fewBins {
		return Cost{}, 0, false
	}
	c.PerUnit = slope(x, y)
	if c.PerUnit <= 0 {
		return Cost{}, 0, false
	}
	c.Base = level(x, y, c.PerUnit)
	_, err := scatter(x, y, c.PerUnit)
	c.Error = err / c.PerUnit
	left := make([]float64, len(x))
	for i := range x {
		left[i] = math.Abs(y[i] - c.Memory(x[i]))
	}
	return c, 2 * median(left) / (c.PerUnit * (x[len(x)-1] - x[0])), true
}

// pair is what was held, and the memory.
type pair struct{ x, y float64 }

// least are the lowest memory of each window, and what was held at that time.
func least(memory, held []Point) []pair {
	m, newest := clean(memory)
	h, last := clean(held)
	if len(m) == 0 || len(h) == 0 {
		return nil
	}
	shift := newest.Sub(last).Hours() // from times of h to times of m
	var pairs []pair
	for end := len(m); end > 0; {
		index := math.Floor(-m[end-1].t / window)
		low := m[end-1]
		for end > 0 && math.Floor(-m[end-1].t/window) == index {
			end--
			if m[end].v < low.v {
				low = m[end]
			}
		}
		if v, ok := valueAt(h, low.t+shift); ok {
			pairs = append(pairs, pair{v, low.v})
		}
	}
	return pairs
}

// valueAt is a series' value at a time, if it has one within a window of it.
func valueAt(s []sample, t float64) (float64, bool) {
	i, _ := slices.BinarySearchFunc(s, t, func(a sample, t float64) int { return cmp.Compare(a.t, t) })
	best, found := 0.0, window
	for _, k := range []int{i - 1, i} {
		if k >= 0 && k < len(s) && math.Abs(s[k].t-t) <= found {
			best, found = s[k].v, math.Abs(s[k].t-t)
		}
	}
	return best, found < window
}

// binned are pairs as one for each part of the range of x, in the order of x.
func binned(pairs []pair) (x, y []float64) {
	if len(pairs) == 0 {
		return nil, nil
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y)) })
	low, high := pairs[0].x, pairs[len(pairs)-1].x
	if high-low < leastRange*math.Abs(high) || high == low {
		return nil, nil
	}
	if math.IsInf(high-low, 0) {
		return nil, nil // no cluster holds as much, and no bin would ever be full
	}
	for start := 0; start < len(pairs); {
		bin := math.Floor((pairs[start].x - low) / (high - low) * bins)
		var xs, ys []float64
		for ; start < len(pairs) && math.Floor((pairs[start].x-low)/(high-low)*bins) == bin; start++ {
			xs, ys = append(xs, pairs[start].x), append(ys, pairs[start].y)
		}
		x, y = append(x, median(xs)), append(y, median(ys))
	}
	return x, y
}
