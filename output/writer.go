package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
)

const (
	// bufferSize is how much a writer collects before it writes.
	bufferSize = 64 << 10
	// largeBuffer is the same for a large piece that is at hand as a whole.
	largeBuffer = 256 << 10
	// stuckSize is how much a writer holds when the disk refuses and its caller
	// goes on all the same. What comes then is counted as dropped.
	stuckSize = 1 << 20
)

// ErrNotBegun is returned by Write and End outside of an attempt.
var ErrNotBegun = errors.New("no attempt has begun on this output writer")

// Writer appends the attempts of one worker slot, one after the other. All its
// methods may be called at the same time: a script's streams are two.
//
// When the disk refuses (ENOSPC, EDQUOT, EIO), Write, Flush and End return the
// error and nothing is lost: what could not be written stays in the writer. The
// caller should stop reading from its script and call Flush until it succeeds.
type Writer struct {
	log *Log

	mu      sync.Mutex
	segment int64    // where the next record goes
	file    *os.File // of that segment; nil until its first byte is written
	written int64    // bytes in the file
	buf     []byte   // what follows them
	collect int      // bytes that buf should hold before it is written; 0: bufferSize
	dirty   bool     // the log knows that there is something to flush or sync
	syncErr error    // of an fdatasync, until it was reported
	closed  bool

	state   writerState
	attempt header
	room    int64 // bytes that may still be kept
	capped  bool  // room counts
	ref     bulkhead.OutputRef
	marked  int64  // of ref.Dropped, what the cut records say
	since   uint64 // the last record's time, µs after the attempt's start
}

type writerState uint8

const (
	idle    writerState = iota
	begun               // nothing was written yet
	writing             // the attempt's header is in the buffer or on disk
	ending              // its end record is too
)

// Position says where the first record of the next attempt will go: its
// segment and offset. It belongs in the attempt's lease, so that others can
// follow the attempt. It holds until that attempt has ended.
func (w *Writer) Position() bulkhead.OutputRef {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bulkhead.OutputRef{Segment: w.segment, Offset: w.offset()}
}

// offset is where the next record goes in the segment.
func (w *Writer) offset() int64 { return w.written + int64(len(w.buf)) }

// Begin starts an attempt. Of both streams together, the first maxBytes bytes
// are kept; the rest is counted and dropped. 0 stands for
// bulkhead.DefaultMaxOutput, a negative number keeps everything.
func (w *Writer) Begin(item int64, attempt int, start time.Time, maxBytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(header{item, attempt, start}, maxBytes)
}

func (w *Writer) begin(h header, maxBytes int64) {
	if maxBytes == 0 {
		maxBytes = bulkhead.DefaultMaxOutput
	}
	w.state, w.attempt = begun, h
	w.room, w.capped = maxBytes, maxBytes > 0
	w.ref, w.marked = bulkhead.OutputRef{}, 0
}

// open begins the attempt's records with its first output.
func (w *Writer) open() {
	if w.state != begun {
		return
	}
	w.ref = bulkhead.OutputRef{Segment: w.segment, Offset: w.offset()}
	w.state = writing
	var head [maxHeadSize]byte
	w.append(kindAttempt, w.attempt.append(head[:0]), nil)
}

// Write appends p, which arrived on stream at the given time. It takes all of
// p even when it returns an error: do not write p again, call Flush until it
// succeeds. A caller that goes on writing instead loses output once 1 MiB has
// piled up, and Dropped says how much.
func (w *Writer) Write(stream Stream, at time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != begun && w.state != writing {
		return ErrNotBegun
	}
	if w.closed {
		return fmt.Errorf("write output: %w", os.ErrClosed)
	}
	if len(p) == 0 {
		return nil
	}
	w.open()
	kept := p
	switch {
	case len(w.buf) >= stuckSize:
		kept = nil
	case w.capped && int64(len(p)) > w.room:
		kept = p[:w.room]
	}
	w.room -= int64(len(kept))
	w.ref.Bytes += int64(len(kept))
	w.ref.Dropped += int64(len(p) - len(kept))
	w.since = uint64(max(0, at.Sub(w.attempt.start).Microseconds()))
	err := w.appendData(stream, kept)
	// Each cut record stands for at least as much as all before it, so that a
	// follower and a crash know about the cut, and endless output is a few of them.
	if d := w.ref.Dropped - w.marked; d > 0 && d >= w.marked {
		w.appendCut()
	}
	return err
}

// appendData writes p in records. After an error it goes on, but only into the
// buffer.
func (w *Writer) appendData(stream Stream, p []byte) (err error) {
	kind := byte(kindStdout)
	if stream == Stderr {
		kind = kindStderr
	}
	var head [maxHeadSize]byte
	for len(p) > 0 {
		n := min(len(p), maxData)
		if err == nil && len(w.buf)+frameSize+maxHeadSize+n > max(w.collect, bufferSize) {
			err = w.flush()
		}
		w.append(kind, binary.AppendUvarint(head[:0], w.since), p[:n])
		p = p[n:]
	}
	return err
}

func (w *Writer) appendCut() {
	var head [maxHeadSize]byte
	h := binary.AppendUvarint(head[:0], w.since)
	w.append(kindCut, binary.AppendUvarint(h, uint64(w.ref.Dropped-w.marked)), nil)
	w.marked = w.ref.Dropped
}

func (w *Writer) append(kind byte, head, data []byte) {
	w.buf = appendRecord(w.buf, w.segment, w.offset(), kind, head, data)
	if !w.dirty {
		w.dirty = true
		w.log.touch(w)
	}
}

// End finishes the attempt and says where its output is. Once it returns
// without an error, everything is with the kernel: killing this process loses
// nothing of it. An attempt that wrote nothing has the zero OutputRef. After an
// error End may be called again, also after Flush.
func (w *Writer) End() (bulkhead.OutputRef, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.state {
	case idle:
		return bulkhead.OutputRef{}, ErrNotBegun
	case begun:
		w.state = idle
		return bulkhead.OutputRef{}, nil
	case writing:
		w.finish()
	}
	if err := w.flush(); err != nil {
		return bulkhead.OutputRef{}, err
	}
	w.state = idle
	if w.file != nil && w.written >= w.log.segmentSize {
		w.rotate()
	}
	return w.ref, nil
}

// Skip notes that so many bytes of the attempt did not arrive.
func (w *Writer) Skip(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == begun || w.state == writing {
		w.open()
		w.ref.Dropped += n
		w.appendCut()
	}
}

// top makes the number of bytes that were not kept at least n.
func (w *Writer) top(n int64) {
	w.mu.Lock()
	missing := n - w.ref.Dropped
	w.mu.Unlock()
	if missing > 0 {
		w.Skip(missing)
	}
}

// keptBuffer is what a writer with nothing to write may hold on to where there are
// thousands of them.
const keptBuffer = 4 << 10

// buffers are those of writers that have much to write at the moment.
var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// expect readies the writer for n bytes that come at once, until trim.
func (w *Writer) expect(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n <= bufferSize || len(w.buf) > 0 || cap(w.buf) >= largeBuffer {
		return
	}
	if b, ok := buffers.Get().(*[largeBuffer]byte); ok {
		w.buf, w.collect = b[:0], largeBuffer
	}
}

// trim gives an empty buffer back.
func (w *Writer) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.collect = 0
	if len(w.buf) > 0 || cap(w.buf) <= keptBuffer {
		return
	}
	if cap(w.buf) == largeBuffer {
		buffers.Put((*[largeBuffer]byte)(w.buf[:largeBuffer]))
	}
	w.buf = nil
}

// finish appends the last records of the attempt.
func (w *Writer) finish() {
	if w.ref.Dropped > w.marked {
		w.appendCut()
	}
	var head [maxHeadSize]byte
	h := binary.AppendUvarint(head[:0], uint64(w.ref.Bytes))
	w.append(kindEnd, binary.AppendUvarint(h, uint64(w.ref.Dropped)), nil)
	w.ref.Length = w.offset() - w.ref.Offset
	w.state = ending
}

// rotate goes on in a new segment and leaves the old one to be sealed. It
// happens at the end of an attempt, never between Position and End.
func (w *Writer) rotate() {
	w.segment = w.log.retire(w.segment, w.file)
	w.file, w.written = nil, 0
}

// Flush writes what is buffered. After an error it may be called again; it goes
// on where it stopped.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

// flush writes, and reports an earlier failure of the disk to keep what was
// written.
func (w *Writer) flush() error {
	if err := w.syncErr; err != nil {
		w.syncErr = nil
		return fmt.Errorf("sync output: %w", err)
	}
	return w.write()
}

// write leaves in the buffer what could not be written. A record may be written
// in part; the next call completes it in place, so what a reader once saw never
// changes.
func (w *Writer) write() error {
	if len(w.buf) == 0 {
		return nil
	}
	if w.closed {
		return fmt.Errorf("write output: %w", os.ErrClosed)
	}
	if w.file == nil {
		f, err := w.log.create(w.segment)
		if err != nil {
			return fmt.Errorf("create output: %w", err)
		}
		w.file = f
	}
	n, err := w.file.WriteAt(w.buf, w.written)
	w.written += int64(n)
	if err != nil {
		w.buf = append(w.buf[:0], w.buf[n:]...)
		return fmt.Errorf("write output: %w", err)
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > max(w.collect, 2*bufferSize) {
		w.buf = nil // it grew while the disk was full
	}
	return nil
}

// tick is the log's regular flush. It returns the file to sync, or nil.
func (w *Writer) tick() *os.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = false
	if err := w.write(); err != nil {
		// The script learns of it with its next Write, or at its End.
		w.dirty = true
		w.log.touch(w)
	}
	return w.file
}

// syncFailed notes that the disk could not keep what was written, for flush.
func (w *Writer) syncFailed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.syncErr = err
}

// close writes what is left and gives the segment up. It returns its number, or
// 0 if it has no file.
func (w *Writer) close() (segment int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err = w.flush()
	w.closed = true
	if w.file == nil {
		return 0, err
	}
	if serr := datasync(w.file); err == nil {
		err = serr
	}
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	w.file = nil
	return w.segment, err
}
