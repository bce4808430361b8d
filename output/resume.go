package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"bulkhead.dev/bulkhead"
)

// Resume returns a writer that goes on with an attempt that a former owner of the
// run's output began and that has not ended: the attempt stays one stretch of one
// segment. The segment must be among Options.Live of this log. Of what the
// attempt wrote, ref has the counts; ended says that its end was written, too, so
// that the writer is free for another attempt.
func (l *Log) Resume(a Attempt, start time.Time, maxBytes int64) (w *Writer, ref bulkhead.OutputRef, ended bool, err error) {
	w = &Writer{log: l, segment: a.Ref.Segment, written: a.Ref.Offset}
	w.begin(header{a.Item, a.N, start}, maxBytes)
	s, err := openSegment(l.dir, a.Ref.Segment)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Nothing of the segment was written, or power was lost before it was kept.
		if w.written > 0 {
			w.segment, w.written = l.reserve(), 0
		}
		return l.keep(w), ref, false, nil
	case err != nil:
		return nil, ref, false, a.unopened(err)
	}
	defer s.Close()
	c := newCursor(s, a)
	if err := c.each(func(Chunk) error { return nil }); err != nil {
		return nil, ref, false, err
	}
	if s.sealed {
		// It ended, and its segment is full: another one takes the writer's place.
		w.segment, w.written = l.reserve(), 0
	} else if err := w.reopen(c); err != nil {
		return nil, ref, false, err
	}
	if c.found {
		w.continueFrom(c)
		ref = c.ref()
	}
	return l.keep(w), ref, c.ended, nil
}

// reopen opens the segment's file and cuts off what is no whole record of c.
func (w *Writer) reopen(c *cursor) error {
	f, err := os.OpenFile(rawPath(w.log.dir, w.segment), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("resume output: %w", err)
	}
	info, err := f.Stat()
	if err == nil && c.found {
		w.written = c.scan.off
	}
	// Blocks that a crash left unwritten read as zeros; a file that ends before the
	// attempt began is as long as it is.
	if err == nil {
		w.written = min(w.written, info.Size())
		err = f.Truncate(w.written)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("resume output: %w", err)
	}
	w.file = f
	return nil
}

// continueFrom makes the attempt what c has read of it.
func (w *Writer) continueFrom(c *cursor) {
	w.attempt.start = c.start
	w.ref = c.ref()
	w.marked = w.ref.Dropped
	w.room -= w.ref.Bytes
	if w.state = idle; !c.ended {
		w.state, w.ref.Length = writing, 0
	}
}

// reserve gives a new segment number.
func (l *Log) reserve() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.number()
}

// keep makes w one of the log's writers.
func (l *Log) keep(w *Writer) *Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writers = append(l.writers, w)
	return w
}
