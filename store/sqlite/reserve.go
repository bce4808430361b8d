package sqlite

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reserve is room on the disk that is kept for the moment in which there is no
// more: then giving it back lets the store write why nothing starts.
type Reserve struct{ Path string }

const reserveSize = 4 << 20

// Take takes up the room. It fails while the disk is full, also when the room is
// taken already: then it asks for as much again, for a moment.
func (r *Reserve) Take() error {
	f, err := os.OpenFile(r.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	err = unix.Fallocate(int(f.Fd()), 0, size, reserveSize)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil // a file system that cannot reserve
	}
	if err == nil {
		size = reserveSize
	}
	return errors.Join(err, f.Truncate(size))
}

// Give gives the room back.
func (r *Reserve) Give() { _ = os.Remove(r.Path) }
