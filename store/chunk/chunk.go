// Package chunk packs the items of a run into compressed blocks, the form in
// which every store keeps them. A million short lines are some hundred rows of
// a few kilobytes instead of a million rows (HTCondor calls rows that appear
// only when work starts late materialization).
//
// Format: one byte, 0 for plain or 1 for zstd, then for each item and each of
// its values an unsigned varint length and the bytes. Values may be any bytes.
package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"bulkhead.dev/bulkhead"
)

// MaxItems and MaxBytes bound one chunk, and with it what reading one item
// costs. A single item may be larger than MaxBytes; it then has a chunk alone.
const (
	MaxItems = 4096
	MaxBytes = 256 << 10
)

// maxDecoded bounds what a damaged or hostile chunk can make the reader
// allocate: the largest item that package plan accepts, with room to spare.
const maxDecoded = 64 << 20

// plainBelow is the size under which compressing costs more than it saves. It
// also keeps a run of one script from building an encoder.
const plainBelow = 512

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		panic(err)
	}
	return d
})

// Encode packs items, which must be consecutive.
func Encode(items []bulkhead.Item) []byte {
	n := 1
	for _, it := range items {
		n += it.Size() + 3*len(it.Values)
	}
	raw := make([]byte, 1, n)
	for _, it := range items {
		for _, v := range it.Values {
			raw = binary.AppendUvarint(raw, uint64(len(v)))
			raw = append(raw, v...)
		}
	}
	if len(raw) < plainBelow {
		return raw
	}
	return encoder().EncodeAll(raw[1:], []byte{1})
}

var errDamaged = errors.New("chunk is damaged")

// Decode unpacks count items of the given number of columns; the first has
// index first. The values share one buffer.
func Decode(data []byte, first int64, count, columns int) ([]bulkhead.Item, error) {
	if len(data) == 0 || count < 0 || count > MaxItems {
		return nil, errDamaged
	}
	raw := data[1:]
	if data[0] == 1 {
		var err error
		if raw, err = decoder().DecodeAll(raw, nil); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	text := string(raw)
	items := make([]bulkhead.Item, count)
	values := make([]string, count*columns)
	for i := range items {
		items[i] = bulkhead.Item{Index: first + int64(i), Values: values[i*columns : (i+1)*columns : (i+1)*columns]}
		for c := range columns {
			size, used := binary.Uvarint(raw)
			if used <= 0 || size > uint64(len(raw)-used) {
				return nil, errDamaged
			}
			at := len(text) - len(raw) + used
			items[i].Values[c] = text[at : at+int(size)]
			raw = raw[used+int(size):]
		}
	}
	if len(raw) != 0 {
		return nil, errDamaged
	}
	return items, nil
}
