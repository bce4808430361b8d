package announce

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
)

// journal is a file with a line for each start that is told and each end that has
// arrived: "start RUN" and "end RUN SECONDS" (since 1970). It is written anew when
// it has become long.
type journal struct {
	path string
	now  func() time.Time

	mu    sync.Mutex
	file  *os.File
	open  map[bulkhead.RunID]bool      // started, and their end has not arrived
	over  map[bulkhead.RunID]time.Time // whose end has arrived lately
	lines int
	err   error     // why it cannot be written
	since time.Time // last told, when it was opened; zero: it is new
}

const (
	// overlap is how far before the last entry it is looked for runs of which there
	// is none: what a server that is killed has not written down yet.
	overlap = 2 * time.Minute
	// keptOver is how long it is known that an end has arrived.
	keptOver    = 10 * time.Minute
	compactFrom = 10_000 // lines
)

func openJournal(path string, now func() time.Time) (*journal, error) {
	j := &journal{path: path, now: now, open: map[bulkhead.RunID]bool{}, over: map[bulkhead.RunID]time.Time{}}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read what was announced: %w", err)
	default:
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read what was announced: %w", err)
		}
		j.since = info.ModTime()
		j.read(text)
	}
	if err := j.compact(j.since); err != nil {
		return nil, fmt.Errorf("write what was announced: %w", err)
	}
	return j, nil
}

// read takes in a journal. A line that was cut off says nothing.
func (j *journal) read(text []byte) {
	for line := range bytes.Lines(text) {
		var id bulkhead.RunID
		var at int64
		if _, err := fmt.Sscanf(string(line), "start %d\n", &id); err == nil {
			j.open[id] = true
		} else if _, err := fmt.Sscanf(string(line), "end %d %d\n", &id, &at); err == nil {
			delete(j.open, id)
			j.over[id] = time.Unix(at, 0)
		}
	}
}

// left are the runs whose end has not arrived, and since when there may be others of
// which nothing is written; the zero time: the journal is new.
func (j *journal) left() (open []bulkhead.RunID, since time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.since.IsZero() {
		since = j.since.Add(-overlap)
	}
	return slices.Sorted(maps.Keys(j.open)), since
}

// knows reports whether something of a run is written.
func (j *journal) knows(id bulkhead.RunID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, over := j.over[id]
	return over || j.open[id]
}

func (j *journal) began(id bulkhead.RunID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open[id] = true
	delete(j.over, id)
	j.write(fmt.Sprintf("start %d\n", id))
}

func (j *journal) ended(id bulkhead.RunID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, id)
	j.over[id] = j.now()
	j.write(fmt.Sprintf("end %d %d\n", id, j.now().Unix()))
}

// write adds a line. A journal that cannot be written, on a full disk, keeps nobody
// from announcing: then the next server may tell something again.
func (j *journal) write(line string) {
	if j.file == nil {
		return
	}
	if j.lines++; j.lines > compactFrom+4*len(j.open) {
		j.err = j.compact(j.now())
		return
	}
	_, err := j.file.WriteString(line)
	j.err = cmp.Or(j.err, err)
}

// compact writes the journal anew, with what still matters at a time: when it is
// opened that is when it was last written, because from there it is looked for what
// it does not know.
func (j *journal) compact(now time.Time) error {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	for id, at := range j.over {
		if age := now.Sub(at); age > keptOver || age < -keptOver {
			delete(j.over, id)
			continue
		}
		fmt.Fprintf(w, "end %d %d\n", id, at.Unix())
	}
	for id := range j.open {
		fmt.Fprintf(w, "start %d\n", id)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	temp := j.path + ".tmp"
	if err := os.WriteFile(temp, b.Bytes(), 0o600); err != nil {
		return err
	}
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, j.path); err != nil {
		return errors.Join(err, file.Close())
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.lines = file, len(j.open)+len(j.over)
	return nil
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}
