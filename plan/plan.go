// Package plan turns what a user wrote as input into a stream of items.
//
// A user names sources: a file of lines, a list, a range, a pattern, a CSV file,
// standard input. One source gives its rows; several give every combination, the
// first source varying slowest. The first is read as items are asked for, so it
// may be larger than memory or still being written by another program; the
// others are read once at the start and held, within MaxInner. Nothing else
// grows with the input.
//
//	Source, Source, … ──Open──► Input ──Next──► Item, Item, … io.EOF
//	                              └──Hash──► what was handed out, as one number
//
// Whoever resumes a run reads the same sources again and must get the same
// items, or arguments would meet the wrong index. The hash over the column names
// and values says so; HashOf computes it for a first part. An input that cannot
// be read in full is an error at the item where it breaks, never a shorter
// input.
//
// A run file says in YAML what the command line says in flags, see ParseFile.
package plan

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"bulkhead.dev/bulkhead"
)

// Limits of an input.
const (
	MaxItems = 100_000_000 // of one run
	MaxLine  = 16 << 20    // bytes of one line, or of one CSV record
	MaxInner = 64 << 20    // bytes held for all sources but the first, with 16 for each value
	// MaxColumns of one CSV file: each costs something for every item.
	MaxColumns = 1000
)

// Options say where sources are read from. The zero value reads files relative
// to the working folder and has no standard input.
type Options struct {
	Stdin io.Reader // what the source - reads; nil: using it is an error
	Dir   string    // relative files and patterns are relative to it; "": the working folder
}

// Input is a stream of items. It is not for concurrent use.
type Input struct {
	columns []string
	first   stream   // varies slowest, read as it is needed
	head    []string // the row of first that is being combined
	inner   []table
	at      []int64 // the next row of each inner table, like the digits of a counter
	index   int64   // of the last item
	limit   int64   // of items; MaxItems but in tests
	sum     sum
	err     error // the end or the failure; Next stays with it
}

// stream is a source that is read once, row by row.
type stream interface {
	// next appends the values of one row to dst. It returns io.EOF after the last.
	next(dst []string) ([]string, error)
	close() error
}

// table is a source whose rows are known and can be read in any order.
type table interface {
	len() int64
	// row appends the values of row i, from 0, to dst.
	row(dst []string, i int64) []string
}

// Open prepares the sources, in the order that the user gave them. It reads the
// header of a CSV file, and all of every source but the first; of standard input
// as the first source it reads nothing yet. Without any source there is one item
// without values.
//
// What the user can mend is a *bulkhead.Error with CodeUsage. Close the input
// when done with it.
func Open(inputs []bulkhead.Source, opts Options) (*Input, error) {
	opened, err := openAll(inputs, opts)
	if err != nil {
		return nil, err
	}
	in := &Input{limit: MaxItems}
	if err := in.combine(opened); err != nil {
		closeAll(opened)
		return nil, err
	}
	in.sum.columns(in.columns)
	return in, nil
}

// combine makes the product of the sources.
func (in *Input) combine(sources []source) (err error) {
	if in.columns, err = columnsOf(sources); err != nil {
		return err
	}
	if len(sources) == 0 {
		in.first = &walk{rows: numbers{count: 1}, none: true}
		return nil
	}
	in.first = sources[0].stream
	most := MaxItems // that each row of the next source may still be combined with
	left := int64(MaxInner)
	for i, s := range sources {
		w, known := s.stream.(*walk)
		if i > 0 {
			rows, err := hold(s, &left)
			if err != nil {
				return err
			}
			in.inner = append(in.inner, rows)
			w, known = &walk{rows: rows}, true
		}
		if !known {
			continue
		}
		n := w.rows.len()
		if n == 0 {
			in.err = io.EOF
		} else {
			most /= int(n)
		}
	}
	in.at = make([]int64, len(in.inner))
	if most == 0 && in.err == nil {
		return tooMany(MaxItems)
	}
	return nil
}

// columnsOf names the columns of all sources, each name once.
func columnsOf(sources []source) ([]string, error) {
	var columns []string
	from := map[string]int{}
	for i, s := range sources {
		for _, c := range s.columns {
			if before := from[c]; before > 0 {
				return nil, usage("give one of them another name: NAME=SOURCE, or another header",
					"two columns are named %q: of source %d (%s) and of source %d (%s)",
					c, before, sources[before-1].shown, i+1, s.shown)
			}
			from[c] = i + 1
		}
		columns = append(columns, s.columns...)
	}
	return columns, nil
}

// Columns names the values of every item, in order. Unnamed sources are numbered
// by their position among all sources, from 1.
func (in *Input) Columns() []string { return in.columns }

// Next returns the next item, and io.EOF after the last. Indexes count from 1.
// Any other error means that the input is not complete, and stays.
func (in *Input) Next() (bulkhead.Item, error) {
	if in.err != nil {
		return bulkhead.Item{}, in.err
	}
	values, err := in.row()
	if err == nil && in.index == in.limit {
		err = tooMany(in.limit)
	}
	if err != nil {
		in.err = err
		return bulkhead.Item{}, err
	}
	in.index++
	in.sum.row(values)
	return bulkhead.Item{Index: in.index, Values: values}, nil
}

// row returns the next combination.
func (in *Input) row() ([]string, error) {
	values := make([]string, 0, len(in.columns))
	if len(in.inner) == 0 {
		return in.first.next(values)
	}
	fresh := true
	for _, i := range in.at {
		fresh = fresh && i == 0
	}
	if fresh {
		head, err := in.first.next(in.head[:0])
		if err != nil {
			return nil, err
		}
		in.head = head
	}
	values = append(values, in.head...)
	for n, rows := range in.inner {
		values = rows.row(values, in.at[n])
	}
	for n := len(in.at) - 1; n >= 0; n-- {
		if in.at[n]++; in.at[n] < in.inner[n].len() {
			break
		}
		in.at[n] = 0
	}
	return values, nil
}

// Count is the number of items that Next has returned.
func (in *Input) Count() int64 { return in.index }

// Hash is the SHA-256, in hex, of the column names and of all items that Next
// has returned so far. It is the same however the sources were written, as long
// as they mean the same.
func (in *Input) Hash() string { return in.sum.hex() }

// Close closes the files. The input ends with it.
func (in *Input) Close() error {
	if in.err == nil {
		in.err = errors.New("the input is closed")
	}
	return in.first.close()
}

// HashOf reads the sources and returns the hash of the first n items, or of all
// when n < 0. The count is how many there were, less than n when the input is
// shorter. Use it with sources that are Rereadable.
func HashOf(inputs []bulkhead.Source, opts Options, n int64) (hash string, count int64, err error) {
	in, err := Open(inputs, opts)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		if e := in.Close(); err == nil {
			err = e
		}
	}()
	for n < 0 || count < n {
		_, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", count, err
		}
		count++
	}
	return in.Hash(), count, nil
}

func tooMany(limit int64) error {
	return usage("split it into several runs", "more than %s items: the most that one run may have", grouped(limit))
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}
