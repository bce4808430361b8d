package worker

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// A mark is a soft limit of 62 bits: 32 bits for the owner, 30 for the attempt.
// The highest bit of the owner is set, so that every mark is at least 2⁶¹
// microseconds: no limit that a person would set. Attempts may repeat after
// 2³⁰; those that long ago are gone.
const (
	attemptBits = 30
	ownerBit    = 1 << 31
)

func attemptMark(owner, attempt uint64) uint64 {
	return owner<<attemptBits | attempt&(1<<attemptBits-1)
}

// ownerOf is the owner's part of a mark, or 0 if the limit is not a mark.
func ownerOf(limit uint64) uint64 {
	if owner := limit >> attemptBits; owner>>32 == 0 && owner&ownerBit != 0 {
		return owner
	}
	return 0
}

// newOwner makes the number that tells the marks of this process from those of
// all others.
func newOwner(random io.Reader) (uint64, error) {
	var b [4]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return 0, fmt.Errorf("make a mark: %w", err)
	}
	return uint64(binary.NativeEndian.Uint32(b[:])) | ownerBit, nil
}

// limitOf is a process's soft limit, 0 if that is not for us to know because it
// belongs to another user. A zombie still has its limits.
func limitOf(pid int) (limit uint64, exists bool) {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &l); err != nil {
		return 0, err != unix.ESRCH
	}
	return l.Cur, true
}

// marker sets and resets the limit of our own process around a fork.
type marker struct {
	own unix.Rlimit // what we were started with: a mark if a script started us
}

// newMarker reports false if the hard limit has no room for marks.
func newMarker(owner uint64) (marker, bool) {
	var m marker
	if unix.Prlimit(0, unix.RLIMIT_RTTIME, nil, &m.own) != nil || m.own.Max < attemptMark(owner, math.MaxUint64) {
		return m, false
	}
	// Try it: a sandbox may forbid the call rather than the value.
	return m, m.set(attemptMark(owner, 0)) == nil && m.reset() == nil
}

func (m *marker) set(mark uint64) error {
	return unix.Prlimit(0, unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: mark, Max: m.own.Max}, nil)
}

func (m *marker) reset() error { return unix.Prlimit(0, unix.RLIMIT_RTTIME, &m.own, nil) }
