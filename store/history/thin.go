package history

import (
	"fmt"

	"zombiezen.com/go/sqlite/sqlitex"
)

// How fine the history is kept: by the minute at first, then in steps, then in longer
// ones. Of what is older than all, only how it stood last is left.
const (
	minutesFor = 6 * 3600
	stepsFor   = 3 * 24 * 3600
	shortStep  = 10 * 60
	longStep   = 3600
	// At most so many frames become one at a time, and so many times after one look,
	// so that a guard that was away for long does not stop to tidy up.
	mostFrames = 256
	mostMerges = 24
)

// stepOf is in which step of time a frame is, seen from now. What is kept as it is
// has none.
func (s *Store) stepOf(at, now int64) (step int64, ok bool) {
	switch age := now - at; {
	case age <= minutesFor:
		return 0, false
	case age <= stepsFor:
		return at - at%shortStep, true
	case age <= s.keep:
		return at - at%longStep, true
	}
	return -1, true
}

// thin makes one frame of those of one step, some steps at a time.
func (s *Store) thin(now int64) error {
	for range mostMerges {
		first, last := s.crowded(now)
		if first == last {
			return s.dropOld(now)
		}
		if err := s.merge(first, last); err != nil {
			return err
		}
	}
	return nil
}

// crowded returns the positions of the frames of the first step that has more than
// one, from first to last.
func (s *Store) crowded(now int64) (first, last int) {
	for i := 1; i < len(s.frames); i++ {
		step, ok := s.stepOf(s.frames[i], now)
		if !ok {
			break
		}
		before, _ := s.stepOf(s.frames[i-1], now)
		if step != before {
			if first != last {
				return first, last
			}
			first, last = i, i
			continue
		}
		if last = i; last-first >= mostFrames {
			break
		}
	}
	if first != last {
		return first, last
	}
	return 0, 0
}

// merge makes one frame of several. What it says last of each series holds.
func (s *Store) merge(first, last int) (err error) {
	defer sqlitex.Save(s.conn)(&err)
	from, to := s.frames[first], s.frames[last]
	all := frame{}
	err = s.eachFrame(from, to, func(_ int64, data []byte) error {
		return unpack(data, func(id int64, v value) {
			if _, ok := s.last[id]; ok {
				all[id] = v
			}
		})
	})
	if err != nil {
		return err
	}
	if err := s.exec(`DELETE FROM frames WHERE at BETWEEN ? AND ?`, from, to); err != nil {
		return err
	}
	if err := s.exec(`INSERT INTO frames (at, data) VALUES (?,?)`, to, all.pack()); err != nil {
		return err
	}
	s.frames = append(s.frames[:first], s.frames[last:]...)
	return nil
}

// dropOld drops spans, series and findings that are over for longer than all is kept.
func (s *Store) dropOld(now int64) error {
	old := now - s.keep
	if old <= s.tidied+longStep {
		return nil
	}
	s.tidied = old
	for _, query := range []string{`DELETE FROM spans WHERE until < ?`, `DELETE FROM findings WHERE ended > 0 AND ended < ?`} {
		if err := s.exec(query, old); err != nil {
			return err
		}
	}
	for id, st := range s.last {
		if st.value != (value{}) || st.changed >= old {
			continue
		}
		if err := s.exec(`DELETE FROM series WHERE id = ?`, id); err != nil {
			return fmt.Errorf("drop series: %w", err)
		}
		delete(s.known, st.key)
		delete(s.last, id)
	}
	return nil
}
