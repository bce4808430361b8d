package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// outputWindow is how much output of one attempt is held in memory, in bytes,
	// what pieces cost included. It is what travels with the result, too. While one
	// half of it is on its way the other fills, so it is larger, up to largeWindow,
	// where few slots share agentWindow.
	outputWindow = 256 << 10
	largeWindow  = 1 << 20
	agentWindow  = 8 << 20
	// pieceCost is what a piece of output takes beyond its data, about.
	pieceCost = 64
)

// errNoRoom: neither memory nor the spool can take more output now.
var errNoRoom = errors.New("no room for more output")

// backlog is the output of one attempt that the server does not have yet: first
// what is in memory, then what is in a file of the spool. Offsets count the
// attempt's bytes of data, of both streams.
type backlog struct {
	spool  *spool // nil: memory only
	name   string // of the file
	max    int64  // bytes that are kept; negative: all
	window int64  // bytes in memory, what pieces cost included

	mu      sync.Mutex
	base    int64 // offset of the first byte that is here, of data
	mem     []*bulkheadv1.Chunk
	memData int64 // bytes of data in mem
	memSize int64 // the same, and what the pieces cost
	roomy   chan struct{}

	file     *os.File // nil: none yet
	fileSize int64    // bytes in the file
	filePos  int64    // where its part that is not in memory begins
	fileData int64    // bytes of data in that part
	frozen   bool     // the file is needed to recover the attempt

	kept      int64 // bytes of data that were taken: the offset of what comes
	dropped   int64 // bytes beyond max, and such that nobody could take
	lost      int64 // bytes of kept that could not be read back
	forgotten bool  // the server wants none of it
	busy      bool  // a PushOutput with some of it is under way
	idle      chan struct{}
}

// heldInMemory is how much output each of so many slots holds in memory, in bytes.
func heldInMemory(slots int) int64 {
	return int64(min(max(outputWindow, agentWindow/slots), largeWindow))
}

func newBacklog(s *spool, name string, most, window int64) *backlog {
	if most == 0 {
		most = bulkhead.DefaultMaxOutput
	}
	return &backlog{spool: s, name: name, max: most, window: window}
}

// put takes what a script wrote, or all of it that is kept, or returns an error
// and takes nothing. Unless spill, the file is used only if it is in use
// already. first says that there was nothing before, full that memory is used up.
func (b *backlog) put(stream int, at time.Time, p []byte, spill bool) (first, full bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := p
	if left := b.max - b.kept; b.max >= 0 && int64(len(p)) > left {
		data = p[:max(left, 0)]
	}
	if len(data) > 0 && !b.forgotten {
		first = b.memData == 0
		if full, err = b.add(stream, at, data, spill); err != nil {
			return first, full, err
		}
	}
	b.kept += int64(len(data))
	b.dropped += int64(len(p) - len(data))
	if b.forgotten {
		b.base = b.kept
	}
	return first, full, nil
}

func (b *backlog) add(stream int, at time.Time, data []byte, spill bool) (full bool, err error) {
	c := &bulkheadv1.Chunk{Stream: bulkheadv1.Stream(stream), At: timestamppb.New(at)}
	size := int64(len(data)) + pieceCost
	if b.fileData == 0 && (len(b.mem) == 0 || b.memSize+size <= b.window) {
		c.Data = bytes.Clone(data)
		b.remember(c)
		return b.memSize > b.window/2, nil
	}
	if !spill && b.fileData == 0 || b.spool == nil {
		return true, errNoRoom
	}
	c.Data = data
	return true, b.spill(c)
}

func (b *backlog) remember(c *bulkheadv1.Chunk) {
	b.mem = append(b.mem, c)
	b.memData += int64(len(c.GetData()))
	b.memSize += int64(len(c.GetData())) + pieceCost
}

// spill appends to the file. After a failure the same place is written again.
func (b *backlog) spill(c *bulkheadv1.Chunk) error {
	size := proto.Size(c)
	record := binary.AppendUvarint(make([]byte, 0, size+binary.MaxVarintLen64), uint64(size))
	record, err := proto.MarshalOptions{}.MarshalAppend(record, c)
	if err != nil {
		return err
	}
	n := int64(len(record))
	if !b.spool.reserve(n) {
		return errNoRoom
	}
	if b.file == nil {
		b.file, err = b.spool.create(b.name)
	}
	if err == nil {
		_, err = b.file.WriteAt(record, b.fileSize)
	}
	if err != nil {
		b.spool.release(n)
		return fmt.Errorf("spool output: %w", err)
	}
	b.fileSize += n
	b.fileData += int64(len(c.GetData()))
	return nil
}

// load moves the next part of the file into memory, once that is empty. What
// cannot be read is lost.
func (b *backlog) load() {
	if b.fileData == 0 || len(b.mem) > 0 {
		return
	}
	for size := b.window; len(b.mem) == 0; size *= 2 { // until a record fits
		buf := make([]byte, min(b.fileSize-b.filePos, size))
		n, err := b.file.ReadAt(buf, b.filePos)
		if err == nil {
			err = b.decode(buf[:n])
		}
		if err != nil || len(b.mem) == 0 && b.filePos+size >= b.fileSize {
			b.giveUp()
			break
		}
	}
	b.truncate()
}

// decode takes the records that are whole.
func (b *backlog) decode(buf []byte) error {
	for len(buf) > 0 {
		size, head := binary.Uvarint(buf)
		if head <= 0 || size > uint64(len(buf)-head) {
			return nil
		}
		end := head + int(size)
		c := &bulkheadv1.Chunk{}
		if err := proto.Unmarshal(buf[head:end], c); err != nil {
			return err
		}
		b.remember(c)
		b.fileData -= int64(len(c.GetData()))
		b.filePos += int64(end)
		buf = buf[end:]
	}
	return nil
}

// giveUp loses what is in the file. The server sees the gap in the offsets.
func (b *backlog) giveUp() {
	if len(b.mem) == 0 {
		b.base += b.fileData
	}
	b.lost += b.fileData
	b.fileData, b.filePos = 0, b.fileSize
}

// truncate gives back the room of a file that was read.
func (b *backlog) truncate() {
	if b.fileData > 0 || b.fileSize == 0 || b.frozen {
		return
	}
	if b.file.Truncate(0) == nil {
		b.spool.release(b.fileSize)
		b.fileSize, b.filePos = 0, 0
	}
}

// next returns what to send next, of at most about limit bytes; nil: nothing.
// Until sent is called, settle waits.
func (b *backlog) next(limit int64) (offset int64, chunks []*bulkheadv1.Chunk, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy {
		return 0, nil, 0
	}
	b.load()
	for _, c := range b.mem {
		n := int64(len(c.GetData())) + pieceCost
		if size > 0 && size+n > limit {
			break
		}
		size += n
		chunks = append(chunks, c)
	}
	b.busy = chunks != nil
	return b.base, chunks, size
}

// sent ends what next began, and reports whether it changed anything. A nil
// answer is none: all of it is to be sent again.
func (b *backlog) sent(r *bulkheadv1.Received) (progress bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.base
	b.busy = false
	if b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
	switch {
	case r == nil:
	case r.GetUnknown():
		b.forget()
	default:
		b.have(r.GetHave())
	}
	return b.base != before || r.GetUnknown()
}

// waiting says whether there is something to send, and whether it should not
// wait: memory is half full, or what is in the file waits behind it.
func (b *backlog) waiting() (some, much bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy {
		return false, false
	}
	return len(b.mem) > 0, b.memSize > b.window/2 || b.fileData > 0
}

// have takes note of how much the server has.
func (b *backlog) have(n int64) {
	// A server that has less than it had (it lost power) gets what is here.
	covered := max(min(n, b.base+b.memData)-b.base, 0)
	b.base += covered
	b.memData -= covered
	drop := 0
	for _, c := range b.mem {
		size := int64(len(c.GetData()))
		if size > covered {
			break
		}
		covered -= size
		b.memSize -= size + pieceCost
		drop++
	}
	b.mem = b.mem[drop:]
	if covered > 0 {
		// Others may be reading the list as it was.
		rest := &bulkheadv1.Chunk{Stream: b.mem[0].GetStream(), At: b.mem[0].GetAt(), Data: b.mem[0].GetData()[covered:]}
		b.mem = append([]*bulkheadv1.Chunk{rest}, b.mem[1:]...)
		b.memSize -= covered
	}
	b.load()
	if b.roomy != nil {
		close(b.roomy)
		b.roomy = nil
	}
}

// forget drops what is here and all that comes.
func (b *backlog) forget() {
	b.forgotten = true
	b.mem, b.memData, b.memSize, b.base = nil, 0, 0, b.kept
	b.fileData, b.filePos = 0, b.fileSize
	b.truncate()
	if b.roomy != nil {
		close(b.roomy)
		b.roomy = nil
	}
}

// forgetAll is forget, for what was handed in.
func (b *backlog) forgetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
}

// waitRoom returns what is closed when the memory has room again.
func (b *backlog) waitRoom() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.roomy == nil {
		b.roomy = make(chan struct{})
	}
	return b.roomy
}

// settle returns nil when nothing of it is being sent and all that is left is in
// memory; otherwise what is closed when that may have changed.
func (b *backlog) settle() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.busy {
		b.load()
		if b.fileData == 0 {
			b.busy = true // it goes with the result
			return nil
		}
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	return b.idle
}

// unsettle lets it be pushed again.
func (b *backlog) unsettle() { _ = b.sent(nil) }

// drop counts bytes that were not kept.
func (b *backlog) drop(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped += n
}

// abandon leaves the file for the next process.
func (b *backlog) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}

// close gives back what it holds of the spool.
func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.spool.remove(b.file, b.fileSize)
		b.file, b.fileSize = nil, 0
	}
}
