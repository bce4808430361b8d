package plan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

const readBuffer = 64 << 10

var byteOrderMark = []byte("\ufeff")

// lines reads a text line by line. Lines are bytes, ended by \n or \r\n or the
// end of the text. Empty ones are skipped, as xargs does; a line of blanks is
// not empty. A byte order mark at the start is dropped.
type lines struct {
	shown string // for messages
	r     *bufio.Reader
	c     io.Closer // nil: not ours to close
	line  int64     // of the text, from 1, the empty ones too
	long  []byte    // a line that does not fit the buffer of r
}

func newLines(shown string, r io.Reader, c io.Closer) *lines {
	return &lines{shown: shown, r: bufio.NewReaderSize(r, readBuffer), c: c}
}

func (l *lines) next(dst []string) ([]string, error) {
	line, err := l.read()
	if err != nil {
		return nil, err
	}
	return append(dst, string(line)), nil
}

func (l *lines) close() error { return closeOnce(&l.c) }

// closeOnce closes what is there and forgets it, as a source may be closed when
// it was read to its end and again with its input.
func closeOnce(c *io.Closer) error {
	if *c == nil {
		return nil
	}
	err := (*c).Close()
	*c = nil
	return err
}

// read returns the next line that is not empty, valid until the next call.
func (l *lines) read() ([]byte, error) {
	for {
		line, err := l.physical()
		if err != nil || len(line) > 0 {
			return line, err
		}
	}
}

// physical returns the next line, empty or not.
func (l *lines) physical() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = append(l.long[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(l.long) <= MaxLine+len("\r") {
			line, err = l.r.ReadSlice('\n')
			l.long = append(l.long, line...)
		}
		line = l.long
	}
	l.line++
	switch {
	case err == nil:
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
	case err == io.EOF && len(line) == 0:
		return nil, io.EOF
	case err != io.EOF && !errors.Is(err, bufio.ErrBufferFull):
		return nil, failed(err, "read %s at line %d", l.shown, l.line)
	}
	if l.line == 1 {
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	if len(line) > MaxLine {
		return nil, tooLong(fmt.Sprintf("%s:%d: the line", l.shown, l.line))
	}
	return line, nil
}

// failed wraps an error of a reader. A failure that wraps io.EOF, as those of
// some connections do, must not pass for the end of the input.
func failed(err error, format string, args ...any) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w (%s)", io.ErrUnexpectedEOF, err.Error())
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

func tooLong(what string) error {
	return usage("is it the right file? An item is not meant to carry this much; name a file that holds it",
		"%s is longer than %d MiB", what, MaxLine>>20)
}
