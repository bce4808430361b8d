package sqlite

import (
	"context"
	"fmt"

	"zombiezen.com/go/sqlite"

	"bulkhead.dev/bulkhead"
)

const brakeColumns = `id, kind, name, factor, reason, owner, since, expires`

func scanBrake(stmt *sqlite.Stmt) bulkhead.Brake {
	return bulkhead.Brake{
		ID: stmt.ColumnInt64(0), Scope: bulkhead.Scope{Kind: bulkhead.ScopeKind(stmt.ColumnText(1)), Name: stmt.ColumnText(2)},
		Factor: stmt.ColumnFloat(3), Reason: stmt.ColumnText(4), Owner: stmt.ColumnText(5),
		Since: fromMicros(stmt.ColumnInt64(6)), Expires: fromMicros(stmt.ColumnInt64(7)),
	}
}

// Brakes returns the brakes, oldest first: at most bulkhead.MaxBrakes and those that
// have expired, for whoever looks to tell by a clock that he trusts.
func (s *Store) Brakes(_ context.Context) (out []bulkhead.Brake, err error) {
	err = s.read(func(c *sqlite.Conn) error {
		out, err = brakes(c)
		return err
	})
	return out, err
}

func brakes(c *sqlite.Conn) (out []bulkhead.Brake, err error) {
	stmt, err := bind(c, "SELECT "+brakeColumns+" FROM brakes ORDER BY id")
	if err != nil {
		return nil, err
	}
	err = each(stmt, func(stmt *sqlite.Stmt) error {
		out = append(out, scanBrake(stmt))
		return nil
	})
	return out, err
}

// AddBrake keeps a brake, which is durable then, and returns it with its number. If
// its owner has one on the same scope, that one gets the new reason, factor and end,
// and keeps its number and beginning. One that had expired at b.Since is another one.
func (s *Store) AddBrake(_ context.Context, b bulkhead.Brake) (bulkhead.Brake, error) {
	b.Since, b.Expires = fromMicros(micros(b.Since)), fromMicros(micros(b.Expires)) // as it will be read
	err := s.write(func(c *sqlite.Conn) error {
		list, err := brakes(c)
		if err != nil {
			return err
		}
		live := 0
		for _, old := range list {
			over := !old.Expires.IsZero() && !old.Expires.After(b.Since)
			same := old.Scope == b.Scope && old.Owner == b.Owner
			if same && !over {
				b.ID, b.Since = old.ID, old.Since
				return putBrake(c, b)
			}
			if !over {
				live++
			}
		}
		if live >= bulkhead.MaxBrakes {
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("there are %d brakes already", live),
				Hint: "`bulkhead brake ls` shows them; lift some, or give one with a wider scope"}
		}
		if err := dropExpired(c, list, &b); err != nil {
			return err
		}
		if err := putBrake(c, b); err != nil {
			return err
		}
		b.ID = c.LastInsertRowID()
		return nil
	})
	return b, err
}

// dropExpired makes room for a brake: the row of its scope and owner, and as many
// others as there are too many. What need not go stays, so that a clock that was wrong
// for a moment lifts nothing.
func dropExpired(c *sqlite.Conn, list []bulkhead.Brake, b *bulkhead.Brake) error {
	left := len(list)
	for _, old := range list {
		over := !old.Expires.IsZero() && !old.Expires.After(b.Since)
		same := old.Scope == b.Scope && old.Owner == b.Owner
		if over && (same || left >= bulkhead.MaxBrakes) {
			left--
			if _, err := exec(c, `DELETE FROM brakes WHERE id = ?`, old.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func putBrake(c *sqlite.Conn, b bulkhead.Brake) error {
	stmt, err := c.Prepare(`INSERT INTO brakes (` + brakeColumns + `) VALUES (?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET factor = excluded.factor, reason = excluded.reason, expires = excluded.expires`)
	if err != nil {
		return err
	}
	if stmt.BindInt64(1, b.ID); b.ID == 0 {
		stmt.BindNull(1)
	}
	stmt.BindText(2, string(b.Scope.Kind))
	stmt.BindText(3, b.Scope.Name)
	stmt.BindFloat(4, b.Factor)
	stmt.BindText(5, b.Reason)
	stmt.BindText(6, b.Owner)
	stmt.BindInt64(7, micros(b.Since))
	stmt.BindInt64(8, micros(b.Expires))
	_, err = step(c, stmt)
	return err
}

// LiftBrake removes a brake, and returns it. That is durable then.
func (s *Store) LiftBrake(_ context.Context, id int64) (b bulkhead.Brake, err error) {
	err = s.write(func(c *sqlite.Conn) error {
		stmt, err := bind(c, "SELECT "+brakeColumns+" FROM brakes WHERE id = ?", id)
		if err != nil {
			return err
		}
		err = each(stmt, func(stmt *sqlite.Stmt) error {
			b = scanBrake(stmt)
			return nil
		})
		if err != nil {
			return err
		}
		if b.ID == 0 {
			return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no brake %d", id),
				Hint: "it may have been lifted; `bulkhead brake ls` shows those that there are"}
		}
		_, err = exec(c, `DELETE FROM brakes WHERE id = ?`, id)
		return err
	})
	return b, err
}
