package footprint

import (
	"math"
	"math/bits"
	"sort"
	"time"
)

// Rate is how often an invocation starts: N in Per, evenly, the first at once. The zero
// value is all at the same moment. Whole numbers, so that what comes of it is exact
// over years.
type Rate struct {
	N   int64
	Per time.Duration
}

// Schedule is what is to be repeated, and for how long what it makes is kept.
type Schedule struct {
	Times int64 // invocations; 0: without end if there is a rate, else one
	Rate  Rate
	Lasts time.Duration // of the script of one invocation
	Keep  time.Duration // until who made it all removes it; 0: never
}

// endless as a number of invocations means that they do not end.
const endless = math.MaxInt64

// starts is when invocation i starts, counted from 0, after the first. It is at most
// 292 years.
func (r Rate) starts(i int64) time.Duration {
	if r.N <= 0 || r.Per <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(i), uint64(r.Per))
	if hi >= uint64(r.N) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(r.N))
	return time.Duration(min(q, math.MaxInt64))
}

// window is how many invocations there are at once of what is there for d: those that
// started within d. Whatever was made was there.
func (r Rate) window(d time.Duration) int64 {
	if r.N <= 0 || r.Per <= 0 {
		return endless
	}
	hi, lo := bits.Mul64(uint64(d), uint64(r.N))
	if hi >= uint64(r.Per) {
		return endless
	}
	q, rest := bits.Div64(hi, lo, uint64(r.Per))
	if rest > 0 {
		q++
	}
	return max(1, int64(min(q, endless)))
}

// batch is how much of something each invocation makes, and how many invocations' are
// there at once.
type batch struct{ each, window int64 }

func (s Schedule) batch(each int64, life Life) batch {
	d, ends := life.span(s.Lasts, s.Keep)
	if !ends {
		return batch{each, endless}
	}
	return batch{each, s.Rate.window(d)}
}

// times is how many invocations there are.
func (s Schedule) times() int64 {
	switch {
	case s.Times > 0:
		return s.Times
	case s.Rate.N > 0 && s.Rate.Per > 0:
		return endless
	}
	return 1
}

// growth is how much there is of something while a schedule runs.
type growth struct {
	batches []batch
	times   int64
}

// after is how much there is when invocation i, counted from 0, has started. It never
// falls before the last one has.
func (g growth) after(i int64) (n int64) {
	for _, b := range g.batches {
		n = plus(n, times(b.each, min(plus(i, 1), b.window)))
	}
	return n
}

// peak is the most there will be; ends is false if there is no most.
func (g growth) peak() (n int64, ends bool) {
	for _, b := range g.batches {
		if b.each > 0 && min(b.window, g.times) == endless {
			return math.MaxInt64, false
		}
		n = plus(n, times(b.each, min(b.window, g.times)))
	}
	return n, true
}

// crosses is the first invocation, counted from 0, with which there is more than limit.
func (g growth) crosses(limit float64) (i int64, ok bool) {
	last := int64(0)
	for _, b := range g.batches {
		if b.each > 0 {
			last = max(last, min(b.window, g.times))
		}
	}
	last = min(last, 1<<62) // so that the search can add
	i = int64(sort.Search(int(last), func(i int) bool { return float64(g.after(int64(i))) > limit }))
	return i, i < last
}
