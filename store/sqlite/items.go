package sqlite

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/chunk"
)

// Chunk returns the item with the given index and those behind it in the same
// chunk. Past the last item it returns none.
func (s *Store) Chunk(_ context.Context, run bulkhead.RunID, index int64) (items []bulkhead.Item, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		items, err = loadChunk(c, run, index)
		return err
	})
	return items, err
}

func loadChunk(c *sqlite.Conn, run bulkhead.RunID, index int64) (items []bulkhead.Item, err error) {
	stmt, err := bind(c, `SELECT first, count, data, (SELECT columns FROM runs WHERE id = ?1) FROM chunks
		WHERE run = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1`, int64(run), index)
	if err != nil {
		return nil, err
	}
	found := false
	err = each(stmt, func(stmt *sqlite.Stmt) error {
		found = true
		first, count := stmt.ColumnInt64(0), stmt.ColumnInt(1)
		if index >= first+int64(count) {
			return nil
		}
		data := make([]byte, stmt.ColumnLen(2))
		stmt.ColumnBytes(2, data)
		items, err = chunk.Decode(data, first, count, stmt.ColumnInt(3))
		if err != nil {
			return fmt.Errorf("run %d, items from %d: %w", run, first, err)
		}
		items = items[index-first:]
		return nil
	})
	if err != nil || found || index != 1 {
		return items, err
	}
	// A single script has no values and so no chunk.
	columns, err := queryInt(c, `SELECT columns FROM runs WHERE id = ?`, int64(run))
	if err == nil && columns == 0 {
		items = []bulkhead.Item{{Index: 1}}
	}
	return items, err
}

// Leases returns the live leases of a run, in item order, with their items.
func (s *Store) Leases(_ context.Context, run bulkhead.RunID) (leases []bulkhead.Lease, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		leases, err = loadLeases(c, run, 0, 1<<62)
		return err
	})
	return leases, err
}

func loadLeases(c *sqlite.Conn, run bulkhead.RunID, from, to int64) (leases []bulkhead.Lease, err error) {
	stmt, err := bind(c, `SELECT item, attempt, token, slot, (SELECT created FROM runs WHERE id = run) + since, segment, offset,
		worker, process FROM leases WHERE run = ? AND item >= ? AND item < ? ORDER BY item`, int64(run), from, to)
	if err != nil {
		return nil, err
	}
	err = each(stmt, func(stmt *sqlite.Stmt) error {
		leases = append(leases, bulkhead.Lease{
			Run: run, Item: bulkhead.Item{Index: stmt.ColumnInt64(0)}, Attempt: stmt.ColumnInt(1),
			Token: uint64(stmt.ColumnInt64(2)), Slot: stmt.ColumnInt(3), Since: fromMicros(stmt.ColumnInt64(4)),
			Output: bulkhead.OutputRef{Segment: stmt.ColumnInt64(5), Offset: stmt.ColumnInt64(6)},
			Worker: stmt.ColumnText(7), Process: uint64(stmt.ColumnInt64(8)),
		})
		return nil
	})
	return leases, err
}

// Touched returns the items from..to-1 that have a row: a lease, an attempt or
// a place among the requeued. The others were never leased.
func (s *Store) Touched(_ context.Context, run bulkhead.RunID, from, to int64) (items map[int64]bool, err error) {
	items = map[int64]bool{}
	err = s.read(func(c *sqlite.Conn) error {
		for _, table := range []string{"leases", "attempts", "requeued"} {
			stmt, err := bind(c, "SELECT item FROM "+table+" WHERE run = ? AND item >= ? AND item < ?", int64(run), from, to)
			if err != nil {
				return err
			}
			if err := each(stmt, func(stmt *sqlite.Stmt) error { items[stmt.ColumnInt64(0)] = true; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	return items, err
}

// Highest returns the highest index of an item that has a row, 0 if none has.
func (s *Store) Highest(_ context.Context, run bulkhead.RunID) (index int64, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		index, err = queryInt(c, `SELECT max(
			coalesce((SELECT max(item) FROM leases WHERE run = ?1), 0),
			coalesce((SELECT max(item) FROM attempts WHERE run = ?1), 0),
			coalesce((SELECT max(item) FROM requeued WHERE run = ?1), 0))`, int64(run))
		return err
	})
	return index, err
}

// Requeued returns up to limit items that wait for another attempt, the
// earliest due first.
func (s *Store) Requeued(_ context.Context, run bulkhead.RunID, limit int) (out []bulkhead.Requeue, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		stmt, err := bind(c, `SELECT item, attempt, due FROM requeued WHERE run = ? ORDER BY due, item LIMIT ?`, int64(run), int64(limit))
		if err != nil {
			return err
		}
		return each(stmt, func(stmt *sqlite.Stmt) error {
			out = append(out, bulkhead.Requeue{Run: run, Item: stmt.ColumnInt64(0), Attempt: stmt.ColumnInt(1), Due: fromMicros(stmt.ColumnInt64(2))})
			return nil
		})
	})
	return out, err
}

const attemptColumns = `item, n, final, state, how, code, signal, (SELECT created FROM runs WHERE id = run) + started,
	duration, cpu, memory, segment, offset, length, bytes, dropped, error`

func scanAttempt(run bulkhead.RunID, stmt *sqlite.Stmt) bulkhead.Attempt {
	return bulkhead.Attempt{
		Run: run, Item: stmt.ColumnInt64(0), N: stmt.ColumnInt(1), Final: stmt.ColumnBool(2),
		Result: bulkhead.Result{
			State: bulkhead.ItemState(stmt.ColumnInt64(3)), How: bulkhead.How(stmt.ColumnInt64(4)),
			ExitCode: stmt.ColumnInt(5), Signal: stmt.ColumnInt(6), Started: fromMicros(stmt.ColumnInt64(7)),
			Duration:   time.Duration(stmt.ColumnInt64(8)) * time.Microsecond,
			CPU:        time.Duration(stmt.ColumnInt64(9)) * time.Microsecond,
			PeakMemory: stmt.ColumnInt64(10) << 10,
			Output: bulkhead.OutputRef{Segment: stmt.ColumnInt64(11), Offset: stmt.ColumnInt64(12),
				Length: stmt.ColumnInt64(13), Bytes: stmt.ColumnInt64(14), Dropped: stmt.ColumnInt64(15)},
			Error: stmt.ColumnText(16),
		},
	}
}

// Attempts returns every attempt of one item that has ended, in order.
func (s *Store) Attempts(_ context.Context, run bulkhead.RunID, item int64) (out []bulkhead.Attempt, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		out, err = loadAttempts(c, run, item, item+1)
		return err
	})
	return out, err
}

func loadAttempts(c *sqlite.Conn, run bulkhead.RunID, from, to int64) (out []bulkhead.Attempt, err error) {
	stmt, err := bind(c, "SELECT "+attemptColumns+" FROM attempts WHERE run = ? AND item >= ? AND item < ? ORDER BY item, n",
		int64(run), from, to)
	if err != nil {
		return nil, err
	}
	err = each(stmt, func(stmt *sqlite.Stmt) error {
		out = append(out, scanAttempt(run, stmt))
		return nil
	})
	return out, err
}

// scanStep is how many items Items reads at a time. It bounds its memory and
// how long it keeps others from the store.
const scanStep = 2048

// Items calls fn for every item of a run that query asks for, in index order.
func (s *Store) Items(_ context.Context, r *bulkhead.Run, query bulkhead.ItemQuery, fn func(bulkhead.ItemStatus) error) error {
	from, to := max(query.From, 1), r.Counts.Total()+1
	if query.To > 0 {
		to = min(to, query.To+1)
	}
	for from < to {
		var page []bulkhead.ItemStatus
		var next int64
		err := s.read(func(c *sqlite.Conn) (err error) {
			if from, err = skipTo(c, r.ID, query.State, from, to); err != nil || from >= to {
				return err
			}
			page, next, err = loadPage(c, r, from, min(from+scanStep, to))
			return err
		})
		if err != nil {
			return err
		}
		if from >= to || len(page) == 0 {
			return nil
		}
		for _, it := range page {
			if query.State != nil && it.State != *query.State {
				continue
			}
			if err := fn(it); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// skipTo returns the first index from which an item may be in state. Troubled
// items have an index, and live ones few rows: a million others are not read.
func skipTo(c *sqlite.Conn, run bulkhead.RunID, state *bulkhead.ItemState, from, to int64) (int64, error) {
	if state == nil {
		return from, nil
	}
	switch *state {
	case bulkhead.ItemFailed, bulkhead.ItemLost:
		return queryInt(c, `SELECT coalesce(min(item), ?4) FROM attempts
			WHERE run = ?1 AND final = 1 AND state <> 0 AND state = ?3 AND item >= ?2`, int64(run), from, int64(*state), to)
	case bulkhead.ItemRunning:
		return queryInt(c, `SELECT coalesce(min(item), ?3) FROM leases WHERE run = ?1 AND item >= ?2`, int64(run), from, to)
	}
	return from, nil
}

// loadPage reads the items from..to-1, at most to the end of a chunk, and
// returns where the next page begins.
func loadPage(c *sqlite.Conn, r *bulkhead.Run, from, to int64) ([]bulkhead.ItemStatus, int64, error) {
	items, err := loadChunk(c, r.ID, from)
	if err != nil || len(items) == 0 {
		return nil, to, err
	}
	items = items[:min(int64(len(items)), to-from)]
	to = from + int64(len(items))
	page := make([]bulkhead.ItemStatus, len(items))
	for i, it := range items {
		page[i] = bulkhead.ItemStatus{Item: it, State: bulkhead.ItemQueued}
		if r.TailCancelled {
			page[i].State = bulkhead.ItemCancelled
		}
	}
	attempts, err := loadAttempts(c, r.ID, from, to)
	if err != nil {
		return nil, 0, err
	}
	for _, a := range attempts {
		st := &page[a.Item-from]
		st.Attempt, st.State = a, a.State
		if !a.Final {
			st.State = bulkhead.ItemQueued // unless a later attempt or a lease says otherwise
		}
	}
	leases, err := loadLeases(c, r.ID, from, to)
	if err != nil {
		return nil, 0, err
	}
	for _, l := range leases {
		st := &page[l.Item.Index-from]
		st.State = bulkhead.ItemRunning
		st.Attempt = bulkhead.Attempt{Run: r.ID, Item: l.Item.Index, N: l.Attempt, Worker: l.Worker,
			Result: bulkhead.Result{State: bulkhead.ItemRunning, Started: l.Since, Output: l.Output}}
	}
	return page, to, nil
}
