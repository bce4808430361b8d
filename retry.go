package bulkhead

import "fmt"

// CheckRetry refuses a retry of items of r that would do nothing, or not what was
// meant; listed are those of sel.Items, each once, as they are. It returns how
// many items will be queued again, and how many of those had succeeded.
func CheckRetry(r *Run, sel Selection, listed []ItemStatus) (n, fine int64, err error) {
	wanted := map[ItemState]bool{ItemFailed: sel.Failed, ItemLost: sel.Lost, ItemCancelled: sel.Cancelled}
	for state, is := range wanted {
		if is {
			n += *r.Counts.Of(state)
		}
	}
	for _, it := range listed {
		switch {
		case it.State == ItemQueued || it.State == ItemRunning:
			return 0, 0, &Error{Code: CodeConflict, Message: fmt.Sprintf("item %d of run %d is %s", it.Index, r.ID, it.State)}
		case it.Attempt.N == 0:
			return 0, 0, &Error{Code: CodeConflict, Message: fmt.Sprintf("item %d of run %d never started", it.Index, r.ID),
				Hint: fmt.Sprintf("bulkhead retry %d --cancelled queues all that never started", r.ID)}
		case wanted[it.State]:
			continue // counted already
		case it.State == ItemSucceeded:
			fine++
		}
		n++
	}
	if n == 0 {
		c := r.Counts
		return 0, 0, &Error{Code: CodeConflict,
			Message: fmt.Sprintf("run %d has no such items: %d failed, %d lost, %d cancelled", r.ID, c.Failed, c.Lost, c.Cancelled)}
	}
	return n, fine, nil
}
