package agents

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// kept is how long samples are kept to see signs in, and mostKept how many: of
	// containers that have taken much of what they may have.
	kept     = time.Hour
	mostKept = 10_000
	much     = 0.8 // of the limit
)

// Watch looks at agents again and again, and remembers what it takes to see that one
// is about to die. It is for one goroutine.
type Watch struct {
	Source Source

	samples []Sample
}

// Look returns the worst containers of each agent (see [Worst]), and the signs that some
// are about to die. What could be read is returned also beside an error.
func (w *Watch) Look(ctx context.Context) (worst []Sample, signs []Sign, err error) {
	now, err := w.Source.Read(ctx)
	for _, s := range now {
		if s.Limit > 0 && max(s.WorkingSet, s.Memory+s.PageCache) >= much*s.Limit {
			w.samples = append(w.samples, s)
		}
	}
	newest := time.Time{}
	for _, s := range now {
		if s.At.After(newest) {
			newest = s.At
		}
	}
	if !newest.IsZero() { // after a clock that was ahead, nothing is kept that it said
		w.samples = slices.DeleteFunc(w.samples, func(s Sample) bool { return newest.Sub(s.At) > kept || s.At.After(newest) })
	}
	if more := len(w.samples) - mostKept; more > 0 {
		w.samples = slices.Delete(w.samples, 0, more)
	}
	return Worst(now), Signs(w.samples), err
}

// String says it in one line.
func (s Sign) String() string {
	where := s.Pod
	if s.Node != "" {
		where = s.Node
	}
	if s.Stage == Thrashes {
		return fmt.Sprintf("on %s it is at its limit and reads its own program from disk again and again (%.0f major page faults a second): it hangs soon, and nothing kills it for its memory",
			where, s.FaultsPerSecond)
	}
	return fmt.Sprintf("on %s it is at its limit, and its page cache shrinks: it works, and gets slower", where)
}
