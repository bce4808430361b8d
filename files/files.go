// Package files keeps the files that runs put beside their attempts, on the disk
// of a server.
//
// A file is its content: it is kept under its SHA-256, once, however many runs
// name it, and never as an object of the cluster. It comes in pieces, in order,
// into a file of its own:
//
//	DIR/HASH.part   what has come so far, each piece written out before it is confirmed
//	DIR/HASH        all of it, after its hash was found to be its name
//
// The rename between the two comes after the content is on disk, so that what has
// the final name is whole, whatever happens. A part that a crash has left is gone
// on with; if a loss of power has spoilt it, its hash says so and it is thrown
// away.
//
// The folder is bounded. What was not asked for the longest goes first, but
// nothing that an unfinished run needs, and nothing that was asked for in the last
// minutes, because somebody may be about to submit a run with it.
package files

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
)

// Options of a Store. Dir is required.
type Options struct {
	// Dir is the folder of the files, which is nobody else's. It is made.
	Dir string
	// MaxFile is the most that one file may have, in bytes. Default: 64 MiB.
	MaxFile int64
	// MaxTotal is the most that all may take together, in bytes. Default: 1 GiB.
	MaxTotal int64
	// Used reports whether an unfinished run needs a file. It must not call the
	// store. Default: none does.
	Used func(sha256 string) bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

const (
	partSuffix = ".part"
	// least is what a file takes of the total at least: a block of the disk.
	least = 4 << 10
	// protected is how long a file stays after it was last asked for.
	protected = 10 * time.Minute
	// partStays is how long a part waits for its next piece.
	partStays = time.Hour
)

// Store is a folder of files. Its methods may be called from any goroutine.
type Store struct {
	opts Options

	mu    sync.Mutex
	files map[string]*file // by hash
	total int64            // that they take
}

// file is a file, whole or in part. Store.mu guards its fields; writing also needs
// its own lock, which comes first.
type file struct {
	writing sync.Mutex
	size    int64 // bytes that are there
	whole   bool
	used    time.Time // when it was last asked for or written to
	busy    int       // who writes it or waits to
}

// cost is what the file takes of the total.
func (f *file) cost() int64 { return cost(f.size) }

func cost(size int64) int64 { return max(size, least) }

// Open opens the folder.
func Open(opts Options) (*Store, error) {
	if opts.MaxFile == 0 {
		opts.MaxFile = 64 << 20
	}
	if opts.MaxTotal == 0 {
		opts.MaxTotal = 1 << 30
	}
	if opts.Used == nil {
		opts.Used = func(string) bool { return false }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of files: %w", err)
	}
	s := &Store{opts: opts, files: map[string]*file{}}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	for _, e := range entries {
		if err := s.found(e); err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
	}
	return s, nil
}

// found takes in what is in the folder.
func (s *Store) found(e fs.DirEntry) error {
	hash, part := strings.CutSuffix(e.Name(), partSuffix)
	if ours := bulkhead.CheckFileHash(hash) == nil && e.Type().IsRegular(); !ours {
		return nil
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	if old := s.files[hash]; old != nil { // both: the crash came before the part was gone
		if part {
			return os.Remove(s.part(hash))
		}
		s.total -= old.cost()
		if err := os.Remove(s.part(hash)); err != nil {
			return err
		}
	}
	f := &file{size: info.Size(), whole: !part, used: info.ModTime()}
	s.files[hash] = f
	s.total += f.cost()
	return nil
}

func (s *Store) path(hash string) string { return filepath.Join(s.opts.Dir, hash) }
func (s *Store) part(hash string) string { return s.path(hash) + partSuffix }

// Total is what all files take, in bytes.
func (s *Store) Total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Stat says how much of a file there is, from its first byte on, and whether that
// is all of it. It counts as asking for the file.
func (s *Store) Stat(hash string) (have int64, complete bool, err error) {
	if err := bulkhead.CheckFileHash(hash); err != nil {
		return 0, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[hash]
	if f == nil {
		return 0, false, nil
	}
	s.touch(hash, f)
	return f.size, f.whole, nil
}

// touch notes that a file was asked for, on disk, too: the order in which files
// go outlives the process.
func (s *Store) touch(hash string, f *file) {
	now := s.opts.Now()
	if f.whole && now.Sub(f.used) > time.Minute {
		_ = os.Chtimes(s.path(hash), now, now) // without it the file only goes earlier
	}
	f.used = now
}

// Open opens a file that is there as a whole. Code not_found is for any other.
func (s *Store) Open(hash string) (io.ReadCloser, error) {
	if err := bulkhead.CheckFileHash(hash); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[hash]
	if f == nil || !f.whole {
		return nil, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no file %s", hash),
			Hint: "files of finished runs are removed when the room is needed; submit the run again"}
	}
	s.touch(hash, f)
	file, err := os.Open(s.path(hash))
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	return file, nil
}

// Put adds a piece to a file of size bytes, and returns how much of it there is now
// and whether that is all. A piece that does not begin there changes nothing. What
// was confirmed is on disk. When all of it is there and its hash is not its name,
// it is thrown away, with code conflict.
func (s *Store) Put(hash string, size, offset int64, data []byte) (have int64, complete bool, err error) {
	if err := s.check(hash, size, offset, data); err != nil {
		return 0, false, err
	}
	f := s.enter(hash)
	defer s.leave(hash, f)
	f.writing.Lock()
	defer f.writing.Unlock()
	s.mu.Lock()
	have, complete = f.size, f.whole
	f.used = s.opts.Now()
	if complete || offset != have {
		s.mu.Unlock()
		return have, complete, nil
	}
	err = s.makeRoom(f, have+int64(len(data)))
	s.mu.Unlock()
	if err != nil {
		return have, false, err
	}
	if err := s.write(hash, offset, data); err != nil {
		s.resize(f, have)
		return have, false, fmt.Errorf("write file: %w", err)
	}
	if have += int64(len(data)); have < size {
		return have, false, nil
	}
	return s.finish(hash, f)
}

func (s *Store) check(hash string, size, offset int64, data []byte) error {
	if err := bulkhead.CheckFileHash(hash); err != nil {
		return err
	}
	usage := func(hint, format string, args ...any) error {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	switch {
	case size < 0 || offset < 0:
		return usage("", "size %d or offset %d is less than 0", size, offset)
	case size > s.opts.MaxFile:
		return usage("keep what is large where the scripts can fetch it", "a file of %d bytes is more than %d, the most that the server takes", size, s.opts.MaxFile)
	case offset > size || int64(len(data)) > size-offset:
		return usage("", "%d bytes from byte %d on are more than the file's %d", len(data), offset, size)
	case len(data) == 0 && offset < size:
		return usage("", "a piece without bytes")
	}
	return nil
}

// enter returns the file of a hash, to be written to.
func (s *Store) enter(hash string) *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[hash]
	if f == nil {
		f = &file{}
		s.files[hash] = f
		s.total += f.cost()
	}
	f.busy++
	return f
}

// leave forgets a file of which there is nothing.
func (s *Store) leave(hash string, f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.busy--; f.busy == 0 && f.size == 0 && !f.whole {
		s.forget(hash, f)
	}
}

func (s *Store) forget(hash string, f *file) {
	delete(s.files, hash)
	s.total -= f.cost()
}

// resize notes how much of a file there is.
func (s *Store) resize(f *file, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += cost(size) - f.cost()
	f.size = size
}

// makeRoom lets a file become larger, and removes others for that. s.mu is held.
func (s *Store) makeRoom(f *file, size int64) error {
	need := cost(size) - f.cost()
	for s.total+need > s.opts.MaxTotal {
		hash, old := s.oldest()
		if old == nil {
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Hint: "wait until runs that use files have ended, or let whoever runs the server give it more",
				Message: fmt.Sprintf("there is no room for the file: %d of %d bytes are taken by files that runs need or that have just come", s.total, s.opts.MaxTotal)}
		}
		path := s.path(hash)
		if !old.whole {
			path = s.part(hash)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make room: %w", err)
		}
		s.forget(hash, old)
	}
	s.total += need
	f.size = size
	return nil
}

// oldest is the file that was not asked for the longest, of those that may go.
func (s *Store) oldest() (string, *file) {
	now := s.opts.Now()
	var idle []string
	for hash, f := range s.files {
		stays := protected
		if !f.whole {
			stays = partStays
		}
		if f.busy == 0 && now.Sub(f.used) >= stays {
			idle = append(idle, hash)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return s.files[a].used.Compare(s.files[b].used) })
	for _, hash := range idle {
		if !s.opts.Used(hash) {
			return hash, s.files[hash]
		}
	}
	return "", nil
}

// write puts a piece on disk. What an earlier write may have left behind it is
// cut off.
func (s *Store) write(hash string, offset int64, data []byte) (err error) {
	if len(data) == 0 && offset > 0 {
		return nil // all of it came before
	}
	f, err := os.OpenFile(s.part(hash), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(offset); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		return errors.Join(err, f.Truncate(offset))
	}
	return f.Sync()
}

// finish gives a file of which everything is there its name.
func (s *Store) finish(hash string, f *file) (have int64, complete bool, err error) {
	sum, err := sumOf(s.part(hash))
	if errors.Is(err, fs.ErrNotExist) {
		sum, err = sumOf(s.path(hash)) // it has its name, and that was not durable
	}
	if err != nil {
		return f.size, false, fmt.Errorf("read file: %w", err)
	}
	if sum != hash {
		err := os.Remove(s.part(hash))
		s.resize(f, 0)
		return 0, false, &bulkhead.Error{Code: bulkhead.CodeConflict, Err: err, Hint: "send it again from its beginning",
			Message: fmt.Sprintf("what was sent as file %s has the hash %s", hash, sum)}
	}
	if err := os.Rename(s.part(hash), s.path(hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.size, false, fmt.Errorf("keep file: %w", err)
	}
	if err := syncDir(s.opts.Dir); err != nil {
		return f.size, false, fmt.Errorf("keep file: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.whole, f.used = true, s.opts.Now()
	return f.size, true, nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
