package guard

import (
	"cmp"
	"context"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

const (
	// least is how many objects have to come before anybody is told.
	least = 30
	// mostTracks bounds what is remembered, as the history's own bound does.
	mostTracks = 6000
	// unseen is how long nobody may look before what was in between is not known.
	unseen = 5 * time.Minute
	// A clock that goes back by more than this was ahead, and what it said is wrong.
	rewind = 10 * time.Minute
)

// How fine the memory is, and how far it reaches: a week is what it takes to know a
// day and that it comes again.
const (
	minutesFor = 6 * time.Hour
	stepsFor   = 3 * 24 * time.Hour
	allFor     = 7 * 24 * time.Hour
	shortStep  = 10 * time.Minute
	longStep   = time.Hour
	thinEvery  = 10 * time.Minute
)

// mark is a point of a track, small because there are millions: 32 bytes.
type mark struct {
	at                    int64 // seconds
	objects, rules, bytes int64
}

func (m mark) same(o mark) bool {
	return m.objects == o.objects && m.rules == o.rules && m.bytes == o.bytes
}

// memory is what the guard has seen, in the form of the history: of each series the
// points at which it changed, and when somebody looked.
type memory struct {
	tracks map[bulkhead.Key][]mark
	spans  []bulkhead.Span
	known  map[string]time.Time // since when each kind is, of those that were at the last look
	thinAt time.Time
}

// recall is the memory that a history has.
func recall(ctx context.Context, h History, now time.Time) (*memory, error) {
	m := &memory{tracks: map[bulkhead.Key][]mark{}}
	if h == nil {
		return m, nil
	}
	series, err := h.Series(ctx, now.Add(-allFor), now)
	if err != nil {
		return m, err
	}
	if m.spans, err = h.Spans(ctx, now.Add(-allFor), now); err != nil {
		return m, err
	}
	for i := range series {
		points := make([]mark, 0, len(series[i].Points)+1)
		// Of a family that came later there were none before. If it was only not known,
		// this looks like a jump, and those are no growth.
		if from, ok := within(m.spans, series[i].Points[0].At); ok {
			points = append(points, mark{at: from.Unix()})
		}
		for _, p := range series[i].Points {
			points = append(points, mark{p.At.Unix(), p.Objects, p.Rules, p.Bytes})
		}
		m.tracks[series[i].Key] = points
	}
	return m, nil
}

// within is when the span began that a time is in, if that was earlier.
func within(spans []bulkhead.Span, at time.Time) (from time.Time, ok bool) {
	for _, s := range spans {
		if s.From.Before(at) && !s.To.Before(at) {
			return s.From, true
		}
	}
	return from, false
}

// last is when somebody looked last.
func (m *memory) last() time.Time {
	if len(m.spans) == 0 {
		return time.Time{}
	}
	return m.spans[len(m.spans)-1].To
}

// add adds a look, and reports whether it counts: one that is not after the last one
// does not, and if the clock went back far what it had said is forgotten.
func (m *memory) add(c bulkhead.Census) bool {
	now := c.At.Truncate(time.Second)
	last := m.last()
	if !last.IsZero() && !now.After(last) {
		if now.After(last.Add(-rewind)) {
			return false
		}
		m.forgetAfter(now)
		last = m.last()
	}
	exact := make(map[string]bool, len(c.Kinds))
	for _, k := range c.Kinds {
		exact[k.Kind] = k.Exact
	}
	if m.known == nil && !last.IsZero() { // what the history has was known
		m.known = map[string]time.Time{}
		for key, points := range m.tracks {
			if len(points) > 0 {
				m.known[key.Kind] = m.spans[len(m.spans)-1].From
			}
		}
	}
	seen := make(map[bulkhead.Key]bool, len(c.Tallies))
	for i := range c.Tallies {
		t := &c.Tallies[i]
		seen[t.Key] = true
		m.note(t.Key, mark{now.Unix(), t.Objects, t.Rules, t.Bytes})
	}
	for key, points := range m.tracks {
		if is, listed := exact[key.Kind]; !seen[key] && (is || !listed) && !ofAgents(key.Kind) {
			m.tracks[key] = extended(points, mark{at: now.Unix()})
		}
	}
	m.know(exact, now)
	m.extend(now, last)
	// A clock that has just jumped may jump back: it makes nothing coarser for a while.
	if now.Sub(m.thinAt).Abs() >= thinEvery && now.Sub(m.spans[len(m.spans)-1].From) >= rewind {
		m.thinAt = now
		m.thin(now)
	}
	return true
}

// know notes since when kinds are known.
func (m *memory) know(exact map[string]bool, now time.Time) {
	known := make(map[string]time.Time, len(exact))
	for kind, is := range exact {
		since, before := m.known[kind]
		switch {
		case !is:
		case before:
			known[kind] = since
		default:
			known[kind] = now
		}
	}
	m.known = known
}

// note adds a point to a series. Of a family that was not there before, though its kind
// was known, there were none.
func (m *memory) note(key bulkhead.Key, at mark) {
	points, ok := m.tracks[key]
	since, known := m.known[key.Kind]
	switch {
	case ok:
		m.tracks[key] = extended(points, at)
	case at.objects == 0:
	case len(m.tracks) >= mostTracks && at.objects < least:
	case known:
		m.tracks[key] = []mark{{at: max(since.Unix(), at.at-int64(allFor/time.Second))}, at}
	default:
		m.tracks[key] = []mark{at}
	}
}

func extended(points []mark, at mark) []mark {
	if n := len(points); n > 0 && points[n-1].same(at) {
		return points
	}
	return append(points, at)
}

// extend says that somebody looked now.
func (m *memory) extend(now, last time.Time) {
	if n := len(m.spans); n > 0 && now.Sub(last) <= unseen {
		m.spans[n-1].To = now
		return
	}
	m.spans = append(m.spans, bulkhead.Span{From: now, To: now})
}

func (m *memory) forgetAfter(now time.Time) {
	for key, points := range m.tracks {
		points = slices.DeleteFunc(points, func(p mark) bool { return p.at >= now.Unix() })
		if m.tracks[key] = points; len(points) == 0 {
			delete(m.tracks, key)
		}
	}
	for kind, since := range m.known {
		if !since.Before(now) {
			delete(m.known, kind)
		}
	}
	kept := m.spans[:0]
	for _, s := range m.spans {
		if s.From.Before(now) {
			s.To = earlier(s.To, now.Add(-time.Second))
			kept = append(kept, s)
		}
	}
	m.spans = kept
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// thin makes old points coarser, and forgets series that are over.
func (m *memory) thin(now time.Time) {
	oldest := now.Add(-allFor)
	m.spans = slices.DeleteFunc(m.spans, func(s bulkhead.Span) bool { return s.To.Before(oldest) })
	for key, points := range m.tracks {
		points = thinned(points, now.Unix())
		if end := points[len(points)-1]; end.same(mark{}) && end.at < oldest.Unix() {
			delete(m.tracks, key)
			continue
		}
		m.tracks[key] = points
	}
	m.drop()
}

// thinned keeps the last point of each step.
func thinned(points []mark, now int64) []mark {
	step := func(at int64) int64 {
		switch age := time.Duration(now-at) * time.Second; {
		case age <= minutesFor:
			return at
		case age <= stepsFor:
			return at / int64(shortStep/time.Second)
		case age <= allFor:
			return at / int64(longStep/time.Second)
		}
		return -1
	}
	kept := points[:0]
	for i, p := range points {
		if i+1 < len(points) && step(p.at) == step(points[i+1].at) {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// drop makes room: series that are over go first, then those that are small and have
// not changed for longest.
func (m *memory) drop() {
	over := len(m.tracks) - mostTracks
	if over <= 0 {
		return
	}
	keys := make([]bulkhead.Key, 0, len(m.tracks))
	for key := range m.tracks {
		keys = append(keys, key)
	}
	end := func(k bulkhead.Key) mark { return m.tracks[k][len(m.tracks[k])-1] }
	slices.SortFunc(keys, func(a, b bulkhead.Key) int {
		x, y := end(a), end(b)
		return cmp.Or(cmp.Compare(min(x.objects, least), min(y.objects, least)), cmp.Compare(x.at, y.at), compareKeys(a, b))
	})
	for _, key := range keys[:over] {
		delete(m.tracks, key)
	}
}

// points are those of a series.
func (m *memory) points(key bulkhead.Key) []bulkhead.Point {
	marks := m.tracks[key]
	if len(marks) == 0 {
		return nil
	}
	out := make([]bulkhead.Point, len(marks))
	for i, p := range marks {
		out[i] = bulkhead.Point{At: time.Unix(p.at, 0).UTC(), Objects: p.objects, Rules: p.rules, Bytes: p.bytes}
	}
	return out
}

const (
	// What was found not to grow is looked at again after a while, or when there are so
	// many more than at any time in the quarter of an hour that ended one ago.
	calmFor    = 10 * time.Minute
	livelyGain = least / 2
	livelyIn   = 15 * time.Minute
)

// calmed are those of what was found not to grow that have not gained since.
func (m *memory) calmed(judged map[bulkhead.Key]*growth, now time.Time) map[bulkhead.Key]bool {
	calm := map[bulkhead.Key]bool{}
	for key, g := range judged {
		if g == nil && !lively(m.tracks[key], now.Unix()) {
			calm[key] = true
		}
	}
	return calm
}

func lively(points []mark, now int64) bool {
	if len(points) == 0 {
		return false
	}
	const quarter = int64(livelyIn / time.Second)
	before := int64(-1)
	for _, p := range slices.Backward(points) {
		if p.at <= now-quarter {
			before = max(before, p.objects)
		}
		if p.at <= now-2*quarter {
			break
		}
	}
	if before < 0 {
		before = points[0].objects
	}
	return points[len(points)-1].objects-before >= livelyGain
}
