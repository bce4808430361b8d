package plan

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"bulkhead.dev/bulkhead"
)

// records reads CSV as RFC 4180 has it: fields may be quoted and then hold
// commas, quotes and line ends (of which \r\n becomes \n, by encoding/csv).
// Every record has as many fields as the header. Empty lines are skipped.
type records struct {
	shown string
	r     *csv.Reader
	c     io.Closer // nil: not ours to close
	meter *meter
	bom   int64 // bytes before what r has seen
	line  int   // where the last good record began
}

// openCSV reads the header and leaves the stream at the first record. Text whose
// name ends in .tsv is tab-separated.
func openCSV(shown string, r io.Reader, c io.Closer) (source, error) {
	s := source{shown: shown}
	var err error
	if strings.HasSuffix(strings.ToLower(shown), ".tsv") {
		tabs := &tabbed{lines: newLines(shown, r, c)}
		s.stream = tabs
		s.columns, err = tabs.header()
	} else {
		commas := newRecords(shown, r, c)
		s.stream = commas
		s.columns, err = commas.header()
	}
	if errors.Is(err, io.EOF) {
		err = usage("the first line names the columns", "%s has no header: it is empty", shown)
	}
	if err == nil {
		err = checkHeader(shown, s.columns)
	}
	return s, err
}

func checkHeader(shown string, columns []string) error {
	if len(columns) > MaxColumns {
		return usage("keep the columns that the command needs", "%s has %d columns; at most %d are read", shown, len(columns), MaxColumns)
	}
	seen := map[string]int{}
	for i, c := range columns {
		n := i + 1
		switch {
		case c == "":
			return usage("give every column a name in the first line", "%s: column %d has no name", shown, n)
		case !bulkhead.ValidName(c):
			return usage("a column name is made of letters, digits, _ - . so that {name} can stand for it; rename it in the first line",
				"%s: column %d is named %s, which cannot be a placeholder", shown, n, bulkhead.Quote(c))
		case seen[c] > 0:
			return usage("rename one of them in the first line", "%s: columns %d and %d are both named %s", shown, seen[c], n, bulkhead.Quote(c))
		}
		seen[c] = n
	}
	return nil
}

func newRecords(shown string, r io.Reader, c io.Closer) *records {
	m := &meter{r: r}
	s := &records{shown: shown, c: c, meter: m}
	buffered := bufio.NewReaderSize(m, readBuffer)
	// An error here comes back from the first Read.
	if start, _ := buffered.Peek(len(byteOrderMark)); bytes.Equal(start, byteOrderMark) {
		n, _ := buffered.Discard(len(byteOrderMark))
		s.bom = int64(n)
	}
	s.r = csv.NewReader(buffered) // which takes a large enough bufio.Reader as it is
	s.r.ReuseRecord = true
	return s
}

func (s *records) header() ([]string, error) {
	header, err := s.read()
	return append([]string(nil), header...), err
}

func (s *records) next(dst []string) ([]string, error) {
	record, err := s.read()
	if err != nil {
		return nil, err
	}
	return append(dst, record...), nil
}

func (s *records) close() error { return closeOnce(&s.c) }

// read returns one record, in a slice that the next call uses again.
func (s *records) read() ([]string, error) {
	start := s.bom + s.r.InputOffset()
	s.meter.start = start
	record, err := s.r.Read()
	if err == nil && s.bom+s.r.InputOffset()-start > MaxLine {
		err = errLarge
	}
	if err == nil {
		s.line, _ = s.r.FieldPos(0)
		return record, nil
	}
	// A record cut short by a failed read looks malformed, so the cause counts.
	if s.meter.err != nil {
		err = s.meter.err
	}
	if err == io.EOF {
		return nil, err
	}
	if errors.Is(err, errLarge) {
		if s.line == 0 {
			return nil, tooLong(s.shown + ": the header")
		}
		return nil, tooLong(fmt.Sprintf("%s: the record after the one at line %d", s.shown, s.line))
	}
	bad, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return nil, failed(err, "read %s after line %d", s.shown, s.line)
	}
	if errors.Is(bad.Err, csv.ErrFieldCount) {
		return nil, fieldCount(s.shown, int64(bad.Line), len(record), s.r.FieldsPerRecord)
	}
	from := ""
	if bad.StartLine != bad.Line {
		from = fmt.Sprintf(" (the record begins at line %d)", bad.StartLine)
	}
	return nil, usage(`a field that holds " is put in quotes, with every " doubled: "say ""hi"""`,
		"%s:%d: byte %d: %v%s", s.shown, bad.Line, bad.Column, bad.Err, from)
}

func fieldCount(shown string, line int64, got, want int) error {
	return usage("every record needs as many fields as the header; a field with the separator in it is quoted (CSV only)",
		"%s:%d: the record has %d of %d fields", shown, line, got, want)
}

// errLarge is what a meter answers instead of reading on.
var errLarge = errors.New("record too large")

// meter counts what is read, and refuses to read on while one record has taken
// more than MaxLine: a quote that is never closed must not pull a whole file
// into memory. The caller sets start, the offset at which the record begins.
type meter struct {
	r     io.Reader
	read  int64
	start int64
	err   error // why reading failed; nil at the end of the file
}

func (m *meter) Read(p []byte) (int, error) {
	if m.read-m.start > MaxLine {
		m.err = errLarge
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.read += int64(n)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

// tabbed reads tab-separated text: one record a line, no quoting, as many fields
// as the header has.
type tabbed struct {
	*lines
	width int // 0 before the header
}

func (t *tabbed) header() ([]string, error) {
	columns, err := t.next(nil)
	t.width = len(columns)
	return columns, err
}

func (t *tabbed) next(dst []string) ([]string, error) {
	line, err := t.read()
	if err != nil {
		return nil, err
	}
	before := len(dst)
	for field := range strings.SplitSeq(string(line), "\t") {
		dst = append(dst, field)
	}
	if got := len(dst) - before; t.width > 0 && got != t.width {
		return nil, fieldCount(t.shown, t.line, got, t.width)
	}
	return dst, nil
}
