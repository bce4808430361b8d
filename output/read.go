package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"bulkhead.dev/bulkhead"
)

// Attempt says which attempt's output is meant and where it is. While it runs,
// and after it was lost, Ref is what its lease says; afterwards what its result
// says. The item and number are compared with what is on disk, because a
// position that was never written to is given again.
type Attempt struct {
	Item int64
	N    int // from 1
	Ref  bulkhead.OutputRef
}

// Read calls fn for every chunk of an attempt's output, in order of arrival,
// and stops at its first error. Of an attempt without a length, running or
// lost, it reads what is there. If an ended attempt is not there as it was, the
// error has ErrDamaged in its chain, or code not_found, and fn was given what
// is left.
func Read(dir string, a Attempt, fn func(Chunk) error) error {
	_, err := read(dir, a, fn)
	return err
}

// Measure returns the reference of an attempt whose owner died, with the length
// and counts that are on disk: up to its end, or to the last whole record. The
// zero value means that it wrote nothing.
func Measure(dir string, a Attempt) (bulkhead.OutputRef, error) {
	a.Ref.Length = 0
	return read(dir, a, func(Chunk) error { return nil })
}

func read(dir string, a Attempt, fn func(Chunk) error) (bulkhead.OutputRef, error) {
	if a.Ref.Segment == 0 {
		return bulkhead.OutputRef{}, nil
	}
	s, err := openSegment(dir, a.Ref.Segment)
	if errors.Is(err, fs.ErrNotExist) {
		return bulkhead.OutputRef{}, a.missing()
	}
	if err != nil {
		return bulkhead.OutputRef{}, a.unopened(err)
	}
	defer s.Close()
	c := newCursor(s, a)
	if err := c.each(fn); err != nil {
		return c.ref(), err
	}
	return c.ref(), c.check()
}

// missing is the answer when an attempt's segment does not exist.
func (a Attempt) missing() error {
	if a.Ref.Length == 0 {
		return nil // not written yet, or never
	}
	return &bulkhead.Error{Code: bulkhead.CodeNotFound,
		Message: fmt.Sprintf("output of item %d, attempt %d: segment %d is missing", a.Item, a.N, a.Ref.Segment),
		Hint:    "the run's output was removed, or was not yet on disk when the machine lost power"}
}

// cursor reads one attempt. It can be asked again when there may be more.
type cursor struct {
	scan    scanner
	want    Attempt
	found   bool // its header
	over    bool // there will be nothing more
	ended   bool // with an end record
	start   time.Time
	bytes   int64
	dropped int64
}

func newCursor(s *segment, a Attempt) *cursor {
	limit := int64(0)
	if a.Ref.Length > 0 {
		limit = a.Ref.Offset + a.Ref.Length
	}
	return &cursor{scan: newScanner(s, s.number, a.Ref.Offset, limit), want: a}
}

// each calls fn for every chunk from where it last stopped, as far as there are
// whole records.
func (c *cursor) each(fn func(Chunk) error) error {
	for !c.over {
		off := c.scan.off
		r, err := c.scan.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return nil
		}
		if err != nil {
			return c.want.broken(off, err)
		}
		chunk, ok := c.take(r)
		if c.over && !c.ended {
			c.scan.off = off // another attempt's record
		}
		if !ok {
			continue
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
	return nil
}

// take accounts for a record and returns its chunk, if it has one.
func (c *cursor) take(r record) (Chunk, bool) {
	switch {
	case !c.found:
		h, ok := r.header()
		c.found = ok && c.want.is(r, h)
		c.over = !c.found
		c.start = h.start
	case r.kind == kindAttempt:
		c.over = true
	case r.kind == kindEnd:
		c.over, c.ended = true, true
	case r.isChunk():
		chunk, ok := r.chunk(c.start)
		c.bytes += int64(len(chunk.Data))
		c.dropped += chunk.Dropped
		return chunk, ok
	}
	return Chunk{}, false
}

// ref is the attempt as far as it was read.
func (c *cursor) ref() bulkhead.OutputRef {
	if !c.found {
		return bulkhead.OutputRef{}
	}
	at := c.want.Ref
	return bulkhead.OutputRef{Segment: at.Segment, Offset: at.Offset, Length: c.scan.off - at.Offset,
		Bytes: c.bytes, Dropped: c.dropped}
}

// check reports an ended attempt that is not there as it was.
func (c *cursor) check() error {
	at := c.want.Ref
	if at.Length == 0 || c.found && c.scan.off == at.Offset+at.Length {
		return nil
	}
	return c.want.broken(c.scan.off, nil)
}

// is reports whether the record is the attempt's header.
func (a Attempt) is(r record, h header) bool {
	return r.kind == kindAttempt && h.item == a.Item && h.attempt == a.N
}

// unopened says whose output could not be opened.
func (a Attempt) unopened(err error) error {
	return fmt.Errorf("output of item %d, attempt %d: segment %d: %w", a.Item, a.N, a.Ref.Segment, err)
}

// broken says where the attempt is not what was acknowledged; err is why it
// could not be read there, if it is not simply wrong.
func (a Attempt) broken(off int64, err error) error {
	if err == nil || errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
		err = ErrDamaged
	}
	return fmt.Errorf("output of item %d, attempt %d: segment %d, byte %d: %w", a.Item, a.N, a.Ref.Segment, off, err)
}
