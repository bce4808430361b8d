package plan

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"bulkhead.dev/bulkhead"
)

// glob returns the files that match a pattern of path.Match, sorted by name and
// spelt as the pattern spells them: relative when it is relative. A folder that
// cannot be read is an error, as the names in it would be missing.
func glob(pattern string, opts Options) ([]string, error) {
	dir := &folder{opts: opts}
	names, err := fs.Glob(dir, pattern)
	switch {
	case errors.Is(err, path.ErrBadPattern):
		return nil, usage(`[ needs its ], and \ a character after it; put \ before a character to mean itself`,
			"pattern %s is malformed", bulkhead.Quote(pattern))
	case err == nil && dir.err != nil:
		err = dir.err
	}
	if err != nil {
		return nil, unreadable(err, "glob:"+pattern)
	}
	if len(names) == 0 {
		return nil, usage("quote the pattern so that the shell leaves it alone, and check the folder",
			"pattern %s matches no file%s", bulkhead.Quote(pattern), opts.where())
	}
	if weigh(names) > MaxInner {
		return nil, usage("use find … | bulkhead run --each - …", "pattern %s matches too many files: %d", bulkhead.Quote(pattern), len(names))
	}
	slices.Sort(names)
	return names, nil
}

// folder is the file system for fs.Glob: paths as the user writes them, with ..
// and / at the start, which os.DirFS does not take. It remembers what could not
// be read, because fs.Glob would pass over it.
type folder struct {
	opts Options
	err  error
}

// Open is there to make it an fs.FS; fs.Glob uses the two below.
func (f *folder) Open(name string) (fs.File, error) { return os.Open(f.opts.path(name)) }

// Stat tells whether a name without a pattern exists, if only as a link.
func (f *folder) Stat(name string) (fs.FileInfo, error) {
	if name == "" {
		return nil, fs.ErrNotExist // and not the folder that names are relative to
	}
	info, err := os.Lstat(f.opts.path(name))
	f.note(err)
	return info, err
}

// ReadDir lists a folder. What is not one is not opened: that could block.
func (f *folder) ReadDir(name string) ([]fs.DirEntry, error) {
	info, err := os.Stat(f.opts.path(name))
	if err == nil && !info.IsDir() {
		return nil, nil
	}
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(f.opts.path(name))
	}
	f.note(err)
	return entries, err
}

func (f *folder) note(err error) {
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	if err != nil && !missing && f.err == nil {
		f.err = err
	}
}
