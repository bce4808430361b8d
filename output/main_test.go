package output_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

var begin = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// after is a time that the format keeps exactly.
func after(d time.Duration) time.Time { return begin.Add(d) }

// fataler is *testing.T, *testing.B or *rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func openLog(t fataler, o output.Options) *output.Log {
	t.Helper()
	l, err := output.OpenLog(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t fataler, l *output.Log) {
	t.Helper()
	if err := l.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
}

func write(t fataler, w *output.Writer, s output.Stream, at time.Time, text string) {
	t.Helper()
	if err := w.Write(s, at, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func end(t fataler, w *output.Writer) bulkhead.OutputRef {
	t.Helper()
	ref, err := w.End()
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// attempt writes one whole attempt of a single chunk.
func attempt(t fataler, w *output.Writer, item int64, text string) output.Attempt {
	t.Helper()
	w.Begin(item, 1, begin, 0)
	if text != "" {
		write(t, w, output.Stdout, begin, text)
	}
	return output.Attempt{Item: item, N: 1, Ref: end(t, w)}
}

// collect keeps the chunks it is given.
func collect(into *[]output.Chunk) func(output.Chunk) error {
	return func(c output.Chunk) error {
		c.Data = append([]byte(nil), c.Data...)
		*into = append(*into, c)
		return nil
	}
}

func read(t fataler, dir string, a output.Attempt) []output.Chunk {
	t.Helper()
	var got []output.Chunk
	if err := output.Read(dir, a, collect(&got)); err != nil {
		t.Fatalf("read item %d: %v", a.Item, err)
	}
	return got
}

// text is the data of all chunks.
func text(chunks []output.Chunk) string {
	var b []byte
	for _, c := range chunks {
		b = append(b, c.Data...)
	}
	return string(b)
}

// byBytes keeps cmp from looking at each byte on its own.
var byBytes = cmp.Comparer(bytes.Equal)

func same(t fataler, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, byBytes); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// files are the names in a folder.
func files(t fataler, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func copyFolder(t fataler, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func line(i int) string { return fmt.Sprintf("line %d\n", i) }

func runDir(t *testing.T) string { return filepath.Join(t.TempDir(), "output", "7") }
