package output

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"bulkhead.dev/bulkhead"
)

// The words of output belong to everybody that passes it on.
type (
	// Stream is one of a script's streams.
	Stream = bulkhead.Stream
	// Chunk is a piece of an attempt's output. Its Data is only valid until the
	// function it was given to returns, its time is exact to a microsecond.
	Chunk = bulkhead.Chunk
)

// The streams of a script.
const (
	Stdout = bulkhead.Stdout
	Stderr = bulkhead.Stderr
)

// Kinds of records, see the package comment.
const (
	kindAttempt = 'A'
	kindStdout  = 'o'
	kindStderr  = 'e'
	kindCut     = 'x'
	kindEnd     = 'z'
)

const (
	wordSize    = 4
	frameSize   = wordSize + 4 + wordSize // of a record around its payload
	maxPayload  = 64 << 10
	maxData     = 32 << 10 // in one chunk
	maxRecord   = frameSize + maxPayload
	sizeMask    = 1<<24 - 1
	maxHeadSize = 3 * binary.MaxVarintLen64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the first word and the payload of the record at off.
func checksum(segment, off int64, b []byte) uint32 {
	return crc32.Update(uint32(segment)*0x9E3779B1+uint32(off), castagnoli, b)
}

// appendRecord appends to buf the record that belongs at off. Its payload is
// head, then data.
func appendRecord(buf []byte, segment, off int64, kind byte, head, data []byte) []byte {
	start := len(buf)
	word := uint32(kind)<<24 | uint32(len(head)+len(data))
	buf = binary.LittleEndian.AppendUint32(buf, word)
	buf = append(buf, head...)
	buf = append(buf, data...)
	buf = binary.LittleEndian.AppendUint32(buf, checksum(segment, off, buf[start:]))
	return binary.LittleEndian.AppendUint32(buf, word)
}

// record is one record as found on disk.
type record struct {
	kind    byte
	off     int64
	payload []byte // aliases the buffer it was read into
}

func (r record) end() int64 { return r.off + frameSize + int64(len(r.payload)) }

// recordSize is the size of the whole record that begins or ends with word.
func recordSize(word []byte) (int, bool) {
	w := binary.LittleEndian.Uint32(word)
	n := int(w & sizeMask)
	return frameSize + n, w>>24 != 0 && n <= maxPayload
}

// parseRecord checks that b is exactly the record that belongs at off.
func parseRecord(segment, off int64, b []byte) (record, bool) {
	if len(b) < frameSize {
		return record{}, false
	}
	size, ok := recordSize(b)
	word := binary.LittleEndian.Uint32(b)
	body := len(b) - wordSize - 4
	if !ok || size != len(b) || binary.LittleEndian.Uint32(b[len(b)-wordSize:]) != word ||
		binary.LittleEndian.Uint32(b[body:]) != checksum(segment, off, b[:body]) {
		return record{}, false
	}
	return record{byte(word >> 24), off, b[wordSize:body]}, true
}

// header is the payload of an 'A' record.
type header struct {
	item    int64
	attempt int
	start   time.Time
}

func (h header) append(b []byte) []byte {
	b = binary.AppendVarint(b, h.item)
	b = binary.AppendUvarint(b, uint64(h.attempt))
	return binary.AppendVarint(b, h.start.UnixNano())
}

func (r record) header() (h header, ok bool) {
	item, n := binary.Varint(r.payload)
	if n <= 0 {
		return h, false
	}
	attempt, m := binary.Uvarint(r.payload[n:])
	if m <= 0 {
		return h, false
	}
	start, k := binary.Varint(r.payload[n+m:])
	return header{item, int(attempt), time.Unix(0, start).UTC()}, k > 0
}

// chunk reads an 'o', 'e' or 'x' record of an attempt that began at start.
func (r record) chunk(start time.Time) (Chunk, bool) {
	since, n := binary.Uvarint(r.payload)
	if n <= 0 {
		return Chunk{}, false
	}
	c := Chunk{At: start.Add(time.Duration(since) * time.Microsecond)}
	switch r.kind {
	case kindStdout:
		c.Stream, c.Data = Stdout, r.payload[n:]
	case kindStderr:
		c.Stream, c.Data = Stderr, r.payload[n:]
	default:
		dropped, m := binary.Uvarint(r.payload[n:])
		c.Dropped = int64(dropped)
		return c, m > 0
	}
	return c, true
}

// isChunk reports whether the record carries a Chunk.
func (r record) isChunk() bool {
	return r.kind == kindStdout || r.kind == kindStderr || r.kind == kindCut
}
