package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"

	"bulkhead.dev/bulkhead"
)

// linePrinter prints chunks, each line with what it should begin with.
type linePrinter struct {
	reader *logReader
	head   string
	outs   [2]*bufio.Writer
	mid    [2]bool // the stream is within a line
	skip   int     // lines that are not printed
	cut    int64   // bytes that were not kept
	began  bool    // there was output
	failed error   // why it cannot be printed
}

// outOf is the stream of a chunk, as an index.
func outOf(c bulkhead.Chunk) int {
	if c.Stream == bulkhead.Stderr {
		return 1
	}
	return 0
}

// printBuffer is how much is written at once: what a pipe holds by default.
const printBuffer = 64 << 10

// buffers are shared by all printers of a reader: nothing is left in them when a
// printer is done with a chunk.
func (l *logReader) buffers() [2]*bufio.Writer {
	if l.outs[0] == nil {
		l.outs = [2]*bufio.Writer{bufio.NewWriterSize(l.app.stdout, printBuffer), bufio.NewWriterSize(l.app.stderr, printBuffer)}
	}
	return l.outs
}

func newLinePrinter(l *logReader, item int64) *linePrinter {
	p := &linePrinter{reader: l, outs: l.buffers()}
	switch {
	case l.heads != nil:
		p.head = l.heads(item)
	case l.prefixed:
		p.head = fmt.Sprintf("[%d] ", item)
	}
	return p
}

func (p *linePrinter) chunk(c bulkhead.Chunk) error {
	if c.Dropped > 0 && p.cut == 0 {
		fmt.Fprintf(p.reader.app.stderr, "%s… bulkhead: the output is cut from here on (--max-output)\n", p.head)
	}
	p.began = true
	p.cut += c.Dropped // a cut is told in several parts while it grows
	i := outOf(c)
	p.write(p.outs[i], &p.mid[i], c)
	p.failed = p.outs[i].Flush()
	return p.failed
}

// write fills w; its Flush reports what went wrong.
func (p *linePrinter) write(w *bufio.Writer, mid *bool, c bulkhead.Chunk) {
	if p.head == "" && !p.reader.flags.times && p.skip == 0 {
		_, _ = w.Write(c.Data)
		return
	}
	for data := c.Data; len(data) > 0; {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		data = rest
		if p.skip > 0 {
			if whole {
				p.skip--
			}
			continue
		}
		if !*mid {
			_, _ = w.WriteString(p.head)
			if p.reader.flags.times {
				_, _ = w.WriteString(c.At.UTC().Format("2006-01-02T15:04:05.000Z "))
			}
		}
		_, _ = w.Write(line)
		if whole {
			_ = w.WriteByte('\n')
		}
		*mid = !whole
	}
}

// flush ends unfinished lines, so that the next item begins on its own.
func (p *linePrinter) flush() error {
	var errs []error
	for i, w := range p.outs {
		if p.mid[i] && p.head != "" {
			_ = w.WriteByte('\n')
		}
		errs = append(errs, w.Flush())
	}
	if p.cut > 0 {
		fmt.Fprintf(p.reader.app.stderr, "%s… bulkhead: %d bytes were cut\n", p.head, p.cut)
		p.cut = 0
	}
	return errors.Join(errs...)
}

func (p *linePrinter) end(at bulkhead.Attempt) error {
	if at.State == bulkhead.ItemFailed && at.How == bulkhead.HowStart {
		p.reader.app.tell("%sbulkhead: %s", p.head, at.Error)
	}
	return p.flush()
}
