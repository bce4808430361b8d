package plan

import (
	"errors"
	"io"
	"regexp"
	"strconv"

	"bulkhead.dev/bulkhead"
)

// walk reads a table from its first row to its last, as a stream.
type walk struct {
	rows table
	i    int64
	none bool // the rows have no values
}

func (w *walk) next(dst []string) ([]string, error) {
	if w.i == w.rows.len() {
		return nil, io.EOF
	}
	w.i++
	if w.none {
		return dst, nil
	}
	return w.rows.row(dst, w.i-1), nil
}

func (w *walk) close() error { return nil }

// held is a table in memory: rows of width values each, one after another.
type held struct {
	values []string
	width  int
}

func (h held) len() int64 { return int64(len(h.values) / h.width) }

func (h held) row(dst []string, i int64) []string {
	return append(dst, h.values[int(i)*h.width:(int(i)+1)*h.width]...)
}

// weigh says what values take in memory, about: bytes and a header for each.
func weigh(values []string) int64 {
	n := int64(0)
	for _, v := range values {
		n += 16 + int64(len(v))
	}
	return n
}

// hold makes a source a table and takes its weight off what is left.
func hold(s source, left *int64) (table, error) {
	heavy := func() error {
		return usage("put the largest source first: it is read as it is needed, the others are held",
			"%s is too large: all sources but the first must fit in %d MiB together", s.shown, MaxInner>>20)
	}
	if w, ok := s.stream.(*walk); ok {
		if h, ok := w.rows.(held); ok {
			*left -= weigh(h.values)
		}
		if *left < 0 {
			return nil, heavy()
		}
		return w.rows, nil
	}
	h := held{width: len(s.columns)}
	for {
		values, err := s.stream.next(h.values)
		if errors.Is(err, io.EOF) {
			return h, s.stream.close()
		}
		if err != nil {
			return nil, err
		}
		if *left -= weigh(values[len(h.values):]); *left < 0 {
			return nil, heavy()
		}
		h.values = values
	}
}

// numbers is a range: computed, not held.
type numbers struct {
	from, step int64
	count      int64
	width      int // at least so many characters, filled with zeros
}

var numberRange = regexp.MustCompile(`^(-?[0-9]+)\.\.(-?[0-9]+)(?:\.\.(-?[0-9]+))?$`)

// parseNumbers reads what numberRange matches, as the braces of bash do: both
// ends belong to it, the sign of the step does not matter, and a leading zero at
// either end makes all numbers as wide as the wider end.
func parseNumbers(text string) (numbers, error) {
	m := numberRange.FindStringSubmatch(text)
	from, err1 := strconv.ParseInt(m[1], 10, 64)
	to, err2 := strconv.ParseInt(m[2], 10, 64)
	step, err3 := int64(1), error(nil)
	if m[3] != "" {
		step, err3 = strconv.ParseInt(m[3], 10, 64)
	}
	if err1 != nil || err2 != nil || err3 != nil {
		return numbers{}, usage("numbers go from −2⁶³ to 2⁶³−1", "range %s has a number that is too large", bulkhead.Quote(text))
	}
	if step == 0 {
		return numbers{}, usage("leave the step out, or write 1 or more", "range %s has a step of 0", bulkhead.Quote(text))
	}
	// Differences of 64-bit numbers need all 64 bits, so they have no sign here.
	distance, stride := uint64(to)-uint64(from), uint64(step)
	if to < from {
		distance = -distance
	}
	if step < 0 {
		stride = -stride
	}
	gaps := distance / stride
	if gaps >= MaxItems {
		return numbers{}, tooMany(MaxItems)
	}
	if to < from {
		stride = -stride
	}
	n := numbers{from: from, step: int64(stride), count: int64(gaps) + 1}
	if padded(m[1]) || padded(m[2]) {
		n.width = max(len(m[1]), len(m[2]))
	}
	return n, nil
}

func padded(number string) bool {
	if number[0] == '-' {
		number = number[1:]
	}
	return len(number) > 1 && number[0] == '0'
}

func (n numbers) len() int64 { return n.count }

func (n numbers) row(dst []string, i int64) []string {
	v := n.from + i*n.step
	if n.width == 0 {
		return append(dst, strconv.FormatInt(v, 10))
	}
	var digits, text [24]byte
	d, b := strconv.AppendInt(digits[:0], v, 10), text[:0]
	if v < 0 {
		d, b = d[1:], append(b, '-')
	}
	for range n.width - len(d) - len(b) {
		b = append(b, '0')
	}
	return append(dst, string(append(b, d...)))
}
