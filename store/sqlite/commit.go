package sqlite

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"bulkhead.dev/bulkhead"
)

// Commit applies a batch in one transaction. It is on disk when Commit returns
// nil; when it returns an error nothing of it happened and the same batch may
// be committed again.
func (s *Store) Commit(_ context.Context, b *bulkhead.Batch) error {
	created := make(map[bulkhead.RunID]time.Time, len(b.Runs))
	for _, r := range b.Runs {
		created[r.ID] = r.Created
	}
	return s.write(func(c *sqlite.Conn) error {
		for i := range b.Ended {
			if err := endAttempt(c, created, &b.Ended[i]); err != nil {
				return fmt.Errorf("end attempt: %w", err)
			}
		}
		if err := queueAgain(c, b); err != nil {
			return err
		}
		for i := range b.Leases {
			if err := giveLease(c, created, &b.Leases[i]); err != nil {
				return fmt.Errorf("give lease: %w", err)
			}
		}
		for _, r := range b.Runs {
			if err := updateRun(c, r); err != nil {
				return fmt.Errorf("update run: %w", err)
			}
		}
		for _, id := range b.Requests {
			if _, err := exec(c, `DELETE FROM requests WHERE id = ?`, id); err != nil {
				return fmt.Errorf("end request: %w", err)
			}
		}
		return nil
	})
}

// queueAgain queues the items that get another attempt, or that were not attempted.
func queueAgain(c *sqlite.Conn, b *bulkhead.Batch) error {
	for _, q := range b.Requeued {
		if _, err := exec(c, `INSERT INTO requeued (run, item, attempt, due) VALUES (?,?,?,?)`,
			int64(q.Run), q.Item, int64(q.Attempt), micros(q.Due)); err != nil {
			return fmt.Errorf("requeue: %w", err)
		}
	}
	for i := range b.Returned {
		if err := takeBack(c, &b.Returned[i]); err != nil {
			return fmt.Errorf("take back lease: %w", err)
		}
	}
	return nil
}

// createdOf returns when the attempt's run was created. Every batch that
// touches an attempt changes its run's counters, so the run is in the batch.
func createdOf(created map[bulkhead.RunID]time.Time, run bulkhead.RunID) (time.Time, error) {
	t, ok := created[run]
	if !ok {
		return t, fmt.Errorf("run %d is not in the batch", run)
	}
	return t, nil
}

func endAttempt(c *sqlite.Conn, created map[bulkhead.RunID]time.Time, a *bulkhead.Attempt) error {
	base, err := createdOf(created, a.Run)
	if err != nil {
		return err
	}
	n, err := exec(c, `DELETE FROM leases WHERE run = ? AND item = ? AND attempt = ?`, int64(a.Run), a.Item, int64(a.N))
	if err != nil {
		return err
	}
	// The fence: a result without a lease is from somebody whose item was given
	// away or counted as lost. Taking it would count the item twice.
	if n != 1 {
		return fmt.Errorf("run %d item %d attempt %d has no lease", a.Run, a.Item, a.N)
	}
	stmt, err := bind(c, `INSERT INTO attempts (run, item, n, final, state, how, code, signal, started, duration, cpu, memory,
		segment, offset, length, bytes, dropped, error) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		int64(a.Run), a.Item, int64(a.N), bit(a.Final), int64(a.State), int64(a.How), int64(a.ExitCode), int64(a.Signal),
		relative(base, a.Started), a.Duration.Microseconds(), a.CPU.Microseconds(), a.PeakMemory>>10,
		a.Output.Segment, a.Output.Offset, a.Output.Length, a.Output.Bytes, a.Output.Dropped)
	if err != nil {
		return err
	}
	if a.Error == "" {
		stmt.BindNull(18)
	} else {
		stmt.BindText(18, a.Error)
	}
	_, err = step(c, stmt)
	return err
}

func giveLease(c *sqlite.Conn, created map[bulkhead.RunID]time.Time, l *bulkhead.Lease) error {
	base, err := createdOf(created, l.Run)
	if err != nil {
		return err
	}
	if l.Attempt > 1 {
		if _, err := exec(c, `DELETE FROM requeued WHERE run = ? AND item = ?`, int64(l.Run), l.Item.Index); err != nil {
			return err
		}
	}
	stmt, err := bind(c, `INSERT INTO leases (run, item, attempt, token, slot, since, segment, offset, process, worker)
		VALUES (?,?,?,?,?,?,?,?,?,?)`,
		int64(l.Run), l.Item.Index, int64(l.Attempt), int64(l.Token), int64(l.Slot),
		relative(base, l.Since), l.Output.Segment, l.Output.Offset, int64(l.Process))
	if err != nil {
		return err
	}
	stmt.BindText(10, l.Worker)
	_, err = step(c, stmt)
	return err
}

// takeBack ends a lease that was not used. An item that was never leased before is
// queued by having no row.
func takeBack(c *sqlite.Conn, l *bulkhead.Lease) error {
	n, err := exec(c, `DELETE FROM leases WHERE run = ? AND item = ? AND attempt = ?`, int64(l.Run), l.Item.Index, int64(l.Attempt))
	if err != nil || l.Attempt == 1 {
		return err
	}
	if n != 1 {
		return fmt.Errorf("run %d item %d attempt %d has no lease", l.Run, l.Item.Index, l.Attempt)
	}
	_, err = exec(c, `INSERT INTO requeued (run, item, attempt, due) VALUES (?,?,?,0)`, int64(l.Run), l.Item.Index, int64(l.Attempt))
	return err
}

// Retry queues finished items of r again, carries out the request q with it and
// brings r up to date. It returns how many items were queued. A run that was
// finished runs then; one that is paused stays so, because somebody wanted to
// look at it first. The caller owns the run and holds no lease for the selected
// items.
func (s *Store) Retry(_ context.Context, r *bulkhead.Run, q bulkhead.Request, now time.Time) (moved int64, err error) {
	next := *r
	sel := q.Selection
	err = s.write(func(c *sqlite.Conn) error {
		for state, wanted := range map[bulkhead.ItemState]bool{
			bulkhead.ItemFailed: sel.Failed, bulkhead.ItemLost: sel.Lost, bulkhead.ItemCancelled: sel.Cancelled,
		} {
			if !wanted {
				continue
			}
			n, err := requeue(c, r.ID, "state = ?3", int64(state), now)
			if err != nil {
				return err
			}
			*next.Counts.Of(state) -= n
			moved += n
		}
		for _, item := range sel.Items {
			n, err := requeueItem(c, &next, item, now)
			if err != nil {
				return err
			}
			moved += n
		}
		if sel.Cancelled && next.TailCancelled {
			// What is still counted as cancelled was never leased.
			moved += next.Counts.Cancelled
			next.Counts.Cancelled, next.TailCancelled = 0, false
		}
		next.Counts.Queued += moved
		if moved > 0 {
			next.Forgiven = next.Counts
		}
		if moved > 0 && next.State != bulkhead.RunPaused {
			next.State, next.Reason, next.Finished, next.Held = bulkhead.RunRunning, "", time.Time{}, false
			next.Ending = 0
		}
		if _, err := exec(c, `DELETE FROM requests WHERE id = ?`, q.ID); err != nil {
			return err
		}
		return updateRun(c, &next)
	})
	if err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	*r = next
	return moved, nil
}

// CancelQueued ends everything of r that has not started: items that wait for
// another attempt take back the state of their last one, the others are
// cancelled. It brings r up to date and carries out the request with the given
// number, if that is not 0.
func (s *Store) CancelQueued(_ context.Context, r *bulkhead.Run, request int64) error {
	next := *r
	err := s.write(func(c *sqlite.Conn) error {
		stmt, err := bind(c, `SELECT a.state, count(*) FROM requeued q
			JOIN attempts a ON a.run = q.run AND a.item = q.item AND a.n = q.attempt - 1 WHERE q.run = ? GROUP BY a.state`, int64(r.ID))
		if err != nil {
			return err
		}
		err = each(stmt, func(stmt *sqlite.Stmt) error {
			n := stmt.ColumnInt64(1)
			next.Counts.Queued -= n
			*next.Counts.Of(bulkhead.ItemState(stmt.ColumnInt64(0))) += n
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := exec(c, `UPDATE attempts SET final = 1 WHERE run = ?1 AND (item, n) IN
			(SELECT item, attempt - 1 FROM requeued WHERE run = ?1)`, int64(r.ID)); err != nil {
			return err
		}
		if _, err := exec(c, `DELETE FROM requeued WHERE run = ?`, int64(r.ID)); err != nil {
			return err
		}
		next.Counts.Cancelled += next.Counts.Queued
		next.Counts.Queued = 0
		next.TailCancelled = true
		if _, err := exec(c, `DELETE FROM requests WHERE id = ?`, request); err != nil {
			return err
		}
		return updateRun(c, &next)
	})
	if err != nil {
		return fmt.Errorf("cancel queued items: %w", err)
	}
	*r = next
	return nil
}

func requeueItem(c *sqlite.Conn, r *bulkhead.Run, item int64, now time.Time) (int64, error) {
	// Its state first: the statement below forgets it.
	state, err := queryInt(c, `SELECT coalesce(max(state), -1) FROM attempts WHERE run = ? AND item = ? AND final = 1`, int64(r.ID), item)
	if err != nil || state < 0 {
		return 0, err
	}
	n, err := requeue(c, r.ID, "item = ?3", item, now)
	*r.Counts.Of(bulkhead.ItemState(state)) -= n
	return n, err
}

// requeue queues the finished items for which where holds (over ?3).
func requeue(c *sqlite.Conn, run bulkhead.RunID, where string, arg int64, now time.Time) (int64, error) {
	n, err := exec(c, `INSERT INTO requeued (run, item, attempt, due)
		SELECT run, item, n + 1, ?2 FROM attempts WHERE run = ?1 AND final = 1 AND `+where, int64(run), micros(now), arg)
	if err != nil || n == 0 {
		return n, err
	}
	_, err = exec(c, `UPDATE attempts SET final = 0 WHERE run = ?1 AND final = 1 AND ?2 = ?2 AND `+where, int64(run), 0, arg)
	return n, err
}
