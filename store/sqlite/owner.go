package sqlite

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// Ownership of a run is a lock on one byte of owners.lock, at the offset of the
// run's number. It is an open file description lock: the kernel drops it when
// the last process that holds the file is gone, however it died, so a dead
// owner cannot be mistaken for a live one, and no pid or clock is involved.
// Handing the file to a child hands over the lock without a gap.

func (s *Store) lock(command int, run bulkhead.RunID, kind int16) (unix.Flock_t, error) {
	return lockByte(s.owners, command, int64(run), kind)
}

func lockByte(f *os.File, command int, offset int64, kind int16) (unix.Flock_t, error) {
	fl := unix.Flock_t{Type: kind, Whence: 0, Start: offset, Len: 1}
	err := unix.FcntlFlock(f.Fd(), command, &fl)
	return fl, err
}

const (
	turnByte = 0 // of the lock file; runs are numbered from 1
	// serverByte is beyond the number of any run.
	serverByte = 1 << 62
	turnEvery  = 500 * time.Microsecond
	// turnLimit is how long a process queues to write. That is only for fairness:
	// after it, SQLite's own lock and its timeout say what is to be done.
	turnLimit = time.Second
)

// takeTurn waits until no other process writes, and returns what ends the turn.
//
// SQLite's own wait is not fair: it sleeps up to 100 ms between two looks, and
// processes with short scripts commit every few milliseconds. Under load one
// that has slept twice never found the file free (2 items to another's 40).
func (s *Store) takeTurn(limit time.Duration) (end func()) {
	// The kernel has a wait for a lock, but none that ends after some time.
	look := time.NewTicker(turnEvery)
	defer look.Stop()
	for until := time.Now().Add(limit); ; <-look.C {
		_, err := lockByte(s.turns, unix.F_OFD_SETLK, turnByte, unix.F_WRLCK)
		if err == nil {
			return func() { _, _ = lockByte(s.turns, unix.F_OFD_SETLK, turnByte, unix.F_UNLCK) }
		}
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EACCES) || time.Now().After(until) {
			return func() {}
		}
	}
}

// Own makes this process the owner of a run. It reports false when another one is.
func (s *Store) Own(run bulkhead.RunID) (bool, error) {
	_, err := s.lock(unix.F_OFD_SETLK, run, unix.F_WRLCK)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock run %d: %w", run, err)
	}
	return true, nil
}

// Serve makes this process the server of the state folder. It reports false when
// there is another one.
func (s *Store) Serve() (bool, error) {
	_, err := lockByte(s.owners, unix.F_OFD_SETLK, serverByte, unix.F_WRLCK)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock the state folder: %w", err)
	}
	return true, nil
}

// Disown ends the ownership, for every process that shares it.
func (s *Store) Disown(run bulkhead.RunID) error {
	if _, err := s.lock(unix.F_OFD_SETLK, run, unix.F_UNLCK); err != nil {
		return fmt.Errorf("unlock run %d: %w", run, err)
	}
	return nil
}

// Owned reports whether another process owns the run.
func (s *Store) Owned(run bulkhead.RunID) (bool, error) {
	fl, err := s.lock(unix.F_OFD_GETLK, run, unix.F_WRLCK)
	if err != nil {
		return false, fmt.Errorf("look at lock of run %d: %w", run, err)
	}
	return fl.Type != unix.F_UNLCK, nil
}

// OwnerFile is the open lock file: a child that inherits it shares the
// ownerships of this process.
func (s *Store) OwnerFile() *os.File { return s.owners }

// InheritOwner makes f, inherited from a parent, the store's lock file.
func (s *Store) InheritOwner(f *os.File) error {
	old := s.owners
	s.owners = f
	return old.Close()
}
