package plan_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func TestParseEachSplitsNameAndSource(t *testing.T) {
	for text, want := range map[string]bulkhead.Source{
		"wikis.txt":      {From: "wikis.txt"},
		"wiki=wikis.txt": {Name: "wiki", From: "wikis.txt"},
		"a.b-c_1=-":      {Name: "a.b-c_1", From: "-"},
		"1=a,b":          {Name: "1", From: "a,b"},
		"w=a=b,c=d":      {Name: "w", From: "a=b,c=d"},
		"./a=b.txt":      {From: "./a=b.txt"},
		"x/y=z":          {From: "x/y=z"},
		"a b=c":          {From: "a b=c"},
		"é=c":            {From: "é=c"},
		"list:a=b,c":     {From: "list:a=b,c"},
		"glob:*=*":       {From: "glob:*=*"},
		"\xff=\xfe":      {From: "\xff=\xfe"},
		"w=\xfe":         {Name: "w", From: "\xfe"},
	} {
		got, err := plan.ParseEach(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", text, diff)
		}
	}
}

func TestParseEachSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string][2]string{
		"":      {`source "" is empty`, "write a file, -, a list a,b,c, a range 0..99 or glob:PATTERN"},
		"w=":    {`source "w=" is empty`, "write a file, -, a list a,b,c, a range 0..99 or glob:PATTERN"},
		"#=a,b": {`source "#=a,b": # cannot be a column name`, "{#} is the index of the item; choose another name"},
		"=a,b":  {`source "=a,b" has no name before the =`, "write NAME=SOURCE or SOURCE; a file whose name begins with = is ./=…"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := plan.ParseEach(text)
			wantUsage(t, err, want[0], want[1])
		})
	}
}

func TestSourceTextSaysWhatItIs(t *testing.T) {
	dir := folder(t, map[string]string{
		"f.txt": "x\ny\n", "a,b": "in the file\n", "-": "dash\n", "0..1": "range\n", "list:": "prefix\n",
		"g/2.b": "", "g/1.b": "", "g/.b": "", "g/c": "", "g/\xff.b": "", "h/1.b": "",
	})
	for text, want := range map[string][]string{
		"f.txt":                     {"x", "y"},
		"./f.txt":                   {"x", "y"},
		"g/../f.txt":                {"x", "y"},
		"file:f.txt":                {"x", "y"},
		"file:a,b":                  {"in the file"},
		"file:-":                    {"dash"},
		"./-":                       {"dash"},
		"file:0..1":                 {"range"},
		"./0..1":                    {"range"},
		"file:list:":                {"prefix"},
		filepath.Join(dir, "f.txt"): {"x", "y"},
		"list:a,b":                  {"a", "b"},
		"list:a":                    {"a"},
		"list:file:f.txt":           {"file:f.txt"},
		"enwiki,":                   {"enwiki"},
		",a,,b,":                    {"a", "b"},
		"a , b ":                    {"a ", " b "},
		"\xff,\xfe":                 {"\xff", "\xfe"},
		"a\nb,c":                    {"a\nb", "c"},
		"-1,0..3":                   {"-1", "0..3"},
		"0..3":                      {"0", "1", "2", "3"},
		"glob:g/*.b":                {"g/.b", "g/1.b", "g/2.b", "g/\xff.b"},
		"glob:./g/[12].b":           {"g/1.b", "g/2.b"},
		"glob:?/1.b":                {"g/1.b", "h/1.b"},
		"glob:g/../g/1.b":           {"g/../g/1.b"},
		"glob:f.txt":                {"f.txt"},
		"glob:" + dir + "/g/c*":     {dir + "/g/c"},
	} {
		if diff := cmp.Diff(want, column(t, bulkhead.Source{From: text}, plan.Options{Dir: dir})); diff != "" {
			t.Errorf("%q (-want +got)\n%s", text, diff)
		}
	}
}

func TestRangesAreThoseOfBash(t *testing.T) {
	for text, want := range map[string]string{ // as bash 5.2 expands {text}
		"0..3":      "0 1 2 3",
		"3..0":      "3 2 1 0",
		"5..5":      "5",
		"-2..2":     "-2 -1 0 1 2",
		"2..-2..2":  "2 0 -2",
		"0..9..4":   "0 4 8",
		"9..0..4":   "9 5 1",
		"1..10..-4": "1 5 9",
		"10..1..-3": "10 7 4 1",
		"01..10..3": "01 04 07 10",
		"1..010..4": "001 005 009",
		"007..5":    "007 006 005",
		"-05..5..2": "-05 -03 -01 001 003 005",
		"1..-01":    "001 000 -01",
		"00..1":     "00 01",
		"0..0":      "0",
		"-0..1":     "0 1",
		"9223372036854775806..9223372036854775807":                        "9223372036854775806 9223372036854775807",
		"-9223372036854775808..-9223372036854775807":                      "-9223372036854775808 -9223372036854775807",
		"-9223372036854775808..9223372036854775807..9223372036854775807":  "-9223372036854775808 -1 9223372036854775806",
		"9223372036854775807..-9223372036854775808..-9223372036854775808": "9223372036854775807 -1",
	} {
		got := strings.Join(column(t, bulkhead.Source{From: text}, plan.Options{}), " ")
		if got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	wide := strings.Repeat("0", 100) + "1"
	if got := column(t, bulkhead.Source{From: wide + "..2"}, plan.Options{}); len(got) != 2 || got[0] != wide {
		t.Errorf("%s..2 is %q", wide, got)
	}
}

func TestARangeBeyondReasonIsRefusedAtOnce(t *testing.T) {
	tooMany, split := "more than 100,000,000 items: the most that one run may have", "split it into several runs"
	for text, want := range map[string][2]string{
		"1..100000001": {tooMany, split},
		"-9223372036854775808..9223372036854775807": {tooMany, split},
		"0..99999999999999999999":                   {`range "0..99999999999999999999" has a number that is too large`, "numbers go from −2⁶³ to 2⁶³−1"},
		"0..1..99999999999999999999":                {`range "0..1..99999999999999999999" has a number that is too large`, "numbers go from −2⁶³ to 2⁶³−1"},
		"0..9..0":                                   {`range "0..9..0" has a step of 0`, "leave the step out, or write 1 or more"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := plan.Open([]bulkhead.Source{{From: text}}, plan.Options{})
			wantUsage(t, err, want[0], want[1])
		})
	}
	if _, err := plan.Open([]bulkhead.Source{{From: "1..100000000"}}, plan.Options{}); err != nil {
		t.Error(err)
	}
}

func TestSourcesThatCannotBeReadSayWhy(t *testing.T) {
	dir := folder(t, map[string]string{"a,b": "", "sub/x": "", "file": ""})
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string][2]string{
		"enwiki":       {`no file "enwiki" in ` + dir, `a list needs a comma: "enwiki," is a list of one`},
		"*.txt":        {`no file "*.txt" in ` + dir, "a pattern is written glob:*.txt"},
		"a..z":         {`no file "a..z" in ` + dir, "a range is two whole numbers, such as 0..99"},
		"file:enwiki":  {`no file "enwiki" in ` + dir, ""},
		"a,b":          {`"a,b" is a list, and a file has this very name in ` + dir, "write file:a,b or list:a,b"},
		"file:":        {"a file has no name", "write file:PATH"},
		"sub":          {`"sub" is a folder, not a file`, "for the names in it write glob:sub/*"},
		",":            {`list "," has no elements`, "write a,b,c"},
		"list:":        {`list "" has no elements`, "write a,b,c"},
		"file/x":       {`cannot read "file/x": open ` + dir + "/file/x: not a directory", ""},
		"loop":         {`cannot read "loop": open ` + dir + "/loop: too many levels of symbolic links", ""},
		"a\x00b":       {`cannot read "a\x00b": open ` + dir + "/a\x00b: invalid argument", ""},
		"glob:*.md":    {`pattern "*.md" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:":        {`pattern "" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:no/*":    {`pattern "no/*" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:file/*":  {`pattern "file/*" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:[":       {`pattern "[" is malformed`, `[ needs its ], and \ a character after it; put \ before a character to mean itself`},
		"glob:**/*.md": {`pattern "**/*.md" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:no/**":   {`pattern "no/**" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:no/**/[": {`pattern "no/**/[" is malformed`, `[ needs its ], and \ a character after it; put \ before a character to mean itself`},
		"glob:s/**.go": {`pattern "s/**.go" has ** within a name`, "** stands for folders, between slashes: **/*.txt; a single * stands for any part of a name"},
		"glob:x**/y":   {`pattern "x**/y" has ** within a name`, "** stands for folders, between slashes: **/*.txt; a single * stands for any part of a name"},
		"glob:\\**":    {`pattern "\\**" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:[**]":    {`pattern "[**]" matches no file in ` + dir, "quote the pattern so that the shell leaves it alone, and check the folder"},
		"glob:loop/*":  {`cannot read "glob:loop/*": stat ` + dir + "/loop: too many levels of symbolic links", ""},
	} {
		t.Run(from, func(t *testing.T) {
			_, err := plan.Open([]bulkhead.Source{{From: from}}, plan.Options{Dir: dir})
			wantUsage(t, err, want[0], want[1])
		})
	}
	t.Run("the cause can be examined", func(t *testing.T) {
		_, err := plan.Open([]bulkhead.Source{{From: "file/x"}}, plan.Options{Dir: dir})
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			t.Errorf("%v has no *fs.PathError", err)
		}
	})
	t.Run("no folder is named beside a whole path", func(t *testing.T) {
		for from, want := range map[string]string{"/no/file": `no file "/no/file"`, "glob:/no/*": `pattern "/no/*" matches no file`} {
			if _, err := plan.Open([]bulkhead.Source{{From: from}}, plan.Options{Dir: dir}); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	})
	t.Run("the working folder is not named", func(t *testing.T) {
		t.Chdir(dir)
		_, err := plan.Open([]bulkhead.Source{{From: "enwiki"}}, plan.Options{})
		wantUsage(t, err, `no file "enwiki"`, `a list needs a comma: "enwiki," is a list of one`)
	})
}

func TestPatternsMeanTheSameFromAnyFolder(t *testing.T) {
	dir := folder(t, map[string]string{"[x]/in/a.txt": "", "[x]/b.txt": "", "[x]/in/c/d.txt": ""})
	in := filepath.Join(dir, "[x]", "in")
	t.Chdir(in)
	for _, pattern := range []string{"*.txt", "../*.txt", "*/*.txt", "./*.txt", "../in/*", "../../?x?/*.txt"} {
		src := bulkhead.Source{From: "glob:" + pattern}
		want, err := filepath.Glob(pattern)
		if err != nil || len(want) == 0 {
			t.Fatal(pattern, want, err)
		}
		for _, at := range []string{"", in} {
			if diff := cmp.Diff(want, column(t, src, plan.Options{Dir: at})); diff != "" {
				t.Errorf("%s in %q (-want +got)\n%s", pattern, at, diff)
			}
		}
	}
}

func TestTwoStarsAreAnyNumberOfFoldersAsInBash(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.txt": "", "b.md": "", "s/c.txt": "", "s/.h/d.txt": "", "s/t/u/e.txt": "", "s/t/b.md": "", "[x]/{y,z}/*/f.txt": "", "s.txt/g": "", "\xff/i.txt": "",
	})
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("nowhere", "s/t/gone")
	t.Chdir(dir)
	for _, pattern := range []string{
		"**/*.txt", "s/**/*.txt", "./s/**/e.txt", "**/t/**/*.txt", "**/**/*.md", "s/**/u/*", "*/**/*.txt", "**/[a-d].*",
		"../**/a.txt", dir + "/**/*.md", "**/*.txt/*", "**/{y,z}/**/?.txt", "s/**/t/b.md",
	} {
		out, err := exec.Command("bash", "-O", "globstar", "-O", "dotglob", "-O", "nullglob", "-c", `IFS=; p=$1
			[[ $p != *'{'* ]] || p=${p//'{'/'\{'}; printf '%s\n' $p`, "bash", pattern).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for name := range strings.Lines(string(out)) {
			want = append(want, filepath.Clean(strings.TrimSuffix(name, "\n")))
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if got := column(t, bulkhead.Source{From: "glob:" + pattern}, plan.Options{}); len(got) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s (-bash +got)\n%s", pattern, cmp.Diff(want, got))
		}
	}
	// Bash 5 follows a link from one folder to another, but none below that one.
	link("..", "s/up")
	link("s/t", "in")
	all := []string{"s/.h", "s/.h/d.txt", "s/c.txt", "s/t", "s/t/b.md", "s/t/gone", "s/t/u", "s/t/u/e.txt", "s/up"}
	for pattern, want := range map[string][]string{
		"s/**": all, "s/**/": all, "s/**/**": all, "in/**/*.txt": {"in/u/e.txt"}, "**//b.md": {"b.md", "s/t/b.md"},
	} {
		if diff := cmp.Diff(want, column(t, bulkhead.Source{From: "glob:" + pattern}, plan.Options{Dir: dir})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", pattern, diff)
		}
	}
}

func TestFilesAreReadLineByLine(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                            {"", nil},
		"a last newline may be missing":      {"a\nb", []string{"a", "b"}},
		"empty lines are skipped":            {"\na\n\n\nb\n\n", []string{"a", "b"}},
		"lines of blanks are kept":           {" \n\t\n a \n", []string{" ", "\t", " a "}},
		"CRLF ends a line":                   {"a\r\nb\r\n\r\nc", []string{"a", "b", "c"}},
		"another carriage return is kept":    {"a\rb\r\r\n\rc\r", []string{"a\rb\r", "\rc\r"}},
		"bytes that are not UTF-8 are kept":  {"\xff\xfe\n\x00\xc3\n", []string{"\xff\xfe", "\x00\xc3"}},
		"a byte order mark is dropped":       {"\ufeffa\n\ufeffb\n", []string{"a", "\ufeffb"}},
		"a byte order mark alone is nothing": {"\ufeff\r\na\n", []string{"a"}},
		"half a byte order mark is text":     {"\xef\xbba\n", []string{"\xef\xbba"}},
		"a line of a megabyte":               {"a\n" + long + "\r\nb\n", []string{"a", long, "b"}},
		"a megabyte without a newline":       {long, []string{long}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"f": tt.text})
			if diff := cmp.Diff(tt.want, column(t, bulkhead.Source{From: "f"}, plan.Options{Dir: dir})); diff != "" {
				t.Errorf("(-want +got)\n%.2000s", diff)
			}
		})
	}
}

func TestALineHasALimit(t *testing.T) {
	most := strings.Repeat("x", plan.MaxLine)
	for name, tt := range map[string]struct {
		end  string
		rows int
		err  string
	}{
		"the longest line":                 {"", 2, ""},
		"the longest line and CRLF":        {"\r\nb\n", 3, ""},
		"one byte more":                    {"x\nb\n", 1, "standard input:3: the line is longer than 16 MiB"},
		"a carriage return and no newline": {"\r", 1, "standard input:3: the line is longer than 16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			stdin := io.MultiReader(strings.NewReader("a\n\n"), strings.NewReader(most), strings.NewReader(tt.end))
			in, err := plan.Open(each(t, "-"), plan.Options{Stdin: stdin})
			if err != nil {
				t.Fatal(err)
			}
			rows, err := all(in)
			if len(rows) != tt.rows {
				t.Errorf("%d lines", len(rows))
			}
			if tt.err != "" {
				wantUsage(t, err, tt.err, "is it the right file? An item is not meant to carry this much; name a file that holds it")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRereadableTellsWhatCanBeReadAgain(t *testing.T) {
	dir := folder(t, map[string]string{"f": "", "-": ""})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	regular, err := os.Open(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := regular.Close(); err != nil {
			t.Error(err)
		}
	})
	for from, want := range map[string]bool{
		"-": false, "f": true, "link": true, "file:f": true, "file:-": true, "a,b": true, "list:a": true, "0..9": true, "glob:*": true,
		"fifo": false, "missing": false, ".": false, "/dev/null": false, "/dev/stdin": false, "/dev/fd/63": false, fmt.Sprintf("/dev/fd/%d", regular.Fd()): false, "//dev/fd/0": false,
		"/proc/self/fd/0": false, "/proc/version": false,
	} {
		if got := plan.Rereadable(bulkhead.Source{From: from}, plan.Options{Dir: dir}); got != want {
			t.Errorf("%s: %v", from, got)
		}
	}
	for from, want := range map[string]bool{"-": false, "f": true, "fifo": false, "a,b": false} {
		if got := plan.Rereadable(bulkhead.Source{From: from, CSV: true}, plan.Options{Dir: dir}); got != want {
			t.Errorf("CSV %s: %v", from, got)
		}
	}
	if !plan.Rereadable(bulkhead.Source{Values: []string{"a"}}, plan.Options{}) {
		t.Error("values cannot be read again")
	}
}

func TestAPipeIsReadAsItIsWritten(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_RDWR, 0) // which does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	in, err := plan.Open(each(t, fifo), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"first", "second"} {
		if _, err := w.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		if item, err := in.Next(); err != nil || item.Values[0] != line {
			t.Fatalf("%v, %v", item, err)
		}
	}
	if err := errors.Join(w.Close(), in.Close()); err != nil {
		t.Fatal(err)
	}
}
