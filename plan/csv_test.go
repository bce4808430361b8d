package plan_test

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func TestTablesAreReadByTheirHeader(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		file    string
		text    string
		columns []string
		rows    [][]string
	}{
		"CSV":                               {"f.csv", "id,mail\n1,a@b\n2,c@d\n", []string{"id", "mail"}, [][]string{{"1", "a@b"}, {"2", "c@d"}}},
		"any other ending is CSV":           {"users", "id,mail\n1,a@b\n", []string{"id", "mail"}, [][]string{{"1", "a@b"}}},
		"a header alone has no records":     {"f.csv", "id,mail", []string{"id", "mail"}, nil},
		"a last newline may be missing":     {"f.csv", "id\n1\n2", []string{"id"}, [][]string{{"1"}, {"2"}}},
		"empty lines are skipped":           {"f.csv", "\n\nid\n\n1\n\n2\n\n", []string{"id"}, [][]string{{"1"}, {"2"}}},
		"empty fields are kept":             {"f.csv", "a,b\n,\n\"\",x\n", []string{"a", "b"}, [][]string{{"", ""}, {"", "x"}}},
		"a quoted empty field is an item":   {"f.csv", "a\n\"\"\nx\n", []string{"a"}, [][]string{{""}, {"x"}}},
		"blanks are kept":                   {"f.csv", "a,b\n x , y\n", []string{"a", "b"}, [][]string{{" x ", " y"}}},
		"CRLF ends a record":                {"f.csv", "a,b\r\n1,2\r\n", []string{"a", "b"}, [][]string{{"1", "2"}}},
		"quotes hold commas, quotes, lines": {"f.csv", "a,\"b\"\n\"x,\"\"y\"\"\nz\",2\n", []string{"a", "b"}, [][]string{{"x,\"y\"\nz", "2"}}},
		"a quoted CRLF becomes a newline":   {"f.csv", "a\r\n\"x\r\ny\rz\"\r\n", []string{"a"}, [][]string{{"x\ny\rz"}}},
		"a byte order mark is dropped":      {"f.csv", "\ufeffa,b\n1,2\n", []string{"a", "b"}, [][]string{{"1", "2"}}},
		"a byte order mark before quotes":   {"f.csv", "\ufeff\"a\",b\n1,2\n", []string{"a", "b"}, [][]string{{"1", "2"}}},
		"bytes that are not UTF-8 are kept": {"f.csv", "a,b\n\xff,\"\xc3\x00\"\n", []string{"a", "b"}, [][]string{{"\xff", "\xc3\x00"}}},
		"a field of a megabyte":             {"f.csv", "a,b\n" + long + ",1\n\"" + long + "\",2\n", []string{"a", "b"}, [][]string{{long, "1"}, {long, "2"}}},
		"TSV":                               {"f.tsv", "id\tmail\n1\ta@b\n", []string{"id", "mail"}, [][]string{{"1", "a@b"}}},
		"TSV in upper case":                 {"F.TSV", "id\tmail\n1\ta@b\n", []string{"id", "mail"}, [][]string{{"1", "a@b"}}},
		"TSV has no quoting":                {"f.tsv", "a\tb\n\"x\ty\"\n,\t\\t\n", []string{"a", "b"}, [][]string{{"\"x", "y\""}, {",", "\\t"}}},
		"TSV with CRLF, a mark, empty lines, no last newline": {"f.tsv", "\ufeffa\tb\r\n\r\n1\t2\r\n\t",
			[]string{"a", "b"}, [][]string{{"1", "2"}, {"", ""}}},
		"TSV with bytes that are not UTF-8": {"f.tsv", "a\n\xff\r\r\n", []string{"a"}, [][]string{{"\xff\r"}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{tt.file: tt.text})
			columns, rows, err := read([]bulkhead.Source{{From: tt.file, CSV: true}}, plan.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.columns, columns); diff != "" {
				t.Errorf("columns (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.rows, rows); diff != "" {
				t.Errorf("rows (-want +got)\n%.2000s", diff)
			}
		})
	}
}

func TestStandardInputIsCSV(t *testing.T) {
	columns, rows, err := read([]bulkhead.Source{{From: "-", CSV: true}}, plan.Options{Stdin: strings.NewReader("a,b\n1,2\n")})
	if err != nil || len(columns) != 2 || len(rows) != 1 {
		t.Errorf("%v, %v, %v", columns, rows, err)
	}
}

func TestTablesThatAreNotRightSayWhere(t *testing.T) {
	const fields = "every record needs as many fields as the header; a field with the separator in it is quoted (CSV only)"
	const quotes = `a field that holds " is put in quotes, with every " doubled: "say ""hi"""`
	const rule = "a column name is made of letters, digits, _ - . so that {name} can stand for it; rename it in the first line"
	for name, tt := range map[string]struct {
		file, text    string
		message, hint string
	}{
		"nothing":                       {"f.csv", "", "f.csv has no header: it is empty", "the first line names the columns"},
		"nothing but lines":             {"f.csv", "\ufeff\n\n", "f.csv has no header: it is empty", "the first line names the columns"},
		"nothing in TSV":                {"f.tsv", "\n", "f.tsv has no header: it is empty", "the first line names the columns"},
		"a column without a name":       {"f.csv", "a,,c\n", "f.csv: column 2 has no name", "give every column a name in the first line"},
		"a name with a blank":           {"f.csv", "id, mail\n", `f.csv: column 2 is named " mail", which cannot be a placeholder`, rule},
		"a name with other letters":     {"f.tsv", "id\tköy\n", `f.tsv: column 2 is named "köy", which cannot be a placeholder`, rule},
		"the index as a name":           {"f.csv", "#\n", `f.csv: column 1 is named "#", which cannot be a placeholder`, rule},
		"the same name twice":           {"f.csv", "a,b,a\n", `f.csv: columns 1 and 3 are both named "a"`, "rename one of them in the first line"},
		"too many columns":              {"f.csv", "c" + strings.Repeat(",c", 1000), "f.csv has 1001 columns; at most 1000 are read", "keep the columns that the command needs"},
		"too few fields":                {"f.csv", "a,b\n1,2\n3\n", "f.csv:3: the record has 1 of 2 fields", fields},
		"too many fields":               {"f.csv", "a,b\n\n\"1\n\",2\n3,4,5\n", "f.csv:5: the record has 3 of 2 fields", fields},
		"too few fields in TSV":         {"f.tsv", "a\tb\n\n1,2\n", "f.tsv:3: the record has 1 of 2 fields", fields},
		"too many fields in TSV":        {"f.tsv", "a\n1\t\n", "f.tsv:2: the record has 2 of 1 fields", fields},
		"a quote within a field":        {"f.csv", "a,b\n1,x\"y\n", "f.csv:2: byte 4: bare \" in non-quoted-field", quotes},
		"text after a closing quote":    {"f.csv", "a,b\n1,\"x\"y\n", "f.csv:2: byte 5: extraneous or missing \" in quoted-field", quotes},
		"a quote that is never closed":  {"f.csv", "a,b\n1,\"x\n2,3\n", "f.csv:3: byte 5: extraneous or missing \" in quoted-field (the record begins at line 2)", quotes},
		"a header that is never closed": {"f.csv", "a,\"b\n1,2\n", "f.csv:2: byte 5: extraneous or missing \" in quoted-field (the record begins at line 1)", quotes},
		"a mistake in the header":       {"f.csv", "a,b\"\n1,2\n", "f.csv:1: byte 4: bare \" in non-quoted-field", quotes},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{tt.file: tt.text})
			_, _, err := read([]bulkhead.Source{{From: tt.file, CSV: true}}, plan.Options{Dir: dir})
			wantUsage(t, err, tt.message, tt.hint)
		})
	}
	t.Run("a missing file", func(t *testing.T) {
		dir := t.TempDir()
		_, err := plan.Open([]bulkhead.Source{{From: "a,b", CSV: true}}, plan.Options{Dir: dir})
		wantUsage(t, err, `no file "a,b" in `+dir, "")
	})
}

// endless is text that goes on and on, and counts how much of it was read.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.read%len(e.text):])
	e.read += n
	return n, nil
}

func TestARecordHasALimit(t *testing.T) {
	const hint = "is it the right file? An item is not meant to carry this much; name a file that holds it"
	for name, tt := range map[string]struct {
		start   string
		end     string // of every 1000 bytes
		message string
	}{
		"a line without end":   {"a,b\n1,2\nx", "", "standard input: the record after the one at line 2 is longer than 16 MiB"},
		"quotes without end":   {"a,b\n1,2\n\"x", "\n", "standard input: the record after the one at line 2 is longer than 16 MiB"},
		"a header without end": {"x", "", "standard input: the header is longer than 16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			rest := &endless{text: strings.Repeat("x", 1000) + tt.end}
			_, _, err := read([]bulkhead.Source{{From: "-", CSV: true}}, plan.Options{Stdin: io.MultiReader(strings.NewReader(tt.start), rest)})
			wantUsage(t, err, tt.message, hint)
			if rest.read > plan.MaxLine+(256<<10) {
				t.Errorf("%d bytes were read", rest.read)
			}
		})
	}
	most := strings.Repeat("x", plan.MaxLine-len("1,\n"))
	for _, more := range []string{"", "x"} {
		text := io.MultiReader(strings.NewReader("a,b\n1,2\n1,"), strings.NewReader(most), strings.NewReader(more+"\n3,4\n"))
		_, rows, err := read([]bulkhead.Source{{From: "-", CSV: true}}, plan.Options{Stdin: text})
		if more == "" && (err != nil || len(rows) != 3) {
			t.Errorf("the largest record: %d records, %v", len(rows), err)
		}
		if more != "" {
			wantUsage(t, err, "standard input: the record after the one at line 2 is longer than 16 MiB", hint)
		}
	}
}
