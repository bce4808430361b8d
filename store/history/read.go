package history

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitemigration"

	"bulkhead.dev/bulkhead"
)

func (s *Store) migrate() error {
	if err := sqlitemigration.Migrate(context.Background(), s.conn, schema); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// load reads how the series stand, and which frames there are.
func (s *Store) load() error {
	s.known, s.last, s.frames, s.span = map[bulkhead.Key]int64{}, map[int64]state{}, nil, bulkhead.Span{}
	err := s.rows(`SELECT id, kind, namespace, family, origin, manager FROM series`, func(r *sqlite.Stmt) error {
		key := keyOf(r)
		s.known[key] = r.ColumnInt64(0)
		s.last[r.ColumnInt64(0)] = state{key: key}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	err = s.eachFrame(0, 1<<62, func(at int64, data []byte) error {
		s.frames = append(s.frames, at)
		return unpack(data, func(id int64, v value) {
			if st, ok := s.last[id]; ok {
				s.last[id] = state{value: v, key: st.key, changed: at}
			}
		})
	})
	if err != nil {
		return fmt.Errorf("read frames: %w", err)
	}
	spans, err := s.spans(0, 1<<62)
	if len(spans) > 0 {
		s.span = spans[len(spans)-1]
	}
	return err
}

// reload puts what is in memory right after a commit that failed.
func (s *Store) reload() error {
	known, last, frames, span := s.known, s.last, s.frames, s.span
	err := s.load()
	if err != nil { // then what was there is the best there is
		s.known, s.last, s.frames, s.span = known, last, frames, span
	}
	return err
}

func keyOf(r *sqlite.Stmt) bulkhead.Key {
	return bulkhead.Key{Kind: r.ColumnText(1), Namespace: r.ColumnText(2), Family: r.ColumnText(3),
		Origin: r.ColumnText(4), Manager: r.ColumnText(5)}
}

// eachFrame calls fn for the frames of a time, in order. Data is valid until fn returns.
func (s *Store) eachFrame(from, to int64, fn func(at int64, data []byte) error) error {
	var data bytes.Buffer
	return s.rows(`SELECT at, data FROM frames WHERE at BETWEEN ? AND ? ORDER BY at`, func(r *sqlite.Stmt) error {
		data.Reset()
		if _, err := io.Copy(&data, r.ColumnReader(1)); err != nil {
			return err
		}
		return fn(r.ColumnInt64(0), data.Bytes())
	}, from, to)
}

func (s *Store) spans(from, to int64) (out []bulkhead.Span, err error) {
	err = s.rows(`SELECT start, until FROM spans WHERE until >= ? AND start <= ? ORDER BY start`, func(r *sqlite.Stmt) error {
		out = append(out, bulkhead.Span{From: moment(r.ColumnInt64(0)), To: moment(r.ColumnInt64(1))})
		return nil
	}, from, to)
	return out, err
}

func moment(at int64) time.Time { return time.Unix(at, 0).UTC() }

// Series returns how each family went in a time, in the order of their keys. The
// first point of each may be before it: how it stood when the time began.
func (s *Store) Series(_ context.Context, from, to time.Time) (out []bulkhead.Series, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if empty, err := s.empty(); empty || err != nil {
		return nil, err
	}
	at := map[int64]int{}
	err = s.rows(`SELECT id, kind, namespace, family, origin, manager FROM series`, func(r *sqlite.Stmt) error {
		at[r.ColumnInt64(0)] = len(out)
		out = append(out, bulkhead.Series{Key: keyOf(r)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	err = s.eachFrame(0, to.Unix(), func(when int64, data []byte) error {
		return unpack(data, func(id int64, v value) {
			i, ok := at[id]
			if !ok {
				return
			}
			p := bulkhead.Point{At: moment(when), Objects: v.objects, Rules: v.rules, Bytes: v.bytes}
			// One point before the time is enough.
			if n := len(out[i].Points); n == 1 && when <= from.Unix() {
				out[i].Points[0] = p
			} else {
				out[i].Points = append(out[i].Points, p)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read frames: %w", err)
	}
	out = slices.DeleteFunc(out, func(s bulkhead.Series) bool { return len(s.Points) == 0 })
	slices.SortFunc(out, func(a, b bulkhead.Series) int { return compareKeys(a.Key, b.Key) })
	return out, nil
}

func compareKeys(a, b bulkhead.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Family, b.Family),
		cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Manager, b.Manager))
}

// Spans returns when somebody looked.
func (s *Store) Spans(_ context.Context, from, to time.Time) ([]bulkhead.Span, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if empty, err := s.empty(); empty || err != nil {
		return nil, err
	}
	spans, err := s.spans(from.Unix(), to.Unix())
	if err != nil {
		return nil, fmt.Errorf("read spans: %w", err)
	}
	return spans, nil
}

// empty reports whether the file has no tables yet: whoever made it has not come far.
func (s *Store) empty() (bool, error) {
	if s.conn == nil {
		return false, errors.New("the history is closed")
	}
	n := 0
	err := s.rows(`SELECT 1 FROM sqlite_schema WHERE name = 'findings'`, func(*sqlite.Stmt) error { n++; return nil })
	return n == 0, err
}
