package plan

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"bulkhead.dev/bulkhead"
)

// glob returns the files that match a pattern of path.Match, sorted by name and
// spelt as the pattern spells them: relative when it is relative. ** between
// slashes stands for any number of folders, as in bash; at the end, for all that
// is in them. A folder that cannot be read is an error, as the names in it would
// be missing.
func glob(pattern string, opts Options) ([]string, error) {
	for element := range strings.SplitSeq(pattern, "/") {
		if element != "**" && strings.Contains(quoted.ReplaceAllString(element, "x"), "**") {
			return nil, usage("** stands for folders, between slashes: **/*.txt; a single * stands for any part of a name",
				"pattern %s has ** within a name", bulkhead.Quote(pattern))
		}
	}
	dir := &folder{opts: opts}
	names, err := dir.match(pattern)
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
			"pattern %s matches no file%s", bulkhead.Quote(pattern), opts.where(pattern))
	}
	if weigh(names) > MaxInner {
		return nil, usage("use find … | bulkhead run --each - …", "pattern %s matches too many files: %d", bulkhead.Quote(pattern), len(names))
	}
	slices.Sort(names)
	return slices.Compact(names), nil // **/** comes to a name in several ways
}

// quoted is what stands for one character in a pattern, and may hold any.
var quoted = regexp.MustCompile(`\\.|\[[^]]*\]`)

// match is fs.Glob with **.
func (f *folder) match(pattern string) ([]string, error) {
	before, after, deep := strings.Cut("/"+pattern+"/", "/**/")
	if !deep {
		return fs.Glob(f, pattern)
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err // also where there is no folder to find it in
	}
	if after = strings.TrimLeft(strings.TrimSuffix(after, "/"), "/"); after == "" {
		after = "*"
	}
	tops := []string{"."}
	if before != "" {
		var err error
		if tops, err = fs.Glob(f, cmp.Or(before[1:], "/")); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, top := range tops {
		for _, dir := range f.below(top) {
			in := &folder{opts: Options{Dir: f.opts.path(dir)}}
			found, err := in.match(after)
			if err != nil {
				return nil, err
			}
			f.note(in.err)
			for _, name := range found {
				names = append(names, path.Join(dir, name))
			}
		}
	}
	return names, nil
}

// below returns a folder and all below it. It does not follow links, which may
// lead back up, but the folder itself may be one.
func (f *folder) below(dir string) []string {
	dirs := []string{dir}
	entries, _ := f.ReadDir(dir) // which notes what is wrong
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, f.below(path.Join(dir, e.Name()))...)
		}
	}
	return dirs
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
