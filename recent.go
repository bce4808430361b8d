package bulkhead

import "slices"

// Recent is the end of a script's output, for who joins or comes back: the last
// bytes of it, with their offsets. What is older has to be read from where output
// is kept. The zero value is empty and holds up to RecentBytes. It is not safe for
// concurrent use.
type Recent struct {
	chunks []Chunk
	start  int64 // offset of the first byte of chunks
	end    int64
}

// RecentBytes is how much a Recent holds, in bytes of data: several screens.
const RecentBytes = 128 << 10

// maxRecentChunks bounds what single bytes cost beside their data.
const maxRecentChunks = 4096

// Start is the offset of the first byte that is held.
func (r *Recent) Start() int64 { return r.start }

// End is the offset of the next byte to come.
func (r *Recent) End() int64 { return r.end }

// Add takes what was written at an offset. What is held already is left out; a gap
// before it lets go of all that is older. The data is copied.
func (r *Recent) Add(offset int64, c Chunk) {
	if len(c.Data) == 0 || offset+int64(len(c.Data)) <= r.end {
		return
	}
	r.Skip(offset)
	data := c.Data[r.end-offset:]
	if over := len(data) - RecentBytes; over > 0 {
		r.chunks, r.start, r.end = nil, r.end+int64(over), r.end+int64(over)
		data = data[over:]
	}
	c.Data = append(make([]byte, 0, len(data)), data...)
	r.end += int64(len(data))
	r.chunks = append(r.chunks, c)
	n := 0
	for r.end-r.start > RecentBytes || len(r.chunks)-n > maxRecentChunks {
		r.start += int64(len(r.chunks[n].Data))
		n++
	}
	if n > 0 {
		r.chunks = append(r.chunks[:0], r.chunks[n:]...)
	}
}

// Skip lets go of everything if there is nothing between what is held and an offset.
func (r *Recent) Skip(offset int64) {
	if offset > r.end {
		r.chunks, r.start, r.end = nil, offset, offset
	}
}

// From returns up to size bytes from an offset on, which must not be before Start.
// The data is not to be changed.
func (r *Recent) From(offset int64, size int) (out []Chunk) {
	at := r.start
	for _, c := range r.chunks {
		if size <= 0 {
			break
		}
		next := at + int64(len(c.Data))
		if next > offset {
			c.Data = c.Data[max(offset-at, 0):]
			c.Data = c.Data[:min(len(c.Data), size)]
			size -= len(c.Data)
			out = append(out, c)
		}
		at = next
	}
	return out
}

// Tail is the offset at which the last lines begin, or Start.
func (r *Recent) Tail(lines int) int64 {
	at, seen := r.end, 0
	for _, c := range slices.Backward(r.chunks) {
		for _, b := range slices.Backward(c.Data) {
			// A line end at the very end does not begin a line.
			if b == '\n' && at < r.end {
				if seen++; seen == lines {
					return at
				}
			}
			at--
		}
	}
	return r.start
}
