package bulkhead

import "time"

// Stream is one of a script's streams.
type Stream uint8

// The streams of a script.
const (
	Stdout Stream = iota + 1
	Stderr
)

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return "cut"
}

// Chunk is a piece of an attempt's output as it arrived.
type Chunk struct {
	Stream  Stream    // 0 for a cut
	At      time.Time // when it arrived, UTC
	Data    []byte
	Dropped int64 // for a cut: bytes that were not kept at this place
}
