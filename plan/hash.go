package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// sum hashes columns and rows so that no two inputs write the same bytes: every
// list begins with its length and every text with its size, as unsigned varints.
type sum struct {
	h   hash.Hash
	buf []byte // not hashed yet: SHA-256 is slow in small pieces
}

const sumBuffer = 16 << 10

func (s *sum) columns(names []string) {
	s.h, s.buf = sha256.New(), make([]byte, 0, sumBuffer)
	s.row(names)
}

func (s *sum) row(values []string) {
	s.number(len(values))
	for _, v := range values {
		s.number(len(v))
		for len(v) > 0 {
			if len(s.buf) == sumBuffer {
				s.flush()
			}
			n := min(len(v), sumBuffer-len(s.buf))
			s.buf = append(s.buf, v[:n]...)
			v = v[n:]
		}
	}
}

func (s *sum) number(n int) {
	if sumBuffer-len(s.buf) < binary.MaxVarintLen64 {
		s.flush()
	}
	s.buf = binary.AppendUvarint(s.buf, uint64(n))
}

func (s *sum) flush() {
	s.h.Write(s.buf) // a hash never fails
	s.buf = s.buf[:0]
}

func (s *sum) hex() string {
	s.flush()
	return hex.EncodeToString(s.h.Sum(nil))
}
