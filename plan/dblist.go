package plan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
)

// A dblist is a text file with the name of one wiki's database a line; # begins a
// comment. MediaWiki's deployment also has expressions of lists, from left to right,
// with +, - and & between blanks: "s3 - testwikis". See MWWikiversions and WmfConfig
// of operations/mediawiki-config.
const (
	dblistSuffix = ".dblist"
	// maxDBList is the longest list that is read, in bytes.
	maxDBList = 4 << 20
)

var (
	operator   = regexp.MustCompile(`[ \t]+([-+&])[ \t]+`)
	dblistName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	wikiName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
)

// DBLists returns the names that an expression of the lists in a folder stands for,
// sorted, each once. Errors are the user's: a list that there is not, or that holds
// what is no name.
func DBLists(dir, expression string) ([]string, error) {
	terms := operator.Split(strings.TrimSpace(expression), -1)
	operators := operator.FindAllStringSubmatch(strings.TrimSpace(expression), -1)
	var names []string
	for i, term := range terms {
		list, err := namedDBList(dir, strings.TrimSpace(term))
		if err != nil {
			return nil, err
		}
		in := func(name string) bool { return slices.Contains(list, name) }
		switch {
		case i == 0 || operators[i-1][1] == "+":
			names = append(names, list...)
		case operators[i-1][1] == "-":
			names = slices.DeleteFunc(names, in)
		default:
			names = slices.DeleteFunc(names, func(name string) bool { return !in(name) })
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// namedDBList is one list of a folder, by its name with or without the suffix.
func namedDBList(dir, name string) ([]string, error) {
	if !dblistName.MatchString(name) {
		return nil, refuse("lists are combined with + - & between blanks: s3 - testwikis", "%s is not the name of a dblist", bulkhead.Quote(name))
	}
	name = strings.TrimSuffix(name, dblistSuffix)
	f, err := os.Open(filepath.Join(dir, name+dblistSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingDBList(dir, name)
	}
	if err != nil {
		return nil, refuse("", "dblist %s: %v", name, errors.Unwrap(err))
	}
	defer f.Close()
	return DBList(f, name+dblistSuffix)
}

// missingDBList says which list may have been meant.
func missingDBList(dir, name string) error {
	var known []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return refuse("--dblists says where they are", "the folder of dblists cannot be read: %v", err)
	}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), dblistSuffix); ok {
			known = append(known, base)
		}
	}
	hint := fmt.Sprintf("%d lists are in %s", len(known), dir)
	if near := bulkhead.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %s? ", near) + hint
	}
	return refuse(hint, "there is no dblist %s", name)
}

// DBList reads one list; name is what errors call it.
func DBList(r io.Reader, name string) ([]string, error) {
	limited := &io.LimitedReader{R: r, N: maxDBList + 1}
	lines := bufio.NewScanner(limited)
	var names []string
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if !wikiName.MatchString(text) {
			return nil, refuse("a line is the name of a wiki's database, as enwiki", "%s:%d: %s is not the name of a wiki", name, n, bulkhead.Quote(text))
		}
		names = append(names, text)
	}
	if err := lines.Err(); err != nil {
		return nil, refuse("", "%s: %v", name, err)
	}
	if limited.N <= 0 {
		return nil, refuse("", "%s has more than %d bytes", name, maxDBList)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func refuse(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}
