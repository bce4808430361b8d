package history

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// value is what a point says.
type value struct{ objects, rules, bytes int64 }

// frame is what a look found changed, by the number of the series. Packed, it has
// for each series, in the order of their numbers,
//
//	uvarint  (number − the number before) × 4, + 1 if there are rules, + 2 if there are bytes
//	uvarint  objects
//	uvarint  rules, bytes: if there are any
//
// which takes four to seven bytes for a family of some hundreds of objects.
type frame map[int64]value

const hasRules, hasBytes = 1, 2

func (f frame) pack() []byte {
	out := make([]byte, 0, 8*len(f))
	before := int64(0)
	for _, id := range slices.Sorted(maps.Keys(f)) {
		v := f[id]
		head := uint64(id-before) * 4
		if v.rules > 0 {
			head |= hasRules
		}
		if v.bytes > 0 {
			head |= hasBytes
		}
		out = binary.AppendUvarint(out, head)
		out = binary.AppendUvarint(out, uint64(max(0, v.objects)))
		if v.rules > 0 {
			out = binary.AppendUvarint(out, uint64(v.rules))
		}
		if v.bytes > 0 {
			out = binary.AppendUvarint(out, uint64(v.bytes))
		}
		before = id
	}
	return out
}

var errFrame = errors.New("a frame of the history is damaged")

// unpack calls fn for each series of a packed frame.
func unpack(data []byte, fn func(id int64, v value)) error {
	id := int64(0)
	next := func() (int64, bool) {
		v, n := binary.Uvarint(data)
		if n <= 0 || int64(v) < 0 {
			return 0, false
		}
		data = data[n:]
		return int64(v), true
	}
	for len(data) > 0 {
		head, ok := next()
		if !ok {
			return errFrame
		}
		id += head / 4
		var v value
		if v.objects, ok = next(); !ok {
			return errFrame
		}
		if head&hasRules != 0 {
			if v.rules, ok = next(); !ok {
				return errFrame
			}
		}
		if head&hasBytes != 0 {
			if v.bytes, ok = next(); !ok {
				return errFrame
			}
		}
		fn(id, v)
	}
	return nil
}
