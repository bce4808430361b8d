// Package packed runs a program that another one carries inside, compressed. The
// one that carries it becomes the other: same process, arguments, environment and
// open files, so that signals and the exit code need nobody in between.
//
// A program can only be started from a file. To unpack it takes longer than all that
// a short command does, so it is kept in the cache folder of the user, if that is
// his alone (kept.go). Otherwise the first choice is a file in memory, which needs no
// place that can be written. Some systems forbid to start those (vm.memfd_noexec,
// SELinux, seccomp); then it is a temporary file. Either has no name by the time the
// program starts, so nothing is left behind, and nobody else can have put something
// else there.
package packed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// Pack compresses a program.
func Pack(to io.Writer, program io.Reader) error {
	// The next level saves 6% of the size and takes ten times as long.
	w, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, program)
	return errors.Join(err, w.Close())
}

// Exec makes this process the program that Pack compressed. It returns only if it
// cannot. Args begin with the name of the program.
func Exec(packed []byte, args, environ []string) error {
	execKept(packed, args, environ)
	places := []func() (*os.File, error){inMemory, func() (*os.File, error) { return inFolder(os.TempDir()) }}
	if cache, err := os.UserCacheDir(); err == nil {
		places = append(places, func() (*os.File, error) { return inFolder(cache) })
	}
	var failed []string
	for _, create := range places {
		failed = append(failed, execFrom(create, packed, args, environ).Error())
	}
	return &bulkhead.Error{Code: bulkhead.CodeInternal,
		Message: fmt.Sprintf("the part of the program that has this command cannot be started: %v", strings.Join(failed, "; ")),
		Hint:    "name a folder that can be written and is not mounted noexec in TMPDIR"}
}

// execFrom unpacks into a file without a name, and runs that.
func execFrom(create func() (*os.File, error), packed []byte, args, environ []string) error {
	w, err := create()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := unpack(w, packed); err != nil {
		return fmt.Errorf("unpack to %s: %w", w.Name(), err)
	}
	// A file that somebody may write cannot be run.
	r, err := os.Open(path(w))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := w.Close(); err != nil {
		return fmt.Errorf("unpack to %s: %w", w.Name(), err)
	}
	return fmt.Errorf("execute %s: %w", w.Name(), syscall.Exec(path(r), args, environ))
}

func unpack(to io.Writer, packed []byte) error {
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(to, r)
	return err
}

// path is where a file is found that has no name any more.
func path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func inMemory() (*os.File, error) {
	const name = "bulkhead"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where all of them can be executed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("create a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "a file in memory"), nil
}

func inFolder(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".bulkhead-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Chmod(0o700), os.Remove(f.Name())); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
