package tell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is what one place was told of a finding last.
type entry struct {
	Alert alert     `json:"alert"`
	At    time.Time `json:"at"`
	N     int64     `json:"n"` // how many looks have seen it
}

// journal is what one place was told, by the finding's id. It is a file, so that the
// next process goes on: it is written when something has arrived, and not synced:
// after a loss of power something may be told twice.
type journal struct {
	file    string
	entries map[string]entry
	missing map[string]time.Time // since when a finding that was told has not been seen
}

// maxJournal bounds what is read of a file, in bytes: entries of alerts are bounded.
const maxJournal = 16 << 20

func openJournal(file string) (*journal, error) {
	j := &journal{file: file, entries: map[string]entry{}, missing: map[string]time.Time{}}
	if file == "" {
		return j, nil
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > maxJournal {
		return j, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read what was told: %w", err)
	}
	// A file that is damaged is one that knows nothing.
	if json.Unmarshal(text, &j.entries) != nil || j.entries == nil {
		j.entries = map[string]entry{}
	}
	return j, nil
}

// write replaces the file.
func (j *journal) write() error {
	if j.file == "" {
		return nil
	}
	text, err := json.Marshal(j.entries)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(j.file), ".told-*")
	if err != nil {
		return fmt.Errorf("note what was told: %w", err)
	}
	_, err = next.Write(text)
	if cerr := next.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(next.Name(), j.file)
	}
	if err != nil {
		_ = os.Remove(next.Name())
		return fmt.Errorf("note what was told: %w", err)
	}
	return nil
}

// news is what a note says of a finding.
type news string

// What is told. A finding that has ended is told once.
const (
	opened news = "opened"
	worse  news = "worse" // or less bad: its severity has changed
	still  news = "still" // it was told long ago, and is still there
	ended  news = "ended"
)

// note is one thing to tell.
type note struct {
	alert
	news news
	n    int64 // looks that have seen it, for a series
}

const (
	// absentFor is how long a finding may be missing from what is found before it is
	// taken for ended: a guard that has just begun has not found everything yet.
	absentFor = 15 * time.Minute
	// endedFor is how long the journal remembers what was told as ended.
	endedFor = 24 * time.Hour
)

// due are the notes that the alerts ask for, in their order. What goes on is told
// again after repeat.
func (j *journal) due(alerts []alert, now time.Time, repeat time.Duration) []note {
	var notes []note
	seen := make(map[string]bool, len(alerts))
	for _, a := range alerts {
		seen[a.ID] = true
		delete(j.missing, a.ID)
		last, told := j.entries[a.ID]
		n := note{alert: a, n: last.N}
		switch open := a.Ended.IsZero(); {
		case !open && (!told || !last.Alert.Ended.IsZero()):
			continue // nobody has heard of it, or everybody of its end
		case !open:
			n.news = ended
		case !told || !last.Alert.Ended.IsZero():
			n.news = opened
		case last.Alert.Severity != a.Severity:
			n.news = worse
		case now.Sub(last.At) >= repeat || now.Before(last.At): // a clock was set back
			n.news = still
		default:
			continue
		}
		notes = append(notes, n)
	}
	return append(notes, j.absent(seen, now)...)
}

// absent are the ends of findings that nothing is said of any more.
func (j *journal) absent(seen map[string]bool, now time.Time) []note {
	var notes []note
	for id, e := range j.entries {
		switch {
		case seen[id]:
			continue
		case !e.Alert.Ended.IsZero():
			if age := now.Sub(e.At); age > endedFor {
				delete(j.entries, id)
			}
			continue
		}
		since, known := j.missing[id]
		if !known || now.Before(since) {
			j.missing[id] = now
			continue
		}
		if now.Sub(since) >= absentFor {
			a := e.Alert
			a.Ended = now.UTC()
			notes = append(notes, note{alert: a, news: ended, n: e.N})
		}
	}
	slices.SortFunc(notes, func(a, b note) int { return strings.Compare(a.ID, b.ID) })
	return notes
}

// arrived notes that a place has got something.
func (j *journal) arrived(notes []note, now time.Time) error {
	if len(notes) == 0 {
		return nil
	}
	for _, n := range notes {
		j.entries[n.ID] = entry{Alert: n.alert, At: now, N: n.n + 1}
		delete(j.missing, n.ID)
	}
	return j.write()
}
