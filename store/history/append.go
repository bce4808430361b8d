package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
)

const (
	// gap is how long nobody may look before it counts as not known what was.
	gap = 5 * 60
	// rewind is how far the clock may go back before what came after is wrong rather
	// than early.
	rewind = 10 * 60
)

// change is what one look does to the history. It is applied to what is in memory
// only when it is on disk.
type change struct {
	at      int64
	rewound bool // what is after at goes
	frame   frame
	added   map[bulkhead.Key]int64
	dropped []int64
	span    bulkhead.Span
}

// Append adds a look. Families that it lacks, of kinds that it counts exactly or does
// not know any more, have none left; of other kinds nothing is known. A look that is
// not after the last one is left out; if the clock went back by more than some
// minutes, what was kept with a later time goes instead.
func (s *Store) Append(ctx context.Context, census bulkhead.Census) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	c := change{at: census.At.Unix(), frame: frame{}, added: map[bulkhead.Key]int64{}}
	if until := s.span.To; !until.IsZero() && c.at <= until.Unix() {
		if c.at > until.Unix()-rewind {
			return nil
		}
		c.rewound = true
	}
	s.conn.SetInterrupt(ctx.Done())
	defer s.conn.SetInterrupt(nil)
	end, err := sqlitex.ImmediateTransaction(s.conn)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	written := func() (err error) {
		defer end(&err)
		if c.rewound {
			if err := s.forgetAfter(c.at); err != nil {
				return err
			}
		}
		s.compare(&c, census)
		return s.write(&c)
	}()
	if written != nil {
		return fmt.Errorf("write history: %w", cmp.Or(written, s.reload()))
	}
	s.apply(&c)
	// A clock that has just jumped may jump back: it makes nothing coarser for a while.
	if s.span.To.Sub(s.span.From) < rewind*time.Second {
		return nil
	}
	if err := s.thin(c.at); err != nil {
		return fmt.Errorf("thin out history: %w", err)
	}
	return nil
}

// ready makes sure that this process writes, and the file is the one that is open.
func (s *Store) ready() error {
	if s.conn == nil {
		return fmt.Errorf("the history is closed")
	}
	if err := s.inPlace(); err != nil {
		return err
	}
	if s.writing {
		return nil
	}
	mine, err := s.mayWrite()
	if err != nil {
		return err
	}
	if !mine {
		return ErrOther
	}
	// Whoever wrote it is gone.
	if _, err := s.prepare(); err != nil {
		return err
	}
	if err := s.migrate(); err != nil {
		return err
	}
	return s.load()
}

// compare finds out what has changed.
func (s *Store) compare(c *change, census bulkhead.Census) {
	exact := map[string]bool{}
	for _, k := range census.Kinds {
		exact[k.Kind] = k.Exact
	}
	seen := make(map[int64]bool, len(census.Tallies))
	var fresh []bulkhead.Tally
	for i := range census.Tallies {
		t := &census.Tallies[i]
		id, ok := s.known[t.Key]
		if !ok {
			if t.Objects > 0 && fits(t.Key) {
				fresh = append(fresh, *t)
			}
			continue
		}
		seen[id] = true
		if v := (value{t.Objects, t.Rules, t.Bytes}); s.last[id].value != v {
			c.frame[id] = v
		}
	}
	for id, st := range s.last {
		if is, listed := exact[st.key.Kind]; !seen[id] && st.value != (value{}) && (is || !listed) {
			c.frame[id] = value{}
		}
	}
	s.admit(c, fresh)
}

// longest is how long a part of a key may be. Kubernetes has none that are longer.
const longest = 1024

func fits(k bulkhead.Key) bool {
	return max(len(k.Kind), len(k.Namespace), len(k.Family), len(k.Origin), len(k.Manager)) <= longest
}

// admit gives new families a series each. When there is no more room, they take that
// of families that are gone, and then of those that have not changed for longest; but
// a half of the room is for the largest, and a family that is not twice as large as
// the one it would replace has to wait, so that small ones do not take turns.
func (s *Store) admit(c *change, fresh []bulkhead.Tally) {
	slices.SortFunc(fresh, func(a, b bulkhead.Tally) int {
		return cmp.Or(cmp.Compare(b.Objects, a.Objects), cmp.Compare(fmt.Sprint(a.Key), fmt.Sprint(b.Key)))
	})
	room := s.series - len(s.last)
	var victims []int64
	if room < len(fresh) {
		victims = s.victims(c)
	}
	number := -int64(1) // the database gives the real ones
	for i := range fresh {
		t := &fresh[i]
		if room > 0 {
			room--
		} else {
			for len(victims) > 0 && s.last[victims[0]].objects > 0 && 2*s.last[victims[0]].objects > t.Objects {
				victims = victims[1:]
			}
			if len(victims) == 0 {
				return
			}
			c.dropped = append(c.dropped, victims[0])
			delete(c.frame, victims[0])
			victims = victims[1:]
		}
		c.added[t.Key] = number
		c.frame[number] = value{t.Objects, t.Rules, t.Bytes}
		number--
	}
}

// victims are series that may go, the first ones first.
func (s *Store) victims(c *change) []int64 {
	all := slices.Collect(maps.Keys(s.last))
	slices.SortFunc(all, func(a, b int64) int {
		return cmp.Or(cmp.Compare(s.last[a].objects, s.last[b].objects), cmp.Compare(a, b))
	})
	all = all[:(len(all)+1)/2]
	changed := func(id int64) int64 {
		if _, now := c.frame[id]; now {
			return c.at
		}
		return s.last[id].changed
	}
	gone := func(id int64) int {
		if s.last[id].objects == 0 {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b int64) int {
		return cmp.Or(cmp.Compare(gone(a), gone(b)), cmp.Compare(changed(a), changed(b)))
	})
	return all
}

func (s *Store) write(c *change) error {
	for _, id := range c.dropped {
		if err := s.exec(`DELETE FROM series WHERE id = ?`, id); err != nil {
			return err
		}
	}
	for key, number := range c.added {
		if err := s.exec(`INSERT INTO series (kind, namespace, family, origin, manager) VALUES (?,?,?,?,?)`,
			key.Kind, key.Namespace, key.Family, key.Origin, key.Manager); err != nil {
			return err
		}
		id := s.conn.LastInsertRowID()
		c.added[key] = id
		c.frame[id] = c.frame[number]
		delete(c.frame, number)
	}
	if len(c.frame) > 0 {
		if err := s.exec(`INSERT INTO frames (at, data) VALUES (?,?)`, c.at, c.frame.pack()); err != nil {
			return err
		}
	}
	now := time.Unix(c.at, 0).UTC()
	c.span = bulkhead.Span{From: now, To: now}
	if !s.span.To.IsZero() && !c.rewound && c.at-s.span.To.Unix() <= gap {
		c.span.From = s.span.From
	}
	return s.exec(`INSERT INTO spans (start, until) VALUES (?,?) ON CONFLICT (start) DO UPDATE SET until = excluded.until`,
		c.span.From.Unix(), c.at)
}

func (s *Store) apply(c *change) {
	for _, id := range c.dropped {
		delete(s.known, s.last[id].key)
		delete(s.last, id)
	}
	for key, id := range c.added {
		s.known[key] = id
		s.last[id] = state{key: key}
	}
	for id, v := range c.frame {
		s.last[id] = state{value: v, key: s.last[id].key, changed: c.at}
	}
	if len(c.frame) > 0 {
		s.frames = append(s.frames, c.at)
	}
	s.span = c.span
}

// forgetAfter drops what has a later time than at, or the same.
func (s *Store) forgetAfter(at int64) error {
	for _, query := range []string{`DELETE FROM frames WHERE at >= ?`, `DELETE FROM spans WHERE start >= ?`,
		`UPDATE spans SET until = ?1 - 1 WHERE until >= ?1`} {
		if err := s.exec(query, at); err != nil {
			return err
		}
	}
	return s.load()
}

// exec runs a cached statement.
func (s *Store) exec(query string, args ...any) error {
	return sqlitex.Execute(s.conn, query, &sqlitex.ExecOptions{Args: args})
}

// rows calls fn for each row of a query.
func (s *Store) rows(query string, fn func(*sqlite.Stmt) error, args ...any) error {
	return sqlitex.Execute(s.conn, query, &sqlitex.ExecOptions{Args: args, ResultFunc: fn})
}
