package packed

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// keptPrefix is what the names of programs begin with that are kept.
const keptPrefix = "whole-"

// execKept starts the program that is kept in the user's cache folder, and keeps it
// there first if it is not. It returns if it cannot, for whatever reason: there are
// other ways. There is one file for each version; those of before are removed, and
// one that runs goes on.
func execKept(packed []byte, args, environ []string) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return
	}
	dir := filepath.Join(cache, "bulkhead")
	name := filepath.Join(dir, keptName(packed))
	f, err := openOwn(name)
	if err != nil {
		// Not in the home of somebody else that sudo has left in the environment.
		if !ownPlace(cache) || os.MkdirAll(dir, 0o700) != nil || !own(dir) || keep(packed, dir, name) != nil {
			return
		}
		if f, err = openOwn(name); err != nil {
			return
		}
	}
	defer f.Close()
	// What was looked at, whatever has the name by now.
	_ = syscall.Exec(path(f), args, environ)
}

// keptName tells programs apart: a zstd stream ends with a checksum of what it holds.
func keptName(packed []byte) string {
	const checksum = 4 // bytes
	return fmt.Sprintf("%s%x-%s", keptPrefix, len(packed), hex.EncodeToString(packed[max(0, len(packed)-checksum):]))
}

// own reports whether nobody but us and root can put something into a folder.
func own(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir() && mine(info)
}

// ownPlace reports whether a folder, or if there is none the one to make it in, is ours
// or root's.
func ownPlace(dir string) bool {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		return ownPlace(filepath.Dir(dir))
	}
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// openOwn opens a program that nobody but us and root can have written.
func openOwn(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !mine(info) || !own(filepath.Dir(name))) {
		err = fs.ErrPermission
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func mine(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	const others = 0o022
	return ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&others == 0
}

// keep unpacks the program under its name, whole or not at all, and removes others.
func keep(packed []byte, dir, name string) error {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	err = unpack(f, packed)
	const executable = 0o700
	// On disk before it has its name: a part of it would be started again and again.
	err = errors.Join(err, f.Chmod(executable), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), keptPrefix) && e.Name() != filepath.Base(name) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // it is in nobody's way
		}
	}
	return nil
}
