package forecast

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// sample is a point whose time is in hours from the newest one, so 0 or below. Times
// that are shifted all together are therefore the same samples.
type sample struct{ t, v float64 }

// clean puts points in order and leaves out what is not a number. Of several points
// at one time the middle one counts.
func clean(points []Point) ([]sample, time.Time) {
	sorted := make([]Point, 0, len(points))
	for _, p := range points {
		if !math.IsNaN(p.Value) && !math.IsInf(p.Value, 0) {
			sorted = append(sorted, p)
		}
	}
	if len(sorted) == 0 {
		return nil, time.Time{}
	}
	order := func(a, b Point) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Value, b.Value)) }
	if !slices.IsSortedFunc(sorted, order) {
		slices.SortFunc(sorted, order)
	}
	newest := sorted[len(sorted)-1].At
	s := make([]sample, 0, len(sorted))
	for i := 0; i < len(sorted); {
		j := i + 1
		for j < len(sorted) && sorted[j].At.Equal(sorted[i].At) {
			j++
		}
		s = append(s, sample{-newest.Sub(sorted[i].At).Hours(), sorted[(i+j-1)/2].Value})
		i = j
	}
	return s, newest
}

// maxSteps bounds the work at one scale.
const maxSteps = 256

// steps are the samples in steps of a width in hours that end at the newest sample:
// each the median of its samples, at the mean of their times. A step without samples
// is not there. Those of a larger scale are made of those of the one before.
func steps(s []sample, width float64) []sample {
	made := make([]sample, 0, min(len(s), 1+int(-s[0].t/width)))
	var values []float64
	for end := len(s); end > 0; {
		index := math.Floor(-s[end-1].t / width)
		start := end
		var sum float64
		values = values[:0]
		for start > 0 && math.Floor(-s[start-1].t/width) == index {
			start--
			sum += s[start].t
			values = append(values, s[start].v)
		}
		made = append(made, sample{sum / float64(end-start), median(values)})
		end = start
	}
	slices.Reverse(made)
	return made
}

// around is how many neighbours on each side say what a jump is.
const around = 4

// smooth is a series without its jumps: where a rate from one step to the next is not
// like those around it, it becomes their median. Drops are the steps at which a jump
// went down. The first value stays.
func smooth(b []sample) (y []float64, drops []int) {
	rates := make([]float64, len(b)-1)
	for i := range rates {
		rates[i] = (b[i+1].v - b[i].v) / (b[i+1].t - b[i].t)
	}
	y = make([]float64, len(b))
	y[0] = b[0].v
	near := make([]float64, 0, 2*around)
	for i, rate := range rates {
		near = append(near[:0], rates[max(0, i-around):i]...)
		near = append(near, rates[i+1:min(len(rates), i+1+around)]...)
		typical := median(near)
		for k := range near {
			near[k] = math.Abs(near[k] - typical)
		}
		if math.Abs(rate-typical) > max(6*median(near), 3*math.Abs(typical)) {
			if rate < typical {
				drops = append(drops, i+1)
			}
			rate = typical
		}
		y[i+1] = y[i] + rate*(b[i+1].t-b[i].t)
	}
	return y, drops
}

// median sorts what it is given; of none it is 0.
func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile sorts what it is given, and interpolates.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}
