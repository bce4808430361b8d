package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// FuzzCSV: no text makes it panic, and what is accepted, written as CSV again,
// is the same input.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"", "id,mail\n1,a@b\n", "a\r\n\"x\r\ny\"\r\n", "a,b\n\"x,\"\"y\"\"\nz\",2", "\ufeffa\n\"\"\n", "a\tb\n1\t2\r\n\n\t", "a\n\xff\r\r\n",
		"a,b\n1\n", "a,b\n1,\"x", "a,a\n", "\n\n", "a b\n", "a\n\"x\r\r\ny\"\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, tabs bool) {
		name := "f.csv"
		if tabs {
			name = "f.tsv"
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		inputs, opts := []bulkhead.Source{{From: name, CSV: true}}, plan.Options{Dir: dir}
		columns, rows, err := read(inputs, opts)
		if err != nil {
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Fatalf("%q: %v is no usage error", data, err)
			}
			return
		}
		want, count, err := plan.HashOf(inputs, opts, -1)
		if err != nil || count != int64(len(rows)) {
			t.Fatalf("%q: %d items, then %d, %v", data, len(rows), count, err)
		}
		text := writeCSV(append([][]string{columns}, rows...))
		again := plan.Options{Stdin: strings.NewReader(text)}
		got, _, err := plan.HashOf([]bulkhead.Source{{From: "-", CSV: true}}, again, -1)
		if err != nil || got != want {
			t.Fatalf("%q, written as %q, is another input: %v", data, text, err)
		}
	})
}

// writeCSV quotes every field. A \r before a \n is doubled, as reading takes one.
func writeCSV(rows [][]string) string {
	var b strings.Builder
	for _, row := range rows {
		for i, field := range row {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`"` + strings.NewReplacer(`"`, `""`, "\r\n", "\r\r\n").Replace(field) + `"`)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FuzzEach: no source makes it panic, what is accepted reads the same twice, and
// its items, given as values, are the same input.
func FuzzEach(f *testing.F) {
	for _, seed := range []string{
		"f", "w=f", "-", "a,b,c", "w=a,,b", "list:a", "list:", "file:f", "file:a,b", "0..99", "9..0..2", "-01..10", "0..9..0",
		"-9223372036854775808..9223372036854775807", "glob:*", "glob:[", "glob:s/*", "#=a", "=a", "x/y=z", "\xff=a,", "\xff,\x00", "enwiki",
	} {
		f.Add(seed, []byte("a\r\n\n\xffb\n c"))
	}
	dir := folder(f, map[string]string{"f": "x\ny\n", "s/t": "z"})
	f.Fuzz(func(t *testing.T, text string, stdin []byte) {
		src, err := plan.ParseEach(text)
		if err != nil {
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Fatalf("%q: %v is no usage error", text, err)
			}
			return
		}
		if strings.Contains(src.From, ":/") || strings.HasPrefix(src.From, "/") || strings.Contains(src.From, "../") || strings.HasSuffix(src.From, "..") {
			return // the machine's own files: some never end, some answer nobody
		}
		const most = 1000 // items of a range are many
		open := func(inputs ...bulkhead.Source) (in *plan.Input, rows [][]string, err error) {
			in, err = plan.Open(inputs, plan.Options{Dir: dir, Stdin: bytes.NewReader(stdin)})
			if err != nil {
				return nil, nil, err
			}
			defer func() { err = errors.Join(err, in.Close()) }()
			for len(rows) < most {
				item, err := in.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return nil, nil, err
				}
				rows = append(rows, item.Values)
			}
			return in, rows, nil
		}
		first, rows, err := open(src)
		if err != nil {
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Fatalf("%q: %v is no usage error", text, err)
			}
			return
		}
		second, _, err := open(src)
		if err != nil || second.Hash() != first.Hash() {
			t.Fatalf("%q is another input the second time: %v", text, err)
		}
		literal := bulkhead.Source{Name: src.Name}
		for _, r := range rows {
			literal.Values = append(literal.Values, r...)
		}
		if len(literal.Values) == 0 {
			return
		}
		third, _, err := open(literal)
		if err != nil || third.Hash() != first.Hash() {
			t.Fatalf("%q is not the same as its values %q: %v", text, literal.Values, err)
		}
	})
}

// FuzzFile: no text makes it panic or says Go's names to the user, and what is
// accepted is the same when read again and when it was stored as JSON.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", "command: [x]", "command: [./x, \"{}\"]\neach: [w=a.txt, {k: [a, \"b,c\"]}]\ncsv: u.csv\n", "each: {a: 0..9, b: ['', 1]}\ncommand:\n- x\n",
		"command: [x]\nenv: {A: 1}\nstdin: \"\\xff\"\npool: ['db:{w}=1']\nlimit: 4\nrate: 5/m\ntimeout: 1d2h\ngrace: 5\nretries: 2\n",
		"command: [x]\nretry-delay: 1s\nhalt: now,fail=5%\ncanary: 1\npriority: -1\nmax-output: 64MiB\ndir: /\nname: n\ncomment: |\n  c\n",
		"a: &a [*a]\n", "command: *x", "comand: [x]", "command: [{}]", "--- \ncommand: [x]\n...\n--- \n", "{\"command\": [\"x\"]}", "? [a]\n: b\n", "\ufeffcommand: [x]",
		"!!binary a: b", "%YAML 1.1\n---\ncommand: [x]\n", "command: !!str x", "<<: [{name: a}]", "\xff\xfec\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := plan.ParseFile(bytes.NewReader(data), "run.yaml")
		if err != nil {
			said := err.Error() + bulkhead.HintOf(err)
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage || strings.Contains(said, "plan.File") || strings.Contains(said, "unmarshal") {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		again, err := plan.ParseFile(bytes.NewReader(data), "run.yaml")
		if diff := cmp.Diff(file, again); err != nil || diff != "" {
			t.Fatalf("%q reads differently: %v\n%s", data, err, diff)
		}
		stored, err := json.Marshal(file.Spec())
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		var spec bulkhead.Spec
		if err := json.Unmarshal(stored, &spec); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if diff := cmp.Diff(file.Spec(), spec); diff != "" && !emptyList(file) {
			t.Fatalf("%q, stored as %s, is another\n%s", data, stored, diff)
		}
		var literal []bulkhead.Source
		for _, src := range file.Each {
			if src.Values != nil {
				literal = append(literal, src)
			}
		}
		const most = 1000 // items of a product are many
		before, n, err := plan.HashOf(literal, plan.Options{}, most)
		if err != nil {
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Fatalf("%q: %v is no usage error", data, err)
			}
			return
		}
		for i, src := range spec.Inputs[len(spec.Inputs)-len(file.Each):] {
			file.Each[i] = src
		}
		literal = slices.DeleteFunc(file.Each, func(src bulkhead.Source) bool { return src.Values == nil })
		if after, m, err := plan.HashOf(literal, plan.Options{}, most); err != nil || after != before || m != n {
			t.Fatalf("%q, stored as %s, has other items: %v", data, stored, err)
		}
	})
}

// emptyList reports whether a list of the file is there and empty, which JSON
// does not tell from one that is not there.
func emptyList(f plan.File) bool {
	return f.Each != nil && len(f.Each) == 0 || f.Env != nil && len(f.Env) == 0 || f.Pools != nil && len(f.Pools) == 0
}
