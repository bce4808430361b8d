package bulkhead_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
)

func joined(chunks []bulkhead.Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		b.Write(c.Data)
	}
	return b.String()
}

func TestRecentHoldsTheEndOfWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r bulkhead.Recent
		var all []byte
		known := 0 // all before is not known: it was skipped
		for range rapid.IntRange(1, 40).Draw(t, "writes") {
			p := bytes.Repeat([]byte{byte(rapid.IntRange('a', 'z').Draw(t, "letter"))}, rapid.IntRange(0, 60<<10).Draw(t, "size"))
			at := len(all)
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0: // something comes again, and more
				at -= min(at-known, 1000)
				at = max(at, 0)
				p = append(bytes.Clone(all[at:]), p...)
			case 1: // a gap
				all = append(all, make([]byte, 100)...)
				at, known = len(all), len(all)
				r.Skip(int64(at))
			}
			r.Add(int64(at), bulkhead.Chunk{Stream: bulkhead.Stdout, Data: p})
			all = append(all[:at], p...)
		}
		if r.End() != int64(len(all)) {
			t.Fatalf("it ends at %d, not %d", r.End(), len(all))
		}
		if n := r.End() - r.Start(); n > bulkhead.RecentBytes {
			t.Fatalf("it holds %d bytes", n)
		}
		from := rapid.Int64Range(r.Start(), r.End()).Draw(t, "from")
		if got := joined(r.From(from, len(all))); got != string(all[from:]) {
			t.Fatalf("from %d it has %d bytes, not %d", from, len(got), len(all)-int(from))
		}
		if got := joined(r.From(from, 10)); got != string(all[from:min(from+10, r.End())]) {
			t.Fatalf("ten bytes from %d are %q", from, got)
		}
	})
}

func TestRecentFindsTheLastLines(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		lines int
		want  string
	}{
		"of several":            {"a\nb\nc\n", 2, "b\nc\n"},
		"with one that goes on": {"a\nb\n$ ", 2, "b\n$ "},
		"of fewer":              {"a\nb\n", 9, "a\nb\n"},
		"of none":               {"", 3, ""},
		"of an empty one":       {"a\n\n\n", 2, "\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var r bulkhead.Recent
			for i := range len(c.text) {
				r.Add(int64(i), bulkhead.Chunk{Stream: bulkhead.Stdout, Data: []byte(c.text[i : i+1])})
			}
			if got := joined(r.From(r.Tail(c.lines), 100)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestInteractiveRunsAreOneScriptThatStartsOnce(t *testing.T) {
	text := "x"
	for name, c := range map[string]struct {
		change func(*bulkhead.Spec)
		want   string // of the error; "": none
	}{
		"a shell":                {func(s *bulkhead.Spec) { s.Terminal, s.Window = true, bulkhead.Window{Rows: 1, Columns: 2} }, ""},
		"a pipe":                 {func(*bulkhead.Spec) {}, ""},
		"a batch":                {func(s *bulkhead.Spec) { s.Columns = []string{"1"} }, "nobody types into many scripts"},
		"with retries":           {func(s *bulkhead.Spec) { s.Retries = 1 }, "not retried"},
		"with stdin":             {func(s *bulkhead.Spec) { s.Stdin = &text }, "exclude each other"},
		"with a file for stdin":  {func(s *bulkhead.Spec) { s.StdinFile = strings.Repeat("0", 64) }, "exclude each other"},
		"a terminal for nobody":  {func(s *bulkhead.Spec) { s.Interactive, s.Terminal = false, true }, "nobody can type"},
		"a window of a pipe":     {func(s *bulkhead.Spec) { s.Window.Rows = 1 }, "a window without a terminal"},
		"not interactive at all": {func(s *bulkhead.Spec) { s.Interactive, s.Retries = false, 3 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := bulkhead.Spec{Command: []string{"sh"}, Limit: 1, MaxOutput: 1, Interactive: true}
			c.change(&s)
			err := s.Check()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
