package bulkhead

import (
	"strings"
	"time"
)

// Verdict is a decision with its reason: may work start?
type Verdict struct {
	Level  Level
	Reason string // one line; "" only when Level is Allow
	// Factor is by what Slow multiplies how much runs at once, above 0 and below 1.
	Factor float64
	Since  time.Time
	// Lifts says what ends it, in one line: "when the finding has ended", "bulkhead brake off 3".
	Lifts string
	// Past is the reason as it is told when the verdict is over, without its end and
	// without figures; "": as Reason.
	Past string
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

// Scope is what a verdict is about. The zero value is everything.
type Scope struct {
	Kind ScopeKind `json:"kind"`
	Name string    `json:"name,omitempty"` // "" for everything
}

// ScopeKind says what a scope names. Its values are stored.
type ScopeKind string

// The scopes. A namespace is that of a run's class.
const (
	ScopeAll       ScopeKind = ""
	ScopeNamespace ScopeKind = "namespace"
	ScopeClass     ScopeKind = "class"
	ScopePool      ScopeKind = "pool"
	ScopeRun       ScopeKind = "run"
	// ScopeFinding is no scope of runs: it names a finding of the guard, as ID or
	// NAMESPACE/ID, of which a brake lets go, see Brake.Exempts.
	ScopeFinding ScopeKind = "finding"
)

func (s Scope) String() string {
	if s.Kind == ScopeAll {
		return "everything"
	}
	return string(s.Kind) + " " + s.Name
}

// ClassKey is the annotation or label by which an object of a cluster says of which class
// the script is that made it: NAME, or NAMESPACE/NAME in an annotation. Labels that choose
// worker pods have it, too.
const ClassKey = "bulkhead.dev/class"

// NamespaceOf is the namespace of a class; "" if its name has none.
func NamespaceOf(class string) string {
	namespace, _, found := strings.Cut(class, "/")
	if !found {
		return ""
	}
	return namespace
}

// Ruling is a verdict about a scope, with who gives it. Brakes, the guard's findings
// and, later, pools and signals are all rulings; the engine knows nothing else.
type Ruling struct {
	Scope   Scope   `json:"scope"`
	Verdict Verdict `json:"verdict"`
	// From names who gives it, for people and metrics: "brake", "guard".
	From string `json:"from"`
	// Finding is the id of the finding that it follows from; "": of none.
	Finding string `json:"finding,omitempty"`
}

// Brake is a verdict that a person gave.
type Brake struct {
	ID     int64  `json:"id"`
	Scope  Scope  `json:"scope"`
	Reason string `json:"reason"`
	// Factor is by what it multiplies how much runs at once, above 0 and below 1; 0: nothing starts.
	Factor  float64   `json:"factor,omitempty"`
	Owner   string    `json:"owner"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires,omitzero"` // zero: it stays until it is lifted
}
