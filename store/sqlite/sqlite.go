// Package sqlite keeps runs in one SQLite file of the state folder.
//
// The file is in WAL mode with synchronous=FULL: a commit is on disk when
// COMMIT returns, and readers never wait for the writer. Several processes may
// use it at once. Each run has one owner process (see Own); only the owner
// writes what belongs to the run, everybody else adds requests, which the
// owner carries out. So there is one writer per run and nothing to merge.
package sqlite

import (
	"context"
	_ "embed"
	"encoding/json"
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

// The schema and what has changed since, in order. A state folder has the format
// of as many of them as its user_version says.
var (
	//go:embed schema.sql
	schemaV1 string
	//go:embed schema2.sql
	schemaV2 string
	//go:embed schema3.sql
	schemaV3 string
	//go:embed schema4.sql
	schemaV4 string
	//go:embed schema5.sql
	schemaV5 string
)

// applicationID marks the file as ours ("Bulk").
const applicationID = 0x42756c6b

var schema = sqlitemigration.Schema{AppID: applicationID, Migrations: []string{schemaV1, schemaV2, schemaV3, schemaV4, schemaV5}}

// busyTimeout is how long a commit waits for another process's commit. Those
// take milliseconds; what takes longer is a fault to be told of.
const busyTimeout = 30 * time.Second

// walPages is how many pages the WAL may collect before they are copied into
// the database file. 16 MiB keeps the copying (two more syncs) rare without
// making the first reader after a crash wait.
const walPages = 4096

// Store is the state folder's database. Its methods may be called from any
// goroutine; they take turns.
type Store struct {
	dir    string
	owners *os.File // lock file, see Own
	turns  *os.File // the same file, opened for this process alone, see takeTurn

	file file // that was opened

	mu      sync.Mutex
	conn    *sqlite.Conn
	version int64 // data_version at the last Changed
}

// file tells one file from every other.
type file struct{ device, inode uint64 }

func fileAt(path string) (file, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return file{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return file{st.Dev, st.Ino}, nil
}

// Open opens the store in dir. The folder is made, readable by its owner only.
func Open(ctx context.Context, dir string) (_ *Store, err error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	s := &Store{dir: dir}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	s.owners, err = os.OpenFile(filepath.Join(dir, "owners.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	s.turns, err = os.OpenFile(s.owners.Name(), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	path := s.path()
	if err := makePrivate(path); err != nil {
		return nil, err
	}
	// No URI: a folder name may hold ? and #.
	s.conn, err = sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if s.file, err = fileAt(path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, s.explain(err))
	}
	return s, nil
}

// makeDir is os.MkdirAll for a folder that survives a loss of power together
// with what is in it: SQLite syncs the folder of its files, but not the folders
// above.
func makeDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makePrivate creates the database file for its owner only; SQLite gives its
// WAL the same mode.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return f.Close()
}

func (s *Store) prepare(ctx context.Context) error {
	s.conn.SetBusyTimeout(busyTimeout)
	if err := s.useWAL(); err != nil {
		return err
	}
	for _, pragma := range []string{
		"PRAGMA synchronous = FULL",
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", walPages),
		"PRAGMA journal_size_limit = 33554432",
		"PRAGMA cache_size = -16384", // KiB
		"PRAGMA temp_store = MEMORY",
	} {
		if err := sqlitex.ExecuteTransient(s.conn, pragma, nil); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	version, err := queryInt(s.conn, "PRAGMA user_version")
	if err != nil {
		return err
	}
	if version == int64(len(schema.Migrations)) {
		return nil
	}
	if version > int64(len(schema.Migrations)) {
		return &bulkhead.Error{Code: bulkhead.CodeConflict,
			Message: fmt.Sprintf("the state folder has format %d, this bulkhead knows up to %d", version, len(schema.Migrations)),
			Hint:    "use the newer bulkhead that wrote it, or another --state folder"}
	}
	if err := sqlitemigration.Migrate(ctx, s.conn, schema); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// useWAL takes turns at making the database what it then stays: of two
// processes that do so at once, SQLite refuses one without waiting.
func (s *Store) useWAL() error {
	mode := func(pragma string) (string, error) {
		stmt, err := s.conn.Prepare(pragma)
		if err != nil {
			return "", fmt.Errorf("%s: %w", pragma, err)
		}
		mode, err := sqlitex.ResultText(stmt)
		if err != nil {
			return "", fmt.Errorf("%s: %w", pragma, err)
		}
		return mode, stmt.Finalize()
	}
	if is, err := mode("PRAGMA journal_mode"); err != nil || is == "wal" {
		return err
	}
	defer s.takeTurn(busyTimeout)()
	is, err := mode("PRAGMA journal_mode = WAL")
	if err == nil && is != "wal" {
		err = fmt.Errorf("the file system cannot hold it: SQLite would use the journal mode %q", is)
	}
	return err
}

// Close closes the store. Ownerships end with it.
func (s *Store) Close() error {
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	for _, f := range []*os.File{s.owners, s.turns} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Dir is the state folder.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path() string { return filepath.Join(s.dir, "bulkhead.db") }

// InPlace returns an error when what stands in the state folder is not the
// database that is open: somebody has removed or replaced it, and what is
// committed from now on is in a file that nobody will find.
func (s *Store) InPlace() error {
	now, err := fileAt(s.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s was removed while it was in use: what happens from now on is kept nowhere", s.path())
	case err != nil:
		return err
	case now != s.file:
		return fmt.Errorf("%s was replaced while it was in use: what happens from now on is kept nowhere", s.path())
	}
	return nil
}

// write runs fn in a transaction that is on disk when write returns nil, and
// never happened when it returns an error.
func (s *Store) write(fn func(*sqlite.Conn) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.takeTurn(turnLimit)()
	end, err := sqlitex.ImmediateTransaction(s.conn)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer end(&err)
	return fn(s.conn)
}

func (s *Store) read(fn func(*sqlite.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fn(s.conn)
}

// explain says so when an I/O error is a full disk. SQLite calls it full only
// where it writes the database, not where it makes the index of the WAL.
func (s *Store) explain(err error) error {
	if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultIOErr {
		return err
	}
	f, ferr := os.CreateTemp(s.dir, "room-*")
	if ferr == nil {
		ferr = unix.Fallocate(int(f.Fd()), 0, 0, 64<<10) // more than the index takes
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	if errno, ok := errors.AsType[syscall.Errno](ferr); ok && (errno == syscall.ENOSPC || errno == syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", err, errno)
	}
	return err
}

// Changed reports whether another connection committed something since the
// last call. It costs microseconds and no disk access. Its error may be that of
// InPlace.
func (s *Store) Changed() (changed bool, err error) {
	if err := s.InPlace(); err != nil {
		return false, err
	}
	err = s.read(func(c *sqlite.Conn) error {
		v, err := queryInt(c, "PRAGMA data_version")
		changed, s.version = v != s.version, v
		return err
	})
	return changed, err
}

func queryInt(c *sqlite.Conn, query string, args ...int64) (int64, error) {
	stmt, err := bind(c, query, args...)
	if err != nil {
		return 0, err
	}
	v, err := sqlitex.ResultInt64(stmt)
	return v, err
}

// bind prepares query (cached by its text) and binds integers.
func bind(c *sqlite.Conn, query string, args ...int64) (*sqlite.Stmt, error) {
	stmt, err := c.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if err := stmt.Reset(); err != nil {
		return nil, err
	}
	for i, a := range args {
		stmt.BindInt64(i+1, a)
	}
	return stmt, nil
}

// exec runs a cached statement with integer arguments and returns the number
// of rows it changed.
func exec(c *sqlite.Conn, query string, args ...int64) (int64, error) {
	stmt, err := bind(c, query, args...)
	if err != nil {
		return 0, err
	}
	return step(c, stmt)
}

func step(c *sqlite.Conn, stmt *sqlite.Stmt) (int64, error) {
	if _, err := stmt.Step(); err != nil {
		_ = stmt.Reset()
		return 0, err
	}
	n := int64(c.Changes())
	return n, stmt.Reset()
}

// each calls fn for every row; fn must not use the same statement.
func each(stmt *sqlite.Stmt, fn func(*sqlite.Stmt) error) error {
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return errors.Join(err, stmt.Reset())
		}
		if err := fn(stmt); err != nil {
			return errors.Join(err, stmt.Reset())
		}
	}
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types, all of which have a JSON form
	}
	return string(b)
}
