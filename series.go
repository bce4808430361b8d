package bulkhead

import "time"

// Series is how the count of one family went. It has a point only where something
// changed: between two points of time in which somebody looked (see Span) the first
// holds.
type Series struct {
	Key
	Points []Point `json:"points"` // in order of time
}

// Point is what was counted of a family at one moment.
type Point struct {
	At      time.Time `json:"at"`
	Objects int64     `json:"objects"`
	Rules   int64     `json:"rules,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"`
}

// Span is a stretch of time, from its start to its end. What was counted between
// two spans in which somebody looked is not known.
type Span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}
