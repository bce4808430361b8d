package output

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"bulkhead.dev/bulkhead"
)

// maxMerged bounds how many segments with something to read are read at once,
// and so the memory, some 400 KiB each: more overlap in time only where more workers
// write.
const maxMerged = 64

// FollowAll calls fn for every chunk of a run's output, of all items, from the
// first on and then as it arrives. It returns when f.Done says that the run is
// over and everything was read, or with the error of fn or of ctx. With a Done
// that is always true it reads what there is.
//
// Chunks come in the order in which the scripts wrote them, as far as they are
// on disk at the same look; those of one attempt always do.
func FollowAll(ctx context.Context, dir string, f Following,
	fn func(item int64, attempt int, c Chunk) error,
) error {
	return FollowFrom(ctx, dir, nil, f, func(item int64, attempt int, c Chunk, _ bulkhead.Position) error {
		return fn(item, attempt, c)
	})
}

// FollowFrom is FollowAll for a reader that may be interrupted: with each chunk
// fn is told the position behind it in its segment. Given the last position of
// each segment, a later call goes on behind them: together the two give every
// chunk once. Code usage is for positions that were never given.
func FollowFrom(ctx context.Context, dir string, from []bulkhead.Position, f Following,
	fn func(item int64, attempt int, c Chunk, behind bulkhead.Position) error,
) error {
	m := merger{dir: dir, broken: f.Broken, wide: f.Wide, seen: map[int64]bool{}, from: map[int64]bulkhead.Position{}}
	for _, p := range from {
		if p.Segment < 1 || p.Attempt < 0 || p.Offset <= p.Attempt {
			return strange(p)
		}
		m.from[p.Segment] = p
	}
	defer m.close()
	return f.each(ctx, func() (bool, error) { return false, m.look(ctx, fn) })
}

// strange is the error for a position that was never given.
func strange(p bulkhead.Position) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: "begin without positions",
		Message: fmt.Sprintf("output has no position segment %d, offset %d, attempt %d", p.Segment, p.Offset, p.Attempt)}
}

// merger reads all segments of a run.
type merger struct {
	dir    string
	seen   map[int64]bool
	from   map[int64]bulkhead.Position // where to begin in segments that are not seen yet
	live   []*feed                     // ascending, not read to their final end
	broken func(error)
	wide   chan struct{} // see Following; nil: nobody shares it
	places int           // of ours in it
}

// advance is that of a feed. A segment that cannot be read has come to its end,
// if somebody wants to hear of it.
func (m *merger) advance(f *feed) (more bool, err error) {
	more, err = f.advance(m.dir)
	if err == nil {
		return more, nil
	}
	err = f.broken(err)
	if m.broken == nil {
		return false, err
	}
	f.over = true
	f.close()
	m.broken(err)
	return false, nil
}

func (m *merger) close() {
	for _, f := range m.live {
		f.close()
	}
	m.narrow(0)
}

// widen reports whether one more segment may be read at once with n others.
func (m *merger) widen(n int) bool {
	switch {
	case n <= m.places:
		return true
	case n >= maxMerged:
		return false
	case m.wide == nil:
		return true
	}
	select {
	case m.wide <- struct{}{}:
		m.places++
		return true
	default:
		return false
	}
}

// narrow gives back the places that n segments at once do not need.
func (m *merger) narrow(n int) {
	for ; m.places > max(n-1, 0); m.places-- {
		<-m.wide
	}
}

// look reads everything that is there now.
func (m *merger) look(ctx context.Context, fn func(int64, int, Chunk, bulkhead.Position) error) error {
	found, err := list(m.dir)
	if err != nil {
		return fmt.Errorf("list output: %w", err)
	}
	for _, f := range m.live {
		f.final = found.isSealed(f.number)
	}
	m.add(found)

	var open feeds
	waiting := m.live
	for len(waiting) > 0 || len(open) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if len(waiting) > 0 && m.widen(len(open)) {
			f := waiting[0]
			waiting = waiting[1:]
			more, err := m.advance(f)
			if err != nil {
				return err
			}
			if more {
				heap.Push(&open, f)
			}
			m.narrow(len(open))
			continue
		}
		f := open[0]
		if err := fn(f.header.item, f.header.attempt, f.chunk, f.behind()); err != nil {
			return err
		}
		more, err := m.advance(f)
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&open, 0)
		} else {
			heap.Pop(&open)
			m.narrow(len(open))
		}
	}
	m.drop()
	return nil
}

// add takes in the segments that were not seen before.
func (m *merger) add(found listing) {
	for _, n := range slices.Concat(found.sealed, found.raw) {
		if !m.seen[n] {
			m.seen[n] = true
			m.live = append(m.live, &feed{number: n, final: found.isSealed(n), from: m.from[n]})
			delete(m.from, n)
		}
	}
	slices.SortFunc(m.live, func(a, b *feed) int { return cmp.Compare(a.number, b.number) })
}

// drop forgets the segments that were read to their end for good.
func (m *merger) drop() {
	live := m.live[:0]
	for _, f := range m.live {
		if !f.over {
			live = append(live, f)
		}
	}
	clear(m.live[len(live):])
	m.live = live
}

// feed is one segment and the chunk that comes next in it.
type feed struct {
	number  int64
	final   bool // it was sealed before this look: its end is the end
	over    bool
	from    bulkhead.Position // where to begin; zero: at the beginning
	segment *segment
	scan    scanner
	header  header
	attempt int64 // offset of the header
	chunk   Chunk
}

// behind is the position behind the chunk.
func (f *feed) behind() bulkhead.Position {
	return bulkhead.Position{Segment: f.number, Offset: f.scan.off, Attempt: f.attempt}
}

func (f *feed) close() {
	if f.segment != nil {
		f.segment.Close()
		f.segment = nil
	}
}

// advance reads up to the next chunk and reports whether there is one.
func (f *feed) advance(dir string) (bool, error) {
	if f.segment == nil {
		s, err := openSegment(dir, f.number)
		if errors.Is(err, fs.ErrNotExist) {
			f.over = true // removed
			return false, nil
		}
		if err != nil {
			return false, err
		}
		f.segment = s
		if err := f.begin(); err != nil {
			return false, err
		}
	}
	for {
		r, err := f.scan.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			f.rest()
			return false, nil
		}
		if err != nil {
			return false, err
		}
		switch {
		case r.kind == kindAttempt:
			f.header, _ = r.header()
			f.attempt = r.off
		case r.isChunk():
			f.chunk, _ = r.chunk(f.header.start)
			return true, nil
		}
	}
}

// begin goes to where the feed begins.
func (f *feed) begin() error {
	if f.from.Segment == 0 {
		f.scan = newScanner(f.segment, f.number, 0, 0)
		return nil
	}
	head := newScanner(f.segment, f.number, f.from.Attempt, 0)
	r, err := head.next()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) {
		return err
	}
	h, ok := r.header()
	if err != nil || r.kind != kindAttempt || !ok || f.from.Offset < r.end() {
		return strange(f.from)
	}
	f.header, f.attempt, f.scan = h, r.off, newScanner(f.segment, f.number, f.from.Offset, 0)
	return nil
}

// broken says where a segment cannot be read, and whose output is the last that
// can.
func (f *feed) broken(err error) error {
	if f.header.item == 0 {
		return fmt.Errorf("output: segment %d: %w", f.number, err)
	}
	return fmt.Errorf("output: segment %d, from item %d, attempt %d, on: %w", f.number, f.header.item, f.header.attempt, err)
}

// rest is how a feed waits for the next look: with little memory, and without a
// file if there will be nothing more.
func (f *feed) rest() {
	if cap(f.scan.win.buf) > firstStep {
		f.scan.win = window{src: f.segment}
	}
	f.chunk = Chunk{}
	if f.final || f.segment.sealed {
		f.over = true
		f.close()
	}
}

// feeds is a heap by the time of the next chunk.
type feeds []*feed

func (h feeds) Len() int { return len(h) }
func (h feeds) Less(i, j int) bool {
	a, b := h[i], h[j]
	if !a.chunk.At.Equal(b.chunk.At) {
		return a.chunk.At.Before(b.chunk.At)
	}
	return a.number < b.number
}
func (h feeds) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push and Pop are heap.Interface.
func (h *feeds) Push(x any) { *h = append(*h, x.(*feed)) }

// Pop is heap.Interface.
func (h *feeds) Pop() any {
	old := *h
	f := old[len(old)-1]
	*h = old[:len(old)-1]
	return f
}
