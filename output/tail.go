package output

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"bulkhead.dev/bulkhead"
)

// TailBytes is the most that Tail returns.
const TailBytes = 256 << 10

// Tail returns the last lines of an attempt's output, both streams in order of
// arrival, and at most the last TailBytes bytes of them. It reads from the end,
// so its cost does not depend on how much the attempt wrote; only for an
// attempt without a length it has to find the end first. Errors are those of
// Read, with what is left of the tail.
func Tail(dir string, a Attempt, lines int) ([]byte, error) {
	if lines <= 0 || a.Ref.Segment == 0 {
		return nil, nil
	}
	var damaged error
	if a.Ref.Length > 0 {
		tail, err := tailOf(dir, a, lines)
		if !errors.Is(err, ErrDamaged) {
			return tail, err
		}
		damaged = err
	}
	ref, err := Measure(dir, a)
	if err != nil || ref == (bulkhead.OutputRef{}) {
		return nil, cmp.Or(damaged, err)
	}
	a.Ref = ref
	tail, err := tailOf(dir, a, lines)
	return tail, errors.Join(damaged, err)
}

func tailOf(dir string, a Attempt, lines int) ([]byte, error) {
	s, err := openSegment(dir, a.Ref.Segment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, a.missing()
	}
	if err != nil {
		return nil, a.unopened(err)
	}
	defer s.Close()
	head := newScanner(s, s.number, a.Ref.Offset, a.Ref.Offset+a.Ref.Length)
	r, err := head.next()
	h, ok := r.header()
	if err != nil || !ok || !a.is(r, h) {
		return nil, a.broken(a.Ref.Offset, err)
	}
	floor := r.end()
	var t tail
	back := window{src: s}
	for end := a.Ref.Offset + a.Ref.Length; end > floor; {
		r, err := back.previous(s.number, end, floor)
		if err != nil {
			return t.bytes(), a.broken(end, err)
		}
		if r.isChunk() {
			chunk, _ := r.chunk(h.start)
			if !t.prepend(chunk, lines) {
				break
			}
		}
		end = r.off
	}
	return t.bytes(), nil
}

// tail is the end of some text, filled from its back.
type tail struct {
	buf      []byte
	from     int    // buf[from:] is filled
	newlines int    // in there, but for one at the very end
	stream   Stream // that it begins with
}

func (t *tail) bytes() []byte { return t.buf[t.from:] }

// prepend puts as much of a chunk before what is there as belongs to the last
// lines, and reports whether more is wanted. Where one stream goes on in the
// middle of a line of the other, that line is ended.
func (t *tail) prepend(c Chunk, lines int) bool {
	p, more := c.Data, true
	if len(p) == 0 {
		return true
	}
	if front := t.bytes(); len(front) > 0 && front[0] != '\n' && c.Stream != t.stream && p[len(p)-1] != '\n' {
		p = append(slices.Clip(p), '\n')
	}
	t.stream = c.Stream
	if room := TailBytes - len(t.bytes()); len(p) > room {
		p, more = p[len(p)-room:], false
	}
	scan := p
	if len(t.bytes()) == 0 && bytes.HasSuffix(p, []byte{'\n'}) {
		scan = p[:len(p)-1]
	}
	for {
		i := bytes.LastIndexByte(scan, '\n')
		if i < 0 {
			break
		}
		if t.newlines++; t.newlines == lines {
			p, more = p[i+1:], false
			break
		}
		scan = scan[:i]
	}
	t.reserve(len(p))
	t.from -= copy(t.buf[t.from-len(p):], p)
	return more
}

// reserve makes room for n more bytes in front.
func (t *tail) reserve(n int) {
	if t.from >= n {
		return
	}
	have := t.bytes()
	buf := make([]byte, min(TailBytes, max(2*len(t.buf), len(have)+n)))
	t.from = len(buf) - copy(buf[len(buf)-len(have):], have)
	t.buf = buf
}
