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

// Position is where a reader is in one segment of a run's output. A reader that
// has been interrupted goes on behind the last one it was given of each segment.
type Position struct {
	Segment int64 // number within the run, from 1
	Offset  int64 // of the next record, in the unsealed segment, bytes
	Attempt int64 // of the record that begins the attempt, bytes
}
