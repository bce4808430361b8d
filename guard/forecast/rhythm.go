package forecast

import "math"

// known is whether a growth is what the series does again and again: twice it rose as
// high and as fast, and fell again by itself. That is a clean-up each night, or a day.
func known(levels [][]sample, r *run) bool {
	b := levels[hourly]
	b = b[max(0, len(b)-maxSteps):]
	rises := zigzag(b)
	if len(rises) < 2 {
		return false
	}
	now := r.b[len(r.b)-1].v
	high, fast := 0, 0
	for _, rise := range rises {
		if now-rise.low <= 1.15*(rise.high-rise.low) {
			high++
		}
		if r.rate <= 1.5*rise.rate {
			fast++
		}
	}
	return high >= 2 && fast >= 2
}

// hourly is the scale at which days are seen.
const hourly = 3

// rise is one that fell again.
type rise struct{ low, high, rate float64 }

// zigzag are the rises that were followed by a fall of at least half of them. What is
// less than half of the range of the whole series is none.
func zigzag(b []sample) []rise {
	low, high := b[0], b[0]
	least, most := b[0].v, b[0].v
	for _, s := range b {
		least, most = min(least, s.v), max(most, s.v)
	}
	enough := max(minGain, (most-least)/2)
	var rises []rise
	for _, s := range b {
		switch {
		case s.v > high.v:
			high = s
		case high.v-low.v >= enough && high.v-s.v >= math.Max(enough, (high.v-low.v)/2):
			rises = append(rises, rise{low.v, high.v, (high.v - low.v) / (high.t - low.t)})
			low, high = s, s
		case s.v < low.v:
			low, high = s, s
		}
	}
	return rises
}
