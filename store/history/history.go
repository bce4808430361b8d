// Package history keeps what the guard saw, days back, in one small SQLite file of
// the state folder. It has a file of its own, so that the engine never waits for it.
//
// A look is one row: what has changed since the one before, packed (frame.go).
// Families that stay as they are cost nothing, and one that changes at every look
// costs about six bytes each time: 2.2 kB for the six hours that are kept by the
// minute, 2.4 kB for the three days that are kept in steps of ten minutes, and 3.9 kB
// for the rest of thirty days, kept by the hour. Measured (BenchmarkAppend): 5,000
// families of which none ever stands still make a file of 10.5 MB in three days, 700
// bytes per family and day, and less from then on; if 300 of them move it is 1 MB. Which stretches of time somebody looked in is kept apart, so that
// "unchanged" and "nobody looked" are told apart.
//
// One process writes; a lock of the kernel's says which. Another one on the same
// folder only reads, and takes over once the first is gone. What cannot be written
// is an error of Append and no more: who calls it goes on with what he has in memory.
package history

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitemigration"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
)

//go:embed schema.sql
var schemaV1 string

// applicationID marks the file as a history of ours ("Bulh").
const applicationID = 0x42756c68

var schema = sqlitemigration.Schema{AppID: applicationID, Migrations: []string{schemaV1}}

// Options bound a history. The zero value is what a guard uses.
type Options struct {
	Series int           // how many are kept; default 5,000
	Keep   time.Duration // how far back; default 30 days
}

// Name is the name of the file in the state folder.
const Name = "guard.db"

// busyTimeout is how long a commit waits for a reader's housekeeping.
const busyTimeout = 5 * time.Second

// ErrOther is what Append returns while another process writes the history.
var ErrOther error = &bulkhead.Error{Code: bulkhead.CodeConflict, Message: "another guard writes this history", Hint: "one is enough for a cluster"}

// Store is a history. Its methods may be called from any goroutine.
type Store struct {
	path   string
	series int
	keep   int64 // seconds

	mu      sync.Mutex
	conn    *sqlite.Conn
	lock    *os.File // nil: opened to read
	writing bool
	file    unix.Stat_t // that was opened

	known  map[bulkhead.Key]int64
	last   map[int64]state
	frames []int64 // times of the frames, in order
	span   bulkhead.Span
	tidied int64 // when old things went last, in the time that was then the oldest
}

// state is how a series stands.
type state struct {
	value
	key     bulkhead.Key
	changed int64 // when
}

// Open opens the history at path, and makes it if it is not there; its folder must be.
// Whoever is the first to open it may write.
func Open(path string) (*Store, error) { return Options{}.Open(path) }

// Open is the function Open with bounds.
func (o Options) Open(path string) (_ *Store, err error) {
	s := o.store(path)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	s.lock, err = os.OpenFile(lockPath(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the history: %w", err)
	}
	if err := makePrivate(path); err != nil {
		return nil, err
	}
	if _, err := s.mayWrite(); err != nil {
		return nil, err
	}
	if err := s.open(sqlite.OpenReadWrite | sqlite.OpenCreate); err != nil {
		return nil, fmt.Errorf("open history %s: %w", path, err)
	}
	return s, nil
}

// Read opens the history at path to read it. The error is one of fs.ErrNotExist when
// there is none.
func Read(path string) (_ *Store, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	s := Options{}.store(path)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	// A reader of a WAL may have to make its index, which is beside the file: it
	// needs to write there, but changes nothing.
	if err := s.open(sqlite.OpenReadWrite); err != nil {
		return nil, fmt.Errorf("open history %s: %w", path, err)
	}
	return s, nil
}

func (o Options) store(path string) *Store {
	if o.Series <= 0 {
		o.Series = 5000
	}
	if o.Keep <= 0 {
		o.Keep = 30 * 24 * time.Hour
	}
	return &Store{path: path, series: o.Series, keep: int64(o.Keep / time.Second)}
}

func lockPath(path string) string { return path[:len(path)-len(filepath.Ext(path))] + ".lock" }

// makePrivate creates the file for its owner only; SQLite gives its WAL the same mode.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make history: %w", err)
	}
	return f.Close()
}

func (s *Store) open(flags sqlite.OpenFlags) (err error) {
	// No URI: a folder name may hold ? and #.
	if s.conn, err = sqlite.OpenConn(s.path, flags); err != nil {
		return err
	}
	if err := unix.Stat(s.path, &s.file); err != nil {
		return &fs.PathError{Op: "stat", Path: s.path, Err: err}
	}
	s.conn.SetBusyTimeout(busyTimeout)
	version, err := s.prepare()
	if err != nil {
		return err
	}
	if version > int64(len(schema.Migrations)) {
		return &bulkhead.Error{Code: bulkhead.CodeConflict,
			Message: fmt.Sprintf("the guard's history has format %d, this bulkhead knows up to %d", version, len(schema.Migrations)),
			Hint:    "use the newer bulkhead that wrote it, or move " + s.path + " away: the guard then begins a new one"}
	}
	if s.writing && version < int64(len(schema.Migrations)) {
		if err := s.migrate(); err != nil {
			return err
		}
	} else if version == 0 {
		return nil // a guard is about to make it
	}
	return s.load()
}

// prepare sets the connection up and returns the file's format. What is lost with
// the power is a look or two, so commits need not wait for the disk.
func (s *Store) prepare() (version int64, err error) {
	pragmas := []string{"PRAGMA synchronous = NORMAL", "PRAGMA cache_size = -2048", "PRAGMA temp_store = MEMORY"}
	if s.writing {
		pragmas = append(pragmas, "PRAGMA journal_mode = WAL", "PRAGMA journal_size_limit = 4194304")
	}
	for _, pragma := range pragmas {
		if err := sqlitex.ExecuteTransient(s.conn, pragma, nil); err != nil {
			return 0, fmt.Errorf("%s: %w", pragma, err)
		}
	}
	err = sqlitex.ExecuteTransient(s.conn, "PRAGMA user_version", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		version = stmt.ColumnInt64(0)
		return nil
	}})
	return version, err
}

// mayWrite takes the lock, if nobody has it.
func (s *Store) mayWrite() (bool, error) {
	if s.writing || s.lock == nil {
		return s.writing, nil
	}
	err := unix.FcntlFlock(s.lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock the history: %w", err)
	}
	s.writing = true
	return true, nil
}

// Writes reports whether this process is the one that writes.
func (s *Store) Writes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writing
}

// Written reports whether a process, this or another one, writes the history now.
func (s *Store) Written() bool {
	if s.Writes() {
		return true
	}
	f, err := os.Open(lockPath(s.path))
	if err != nil {
		return false
	}
	defer f.Close()
	fl := unix.Flock_t{Type: unix.F_RDLCK, Len: 1}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &fl)
	return err == nil && fl.Type != unix.F_UNLCK
}

// Close closes the history; another process may write it then.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
		s.conn = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	s.writing = false
	return errors.Join(errs...)
}

// inPlace returns an error when somebody has removed or replaced the file.
func (s *Store) inPlace() error {
	var now unix.Stat_t
	err := unix.Stat(s.path, &now)
	if err == nil && now.Dev == s.file.Dev && now.Ino == s.file.Ino {
		return nil
	}
	return fmt.Errorf("%s was removed or replaced while it was in use", s.path)
}
