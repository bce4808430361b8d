package output

import (
	"bytes"

	"github.com/klauspost/compress/zstd"
)

// BeforeStep has fn called before each operation that sealing consists of, and
// before each sync of data; its error is the operation's.
func (l *Log) BeforeStep(fn func(step string) error) { l.before = fn }

// Scan reads a segment from memory: what Decode fuzzes. It returns the records
// as they would be written again, and how many there are.
func Scan(segment int64, data []byte) (again []byte, n int) {
	s := newScanner(bytes.NewReader(data), segment, 0, 0)
	for {
		r, err := s.next()
		if err != nil {
			return again, n
		}
		again = appendRecord(again, segment, r.off, r.kind, nil, r.payload)
		n++
	}
}

// ScanBack counts the records from the end of data to its beginning.
func ScanBack(segment int64, data []byte) (n int) {
	w := window{src: bytes.NewReader(data)}
	for end := int64(len(data)); end > 0; n++ {
		r, err := w.previous(segment, end, 0)
		if err != nil {
			return n
		}
		end = r.off
	}
	return n
}

// Unzstd is what `zstd -d` does.
func Unzstd(data []byte) ([]byte, error) {
	d, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.DecodeAll(data, nil)
}
