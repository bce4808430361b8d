package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Names in a run's folder: 7.seg is segment 7 as it is written, 7.seg.zst is
// the sealed one, 7.seg.tmp is on its way there.
const (
	rawSuffix    = ".seg"
	sealedSuffix = ".seg.zst"
	tempSuffix   = ".seg.tmp"
)

func rawPath(dir string, n int64) string    { return segmentPath(dir, n, rawSuffix) }
func sealedPath(dir string, n int64) string { return segmentPath(dir, n, sealedSuffix) }
func tempPath(dir string, n int64) string   { return segmentPath(dir, n, tempSuffix) }

func segmentPath(dir string, n int64, suffix string) string {
	return filepath.Join(dir, strconv.FormatInt(n, 10)+suffix)
}

// listing is what a run's folder holds, as segment numbers in ascending order.
type listing struct {
	raw, sealed, temp []int64
}

// list reads the folder. One that does not exist is empty: nothing was written.
func list(dir string) (listing, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return listing{}, nil
	}
	if err != nil {
		return listing{}, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return listing{}, err
	}
	var l listing
	for _, name := range names {
		number, suffix, _ := strings.Cut(name, ".")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 {
			continue
		}
		switch "." + suffix {
		case rawSuffix:
			l.raw = append(l.raw, n)
		case sealedSuffix:
			l.sealed = append(l.sealed, n)
		case tempSuffix:
			l.temp = append(l.temp, n)
		}
	}
	slices.Sort(l.raw)
	slices.Sort(l.sealed)
	slices.Sort(l.temp)
	return l, nil
}

// last is the highest number in use, 0 if there is none.
func (l listing) last() int64 {
	n := int64(0)
	for _, s := range [][]int64{l.raw, l.sealed, l.temp} {
		if len(s) > 0 {
			n = max(n, s[len(s)-1])
		}
	}
	return n
}

// isSealed reports whether segment n has its final form.
func (l listing) isSealed(n int64) bool {
	_, ok := slices.BinarySearch(l.sealed, n)
	return ok
}

// Size is what the run's output takes on disk, in bytes of allocated blocks; 0
// for a folder that does not exist.
func Size(dir string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("size of output: %w", err)
	}
	var size int64
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // sealed meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("size of output: %w", err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size += st.Blocks * 512
		}
	}
	return size, nil
}

// Remove deletes a run's output. It deletes segments only: a folder that holds
// anything else stays, with an error. One that does not exist is no error.
func Remove(dir string) error {
	l, err := list(dir)
	if err != nil {
		return fmt.Errorf("remove output: %w", err)
	}
	var errs []error
	remove := func(path string) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, n := range l.temp {
		remove(tempPath(dir, n))
	}
	for _, n := range l.raw {
		remove(rawPath(dir, n))
	}
	for _, n := range l.sealed {
		remove(sealedPath(dir, n))
	}
	remove(dir)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove output: %w", err)
	}
	return nil
}

// makeDir is os.MkdirAll for the owner only, durable.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDir(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes names that were created, renamed or removed in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// datasync is fdatasync(2) on f. For a file that is closed meanwhile it returns
// os.ErrClosed.
func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return os.ErrClosed
	}
	if conn.Control(func(fd uintptr) {
		for {
			if err = syscall.Fdatasync(int(fd)); !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	}) != nil {
		return os.ErrClosed
	}
	return os.NewSyscallError("fdatasync", err)
}
