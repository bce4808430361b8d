package forecast

import (
	"math"
	"slices"
)

const (
	// unclear and uncertain are what a cost in CPU may leave open, and how uncertain it may
	// be, as shares. It is less than a cost in memory may, because CPU has many reasons.
	unclear   = 0.2
	uncertain = 0.3
	// day is after how long things are as they were, in hours, and fewHours are how many
	// hours of it must be known: all but what a restart of the guard takes.
	day      = 24.0
	fewHours = 22
	// lately is how long the CPU of now is looked at, in hours.
	lately = 0.5
)

// LearnCPU finds what explains the CPU of one agent, as [Learn] does for memory. It
// needs more, for CPU has other reasons than what an agent holds: most of it comes
// and goes with the day, some with what changes.
//
// So each time is only compared with the same time of other days, and a step that
// came at once with a growth counts for nothing: what it takes to change things, a growth
// that goes on takes from its first minute on. And CPU must have become more than it ever
// was, by as much again as it wandered before, while the agent held little, for a day at
// least. What wobbles daily, or differs from one day to the next, is therefore no cost;
// nor is anything one in the first day.
func LearnCPU(cpu []Point, held map[string][]Point) (Cost, bool) {
	return best(held, unclear, func(held []Point) (Cost, float64, bool) {
		m := moments(cpu, held)
		x, y := binned(sameHour(m))
		if len(x) > 0 { // where hardly more was held, a step that came with the growth is not seen
			x, y = x[1:], y[1:]
		}
		c, open, ok := fit(x, y)
		if !ok || c.Error > uncertain || !beyond(m, c.PerUnit) {
			return Cost{}, 0, false
		}
		c.Base = Lately(cpu) - c.PerUnit*m[len(m)-1].x
		return c, open, true
	})
}

// Lately is the median of the last half an hour.
func Lately(points []Point) float64 {
	s, _ := clean(points)
	var last []float64
	for _, p := range slices.Backward(s) {
		if -p.t > lately {
			break
		}
		last = append(last, p.v)
	}
	return median(last)
}

// moment is a pair at a time, in hours from the newest, so 0 or below.
type moment struct {
	t float64
	pair
}

// moments are the typical value of each window, and what was held in it, in the order of
// time.
func moments(values, held []Point) (m []moment) {
	v, newest := clean(values)
	h, last := clean(held)
	if len(v) == 0 || len(h) == 0 {
		return nil
	}
	shift := newest.Sub(last).Hours()
	for _, s := range steps(v, window) {
		if x, ok := valueAt(h, s.t+shift); ok {
			m = append(m, moment{s.t, pair{x, s.v}})
		}
	}
	return m
}

// beyond reports whether the values became more than they ever were, by as much again as
// they wandered before, while what was held went from the lowest third of its range to the
// highest, and whether the lowest third has seen all of a day. What the units themselves
// took in the lowest third is no wandering.
func beyond(m []moment, perUnit float64) bool {
	low, high := m[0].x, m[0].x
	for _, at := range m {
		low, high = min(low, at.x), max(high, at.x)
	}
	if high-low < leastRange*math.Abs(high) || high == low {
		return false
	}
	third := (high - low) / 3
	var before, after []float64
	hours := map[float64]bool{}
	for _, at := range m {
		switch {
		case at.x <= low+third:
			before = append(before, at.y-perUnit*(at.x-low))
			hours[math.Floor(math.Mod(-at.t, day))] = true
		case at.x >= high-third:
			after = append(after, at.y)
		}
	}
	usual := median(before)
	return len(hours) >= fewHours && median(after) > usual+2*(quantile(before, 0.95)-usual)
}

// sameHour are the differences between each two moments at the same time of different
// days: what more was held, and by how much the value was higher.
func sameHour(m []moment) (pairs []pair) {
	for i := range m {
		for days := 1.0; ; days++ {
			k, _ := slices.BinarySearchFunc(m, m[i].t+days*day-window/2, func(at moment, t float64) int {
				if at.t < t {
					return -1
				}
				return 1
			})
			if k == len(m) {
				break
			}
			if m[k].t-m[i].t > days*day+window/2 {
				continue // nobody looked then
			}
			a, b := m[i], m[k]
			if a.x > b.x {
				a, b = b, a
			}
			pairs = append(pairs, pair{b.x - a.x, b.y - a.y})
		}
	}
	return pairs
}
