package bulkhead

// Verdict is a decision with its reason: may work start?
type Verdict struct {
	Level  Level
	Reason string // one line; "" only when Level is Allow
}

// Level is how far a verdict goes.
type Level uint8

// The levels. Allow is the zero value.
const (
	Allow Level = iota
	Slow        // fewer at once
	Stop        // nothing starts
)

// Stops reports whether nothing may start.
func (v Verdict) Stops() bool { return v.Level == Stop }
