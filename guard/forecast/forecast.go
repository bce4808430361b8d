// Package forecast says whether something grows, since when, how fast, and when it
// is too much. It is arithmetic on points in time: no clock, no I/O, no state.
//
// What a cluster counts is never still. A rolling deploy adds pods for minutes, a
// CronJob's history fills and stays, a namespace appears with all it has, users sleep
// and wake. None of that is growth that will hurt, and a forecast that says so at
// night is soon ignored. So a growth has to show three things before it is called one:
// it goes on (nearly every step of time adds something, and no single step most of
// it), it is more than what the same series did before, and it is enough to matter.
//
// The same questions are asked at several scales of time, each three times the one
// before: a loop that adds something each 16 seconds shows within a quarter of an hour
// in steps of two minutes, a batch that comes each hour only in steps of an hour.
// At each scale a step is the median of its points, so what comes and goes within it
// is not seen, and a jump that is not like its neighbours (500 objects at once, a
// clean-up) is taken out before anything is measured.
//
// [Learn] finds what the memory of an agent depends on, [LearnCPU] what its CPU does, and
// [Agent] says when it is at its limit.
package forecast

import (
	"math"
	"time"
)

// Point is a value at a time. Points may come in any order, with gaps and repeats.
type Point struct {
	At    time.Time
	Value float64
}

// Trend is where a series is going.
type Trend struct {
	// Growing is whether it grows in a way that will not end by itself, as far as
	// its own past tells.
	Growing bool
	// PerHour is how fast it is now; between Low and High with 90 %. It is given
	// also for what is not Growing.
	PerHour, Low, High float64
	Since              time.Time // when the growth began; of what was always growing the first point
	Confidence         float64   // 0 to 1: how sure it is that this is growth
	Now                float64   // the last value
	At                 time.Time // its time
	Base               float64   // the value at Since
	// Bend is by how much PerHour changes in an hour: above 0 it grows faster and
	// faster; 0 when that cannot be told. It is taken to go on for as long again as it
	// was seen, and not longer.
	Bend float64
	// Level is where it levels off, when its growth slows down as that of things does
	// that have a time to live; 0 when it does not.
	Level float64

	spread    float64 // of the values around the line, one standard deviation
	bendError float64 // of Bend, with 90 %
}

// minGain is below what a growth is nothing to tell anybody about: CronJobs'
// histories (1 to 10 each), the ReplicaSets a Deployment keeps (10), what a namespace
// begins with. A loop of 224/h has made as many in 11 minutes. What takes longer must
// have made more: slowest, in an hour, is 336 in a week.
const (
	minGain = 40
	slowest = 2
)

// What a healthy daily cycle of ±10 % may do. As a sine it rises by at most
// 2π/24 × 10 % = 2.6 % of its mean in an hour, and by 22 % from its lowest point; what
// wanders beside that by one percent adds some. What is above all of it is not a cycle, also
// for who has not yet seen a day.
const (
	cycleStart = 0.06
	cycleRate  = 0.033
	cycleRise  = 0.30
)

// knownDay is how much of a series' own past, in hours, tells whether it has a cycle.
const knownDay = 30.0

// Of says where a series is going. Points later than the caller's clock are to be left
// out by it (see [Until]).
func Of(points []Point) Trend {
	s, newest := clean(points)
	if len(s) == 0 {
		return Trend{}
	}
	t := Trend{Now: s[len(s)-1].v, At: newest}
	var chosen *run
	levels := make([][]sample, 0, len(scales))
	b := s
	for i, width := range scales {
		b = steps(b, width)
		levels = append(levels, b)
		r, ok := examine(s, b, width, enough(i))
		if !ok {
			continue
		}
		if chosen == nil || r.better(chosen) {
			chosen = &r
		}
	}
	if chosen == nil {
		t.PerHour, t.Low, t.High = drift(levels)
		return t
	}
	t.Growing = chosen.growth() && !known(levels, chosen)
	chosen.fill(&t, newest)
	return t
}

// Until leaves out the points that are later than now: a clock that was ahead made
// them. A minute is let through, as two clocks are never the same.
func Until(points []Point, now time.Time) []Point {
	kept := make([]Point, 0, len(points))
	for _, p := range points {
		if !p.At.After(now.Add(time.Minute)) {
			kept = append(kept, p)
		}
	}
	return kept
}

// fill tells the trend what a run has found.
func (r *run) fill(t *Trend, newest time.Time) {
	t.Since = newest.Add(hours(r.since))
	t.Base = r.base
	wide := max(r.error, r.change)
	t.PerHour, t.Low, t.High = r.rate, r.rate-wide, r.rate+wide
	t.Bend, t.Level, t.spread, t.bendError = r.bend, r.level, r.spread, r.bendError
	if !t.Growing {
		t.Level = 0
		return
	}
	t.Confidence = r.confidence()
}

// Far is more than anybody plans for. It stands for "never" where a duration is needed.
const Far = 10 * 365 * 24 * time.Hour

// Reach says in how long the limit is reached, and the earliest and latest time with
// 90 %. It is not ok when there is no growth, or when it levels off before.
func (t Trend) Reach(limit float64) (in, low, high time.Duration, ok bool) {
	if t.Now >= limit {
		return 0, 0, 0, true
	}
	if !t.Growing || t.PerHour <= 0 || math.IsNaN(limit) || math.IsInf(limit, 0) {
		return 0, 0, 0, false
	}
	gap := limit - t.Now
	if t.Level > 0 && limit >= t.Level {
		return 0, 0, 0, false
	}
	room := 1.64 * t.spread
	in = t.take(gap, t.PerHour)
	sooner, later := t, t
	if t.Bend > 0 {
		sooner.Bend, later.Bend = t.Bend+t.bendError, t.Bend-t.bendError
	}
	low = min(in, sooner.take(max(0, gap-room), t.High))
	high = Far
	if t.Low > 0 {
		high = max(in, later.take(gap+room, t.Low))
	}
	return in, low, high, true
}

// Levels says where the growth levels off and in how long, when its objects have a
// time to live: from then on as many go as come. A ttl of 0 is not known; then only growth
// that slows down already tells, and in is when nine tenths of the rest have come.
func (t Trend) Levels(ttl time.Duration) (at float64, in time.Duration, ok bool) {
	switch {
	case !t.Growing || t.PerHour <= 0:
		return 0, 0, false
	case ttl > 0:
		in = max(0, ttl-t.At.Sub(t.Since))
		return t.Now + t.PerHour*in.Hours(), in, true
	case t.Level > t.Now:
		return t.Level, t.take(0.9*(t.Level-t.Now), t.PerHour), true
	}
	return 0, 0, false
}

// take is how long a growth takes for a gap at a rate that it has now.
func (t Trend) take(gap, rate float64) time.Duration {
	switch {
	case rate <= 0:
		return Far
	case t.Level > t.Now:
		// It comes nearer to its level by the same share in the same time.
		left := t.Level - t.Now
		if gap >= left {
			return Far
		}
		return hours(-math.Log(1-gap/left) * left / rate)
	case t.Bend > 0:
		seen := max(0, t.At.Sub(t.Since).Hours())
		if most := seen * (rate + t.Bend*seen/2); gap > most {
			return hours(seen + (gap-most)/(rate+t.Bend*seen))
		}
		return hours((math.Sqrt(rate*rate+2*t.Bend*gap) - rate) / t.Bend)
	}
	return hours(gap / rate)
}

// hours is a duration of so many hours, at most Far.
func hours(h float64) time.Duration {
	if h*float64(time.Hour) >= float64(Far) {
		return Far
	}
	return time.Duration(h * float64(time.Hour))
}
