package worker

import (
	"errors"
	"os"
	"time"

	"bulkhead.dev/bulkhead"
)

// Job is one attempt to be made.
type Job struct {
	Args []string // Args[0] is the command; passed to exec as they are
	// Path is the executable. Empty: Args[0], looked up in the PATH of Env if
	// it has no slash.
	Path string
	Env  []string // NAME=value, the complete environment
	Dir  string   // working folder; empty: that of this process
	// Stdin is what the script reads; nil: nothing (/dev/null).
	Stdin *string
	// StdinFile is given to the script as it is, if Stdin is nil.
	StdinFile *os.File
	// Attach, if it is set, is called once the script runs, with what its stdin
	// comes from; Stdin and StdinFile must be nil then. The console is of use until
	// Run returns.
	Attach func(*Console)
	// Terminal: with Attach, the script runs in a terminal of its own, which is as
	// large as Window at first. Both its streams are Stdout then.
	Terminal bool
	Window   bulkhead.Window
	// Timeout ends the attempt; 0: none. Measured with the monotonic clock.
	Timeout time.Duration
	// Grace is the time between SIGTERM and SIGKILL; 0: SIGKILL at once.
	Grace time.Duration
	// Watch, if it is set, is called once the script runs, with a function that sets
	// until when it may: then the guardian kills what is left of it, also when this
	// process is stopped. The function may be called again, by any goroutine; after
	// the end of the attempt it does nothing. It does nothing either where there is
	// no guardian, or no mark.
	Watch func(limit func(until time.Time))
}

// The streams of a script, as a Sink sees them.
const (
	Stdout = 1
	Stderr = 2
)

// Sink takes what a script writes.
//
// Write is called by one goroutine at a time. The time is when the bytes were
// read; times of one stream do not go back. p is valid during the call. An
// error means that nothing of p was taken (a full disk, say): the call is
// repeated with the same bytes, less and less often, until it succeeds. The
// script meanwhile blocks once its pipe is full; other attempts do not notice.
// Only the hard stop ([ErrKill], [Worker.Kill]) ends the repetition; what was
// dropped then is counted in Result.Output.Dropped.
type Sink interface {
	Write(stream int, at time.Time, p []byte) error
}

// ErrKill as the cause of a context skips the grace:
//
//	ctx, cancel := context.WithCancelCause(parent)
//	cancel(worker.ErrKill)
var ErrKill = errors.New("killed at once")
