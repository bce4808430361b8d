package forecast

import "math"

// slope is the median of the slopes between points that are at least half of the
// length apart (Theil and Sen, without the near pairs, which say little).
func slope(t, y []float64) float64 {
	n := len(t)
	all := make([]float64, 0, n*n/8+n)
	for i := range n {
		for j := i + max(1, n/2); j < n; j++ {
			all = append(all, (y[j]-y[i])/(t[j]-t[i]))
		}
	}
	return median(all)
}

// level is the median of what is left without the slope: the value at time 0.
func level(t, y []float64, rate float64) float64 {
	left := make([]float64, len(t))
	for i := range t {
		left[i] = y[i] - rate*t[i]
	}
	return median(left)
}

// scatter is how far values are from the line, as a standard deviation, and the error
// of the slope that follows, with 90 %. Two things make a slope uncertain, and the
// larger one counts: values that lie around a line, and steps of chance that add up.
func scatter(t, y []float64, rate float64) (spread, err float64) {
	n := len(t)
	at := level(t, y, rate)
	var squares, next, mean, length float64
	last := 0.0
	for i := range t {
		left := y[i] - rate*t[i] - at
		squares += left * left
		next += left * last
		last = left
		mean += t[i] / float64(n)
	}
	for i := range t {
		length += (t[i] - mean) * (t[i] - mean)
	}
	if squares == 0 || length == 0 {
		return 0, 0
	}
	// What is above the line tends to stay above it for a while: so many values as
	// there are say less than independent ones would.
	alike := min(max(next/squares, 0), 0.9)
	spread = math.Sqrt(squares / float64(max(1, n-2)))
	err = spread / math.Sqrt(length) * math.Sqrt((1+alike)/(1-alike))
	return spread, 1.7 * max(err, chance(t, y, rate))
}

// chance is the error of a slope whose steps are independent of each other, as births
// at random are: how much they vary in the long run. Steps that take back what the one
// before has added do not count.
func chance(t, y []float64, rate float64) float64 {
	n := len(t) - 1
	if n < 4 {
		return 0
	}
	var sum float64
	steps := make([]float64, n)
	for i := range steps {
		steps[i] = y[i+1] - y[i] - rate*(t[i+1]-t[i])
		sum += steps[i] * steps[i]
		if i > 0 {
			sum += 2 * steps[i] * steps[i-1]
		}
	}
	return math.Sqrt(max(0, sum)) / (t[n] - t[0])
}

// curvedFor is how long, in hours, a rate must have changed before that is taken for
// how it goes on: in some minutes it is chance, or what made it did something else.
const curvedFor = 2.0

// curve sees growth that becomes faster or slower, when the difference between its
// halves is more than chance. If it has done so for long enough, the rate becomes the
// one at the end; else the rate is less certain by it.
func (r *run) curve(t, y []float64) {
	n := len(t)
	if n < 10 {
		return
	}
	half := n / 2
	first, second := slope(t[:half], y[:half]), slope(t[half:], y[half:])
	_, e1 := scatter(t[:half], y[:half], first)
	_, e2 := scatter(t[half:], y[half:], second)
	if first <= 0 || second <= 0 || math.Abs(second-first) < 1.5*(e1+e2) {
		return
	}
	length := t[n-1] - t[0]
	// Faster all the time is faster within each half, too.
	within := func(t, y []float64) float64 {
		half := len(t) / 2
		return slope(t[half:], y[half:]) - slope(t[:half], y[:half])
	}
	always := min(within(t[:half], y[:half]), within(t[half:], y[half:])) > (second-first)/6
	switch {
	case length < curvedFor:
		r.change = math.Abs(second-first) / 2
	case second > 1.25*first && always:
		r.bend = (second - first) / (length / 2)
		r.bendError = min(r.bend, (e1+e2)/(length/2))
		r.rate = second + r.bend*length/4
		r.error = max(r.error, e2)
	case second > 1.25*first: // once
		r.rate = second
		r.error = max(r.error, e2)
		r.change = math.Abs(second-first) / 2
	case second < 0.7*first:
		q := second / first
		r.rate = second * math.Sqrt(q)
		r.error = max(r.error, e2)
		r.level = r.b[len(r.b)-1].v + r.rate*(length/2)/math.Log(1/q)
	}
}

// drift is the slope of what does not grow, over the last hours, from its steps at
// each scale.
func drift(levels [][]sample) (rate, low, high float64) {
	for _, scale := range []int{1, 2, 0} {
		b := levels[scale]
		if b = b[max(0, len(b)-24):]; len(b) < 3 {
			continue
		}
		t, y := make([]float64, len(b)), make([]float64, len(b))
		for i := range b {
			t[i], y[i] = b[i].t, b[i].v
		}
		rate = slope(t, y)
		_, err := scatter(t, y, rate)
		return rate, rate - err, rate + err
	}
	return 0, 0, 0
}
