package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// How many files this process has open, as measured: at rest 17 and 4 for each
// item that runs (both of its pipes, its pidfd, its segment). While an item
// starts it is up to 6: the other ends of the pipes, and what --stdin gives it.
// The rest of the base is for looking at /proc and for sealing segments.
const (
	filesBase    = 64
	filesPerItem = 6
)

// room is how many items may run at once here with the files that this process
// may open, and how many those are. Go has raised the soft limit to the hard one.
func room() (items, files int) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return bulkhead.MaxLimit, 0 // it cannot fail; items would say what they lack
	}
	files = int(min(lim.Cur, 1<<30))
	return max((files-filesBase)/filesPerItem, 0), files
}

// checkFiles refuses a limit that the open files of this process do not allow:
// better than items that cannot be started. What says where the limit stands,
// lower how to lower it.
func checkFiles(limit int, what, lower string) error {
	items, files := room()
	if limit <= items {
		return nil
	}
	hint := "raise ulimit -n"
	if items > 0 {
		hint = fmt.Sprintf("%s %d, or raise ulimit -n", lower, items)
	}
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: hint,
		Message: fmt.Sprintf("%s %d needs up to %d open files, and this process may have %d (ulimit -n)",
			what, limit, filesBase+limit*filesPerItem, files)}
}

// checkFilesOf is checkFiles for a run that this process is about to take over.
// The process that owns it has limits of its own.
func (f *folder) checkFilesOf(r *bulkhead.Run) error {
	owned, err := f.Owned(r.ID)
	if err != nil || owned {
		return err
	}
	return checkFiles(r.Limit, fmt.Sprintf("run %d with its limit of", r.ID), fmt.Sprintf("bulkhead limit %d", r.ID))
}
