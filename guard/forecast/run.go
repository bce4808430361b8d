package forecast

import (
	"math"
	"sort"
)

// scales are the widths of a step, in hours: two minutes to a day.
var scales = []float64{2.0 / 60, 6.0 / 60, 20.0 / 60, 1, 3, 9, 24}

// enough is how many changes from step to step a growth is seen in: 14 minutes at
// the first scale, five steps at the others.
func enough(scale int) int {
	if scale == 0 {
		return 7
	}
	return 5
}

// run is the growth that one scale shows at the end of a series. Times are in hours
// from the newest sample.
type run struct {
	width  float64
	b      []sample  // the steps
	y      []float64 // their values without jumps
	start  int       // the first step of the growth
	since  float64
	base   float64
	gain   float64 // since the start, without jumps
	rate   float64
	error  float64 // of rate, with 90 %
	spread float64
	bend   float64
	level  float64
	// bendError is of bend, with 90 %, and change by how much a rate was another in each
	// half that is not known to go on changing.
	bendError, change float64
	beyond            float64 // by how much it is more than the past did; 0: there is not enough past
	past              float64 // hours that are known before the start
	ended             bool    // nothing has come for longer than ever since the start
}

// examine looks whether a series grows at its end in steps b of a width: nearly each
// of the last k changes is up, none is most of it.
func examine(s, b []sample, width float64, k int) (run, bool) {
	n := len(b)
	if n <= k || b[n-1].t-b[n-1-k].t > float64(3*k)*width {
		return run{}, false
	}
	// Most series are at rest most of the time: their end tells, with what smooth looks at.
	if y, _ := smooth(b[max(0, n-1-k-around-1):]); !steady(y[len(y)-1-k:]) {
		return run{}, false
	}
	b = b[max(0, n-maxSteps):]
	n = len(b)
	y, drops := smooth(b)
	batch := leap(s, b[n-1-k].t-width/2)
	if !steady(y[n-1-k:]) || (width > atOnce && batch > (y[n-1]-y[n-1-k])*mostAtOnce) {
		return run{}, false
	}
	r := run{width: width, b: b, y: y}
	r.begin(n-1-k, n-1)
	// What came and went looks like growth when only its end was taken for a jump.
	// Growth that was seen for long may lose what it likes to a clean-up.
	if n-1-r.start < 3*k && b[n-1].v-r.base < r.gain/2 {
		return run{}, false
	}
	r.measure()
	// Of a batch it is not known whether it has just come or is about to.
	r.spread = max(r.spread, (batch-r.rate*atOnce)/2)
	r.compare(k, s[0].t)
	r.end(s, drops)
	return r, true
}

// steady is whether values go up all the time: of seven changes one may not, and the
// end must not be still.
func steady(y []float64) bool {
	gain := y[len(y)-1] - y[0]
	if gain <= 0 {
		return false
	}
	still, most, down := 0, 0.0, 0.0
	for i := 1; i < len(y); i++ {
		d := y[i] - y[i-1]
		most = max(most, d)
		if d <= 0 {
			still++
			down -= d
		}
	}
	if still > (len(y)-1)/7 || most > gain/2 || down > gain/8 {
		return false
	}
	return y[len(y)-1] > y[len(y)-3]
}

// mostAtOnce is the share of a growth that may come at once: two namespaces that
// appear within an hour are none, batches that come each hour are, from the third on.
const mostAtOnce = 0.35

// atOnce is within four minutes, in hours.
const atOnce = 4.0 / 60

// leap is the most that was added at once since a time.
func leap(s []sample, since float64) float64 {
	first := sort.Search(len(s), func(i int) bool { return s[i].t >= since })
	most := 0.0
	for i, from := first, first; i < len(s); i++ {
		for s[i].t-s[from].t > atOnce && from < i-1 {
			from++
		}
		most = max(most, s[i].v-s[from].v)
	}
	return most
}

// block is how many steps together say whether there was growth already, and a pause
// may be as long as a third of what followed.
const block = 3

// begin goes back from the steps that are known to grow to where that began.
func (r *run) begin(first, last int) {
	start := first
	mean := func(from, to int) float64 { return (r.y[to] - r.y[from]) / (r.b[to].t - r.b[from].t) }
	for start > 0 {
		rate := mean(start, last)
		next := -1
		for p := start; p > 0 && start-p <= max(2, (last-start)/3); p-- {
			if from := max(0, p-block); mean(from, p) >= 0.4*rate && (p == start || mean(max(0, p-2*block), p) >= 0.4*rate) {
				next = p - 1
				break
			}
		}
		if next < 0 {
			break
		}
		start = next
	}
	start = r.knee(start, first)
	r.start = start
	r.base = r.b[start].v
	r.gain = r.y[last] - r.y[start]
}

// faint is how slow the beginning of a growth may be beside what follows. One that goes
// faster by the square of time has a third of it in its first half.
const faint = 0.25

// knee leaves out the beginning of a growth that hardly grows beside the rest: noise may
// look like growth from step to step, and the further back that leads the less there is to
// compare with. The growth begins where it is furthest below a straight line.
func (r *run) knee(start, first int) int {
	last := len(r.y) - 1
	for {
		rate := (r.y[last] - r.y[start]) / (r.b[last].t - r.b[start].t)
		bend, below := start, 0.0
		for i := start + 1; i <= first; i++ {
			if under := r.y[start] + rate*(r.b[i].t-r.b[start].t) - r.y[i]; under > below {
				bend, below = i, under
			}
		}
		if bend == start {
			return start
		}
		before := (r.y[bend] - r.y[start]) / (r.b[bend].t - r.b[start].t)
		after := (r.y[last] - r.y[bend]) / (r.b[last].t - r.b[bend].t)
		if before >= faint*after {
			return start
		}
		start = bend
	}
}

// measure finds the rate, its error, and whether it changes.
func (r *run) measure() {
	t, y := r.grown()
	r.rate = slope(t, y)
	r.spread, r.error = scatter(t, y, r.rate)
	r.since = r.onset(t, y)
	r.curve(t, y)
}

// grown are the times and values since the start.
func (r *run) grown() (t, y []float64) {
	for i := r.start; i < len(r.b); i++ {
		t = append(t, r.b[i].t)
		y = append(y, r.y[i])
	}
	return t, y
}

// onset is where the line of the growth meets the level before it.
func (r *run) onset(t, y []float64) float64 {
	if r.start == 0 || r.rate <= 0 {
		return t[0]
	}
	before := append([]float64(nil), r.y[max(0, r.start-6):r.start+1]...)
	m := min(len(t), 12) // the beginning of the growth, should it have changed since
	rate := slope(t[:m], y[:m])
	if rate <= 0 {
		return t[0]
	}
	at := (median(before) - level(t[:m], y[:m], rate)) / rate
	return min(max(at, t[0]-2*r.width), t[0]+2*r.width)
}

// compare says how the last k changes stand to what the series did in the same time
// before the growth.
func (r *run) compare(k int, oldest float64) {
	r.past = r.b[r.start].t - oldest
	var moves []float64
	for i := k; i <= r.start; i++ {
		moves = append(moves, math.Abs(r.y[i]-r.y[i-k])/(r.b[i].t-r.b[i-k].t))
	}
	if len(moves) < 2*k {
		return
	}
	n := len(r.y) - 1
	last := (r.y[n] - r.y[n-k]) / (r.b[n].t - r.b[n-k].t)
	if most := quantile(moves, 0.95); most > 0 {
		r.beyond = last / most
	} else {
		r.beyond = math.Inf(1)
	}
}

// end sees that nothing has come for a quarter of an hour, and for twice as long as
// it ever did since the growth began.
func (r *run) end(s []sample, drops []int) {
	first := sort.Search(len(s), func(i int) bool { return s[i].t >= r.b[r.start].t })
	top, last, longest := s[first].v, s[first].t, 0.0
	for i := first; i < len(s); i++ {
		for len(drops) > 0 && s[i].t >= r.b[drops[0]].t-r.width/2 {
			top, drops = s[i].v, drops[1:] // a clean-up: from here it grows anew
		}
		if s[i].v > top {
			longest = max(longest, s[i].t-last)
			top, last = s[i].v, s[i].t
		}
	}
	r.ended = -last > max(rest, 2*longest)
}

// rest is how long nothing may come, in hours.
const rest = 0.25

// usual is by how much a growth has to be more than 19 of 20 moves before it.
const usual = 2.5

// need is how much growth since the start is more than health explains.
func (r *run) need() float64 {
	age := r.b[len(r.b)-1].t - r.b[r.start].t
	base := math.Abs(r.base)
	wanders := cycleStart
	switch {
	case r.beyond == 0:
		wanders = 0.1 // nothing is known from before
	case r.beyond > usual:
		wanders *= usual / r.beyond
	}
	if r.past >= knownDay && r.beyond > 0 {
		return max(minGain+slowest*age, base*min(0.20, wanders+0.01*age))
	}
	return max(minGain+slowest*age, base*min(cycleRise, wanders+cycleRate*age))
}

// growth is whether the run is one to tell people about.
func (r *run) growth() bool {
	more := usual
	if r.width == scales[0] {
		more = 4 // asked each minute of a week, chance has many chances
	}
	return !r.ended && r.gain >= r.need() && r.error < 0.4*r.rate && (r.beyond == 0 || r.beyond >= more)
}

// confidence is high for what is known exactly, is far beyond what was before, and
// has already made far more than health would.
func (r *run) confidence() float64 {
	exact := 1 / (1 + r.error/r.rate)
	much := 1 - math.Exp2(-r.gain/r.need())
	rare := 0.8
	if r.beyond > 0 {
		rare = 1 - math.Exp2(-r.beyond)
	}
	return exact * much * rare
}

// better is whether a larger scale shows what a smaller one cannot: growth at all, that
// the same growth has gone on for longer, or how fast it is among all that comes and goes.
func (r *run) better(smaller *run) bool {
	if r.growth() != smaller.growth() {
		return r.growth()
	}
	if math.Abs(r.rate-smaller.rate) > 1.5*(r.error+smaller.error)+0.1*smaller.rate {
		return false // it has changed, and the smaller one is nearer to now
	}
	return r.since < smaller.since-2*r.width || r.error < 0.7*smaller.error
}
