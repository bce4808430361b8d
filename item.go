package bulkhead

import (
	"fmt"
	"time"
)

// Item is one invocation of a run.
type Item struct {
	Index  int64    // from 1, in input order
	Values []string // one per column of the run; any bytes
}

// Size is the number of bytes of the item's values.
func (it Item) Size() int {
	n := 0
	for _, v := range it.Values {
		n += len(v)
	}
	return n
}

// ItemState is what an item is doing, and what an attempt ended as. Its values
// are stored: do not reorder them.
type ItemState uint8

// The life of an item: queued → running → succeeded | failed | lost | cancelled.
const (
	ItemSucceeded ItemState = iota // zero, so that the common case takes no room in the store
	ItemFailed
	ItemLost      // it may have started and nobody saw the end
	ItemCancelled // stopped or never started, because its run was cancelled or halted
	ItemQueued
	ItemRunning
)

var itemStateNames = [...]string{"succeeded", "failed", "lost", "cancelled", "queued", "running"}

func (s ItemState) String() string {
	if int(s) < len(itemStateNames) {
		return itemStateNames[s]
	}
	return fmt.Sprintf("ItemState(%d)", uint8(s))
}

// ParseItemState is the inverse of String.
func ParseItemState(name string) (ItemState, error) {
	for i, n := range itemStateNames {
		if n == name {
			return ItemState(i), nil
		}
	}
	return 0, &Error{Code: "usage", Message: fmt.Sprintf("unknown item state %q", name),
		Hint: "one of queued, running, succeeded, failed, lost, cancelled"}
}

// How says in which way an attempt ended. Its values are stored.
type How uint8

// Ways to end. An exit code belongs to HowExit, a signal to HowSignal.
const (
	HowExit      How = iota // the script exited; ExitCode says with what
	HowSignal               // a signal that Bulkhead did not send ended it
	HowTimeout              // it took longer than the run's timeout
	HowStart                // it could not be started; Error says why
	HowCancel               // Bulkhead was told to stop it
	HowLost                 // its owner died
	HowInterrupt            // its worker was told to go and ended it
)

var howNames = [...]string{"exit", "signal", "timeout", "start", "cancel", "lost", "interrupt"}

func (h How) String() string {
	if int(h) < len(howNames) {
		return howNames[h]
	}
	return fmt.Sprintf("How(%d)", uint8(h))
}

// OutputRef says where the output of one attempt is kept, see package output.
// The zero value means that it wrote nothing.
type OutputRef struct {
	Segment int64 // number of the segment within the run, from 1
	Offset  int64 // of the attempt's first record in the unsealed segment, bytes
	Length  int64 // of all its records, bytes; 0 while it runs
	Bytes   int64 // what the script wrote and was kept, bytes
	Dropped int64 // what was cut because of Spec.MaxOutput, bytes
}

// Lease is the permission to start exactly one attempt. It is durable before
// the worker gets it.
type Lease struct {
	Run     RunID
	Item    Item
	Attempt int       // from 1
	Token   uint64    // fencing token, unique within the store's life
	Slot    int       // which worker of the owner, or slot of the agent, holds it, from 0
	Worker  string    // name of the agent that holds it; "": a worker of the owner
	Process uint64    // of that agent
	Since   time.Time // when it was given
	Output  OutputRef // where the worker's next record will go: what a follower reads from
}

// Done is the result of the attempt that a lease allowed.
type Done struct {
	Lease  Lease
	Result Result
}

// Assignment is a lease with what the worker has to know while it holds it.
type Assignment struct {
	Lease Lease
	Spec  *Spec
	// Stop is closed when the attempt should end: its run was cancelled or
	// halted at once, or the lease has expired.
	Stop <-chan struct{}
}

// Result is how an attempt ended, as the worker reports it.
type Result struct {
	State      ItemState // ItemSucceeded, ItemFailed, ItemLost or ItemCancelled
	How        How
	ExitCode   int
	Signal     int
	Error      string        // for HowStart: one line
	Started    time.Time     // process start
	Duration   time.Duration // until the process and all that it started were gone
	CPU        time.Duration // user + system, of the process and the children it waited for
	PeakMemory int64         // resident, bytes; the largest single process
	Output     OutputRef
}

// Attempt is one execution of an item, as stored.
type Attempt struct {
	Run   RunID
	Item  int64
	N     int  // from 1
	Final bool // it decides the item's state; false once the item was queued again
	Result
	Worker string // name of the agent that runs it, while one does; "" otherwise
}
