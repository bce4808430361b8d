package bulkhead

import "errors"

// Error is an error for three readers: a code for machines, a message for
// users, a hint that says what to do next.
type Error struct {
	Code    string // one of the Code constants
	Message string // one line; names the field and the value
	Hint    string // one line; "" when there is nothing to add
	Err     error  // the cause, if any
}

// Codes of an Error.
const (
	CodeUsage    = "usage"     // the user's input is wrong; nothing was changed
	CodeNotFound = "not_found" // no such run, item or output
	CodeConflict = "conflict"  // it exists, but its state does not allow this
	CodeDenied   = "denied"    // whoever asks may not do that, or is not known
	// CodeUnavailable: it cannot be said now; the same may succeed in a while.
	CodeUnavailable = "unavailable"
	CodeInternal    = "internal"
)

func (e *Error) Error() string {
	s := e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first Error in err's chain, or CodeInternal.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// HintOf returns the hint of the first Error in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
