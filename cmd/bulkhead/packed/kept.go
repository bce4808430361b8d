package packed

import (
	"encoding/hex"
	"errors"
	"fmt"
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
	if !ownFile(name) {
		if os.MkdirAll(dir, 0o700) != nil || !own(dir) || keep(packed, dir, name) != nil {
			return
		}
	}
	if own(dir) {
		_ = syscall.Exec(name, args, environ)
	}
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

// ownFile is the same for a program.
func ownFile(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.Mode().IsRegular() && mine(info)
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
	err = errors.Join(err, f.Chmod(executable), f.Close())
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
