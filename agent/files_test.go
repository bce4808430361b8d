package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// look writes where it is, which files there are, and what stdin has.
func look(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
	var b strings.Builder
	dir := ""
	for _, v := range job.Env {
		if d, ok := strings.CutPrefix(v, "BULKHEAD_FILES="); ok {
			dir = d
		}
	}
	fmt.Fprintln(&b, "there:", dir != "" && dir == job.Dir)
	there := os.DirFS(dir)
	_ = fs.WalkDir(there, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := fs.ReadFile(there, path)
		fmt.Fprintln(&b, path, info.Mode(), string(content))
		return err
	})
	if job.StdinFile != nil {
		content, _ := io.ReadAll(job.StdinFile)
		fmt.Fprintln(&b, "stdin:", string(content))
	}
	write(ctx, out, 1, b.String())
	return bulkhead.Result{}
}

func TestFilesOfARunAreFetchedOnceAndPutWhereTheyBelong(t *testing.T) {
	s, r := newServer(t), newScripts()
	r.do["look"] = look
	a, b, in := s.addFile("content of a"), s.addFile("with a BREAK of the connection"), s.addFile("for stdin")
	const items = 5
	for i := range items {
		l := lease("look")
		l.Run, l.Item, l.Attempt = 7, int64(i+1), 1
		l.StdinFile = in
		l.Files = []*bulkheadv1.File{
			{Sha256: a, Size: 12, Path: "a.txt"}, {Sha256: b, Size: 30, Path: "bin/deep/b", Executable: true}, {Sha256: a, Size: 12, Path: "same"},
		}
		s.add(l)
	}
	opts := options(t, s, r)
	stop, _ := start(t, opts)
	s.until(t, "all are finished", func() bool { return s.finished() == items })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string {
		return "there: true\na.txt -r--r--r-- content of a\nbin/deep/b -r-xr-xr-x with a BREAK of the connection\n" +
			"same -r--r--r-- content of a\nstdin: for stdin\n"
	})
	if n := s.calls["ReadFile"]; n != 4 { // one of three contents took two calls
		t.Errorf("files were read in %d calls", n)
	}
}

func TestFilesThatAreNoLongerUsedMakeRoom(t *testing.T) {
	s, r := newServer(t), newScripts()
	opts := options(t, s, r)
	opts.FilesLimit, opts.Agent.Slots = 100, 1
	for i := range 10 {
		text := strings.Repeat(fmt.Sprint(i), 40)
		l := lease("say", text)
		l.Run, l.Item, l.Attempt = int64(i+1), 1, 1
		l.Files = []*bulkheadv1.File{{Sha256: s.addFile(text), Size: 40, Path: "f"}}
		s.add(l)
	}
	stop, _ := start(t, opts)
	s.until(t, "all are finished", func() bool { return s.finished() == 10 })
	if n := bytesIn(t, filepath.Join(opts.Spool, "files", "blobs")); n > 100 {
		t.Errorf("there are %d bytes of files", n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(l *bulkheadv1.Lease) string { return string(l.GetCommand()[1]) })
}

func TestFilesThatCannotBePlacedFailTheirAttempt(t *testing.T) {
	s, r := newServer(t), newScripts()
	sha := s.addFile("content")
	other := s.addFile("other")
	s.set(func() { s.files[other] = []byte("changed") })
	for name, f := range map[string]*bulkheadv1.File{
		"absolute":      {Sha256: sha, Size: 7, Path: "/etc/passwd"},
		"upwards":       {Sha256: sha, Size: 7, Path: "a/../../x"},
		"a bad hash":    {Sha256: "../../x", Size: 7, Path: "x"},
		"not there":     {Sha256: strings.Repeat("0", 64), Size: 7, Path: "x"},
		"another size":  {Sha256: sha, Size: 8, Path: "x"},
		"too much":      {Sha256: sha, Size: 3, Path: "x"},
		"other content": {Sha256: other, Size: 7, Path: "x"},
	} {
		l := lease("say", name)
		l.Files = []*bulkheadv1.File{f}
		s.add(l)
	}
	l := lease("say", "twice the same path")
	l.Files = []*bulkheadv1.File{{Sha256: sha, Size: 7, Path: "x"}, {Sha256: sha, Size: 7, Path: "x"}}
	s.add(l)
	stop, _ := start(t, options(t, s, r))
	s.until(t, "all are finished", func() bool { return s.finished() == len(s.attempts) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, rec := range s.attempts {
		if res := rec.result; res.GetHow() != bulkheadv1.How_HOW_START || res.GetError() == "" {
			t.Errorf("%s: %v", rec.lease.GetCommand()[1], res)
		}
	}
	if len(r.started) > 0 {
		t.Errorf("started: %q", r.started)
	}
}

func TestOutputIsRepeatedForTheLogPipelineIfTheClassSaysSo(t *testing.T) {
	s, r := newServer(t), newScripts()
	loud, quiet := lease("say", "one\ntw", "err \"q\"\n", "o\nlast"), lease("say", "quiet\n")
	loud.Run, loud.Item, loud.Attempt, loud.Echo = 3, 5, 2, true
	s.add(loud, quiet)
	var out bytes.Buffer
	opts := options(t, s, r)
	opts.Echo = &out
	stop, _ := start(t, opts)
	s.until(t, "all are finished", func() bool { return s.finished() == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	var got []string
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var l struct {
			Time               string
			Run, Item, Attempt int
			Stream, Line       string
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Time == "" {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		got = append(got, fmt.Sprintf("%d %d %d %s %s", l.Run, l.Item, l.Attempt, l.Stream, l.Line))
	}
	want := "3 5 2 stdout one|3 5 2 stderr err \"q\"|3 5 2 stdout two|3 5 2 stdout last"
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

// stuck is a writer that nobody reads from.
type stuck struct{ until <-chan struct{} }

func (s stuck) Write([]byte) (int, error) {
	<-s.until
	return 0, io.ErrClosedPipe
}

func TestALogPipelineThatStandsStillStopsNoScript(t *testing.T) {
	s, r := newServer(t), newScripts()
	end := make(chan struct{})
	defer close(end)
	l := lease("flood", "3000000")
	l.Echo = true
	s.add(l)
	opts := options(t, s, r)
	opts.Echo = stuck{end}
	stop, _ := start(t, opts)
	s.until(t, "it is finished", func() bool { return s.finished() == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkAll(t, s, r, func(*bulkheadv1.Lease) string { return text(0, 3_000_000) })
}
