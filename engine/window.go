package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// What a run keeps in memory: the window, items that were read ahead and wait.
// A pool that is full holds back only the items that need it, and the window
// is how far ahead the engine looks for others.
const (
	windowItems = 4096
	windowBytes = 8 << 20
	// windowRequeued is how many of them may be items that wait for another attempt.
	windowRequeued = 1024
)

// canLoad reports whether chunks hold items for which the window has room.
func (r *run) canLoad() bool {
	return r.cursor <= r.total && !r.TailCancelled && r.waiting < r.window/2 && r.bytes < r.window*windowBytes/windowItems
}

// windows is how many items all runs together may hold in their windows, unless
// they are so many that each would have next to nothing.
const (
	windows    = 16 * windowItems
	leastItems = 64
)

// share is how many items the window of each run may hold.
func (e *Engine) share() int { return max(leastItems, min(windowItems, windows/max(len(e.runs), 1))) }

// refill loads items into the windows of all runs.
func (e *Engine) refill(ctx context.Context) error {
	now := e.opts.Now()
	for _, r := range e.runs {
		if r.State.Finished() {
			continue
		}
		r.prune()
		r.window = e.share()
		if !r.nextDue.IsZero() && !r.nextDue.After(now) {
			if err := e.loadRequeued(ctx, r, now); err != nil {
				return fmt.Errorf("run %d: read requeued items: %w", r.ID, err)
			}
		}
		for r.canLoad() {
			if err := e.loadChunk(ctx, r); err != nil {
				return fmt.Errorf("run %d: read items: %w", r.ID, err)
			}
		}
	}
	return nil
}

func (e *Engine) loadChunk(ctx context.Context, r *run) error {
	items, err := e.opts.Store.Chunk(ctx, r.ID, r.cursor)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return fmt.Errorf("item %d of %d is missing in the store", r.cursor, r.total)
	}
	var touched map[int64]bool
	if r.cursor <= r.touchedTo {
		touched, err = e.opts.Store.Touched(ctx, r.ID, r.cursor, items[len(items)-1].Index+1)
		if err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, it := range items {
		if r.waiting >= r.window || r.bytes >= windowBytes {
			break
		}
		r.cursor = it.Index + 1
		if !touched[it.Index] {
			r.push(detach(it), 1)
		}
	}
	return nil
}

// detach copies an item out of its chunk, which would otherwise stay in memory
// for as long as one of its items waits.
func detach(it bulkhead.Item) bulkhead.Item {
	if it.Size() == 0 {
		return it
	}
	text := strings.Join(it.Values, "")
	values := make([]string, len(it.Values))
	for i, v := range it.Values {
		values[i], text = text[:len(v)], text[len(v):]
	}
	return bulkhead.Item{Index: it.Index, Values: values}
}

// loadRequeued loads the items whose next attempt is due.
func (e *Engine) loadRequeued(ctx context.Context, r *run, now time.Time) error {
	list, err := e.opts.Store.Requeued(ctx, r.ID, len(r.requeued)+windowRequeued)
	if err != nil {
		return err
	}
	r.nextDue, r.unread = time.Time{}, false
	for _, q := range list {
		if r.requeued[q.Item] {
			continue
		}
		if q.Due.After(now) {
			// A clock that was set back must not make the item wait for the difference.
			latest := now.Add(max(bulkhead.MaxRetryDelay, r.Spec.RetryDelay) * 5 / 4)
			r.nextDue = q.Due
			if r.nextDue.After(latest) {
				r.nextDue = latest
			}
			break
		}
		if len(r.requeued) >= windowRequeued {
			r.unread = true // lease looks again when there is room
			break
		}
		it, err := e.item(ctx, r, q.Item)
		if err != nil {
			return err
		}
		e.mu.Lock()
		r.requeued[q.Item] = true
		r.push(detach(it), q.Attempt)
		e.mu.Unlock()
	}
	r.recent = nil
	return nil
}

// item reads one item. Requeued items often stand in one chunk, so the chunk
// that was read last is kept meanwhile.
func (e *Engine) item(ctx context.Context, r *run, index int64) (bulkhead.Item, error) {
	if len(r.recent) == 0 || index < r.recent[0].Index || index > r.recent[len(r.recent)-1].Index {
		items, err := e.opts.Store.Chunk(ctx, r.ID, index)
		if err != nil {
			return bulkhead.Item{}, err
		}
		if len(items) == 0 {
			return bulkhead.Item{}, fmt.Errorf("item %d is missing in the store", index)
		}
		r.recent = items
	}
	return r.recent[index-r.recent[0].Index], nil
}
