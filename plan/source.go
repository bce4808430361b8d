package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"bulkhead.dev/bulkhead"
)

// kind is what the text of a source means.
type kind int

const (
	kindFile   kind = iota // lines of a file
	kindStdin              // lines of standard input
	kindList               // values between commas
	kindRange              // numbers
	kindGlob               // file names
	kindCSV                // records of a file or of standard input
	kindValues             // given one by one
)

// source is an opened source.
type source struct {
	shown   string // for messages: as the user wrote it
	columns []string
	stream  stream
}

// ParseEach reads [NAME=]SOURCE. Text before the first = is a name only if a
// placeholder can have it, so that x/y=z is a file and no name. Whether the
// source exists and can be read is found by Open.
//
// A SOURCE is
//
//   - lines of standard input; at most one source
//     a,b,c          a list; "a," is a list of one; empty elements are skipped
//     0..99          whole numbers, also 0..99..2, 9..0 and 01..10
//     glob:PATTERN   the names that match, sorted; **/ is any number of folders
//     PATH           lines of a file
//     list:…  file:… a list or a file, whatever it looks like
func ParseEach(text string) (bulkhead.Source, error) {
	name, from, named := strings.Cut(text, "=")
	switch {
	case named && name == "#":
		return bulkhead.Source{}, usage("{#} is the index of the item; choose another name", "source %s: # cannot be a column name", bulkhead.Quote(text))
	case named && name == "":
		return bulkhead.Source{}, usage("write NAME=SOURCE or SOURCE; a file whose name begins with = is ./=…", "source %s has no name before the =", bulkhead.Quote(text))
	case !named || !bulkhead.ValidName(name):
		name, from = "", text
	}
	if from == "" {
		return bulkhead.Source{}, usage(sourceHint, "source %s is empty", bulkhead.Quote(text))
	}
	return bulkhead.Source{Name: name, From: from}, nil
}

const sourceHint = "write a file, -, a list a,b,c, a range 0..99 or glob:PATTERN"

// Rereadable reports whether the source can be read a second time from its
// start: a list, a range, a pattern or a regular file, and not a pipe or what
// the shell passes as /dev/fd/63.
func Rereadable(src bulkhead.Source, opts Options) bool {
	kind, text := classify(src)
	switch kind {
	case kindStdin:
		return false
	case kindFile, kindCSV:
		if src.CSV && text == "-" {
			return false
		}
		path := opts.path(text)
		if clean := filepath.Clean(path); strings.HasPrefix(clean, "/dev/") || strings.HasPrefix(clean, "/proc/") {
			return false // even when it is a regular file now, it is another one for the next process
		}
		info, err := os.Stat(path)
		return err == nil && info.Mode().IsRegular()
	}
	return true
}

// classify says what a source is, and its text without a prefix that says so.
func classify(src bulkhead.Source) (kind, string) {
	from := src.From
	if src.CSV {
		return kindCSV, from
	}
	if from == "" {
		return kindValues, ""
	}
	for prefix, kind := range map[string]kind{"file:": kindFile, "list:": kindList, "glob:": kindGlob} {
		if text, ok := strings.CutPrefix(from, prefix); ok {
			return kind, text
		}
	}
	switch {
	case from == "-":
		return kindStdin, ""
	case numberRange.MatchString(from):
		return kindRange, from
	case strings.Contains(from, ","):
		return kindList, from
	}
	return kindFile, from
}

// openAll opens every source and reads no more than headers, so that a mistake
// in the last one is found before the first is read.
func openAll(inputs []bulkhead.Source, opts Options) (opened []source, err error) {
	defer func() {
		if err != nil {
			closeAll(opened)
		}
	}()
	stdin := 0
	for i, src := range inputs {
		if kind, _ := classify(src); kind == kindStdin || src.CSV && src.From == "-" {
			if stdin++; stdin > 1 {
				return opened, usage("save it to a file first, and name the file", "standard input (-) can be only one of the sources")
			}
		}
		if err := check(src); err != nil {
			return opened, err
		}
		s, err := open(src, opts)
		if err != nil {
			return opened, err
		}
		if s.columns == nil {
			s.columns = []string{src.Name}
		}
		if s.columns[0] == "" {
			s.columns[0] = strconv.Itoa(i + 1)
		}
		opened = append(opened, s)
	}
	return opened, nil
}

// check finds what ParseEach and ParseFile would not have let pass.
func check(src bulkhead.Source) error {
	switch {
	case src.Name != "" && !bulkhead.ValidName(src.Name):
		return usage("a name is made of letters, digits, _ - .", "column name %s cannot be a placeholder", bulkhead.Quote(src.Name))
	case src.CSV && src.Name != "":
		return usage("the header names the columns", "CSV source %s cannot have a name, but has %s", bulkhead.Quote(src.From), bulkhead.Quote(src.Name))
	case src.From == "" && len(src.Values) == 0:
		return usage(sourceHint, "a source is empty")
	case src.From != "" && len(src.Values) > 0:
		return usage("use one of both", "source %s has values of its own", bulkhead.Quote(src.From))
	}
	return nil
}

func open(src bulkhead.Source, opts Options) (source, error) {
	kind, text := classify(src)
	shown := src.From
	if src.From == "-" {
		shown = "standard input"
	}
	var rows table
	var err error
	switch kind {
	case kindValues:
		shown, rows = "the list", held{src.Values, 1}
	case kindRange:
		rows, err = parseNumbers(text)
	case kindList:
		rows, err = parseList(text, src.From == text, opts)
	case kindGlob:
		var names []string
		names, err = glob(text, opts)
		rows = held{names, 1}
	default:
		return openText(kind, text, shown, src.From == text, opts)
	}
	return source{shown: shown, stream: &walk{rows: rows}}, err
}

// openText opens lines or CSV, of a file or of standard input. A guess is a file
// only because it looks like nothing else.
func openText(kind kind, path, shown string, guess bool, opts Options) (s source, err error) {
	var r io.Reader
	var c io.Closer
	if kind == kindStdin || kind == kindCSV && path == "-" {
		if r = opts.Stdin; r == nil {
			return s, usage("name a file instead", "there is no standard input to read as -")
		}
	} else {
		f, err := openFile(path, kind == kindFile && guess, opts)
		if err != nil {
			return s, err
		}
		r, c = f, f
	}
	if kind != kindCSV {
		return source{shown: shown, stream: newLines(shown, r, c)}, nil
	}
	s, err = openCSV(shown, r, c)
	if err != nil {
		closeAll([]source{s})
	}
	return s, err
}

// closeAll gives up sources after a mistake, which matters more than whether a
// file that was only read could be closed.
func closeAll(sources []source) {
	for _, s := range sources {
		_ = s.stream.close()
	}
}

func openFile(name string, guess bool, opts Options) (*os.File, error) {
	if name == "" {
		return nil, usage("write file:PATH", "a file has no name")
	}
	f, err := os.Open(opts.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		hint := ""
		switch {
		case !guess:
		case strings.ContainsAny(name, "*?["):
			hint = fmt.Sprintf("a pattern is written glob:%s", name)
		case strings.Contains(name, ".."):
			hint = "a range is two whole numbers, such as 0..99"
		default:
			hint = fmt.Sprintf("a list needs a comma: %s is a list of one", bulkhead.Quote(name+","))
		}
		return nil, usage(hint, "no file %s%s", bulkhead.Quote(name), opts.where(name))
	}
	if err != nil {
		return nil, unreadable(err, name)
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() {
		return f, nil
	}
	_ = f.Close()
	if err != nil {
		return nil, unreadable(err, name)
	}
	return nil, usage(fmt.Sprintf("for the names in it write glob:%s", filepath.Join(name, "*")), "%s is a folder, not a file", bulkhead.Quote(name))
}

// parseList splits a list. A guess is a list only because of its commas.
func parseList(text string, guess bool, opts Options) (held, error) {
	if guess {
		if _, err := os.Stat(opts.path(text)); err == nil {
			return held{}, usage(fmt.Sprintf("write file:%s or list:%[1]s", text), "%s is a list, and a file has this very name%s", bulkhead.Quote(text), opts.where(text))
		}
	}
	var values []string
	for v := range strings.SplitSeq(text, ",") {
		if v != "" {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return held{}, usage("write a,b,c", "list %s has no elements", bulkhead.Quote(text))
	}
	return held{values, 1}, nil
}

// path is where a file of this name is.
func (o Options) path(name string) string {
	if o.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	return o.Dir + "/" + name // not Join: it would take a/../b for b, which a link can make another file
}

// where says in which folder a relative name was looked for.
func (o Options) where(name string) string {
	if o.Dir == "" || filepath.IsAbs(name) {
		return ""
	}
	return " in " + o.Dir
}

// unreadable wraps an error of the file system that the user can mend.
func unreadable(err error, name string) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "cannot read " + bulkhead.Quote(name), Err: err}
}
