package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"zombiezen.com/go/sqlite"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/chunk"
)

// Create stores a new run that accepts items, gives it its ID and makes this
// process its owner.
func (s *Store) Create(_ context.Context, r *bulkhead.Run) error {
	return s.insert(r, func(_ *sqlite.Conn, next *bulkhead.Run) error {
		next.State = bulkhead.RunAccepting
		return nil
	})
}

// Submit is Create, Append and Accept in one transaction, for an input of which
// all items are at hand.
func (s *Store) Submit(_ context.Context, r *bulkhead.Run, items []bulkhead.Item, total int64, hash string) error {
	return s.insert(r, func(c *sqlite.Conn, next *bulkhead.Run) error {
		next.State, next.Hash = bulkhead.RunRunning, hash
		next.Counts = bulkhead.Counts{Queued: total}
		if len(r.Spec.Columns) == 0 {
			return nil
		}
		return appendItems(c, next.ID, items)
	})
}

// insert stores a new run, with what fill adds to it. It is owned before others
// can see it.
func (s *Store) insert(r *bulkhead.Run, fill func(*sqlite.Conn, *bulkhead.Run) error) error {
	next := *r
	next.Limit, next.Next = r.Spec.Limit, 1
	err := s.write(func(c *sqlite.Conn) error {
		stmt, err := c.Prepare(`INSERT INTO runs (spec, columns, state, created, item_limit, key) VALUES (?,?,0,?,0,?)`)
		if err != nil {
			return err
		}
		stmt.BindText(1, toJSON(r.Spec))
		stmt.BindInt64(2, int64(len(r.Spec.Columns)))
		stmt.BindInt64(3, micros(r.Created))
		if stmt.BindText(4, r.Key); r.Key == "" {
			stmt.BindNull(4)
		}
		if _, err := step(c, stmt); err != nil {
			return err
		}
		next.ID = bulkhead.RunID(c.LastInsertRowID())
		if own, err := s.Own(next.ID); err != nil || !own {
			return errors.Join(err, fmt.Errorf("new run %d is owned already", next.ID))
		}
		if err := fill(c, &next); err != nil {
			return err
		}
		return updateRun(c, &next)
	})
	if err != nil {
		if next.ID != 0 {
			err = errors.Join(err, s.Disown(next.ID))
		}
		return err
	}
	*r = next
	return nil
}

// Append adds the next items of a run that accepts, cut into chunks. They count
// only once Accept was called.
func (s *Store) Append(_ context.Context, run bulkhead.RunID, items []bulkhead.Item) error {
	return s.write(func(c *sqlite.Conn) error { return appendItems(c, run, items) })
}

func appendItems(c *sqlite.Conn, run bulkhead.RunID, items []bulkhead.Item) error {
	stmt, err := c.Prepare(`INSERT INTO chunks (run, first, count, data) VALUES (?,?,?,?)`)
	if err != nil {
		return err
	}
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && n < chunk.MaxItems && (n == 0 || size+items[n].Size() <= chunk.MaxBytes) {
			size += items[n].Size()
			n++
		}
		stmt.BindInt64(1, int64(run))
		stmt.BindInt64(2, items[0].Index)
		stmt.BindInt64(3, int64(n))
		stmt.BindBytes(4, chunk.Encode(items[:n]))
		if _, err := step(c, stmt); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// Accept ends accepting: rest is appended and all items are queued, at once.
// The run is the user's from the moment this returns.
func (s *Store) Accept(_ context.Context, r *bulkhead.Run, rest []bulkhead.Item, total int64, hash string) error {
	next := *r
	next.State, next.Hash, next.Reason = bulkhead.RunRunning, hash, ""
	next.Counts = bulkhead.Counts{Queued: total}
	err := s.write(func(c *sqlite.Conn) error {
		if len(r.Spec.Columns) > 0 {
			if err := appendItems(c, r.ID, rest); err != nil {
				return err
			}
		}
		return updateRun(c, &next)
	})
	if err == nil {
		*r = next
	}
	return err
}

// Accepted calls fn for the items appended so far, in order.
func (s *Store) Accepted(ctx context.Context, run bulkhead.RunID, fn func(bulkhead.Item)) error {
	for next := int64(1); ; {
		items, err := s.Chunk(ctx, run, next)
		if err != nil || len(items) == 0 {
			return err
		}
		for _, it := range items {
			fn(it)
		}
		next = items[len(items)-1].Index + 1
	}
}

// Delete removes a run and all its rows. Its output is not the store's.
func (s *Store) Delete(_ context.Context, run bulkhead.RunID) error {
	return s.write(func(c *sqlite.Conn) error {
		for _, table := range []string{"chunks", "leases", "attempts", "requeued", "requests"} {
			if _, err := exec(c, "DELETE FROM "+table+" WHERE run = ?", int64(run)); err != nil {
				return fmt.Errorf("delete %s: %w", table, err)
			}
		}
		_, err := exec(c, "DELETE FROM runs WHERE id = ?", int64(run))
		return err
	})
}

const runColumns = `id, spec, state, held, reason, queued, running, succeeded, failed, lost, cancelled,
	hash, created, started, finished, exit_code, item_limit, next, tail_cancelled, mark, ending, canary_done,
	forgiven_succeeded, forgiven_failed, forgiven_lost, coalesce(key, '')`

func scanRun(stmt *sqlite.Stmt) (*bulkhead.Run, error) {
	r := &bulkhead.Run{
		ID:     bulkhead.RunID(stmt.ColumnInt64(0)),
		State:  bulkhead.RunState(stmt.ColumnInt64(2)),
		Held:   stmt.ColumnBool(3),
		Reason: stmt.ColumnText(4),
		Counts: bulkhead.Counts{
			Queued: stmt.ColumnInt64(5), Running: stmt.ColumnInt64(6), Succeeded: stmt.ColumnInt64(7),
			Failed: stmt.ColumnInt64(8), Lost: stmt.ColumnInt64(9), Cancelled: stmt.ColumnInt64(10),
		},
		Hash:    stmt.ColumnText(11),
		Created: fromMicros(stmt.ColumnInt64(12)), Started: fromMicros(stmt.ColumnInt64(13)),
		Finished: fromMicros(stmt.ColumnInt64(14)),
		ExitCode: stmt.ColumnInt(15), Limit: stmt.ColumnInt(16), Next: stmt.ColumnInt64(17),
		TailCancelled: stmt.ColumnBool(18), Mark: uint64(stmt.ColumnInt64(19)),
		Ending: bulkhead.RunState(stmt.ColumnInt64(20)), CanaryDone: stmt.ColumnBool(21),
		Forgiven: bulkhead.Counts{Succeeded: stmt.ColumnInt64(22), Failed: stmt.ColumnInt64(23), Lost: stmt.ColumnInt64(24)},
		Key:      stmt.ColumnText(25),
	}
	if err := json.Unmarshal([]byte(stmt.ColumnText(1)), &r.Spec); err != nil {
		return nil, fmt.Errorf("run %d: read spec: %w", r.ID, err)
	}
	return r, nil
}

// Run returns one run.
func (s *Store) Run(_ context.Context, id bulkhead.RunID) (r *bulkhead.Run, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		r, err = loadRun(c, id)
		return err
	})
	return r, err
}

func loadRun(c *sqlite.Conn, id bulkhead.RunID) (r *bulkhead.Run, err error) {
	stmt, err := bind(c, "SELECT "+runColumns+" FROM runs WHERE id = ?", int64(id))
	if err != nil {
		return nil, err
	}
	err = each(stmt, func(stmt *sqlite.Stmt) (err error) {
		r, err = scanRun(stmt)
		return err
	})
	if err == nil && r == nil {
		err = &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no run %d", id),
			Hint: "bulkhead ls shows the runs that there are"}
	}
	return r, err
}

// Runs returns up to limit runs, newest first; limit 0 means all.
func (s *Store) Runs(ctx context.Context, limit int) (runs []*bulkhead.Run, err error) {
	return s.RunsBefore(ctx, 0, limit)
}

// RunsBefore is Runs for those with a lower number than before; 0 is any.
func (s *Store) RunsBefore(_ context.Context, before bulkhead.RunID, limit int) (runs []*bulkhead.Run, err error) {
	if limit <= 0 {
		limit = -1 // SQLite's "no limit"
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, "SELECT "+runColumns+" FROM runs WHERE id < ? ORDER BY id DESC LIMIT ?", int64(before), int64(limit))
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			r, err := scanRun(stmt)
			runs = append(runs, r)
			return err
		})
	})
	return runs, err
}

// Recent returns the runs of a query, newest first. It looks at those alone: how
// many others there are costs nothing.
func (s *Store) Recent(ctx context.Context, q bulkhead.RunQuery) (runs []*bulkhead.Run, err error) {
	if !q.Unfinished && q.FinishedAfter.IsZero() {
		return s.RunsBefore(ctx, q.Before, q.Limit)
	}
	// The conditions are those of the indexes, so that SQLite uses them.
	const unfinished, finished = "SELECT id FROM runs WHERE ?3 AND state IN (1, 2, 3)",
		"SELECT id FROM runs WHERE finished > 0 AND finished > ?4"
	after, before, limit := int64(math.MaxInt64), int64(math.MaxInt64), int64(-1)
	if !q.FinishedAfter.IsZero() {
		after = micros(q.FinishedAfter)
	}
	if q.Before > 0 {
		before = int64(q.Before)
	}
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, "SELECT "+runColumns+" FROM runs WHERE id < ?1 AND id IN ("+unfinished+" UNION ALL "+finished+") ORDER BY id DESC LIMIT ?2",
			before, limit, bit(q.Unfinished), after)
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			r, err := scanRun(stmt)
			runs = append(runs, r)
			return err
		})
	})
	return runs, err
}

// ByKey returns the run that was submitted with that key; nil: there is none.
func (s *Store) ByKey(_ context.Context, key string) (r *bulkhead.Run, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := c.Prepare("SELECT " + runColumns + " FROM runs WHERE key = ?")
		if err != nil {
			return err
		}
		stmt.BindText(1, key)
		return each(stmt, func(stmt *sqlite.Stmt) (err error) {
			r, err = scanRun(stmt)
			return err
		})
	})
	return r, err
}

// Unfinished returns the runs that are not over, oldest first.
func (s *Store) Unfinished(_ context.Context) (runs []*bulkhead.Run, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, "SELECT "+runColumns+" FROM runs WHERE state IN (1, 2, 3) ORDER BY id")
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			r, err := scanRun(stmt)
			runs = append(runs, r)
			return err
		})
	})
	return runs, err
}

// Requested returns the runs of which something is asked that is not carried out.
func (s *Store) Requested(_ context.Context) (runs []bulkhead.RunID, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, `SELECT DISTINCT run FROM requests ORDER BY run LIMIT 1000`)
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			runs = append(runs, bulkhead.RunID(stmt.ColumnInt64(0)))
			return nil
		})
	})
	return runs, err
}

func updateRun(c *sqlite.Conn, r *bulkhead.Run) error {
	stmt, err := c.Prepare(`UPDATE runs SET state=?, held=?, reason=?, queued=?, running=?, succeeded=?, failed=?,
		lost=?, cancelled=?, hash=?, started=?, finished=?, exit_code=?, item_limit=?, next=?, tail_cancelled=?, mark=?, ending=?, canary_done=?,
		forgiven_succeeded=?, forgiven_failed=?, forgiven_lost=?
		WHERE id=?`)
	if err != nil {
		return err
	}
	for i, v := range []int64{
		int64(r.State), bit(r.Held), 0, r.Counts.Queued, r.Counts.Running, r.Counts.Succeeded, r.Counts.Failed,
		r.Counts.Lost, r.Counts.Cancelled, 0, micros(r.Started), micros(r.Finished), int64(r.ExitCode), int64(r.Limit),
		r.Next, bit(r.TailCancelled), int64(r.Mark), int64(r.Ending), bit(r.CanaryDone),
		r.Forgiven.Succeeded, r.Forgiven.Failed, r.Forgiven.Lost, int64(r.ID),
	} {
		stmt.BindInt64(i+1, v)
	}
	stmt.BindText(3, r.Reason)
	stmt.BindText(10, r.Hash)
	n, err := step(c, stmt)
	if err == nil && n != 1 {
		err = fmt.Errorf("run %d is gone from the store", r.ID)
	}
	return err
}

// Ask adds a request to a run and returns its number. It is durable, and waits
// for the run's owner.
func (s *Store) Ask(_ context.Context, q bulkhead.Request) (id int64, err error) {
	err = s.write(func(c *sqlite.Conn) error {
		if _, err := loadRun(c, q.Run); err != nil {
			return err
		}
		stmt, err := c.Prepare(`INSERT INTO requests (run, kind, by, at, item_limit, selection) VALUES (?,?,?,?,?,?)`)
		if err != nil {
			return err
		}
		stmt.BindInt64(1, int64(q.Run))
		stmt.BindText(2, string(q.Kind))
		stmt.BindText(3, q.By)
		stmt.BindInt64(4, micros(q.At))
		stmt.BindInt64(5, int64(q.Limit))
		stmt.BindText(6, toJSON(q.Selection))
		_, err = step(c, stmt)
		id = c.LastInsertRowID()
		return err
	})
	return id, err
}

// Requests returns what is asked of a run and not yet carried out, oldest first.
func (s *Store) Requests(_ context.Context, run bulkhead.RunID) (out []bulkhead.Request, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, `SELECT id, kind, by, at, item_limit, selection FROM requests WHERE run = ? ORDER BY id LIMIT 100`, int64(run))
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			q := bulkhead.Request{ID: stmt.ColumnInt64(0), Run: run, Kind: bulkhead.RequestKind(stmt.ColumnText(1)),
				By: stmt.ColumnText(2), At: fromMicros(stmt.ColumnInt64(3)), Limit: stmt.ColumnInt(4)}
			if err := json.Unmarshal([]byte(stmt.ColumnText(5)), &q.Selection); err != nil {
				return fmt.Errorf("request %d: %w", q.ID, err)
			}
			out = append(out, q)
			return nil
		})
	})
	return out, err
}

// Pending reports whether a request still waits to be carried out.
func (s *Store) Pending(_ context.Context, id int64) (pending bool, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		n, err := queryInt(c, `SELECT count(*) FROM requests WHERE id = ?`, id)
		pending = n > 0
		return err
	})
	return pending, err
}

// Withdraw takes back a request that nobody carried out.
func (s *Store) Withdraw(_ context.Context, id int64) error {
	return s.write(func(c *sqlite.Conn) error {
		_, err := exec(c, `DELETE FROM requests WHERE id = ?`, id)
		return err
	})
}

func relative(created, t time.Time) int64 { return t.Sub(created).Microseconds() }
