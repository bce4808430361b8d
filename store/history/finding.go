package history

import (
	"context"
	"encoding/json"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
)

// mostFindings is how many findings that have ended are kept.
const mostFindings = 1000

// Keep writes how findings stand. One of the same ID takes the place of the other.
func (s *Store) Keep(ctx context.Context, findings []bulkhead.Finding) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	s.conn.SetInterrupt(ctx.Done())
	defer s.conn.SetInterrupt(nil)
	end, err := sqlitex.ImmediateTransaction(s.conn)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer end(&err)
	for i := range findings {
		f := &findings[i]
		data, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("keep finding %s: %w", f.ID, err)
		}
		ended := int64(0)
		if !f.Ended.IsZero() {
			ended = f.Ended.Unix()
		}
		if err := s.exec(`INSERT INTO findings (id, since, ended, data) VALUES (?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET since = excluded.since, ended = excluded.ended, data = excluded.data`,
			f.ID, f.Since.Unix(), ended, string(data)); err != nil {
			return fmt.Errorf("keep finding %s: %w", f.ID, err)
		}
	}
	return s.exec(`DELETE FROM findings WHERE id IN (SELECT id FROM findings WHERE ended > 0 ORDER BY ended DESC LIMIT -1 OFFSET ?)`, mostFindings)
}

// Findings returns those that are kept, the newest growth first: open ones only, or
// all.
func (s *Store) Findings(_ context.Context, all bool) (out []bulkhead.Finding, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if empty, err := s.empty(); empty || err != nil {
		return nil, err
	}
	err = s.rows(`SELECT data FROM findings WHERE ended = 0 OR ? ORDER BY since DESC, id`, func(r *sqlite.Stmt) error {
		var f bulkhead.Finding
		if err := json.Unmarshal([]byte(r.ColumnText(0)), &f); err != nil {
			return fmt.Errorf("read a finding: %w", err)
		}
		out = append(out, f)
		return nil
	}, all)
	return out, err
}
