package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/SaveTheRbtz/zstd-seekable-format-go/pkg/framecache"
	"github.com/klauspost/compress/zstd"
)

// ErrDamaged is in the chain of every error that says that output is not on
// disk as it was acknowledged, which takes a loss of power or a broken disk.
var ErrDamaged = errors.New("output is damaged")

// segment is an open segment in either form. ReadAt is in offsets of the raw
// one.
type segment struct {
	io.ReaderAt
	number int64
	sealed bool
	size   int64 // of a sealed one
	close  []func() error
}

func (s *segment) Close() {
	for _, c := range s.close {
		_ = c() // only read from
	}
}

// openSegment opens a segment in whichever form it is in. The raw file goes
// only after the sealed one has its name, so looking in this order misses
// neither, whatever the sealer does meanwhile.
func openSegment(dir string, n int64) (*segment, error) {
	f, err := os.Open(rawPath(dir, n))
	if err == nil {
		return &segment{ReaderAt: f, number: n, close: []func() error{f.Close}}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return openSealed(dir, n)
}

func openSealed(dir string, n int64) (*segment, error) {
	f, err := os.Open(sealedPath(dir, n))
	if err != nil {
		return nil, err
	}
	s := &segment{number: n, sealed: true, close: []func() error{f.Close}}
	if errDecoder != nil {
		s.Close()
		return nil, errDecoder
	}
	cache := framecache.NewFIFO(framecache.Limits{MaxFrames: 2}) // a record can lie across two
	r, err := seekable.NewReader(f, decoder, seekable.WithReaderFrameCache(cache))
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s.close = append(s.close, r.Close)
	table, err := r.SeekTable()
	if err != nil {
		s.Close()
		return nil, err
	}
	s.ReaderAt, s.size = unsealer{r}, int64(table.Size())
	return s, nil
}

// decoder is shared by all segments that are open, as each frame is decoded on its
// own: it keeps half a megabyte, which would be that for each of them.
var decoder, errDecoder = zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderLowmem(true),
	zstd.WithDecoderMaxMemory(64*sealFrame))

// unsealer tells a damaged file from one that cannot be read.
type unsealer struct{ *seekable.Reader }

func (u unsealer) ReadAt(p []byte, off int64) (int, error) {
	n, err := u.Reader.ReadAt(p, off)
	if _, system := errors.AsType[*fs.PathError](err); err != nil && !errors.Is(err, io.EOF) && !system {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return n, err
}

// window is the part of a segment that is in memory. It reads small at first,
// for the many short attempts, and more the longer it is used.
type window struct {
	src  io.ReaderAt
	base int64
	buf  []byte
	step int
}

const (
	firstStep = 4 << 10
	lastStep  = 2 * maxRecord
)

// ahead returns the n bytes from off on, or fewer where the segment or the
// limit ends. The result is valid until the next call.
func (w *window) ahead(off int64, n int, limit int64) ([]byte, error) {
	if b, ok := w.have(off, n); ok {
		return b, nil
	}
	want := min(int64(max(n, w.grow())), limit-off)
	if err := w.load(off, int(max(0, want))); err != nil {
		return nil, err
	}
	return w.buf[:min(n, len(w.buf))], nil
}

// behind returns the n bytes before end, reading nothing before floor.
func (w *window) behind(end int64, n int, floor int64) ([]byte, error) {
	if end-int64(n) < floor {
		return nil, nil
	}
	if b, ok := w.have(end-int64(n), n); ok {
		return b, nil
	}
	from := max(floor, end-int64(max(n, w.grow())))
	if err := w.load(from, int(end-from)); err != nil {
		return nil, err
	}
	b, _ := w.have(end-int64(n), n)
	return b, nil
}

func (w *window) have(off int64, n int) ([]byte, bool) {
	i := off - w.base
	if i < 0 || i+int64(n) > int64(len(w.buf)) {
		return nil, false
	}
	return w.buf[i : i+int64(n)], true
}

func (w *window) grow() int {
	w.step = min(max(firstStep, 2*w.step), lastStep)
	return w.step
}

// load makes the window hold what there is of the n bytes from off on. What it
// has of them already is kept.
func (w *window) load(off int64, n int) error {
	have := 0
	if i := off - w.base; i >= 0 && i < int64(len(w.buf)) {
		have = min(n, copy(w.buf, w.buf[i:]))
	}
	if cap(w.buf) < n {
		w.buf = append(make([]byte, 0, n), w.buf[:have]...)
	}
	w.base = off
	got, err := w.src.ReadAt(w.buf[have:n], off+int64(have))
	w.buf = w.buf[:have+got]
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// forget drops what the window holds, because the segment may have grown.
func (w *window) forget() { w.buf = nil }

// errTorn ends a scan where bytes follow that are no whole record, or not yet.
var errTorn = errors.New("torn record")

// scanner reads a segment's records forwards.
type scanner struct {
	win     window
	segment int64
	off     int64 // of the next record
	limit   int64 // nothing from here on is read
}

func newScanner(src io.ReaderAt, segment, off, limit int64) scanner {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return scanner{win: window{src: src}, segment: segment, off: off, limit: limit}
}

// next returns the next record, io.EOF at the end, or errTorn. After either it
// may be called again: it looks at the disk anew. The record's payload is valid
// until then.
func (s *scanner) next() (record, error) {
	word, err := s.win.ahead(s.off, wordSize, s.limit)
	if err != nil {
		return record{}, s.fail(err)
	}
	if len(word) == 0 {
		return record{}, io.EOF
	}
	size, ok := 0, false
	if len(word) == wordSize {
		size, ok = recordSize(word)
	}
	if !ok {
		s.win.forget()
		return record{}, errTorn
	}
	b, err := s.win.ahead(s.off, size, s.limit)
	if err != nil {
		return record{}, s.fail(err)
	}
	r, ok := parseRecord(s.segment, s.off, b)
	if !ok {
		s.win.forget()
		return record{}, errTorn
	}
	s.off = r.end()
	return r, nil
}

func (s *scanner) fail(err error) error {
	return fmt.Errorf("read segment %d at byte %d: %w", s.segment, s.off, err)
}

// previous returns the record that ends at end, and nothing before floor.
func (w *window) previous(segment, end, floor int64) (record, error) {
	word, err := w.behind(end, wordSize, floor)
	if err != nil {
		return record{}, err
	}
	if len(word) < wordSize {
		return record{}, errTorn
	}
	size, ok := recordSize(word)
	if !ok {
		return record{}, errTorn
	}
	b, err := w.behind(end, size, floor)
	if err != nil {
		return record{}, err
	}
	r, ok := parseRecord(segment, end-int64(size), b)
	if !ok {
		return record{}, errTorn
	}
	return r, nil
}
