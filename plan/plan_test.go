package plan_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// each makes sources as --each does.
func each(t testing.TB, texts ...string) []bulkhead.Source {
	t.Helper()
	var inputs []bulkhead.Source
	for _, text := range texts {
		src, err := plan.ParseEach(text)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, src)
	}
	return inputs
}

// folder makes files in a new folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// all reads an input to its end or failure.
func all(in *plan.Input) (rows [][]string, err error) {
	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		if item.Index != int64(len(rows))+1 {
			return rows, fmt.Errorf("item %d comes after %d others", item.Index, len(rows))
		}
		rows = append(rows, item.Values)
	}
}

// read opens sources and reads them to the end or failure.
func read(inputs []bulkhead.Source, opts plan.Options) (columns []string, rows [][]string, err error) {
	in, err := plan.Open(inputs, opts)
	if err != nil {
		return nil, nil, err
	}
	rows, err = all(in)
	return in.Columns(), rows, errors.Join(err, in.Close())
}

// column reads one source that has one column.
func column(t testing.TB, src bulkhead.Source, opts plan.Options) []string {
	t.Helper()
	_, rows, err := read([]bulkhead.Source{src}, opts)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, r := range rows {
		values = append(values, r...)
	}
	return values
}

func wantUsage(t *testing.T, err error, message, hint string) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatal("it was accepted")
	case bulkhead.CodeOf(err) != bulkhead.CodeUsage:
		t.Errorf("%v is %s, not a usage error", err, bulkhead.CodeOf(err))
	case err.Error() != message:
		t.Errorf("message %s\n   want %s", err, message)
	case bulkhead.HintOf(err) != hint:
		t.Errorf("%v\nhint %s\nwant %s", err, bulkhead.HintOf(err), hint)
	}
}

func TestSeveralSourcesGiveEveryCombination(t *testing.T) {
	dir := folder(t, map[string]string{"w.txt": "de\nen\n", "u.csv": "id,mail\n1,a@b\n2,c@d\n", "none": "\n\n"})
	csv := bulkhead.Source{From: "u.csv", CSV: true}
	tests := map[string]struct {
		inputs  []bulkhead.Source
		stdin   string
		columns []string
		rows    [][]string
	}{
		"no source is one item without values": {nil, "", nil, [][]string{{}}},
		"one source is its rows":               {each(t, "a,b"), "", []string{"1"}, [][]string{{"a"}, {"b"}}},
		"the first varies slowest": {each(t, "w=w.txt", "n=1..3"), "", []string{"w", "n"},
			[][]string{{"de", "1"}, {"de", "2"}, {"de", "3"}, {"en", "1"}, {"en", "2"}, {"en", "3"}}},
		"three sources": {each(t, "a,b", "c,d", "e,f"), "", []string{"1", "2", "3"}, [][]string{
			{"a", "c", "e"}, {"a", "c", "f"}, {"a", "d", "e"}, {"a", "d", "f"},
			{"b", "c", "e"}, {"b", "c", "f"}, {"b", "d", "e"}, {"b", "d", "f"}}},
		"standard input first": {each(t, "-", "x,y"), "1\n2\n", []string{"1", "2"},
			[][]string{{"1", "x"}, {"1", "y"}, {"2", "x"}, {"2", "y"}}},
		"standard input last": {each(t, "x,y", "-"), "1\n2", []string{"1", "2"},
			[][]string{{"x", "1"}, {"x", "2"}, {"y", "1"}, {"y", "2"}}},
		"an unnamed source is numbered by its place": {each(t, "w=a,", "b,", "x=c,", "d,"), "", []string{"w", "2", "x", "4"},
			[][]string{{"a", "b", "c", "d"}}},
		"the columns of CSV stay together": {append([]bulkhead.Source{csv}, each(t, "x,y")...), "", []string{"id", "mail", "2"},
			[][]string{{"1", "a@b", "x"}, {"1", "a@b", "y"}, {"2", "c@d", "x"}, {"2", "c@d", "y"}}},
		"CSV after another source": {append(each(t, "x,y"), csv), "", []string{"1", "id", "mail"},
			[][]string{{"x", "1", "a@b"}, {"x", "2", "c@d"}, {"y", "1", "a@b"}, {"y", "2", "c@d"}}},
		"values of a run file keep their commas": {[]bulkhead.Source{{Name: "k", Values: []string{"a,b", "", "0..9"}}}, "", []string{"k"},
			[][]string{{"a,b"}, {""}, {"0..9"}}},
		"an empty first source gives nothing": {each(t, "none", "a,b"), "", []string{"1", "2"}, nil},
		"an empty inner source gives nothing": {each(t, "a,b", "none"), "", []string{"1", "2"}, nil},
		"an empty source times the largest":   {each(t, "0..9999999", "none", "0..9999999"), "", []string{"1", "2", "3"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			columns, rows, err := read(tt.inputs, plan.Options{Dir: dir, Stdin: strings.NewReader(tt.stdin)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.columns, columns); diff != "" {
				t.Errorf("columns (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.rows, rows); diff != "" {
				t.Errorf("rows (-want +got)\n%s", diff)
			}
		})
	}
}

func TestSourcesThatDoNotGoTogetherAreRefused(t *testing.T) {
	dir := folder(t, map[string]string{"u.csv": "id,2\n1,2\n"})
	csv := bulkhead.Source{From: "u.csv", CSV: true}
	tests := map[string]struct {
		inputs        []bulkhead.Source
		message, hint string
	}{
		"standard input twice": {each(t, "a=-", "b=-"),
			"standard input (-) can be only one of the sources", "save it to a file first, and name the file"},
		"standard input as lines and as CSV": {append(each(t, "-"), bulkhead.Source{From: "-", CSV: true}),
			"standard input (-) can be only one of the sources", "save it to a file first, and name the file"},
		"a name twice": {each(t, "w=a,", "w=b,"),
			`two columns are named "w": of source 1 (a,) and of source 2 (b,)`, "give one of them another name: NAME=SOURCE, or another header"},
		"a number that is a name too": {each(t, "2=a,", "b,"),
			`two columns are named "2": of source 1 (a,) and of source 2 (b,)`, "give one of them another name: NAME=SOURCE, or another header"},
		"a header that is a number too": {append([]bulkhead.Source{csv}, each(t, "b,")...),
			`two columns are named "2": of source 1 (u.csv) and of source 2 (b,)`, "give one of them another name: NAME=SOURCE, or another header"},
		"a name that no placeholder has": {[]bulkhead.Source{{Name: "a b", From: "x,"}},
			`column name "a b" cannot be a placeholder`, "a name is made of letters, digits, _ - ."},
		"a name for CSV": {[]bulkhead.Source{{Name: "w", From: "u.csv", CSV: true}},
			`CSV source "u.csv" cannot have a name, but has "w"`, "the header names the columns"},
		"nothing": {[]bulkhead.Source{{}},
			"a source is empty", "write a file, -, a list a,b,c, a range 0..99 or glob:PATTERN"},
		"a source and values": {[]bulkhead.Source{{From: "-", Values: []string{"a"}}},
			`source "-" has values of its own`, "use one of both"},
		"a product that is too large": {each(t, "0..9999", "0..9", "0..1000"),
			"more than 100,000,000 items: the most that one run may have", "split it into several runs"},
		"a product too large for 64 bits": {each(t, "1..99999999", "1..99999999", "1..99999999"),
			"more than 100,000,000 items: the most that one run may have", "split it into several runs"},
		"a product too large without the first": {each(t, "-", "0..9999", "0..10000"),
			"more than 100,000,000 items: the most that one run may have", "split it into several runs"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := plan.Open(tt.inputs, plan.Options{Dir: dir, Stdin: strings.NewReader("x\n")})
			wantUsage(t, err, tt.message, tt.hint)
		})
	}
}

func TestStandardInputMustBeGiven(t *testing.T) {
	_, err := plan.Open(each(t, "-"), plan.Options{})
	wantUsage(t, err, "there is no standard input to read as -", "name a file instead")
}

func TestTheLastMistakeIsFoundBeforeStandardInputIsRead(t *testing.T) {
	stdin := strings.NewReader("a\nb\n")
	if _, err := plan.Open(each(t, "x,y", "-", "missing"), plan.Options{Dir: t.TempDir(), Stdin: stdin}); err == nil {
		t.Fatal("a missing file was accepted")
	}
	if stdin.Len() != 4 {
		t.Errorf("%d bytes were read", 4-stdin.Len())
	}
}

func TestTheLargestProductIsAccepted(t *testing.T) {
	in, err := plan.Open(each(t, "0..9999", "0..9999"), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if item, err := in.Next(); err != nil || item.Index != 1 {
		t.Errorf("first item %v, %v", item, err)
	}
}

func TestMoreItemsThanARunMayHaveAreAnError(t *testing.T) {
	in, err := plan.Open(each(t, "-"), plan.Options{Stdin: strings.NewReader("a\nb\nc\n")})
	if err != nil {
		t.Fatal(err)
	}
	in.SetLimit(2)
	rows, err := all(in)
	wantUsage(t, err, "more than 2 items: the most that one run may have", "split it into several runs")
	if len(rows) != 2 {
		t.Errorf("%d items came before it", len(rows))
	}
}

func TestInnerSourcesAreBounded(t *testing.T) {
	line := strings.Repeat("x", 1000) + "\n"
	stdin := func(n int) io.Reader { return strings.NewReader(strings.Repeat(line, n)) }
	fits := plan.MaxInner/(1000+16) - 1

	in, err := plan.Open(each(t, "a,b", "-"), plan.Options{Stdin: stdin(fits)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Next(); err != nil {
		t.Fatal(err)
	}

	_, err = plan.Open(each(t, "a,b", "-"), plan.Options{Stdin: stdin(fits + 2)})
	wantUsage(t, err, "standard input is too large: all sources but the first must fit in 64 MiB together",
		"put the largest source first: it is read as it is needed, the others are held")

	dir := folder(t, map[string]string{"half": strings.Repeat(line, fits/2+2)})
	_, err = plan.Open(each(t, "a,b", "half", "c=half"), plan.Options{Dir: dir})
	wantUsage(t, err, "half is too large: all sources but the first must fit in 64 MiB together",
		"put the largest source first: it is read as it is needed, the others are held")

	if _, rows, err := read(each(t, "half", "a,b"), plan.Options{Dir: dir}); err != nil || len(rows) != 2*(fits/2+2) {
		t.Errorf("as the first it gives %d items, %v", len(rows), err)
	}
}

func TestAFailedReadIsAnErrorAndNotTheEnd(t *testing.T) {
	broken := errors.New("cable pulled")
	hidden := fmt.Errorf("connection: %w", io.EOF) // wraps the word for a regular end
	for name, tt := range map[string]struct {
		stdin   io.Reader
		inputs  []bulkhead.Source
		rows    int
		message string
	}{
		"between lines": {io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(broken)), each(t, "-"), 2,
			"read standard input at line 3: cable pulled"},
		"within a line": {io.MultiReader(strings.NewReader("a\nb\nc"), iotest.ErrReader(broken)), each(t, "-"), 2,
			"read standard input at line 3: cable pulled"},
		"within a long line": {io.MultiReader(strings.NewReader("a\n"+strings.Repeat("b", 1<<20)), iotest.ErrReader(broken)), each(t, "-"), 1,
			"read standard input at line 2: cable pulled"},
		"with an error that wraps io.EOF": {io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(hidden)), each(t, "-"), 1,
			"read standard input at line 2: unexpected EOF (connection: EOF)"},
		"within a product": {io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), each(t, "-", "x,y"), 2,
			"read standard input at line 2: cable pulled"},
		"between records": {io.MultiReader(strings.NewReader("id,x\n1,2\n"), iotest.ErrReader(broken)), []bulkhead.Source{{From: "-", CSV: true}}, 1,
			"read standard input after line 2: cable pulled"},
		"within a record": {io.MultiReader(strings.NewReader("id,x\n1,2\n3"), iotest.ErrReader(broken)), []bulkhead.Source{{From: "-", CSV: true}}, 1,
			"read standard input after line 2: cable pulled"},
		"within quotes": {io.MultiReader(strings.NewReader("id,x\n1,2\n3,\"a\nb"), iotest.ErrReader(broken)), []bulkhead.Source{{From: "-", CSV: true}}, 1,
			"read standard input after line 2: cable pulled"},
		"within a quoted end": {io.MultiReader(strings.NewReader("id,x\n1,2\n3,\"a\"\"b"), iotest.ErrReader(hidden)), []bulkhead.Source{{From: "-", CSV: true}}, 1,
			"read standard input after line 2: unexpected EOF (connection: EOF)"},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := plan.Open(tt.inputs, plan.Options{Stdin: tt.stdin})
			if err != nil {
				t.Fatal(err)
			}
			rows, err := all(in)
			if err == nil || err.Error() != tt.message || len(rows) != tt.rows {
				t.Fatalf("%d items, then %v", len(rows), err)
			}
			if errors.Is(err, io.EOF) {
				t.Error("it can be taken for the end")
			}
			if _, again := in.Next(); !errors.Is(again, err) {
				t.Errorf("then %v", again)
			}
		})
	}
	t.Run("in the header", func(t *testing.T) {
		_, err := plan.Open([]bulkhead.Source{{From: "-", CSV: true}}, plan.Options{Stdin: iotest.ErrReader(broken)})
		if !errors.Is(err, broken) {
			t.Error(err)
		}
	})
	t.Run("in an inner source", func(t *testing.T) {
		_, err := plan.Open(each(t, "a,b", "-"), plan.Options{Stdin: iotest.ErrReader(broken)})
		if !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

func TestAClosedInputGivesNoMore(t *testing.T) {
	dir := folder(t, map[string]string{"f": "a\nb\n"})
	in, err := plan.Open(each(t, "f"), plan.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Next after Close is %v", err)
	}
}

func TestHashIsOfColumnsAndItems(t *testing.T) {
	dir := folder(t, map[string]string{
		"unix": "a\nb\nc\n", "dos": "\ufeffa\r\n\r\nb\r\nc", "other": "a\nb\nd\n", "shorter": "a\nb\n", "one": "abc\n",
		"t.csv": "x,y\na,b\n", "t.tsv": "x\ty\na\tb\n", "s.csv": "x,y\nab,\n",
	})
	hash := func(n int64, inputs ...bulkhead.Source) string {
		t.Helper()
		h, _, err := plan.HashOf(inputs, plan.Options{Dir: dir}, n)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	file := func(name string) bulkhead.Source { return bulkhead.Source{Name: "x", From: name} }
	csv := func(name string) bulkhead.Source { return bulkhead.Source{From: name, CSV: true} }

	unix := hash(-1, file("unix"))
	for _, same := range []bulkhead.Source{file("dos"), file("a,b,,c"), {Name: "x", Values: []string{"a", "b", "c"}}} {
		if hash(-1, same) != unix {
			t.Errorf("%v means the same and has another hash", same)
		}
	}
	for _, other := range []bulkhead.Source{file("other"), file("shorter"), file("one"), {Name: "y", From: "unix"}, {From: "unix"}, file("ab,c"), file("a,bc")} {
		if hash(-1, other) == unix {
			t.Errorf("%v is another input and has the same hash", other)
		}
	}
	if hash(2, file("unix")) != hash(-1, file("shorter")) {
		t.Error("the hash of the first two items is not that of an input of two")
	}
	if hash(-1, csv("t.csv")) != hash(-1, csv("t.tsv")) {
		t.Error("CSV and TSV of the same table differ")
	}
	if hash(-1, csv("t.csv")) == hash(-1, csv("s.csv")) {
		t.Error("values a,b and ab,nothing have the same hash")
	}
	if hash(0) == hash(1) || hash(1) != hash(-1) {
		t.Error("no item and one item without values must differ")
	}
	if got, want := hash(0, file("unix")), hash(0, file("other")); got != want {
		t.Error("the hash of no items depends on the items")
	}
	// Stored with every run: a change here makes every run look changed.
	if want := "ddcf9a7036e61b3746042b2dc723b2c38f7abb879e9d7c5fa662a2a403411b7d"; unix != want {
		t.Errorf("the hash of a, b, c is %s, and was %s", unix, want)
	}
}

func TestHashGrowsWithTheItems(t *testing.T) {
	in, err := plan.Open(each(t, "1..3"), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(0); ; n++ {
		want, count, err := plan.HashOf(each(t, "1..3"), plan.Options{}, n)
		if err != nil || in.Hash() != want || count != min(n, 3) {
			t.Fatalf("after %d items %s, HashOf says %s of %d, %v", n, in.Hash(), want, count, err)
		}
		if _, err := in.Next(); errors.Is(err, io.EOF) {
			break
		}
	}
	if _, count, err := plan.HashOf(each(t, "1..3"), plan.Options{}, 5); err != nil || count != 3 {
		t.Errorf("five of three items are %d, %v", count, err)
	}
}

// TestProductIsThatOfTheModel: order and number of items are those of nested
// loops.
func TestProductIsThatOfTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := rapid.SliceOfN(rapid.SliceOfN(rapid.StringMatching(`[a-c,]{0,2}`), 1, 4), 1, 4).Draw(t, "lists")
		var inputs []bulkhead.Source
		for _, l := range lists {
			inputs = append(inputs, bulkhead.Source{Values: l})
		}
		want := [][]string{{}}
		for _, l := range lists {
			var next [][]string
			for _, row := range want {
				for _, v := range l {
					next = append(next, append(slices.Clip(row), v))
				}
			}
			want = next
		}
		// The place that streams must not matter, so one of them comes from a file.
		at := rapid.IntRange(0, len(lists)).Draw(t, "streamed")
		stdin := ""
		if at < len(lists) && !strings.Contains("\n"+strings.Join(lists[at], "\n")+"\n", "\n\n") {
			stdin = strings.Join(lists[at], "\n")
			inputs[at] = bulkhead.Source{From: "-"}
		}
		_, rows, err := read(inputs, plan.Options{Stdin: strings.NewReader(stdin)})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, rows); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}
