package bulkhead

import "time"

// Batch is everything that changed since the last commit. A store applies it
// whole or not at all, and it is on disk when Commit returns. Results, leases
// and counters travel together, so that no crash can part them.
type Batch struct {
	Runs     []*Run    // new state of each changed run, counters included
	Ended    []Attempt // attempts that ended: their lease goes, their row comes
	Requeued []Requeue // items that will get another attempt
	Leases   []Lease   // given; an attempt above 1 takes its Requeue with it
	Returned []Lease   // given before, and not used: the items are as they were
	Requests []int64   // requests that were carried out
}

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool {
	return len(b.Runs)+len(b.Ended)+len(b.Requeued)+len(b.Leases)+len(b.Returned)+len(b.Requests) == 0
}

// Requeue is an item that waits for another attempt.
type Requeue struct {
	Run     RunID
	Item    int64
	Attempt int       // the one it waits for, from 1
	Due     time.Time // not before
}

// Request is what somebody asked of a run from outside its owner. It is a row,
// so that the owner finds it whenever it looks, and no process needs to reach
// another one.
type Request struct {
	ID   int64
	Run  RunID
	Kind RequestKind
	By   string    // user@host
	At   time.Time // when it was asked
	// Limit belongs to RequestLimit, Selection to RequestRetry.
	Limit     int
	Selection Selection
}

// RequestKind says what is asked. Its values are stored.
type RequestKind string

// Requests to a run.
const (
	RequestPause  RequestKind = "pause"
	RequestResume RequestKind = "resume"
	RequestCancel RequestKind = "cancel"
	RequestLimit  RequestKind = "limit"
	RequestRetry  RequestKind = "retry"
	// RequestLook asks the owner to look at the brakes, and nothing of the run.
	RequestLook RequestKind = "look"
)

// Selection says which finished items to queue again: those in one of the
// states, and those listed.
type Selection struct {
	Failed    bool    `json:"failed,omitempty"`
	Lost      bool    `json:"lost,omitempty"`
	Cancelled bool    `json:"cancelled,omitempty"`
	Items     []int64 `json:"items,omitempty"`
}

// ItemQuery says which items of a run are wanted. The zero value means all.
type ItemQuery struct {
	State    *ItemState
	From, To int64 // indices, both inclusive; 0: from the first, to the last
}

// ItemStatus is an item with what happened to it.
type ItemStatus struct {
	Item
	State   ItemState
	Attempt Attempt // the running or the last one; N is 0 when there was none
}
