package bulkhead

import (
	"errors"
	"time"
)

// Ask is what a worker says when it has nothing to do.
type Ask struct {
	// Agent is who asks; the zero value is a worker of this process.
	Agent Agent
	Slot  int
	// Output is where a worker of this process will write what its next script
	// says. That of an agent's is decided when it gets a lease.
	Output OutputRef
	Done   *Done // of the attempt that it had; nil: none
	// Leaving: it hands in a result and wants no lease.
	Leaving bool
	// Until is when to answer without a lease; zero: never.
	Until time.Time
}

// What a worker gets instead of a lease.
var (
	// ErrClosed: there will be no more work.
	ErrClosed = errors.New("engine is closed")
	// ErrLeave: it is not wanted any more. Its result is durable.
	ErrLeave = errors.New("this worker is not wanted any more")
	// ErrReplaced: the same slot has asked again, and whoever asked before does not
	// listen any more.
	ErrReplaced = errors.New("the slot has asked again")
	// ErrFormer: a later process of the same name has come.
	ErrFormer = errors.New("another process has taken the name of this agent")
	// ErrCrowded: there is no room for another agent of its class.
	ErrCrowded = errors.New("the server keeps track of no more")
)

// Held is a lease as the agent names it that holds it.
type Held struct {
	Run   RunID
	Item  int64
	Token uint64
}

// Renewal is what an agent is to know of its leases.
type Renewal struct {
	Stop  []uint64 // tokens of what it should end: cancelled, or not its own any more
	Leave bool     // finish what runs, and end
	// News is closed when another renewal would say something else.
	News <-chan struct{}
}

// AgentStatus is how an agent stands.
type AgentStatus struct {
	Agent
	Busy    int       // slots that hold a lease
	Since   time.Time // when its process was first heard of
	Seen    time.Time // when it was last
	Retired bool      // it was asked to end
}
