package output_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
)

func ctxOf(t fataler) context.Context {
	if c, ok := t.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return context.Background()
}

func TestBothStreamsComeBackWithTheirTimes(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	same(t, "position", w.Position(), bulkhead.OutputRef{Segment: 1})
	w.Begin(42, 3, begin, 0)
	write(t, w, output.Stdout, after(0), "hello\n")
	write(t, w, output.Stderr, after(1500*time.Microsecond), "oops")
	write(t, w, output.Stdout, after(72*time.Hour), "bye\n")
	ref := end(t, w)
	a := output.Attempt{Item: 42, N: 3, Ref: ref}
	want := []output.Chunk{
		{Stream: output.Stdout, At: after(0), Data: []byte("hello\n")},
		{Stream: output.Stderr, At: after(1500 * time.Microsecond), Data: []byte("oops")},
		{Stream: output.Stdout, At: after(72 * time.Hour), Data: []byte("bye\n")},
	}
	same(t, "unsealed", read(t, dir, a), want)
	closeLog(t, l)
	same(t, "files", files(t, dir), []string{"1.seg.zst"})
	same(t, "sealed", read(t, dir, a), want)
	got, err := output.Measure(dir, output.Attempt{Item: 42, N: 3, Ref: bulkhead.OutputRef{Segment: 1}})
	same(t, "measured", got, ref)
	if err != nil || ref.Bytes != 14 || ref.Dropped != 0 {
		t.Fatal(ref, err)
	}
}

func TestTheFolderIsPrivateAndOnlyThereWithOutput(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	for i := range int64(1000) {
		if a := attempt(t, w, i+1, ""); a.Ref != (bulkhead.OutputRef{}) {
			t.Fatal("an attempt that wrote nothing has a reference:", a)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the folder exists without output")
	}
	attempt(t, w, 1001, "x")
	closeLog(t, l)
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "1.seg.zst"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Fatalf("%s: %v %v, want mode %v", path, info, err, mode)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal("closing twice:", err)
	}
}

func TestOutputBeyondTheLimitIsCountedAndCut(t *testing.T) {
	cases := map[string]struct {
		max           int64
		writes        []string
		kept          string
		cuts          []int64 // Dropped of each cut chunk
		bytes, misses int64
	}{
		"exactly at the limit nothing is cut": {5, []string{"ab", "cde"}, "abcde", nil, 5, 0},
		"a write across the limit is split":   {4, []string{"ab", "cde"}, "abcd", []int64{1}, 4, 1},
		"cuts are told at once, then as often as they double": {
			1, []string{"ab", "c", "d", "e", "f", "g"}, "a", []int64{1, 1, 2, 2}, 1, 6,
		},
		"a negative limit keeps everything": {-1, []string{strings.Repeat("x", 99)}, strings.Repeat("x", 99), nil, 99, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := runDir(t)
			l := openLog(t, output.Options{Dir: dir})
			w := l.Writer()
			w.Begin(1, 1, begin, c.max)
			for _, p := range c.writes {
				write(t, w, output.Stdout, begin, p)
			}
			ref := end(t, w)
			closeLog(t, l)
			got := read(t, dir, output.Attempt{Item: 1, N: 1, Ref: ref})
			var cuts []int64
			for _, chunk := range got {
				if chunk.Dropped > 0 {
					cuts = append(cuts, chunk.Dropped)
				}
			}
			same(t, "kept", text(got), c.kept)
			same(t, "cuts", cuts, c.cuts)
			if ref.Bytes != c.bytes || ref.Dropped != c.misses {
				t.Fatalf("%+v", ref)
			}
		})
	}
}

func TestTheDefaultLimitIsThatOfARun(t *testing.T) {
	l := openLog(t, output.Options{Dir: runDir(t)})
	defer closeLog(t, l)
	w := l.Writer()
	w.Begin(1, 1, begin, 0)
	for range bulkhead.DefaultMaxOutput>>20 + 1 {
		if err := w.Write(output.Stdout, begin, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if ref := end(t, w); ref.Bytes != bulkhead.DefaultMaxOutput || ref.Dropped != 1<<20 {
		t.Fatalf("%+v", ref)
	}
}

func TestAFullSegmentIsSealedWhileTheNextOneIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir, SegmentSize: 1000})
		v, w := l.Writer(), l.Writer()
		first := attempt(t, v, 1, strings.Repeat("a", 999))
		same(t, "position after a full segment", v.Position(), bulkhead.OutputRef{Segment: 3})
		second := attempt(t, v, 2, "b")
		other := attempt(t, w, 3, "c")
		<-time.After(3 * time.Second) // nothing is left that could wake up then
		same(t, "files", files(t, dir), []string{"1.seg.zst", "2.seg", "3.seg"})
		for want, a := range map[string]output.Attempt{strings.Repeat("a", 999): first, "b": second, "c": other} {
			same(t, "text", text(read(t, dir, a)), want)
		}
		closeLog(t, l)
		same(t, "files", files(t, dir), []string{"1.seg.zst", "2.seg.zst", "3.seg.zst"})
	})
}

func TestOutputIsAtMostASecondBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		a := output.Attempt{Item: 5, N: 1, Ref: w.Position()}
		w.Begin(5, 1, begin, 0)
		want := ""
		for i := range 5 {
			write(t, w, output.Stderr, begin, line(i))
			want += line(i)
			<-time.After(time.Second)
			synctest.Wait()
			same(t, "a second later", text(read(t, dir, a)), want)
		}
		<-time.After(3 * time.Second)
		// The log is not closed: the test ends only because its goroutines did.
	})
}

func TestWhatIsFlushedIsSyncedAndAFailureIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir})
		synced, broken := 0, syscall.EIO
		l.BeforeStep(func(step string) error {
			if step != "sync data" {
				return nil
			}
			if synced++; synced == 2 {
				return broken
			}
			return nil
		})
		w := l.Writer()
		a := attempt(t, w, 1, "one")
		<-time.After(time.Second)
		synctest.Wait()
		same(t, "syncs", synced, 1)
		<-time.After(time.Minute)
		synctest.Wait()
		same(t, "syncs without output", synced, 1)
		w.Begin(2, 1, begin, 0)
		write(t, w, output.Stdout, begin, "two")
		<-time.After(time.Second)
		synctest.Wait()
		if _, err := w.End(); !errors.Is(err, broken) {
			t.Fatal("the disk could not keep it, and:", err)
		}
		b := output.Attempt{Item: 2, N: 1, Ref: end(t, w)}
		<-time.After(2 * time.Second)
		synctest.Wait()
		same(t, "syncs", synced, 3)
		same(t, "texts", text(read(t, dir, a))+text(read(t, dir, b)), "onetwo")
		closeLog(t, l)
	})
}

func TestWritingOutsideOfAnAttemptIsRefused(t *testing.T) {
	l := openLog(t, output.Options{Dir: runDir(t)})
	w := l.Writer()
	if err := w.Write(output.Stdout, begin, []byte("x")); !errors.Is(err, output.ErrNotBegun) {
		t.Fatal(err)
	}
	if _, err := w.End(); !errors.Is(err, output.ErrNotBegun) {
		t.Fatal(err)
	}
	w.Begin(1, 1, begin, 0)
	closeLog(t, l)
	if err := w.Write(output.Stdout, begin, []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := output.OpenLog(output.Options{}); err == nil {
		t.Fatal("a log without a folder was opened")
	}
}

func TestWritersAndReadersDoNotDisturbEachOther(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir, SegmentSize: 64 << 10, FlushEvery: time.Millisecond})
	var wg sync.WaitGroup
	for slot := range 4 {
		w := l.Writer()
		wg.Go(func() {
			for i := range 60 {
				item := int64(slot*1000 + i)
				w.Begin(item, 1, begin, 0)
				want := [2]string{strings.Repeat(fmt.Sprint(item, " out "), 300), strings.Repeat(fmt.Sprint(item, " err "), 300)}
				var streams sync.WaitGroup
				for n, s := range []output.Stream{output.Stdout, output.Stderr} {
					streams.Go(func() {
						for p := range bytes.SplitAfterSeq([]byte(want[n]), []byte("1 ")) {
							if err := w.Write(s, begin, p); err != nil {
								t.Error(err)
							}
						}
					})
				}
				streams.Wait()
				ref, err := w.End()
				var got [2]string
				err = errors.Join(err, output.Read(dir, output.Attempt{Item: item, N: 1, Ref: ref}, func(c output.Chunk) error {
					got[c.Stream-output.Stdout] += string(c.Data)
					return nil
				}))
				if err != nil || got != want {
					t.Errorf("item %d: %v\n%s", item, err, cmp.Diff(want, got))
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
}

// model is what an attempt should read as.
type model struct {
	output.Attempt
	chunks []output.Chunk
}

// merged joins what Write had to split, and leaves out cuts.
func merged(chunks []output.Chunk) (all []output.Chunk, dropped int64) {
	for _, c := range chunks {
		dropped += c.Dropped
		if len(c.Data) == 0 {
			continue
		}
		if n := len(all); n > 0 && all[n-1].Stream == c.Stream && all[n-1].At.Equal(c.At) {
			all[n-1].Data = append(all[n-1].Data, c.Data...)
			continue
		}
		all = append(all, c)
	}
	return all, dropped
}

func TestEveryAttemptReadsAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := tempFolder(t)
		defer os.RemoveAll(dir)
		o := output.Options{Dir: filepath.Join(dir, "run"), SegmentSize: rapid.SampledFrom([]int64{1, 300, 100_000}).Draw(t, "segment size")}
		var all []model
		item := int64(0)
		for range rapid.IntRange(1, 3).Draw(t, "processes") {
			l, known := openLog(t, o), len(all)
			writers := []*output.Writer{l.Writer(), l.Writer(), l.Writer()}
			for range rapid.IntRange(0, 8).Draw(t, "attempts") {
				item++
				w := rapid.SampledFrom(writers).Draw(t, "writer")
				all = append(all, drawAttempt(t, w, item))
			}
			for _, m := range all[known:] {
				m.check(t, o.Dir)
			}
			closeLog(t, l)
		}
		for _, m := range all {
			m.check(t, o.Dir)
		}
	})
}

func drawAttempt(t *rapid.T, w *output.Writer, item int64) model {
	m := model{Attempt: output.Attempt{Item: item, N: rapid.IntRange(1, 1000).Draw(t, "n")}}
	limit := rapid.SampledFrom([]int64{-1, 0, 1, 50, 40_000}).Draw(t, "limit")
	room := limit
	if limit <= 0 {
		room = math.MaxInt64
	}
	position := w.Position()
	w.Begin(item, m.N, begin, limit)
	at, dropped := begin, int64(0)
	for range rapid.IntRange(0, 5).Draw(t, "writes") {
		at = at.Add(time.Duration(rapid.IntRange(0, 1<<30).Draw(t, "later")) * time.Microsecond)
		s := rapid.SampledFrom([]output.Stream{output.Stdout, output.Stderr}).Draw(t, "stream")
		p := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data")
		p = bytes.Repeat(p, rapid.SampledFrom([]int{1, 3, 5000}).Draw(t, "times"))
		if err := w.Write(s, at, p); err != nil {
			t.Fatal(err)
		}
		kept := p[:min(int64(len(p)), room)]
		room -= int64(len(kept))
		dropped += int64(len(p) - len(kept))
		m.chunks = append(m.chunks, output.Chunk{Stream: s, At: at, Data: bytes.Clone(kept)})
	}
	m.chunks, _ = merged(m.chunks)
	m.Ref = end(t, w)
	if m.Ref.Dropped != dropped || m.Ref.Length > 0 && (m.Ref.Segment != position.Segment || m.Ref.Offset != position.Offset) {
		t.Fatalf("%+v: dropped %d, began at %+v", m.Ref, dropped, position)
	}
	return m
}

// check reads the attempt by its result, by its lease, and from its end.
func (m model) check(t fataler, dir string) {
	t.Helper()
	chunks, dropped := merged(read(t, dir, m.Attempt))
	same(t, "chunks", chunks, m.chunks)
	if dropped != m.Ref.Dropped || int64(len(text(chunks))) != m.Ref.Bytes {
		t.Fatalf("%+v: %d dropped", m.Ref, dropped)
	}
	lease := m.Attempt
	lease.Ref = bulkhead.OutputRef{Segment: m.Ref.Segment, Offset: m.Ref.Offset}
	ref, err := output.Measure(dir, lease)
	if err != nil || ref != m.Ref {
		t.Fatalf("measured %+v, want %+v: %v", ref, m.Ref, err)
	}
	all := lines(chunks)
	for _, a := range []output.Attempt{m.Attempt, lease} {
		for _, n := range []int{1, 3, 1 << 30} {
			tail, err := output.Tail(dir, a, n)
			if want := lastLines(all, n); err != nil || string(tail) != want {
				t.Fatalf("last %d lines: got %d bytes, want %d: %v", n, len(tail), len(want), err)
			}
		}
	}
}

// lines is the text in which no line has something of both streams.
func lines(chunks []output.Chunk) string {
	var all []byte
	var stream output.Stream
	for _, c := range chunks {
		if len(c.Data) == 0 {
			continue
		}
		if len(all) > 0 && c.Stream != stream && all[len(all)-1] != '\n' && c.Data[0] != '\n' {
			all = append(all, '\n')
		}
		all, stream = append(all, c.Data...), c.Stream
	}
	return string(all)
}

// lastLines is Tail the obvious way.
func lastLines(all string, n int) string {
	lines := strings.SplitAfter(all, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	last := strings.Join(lines[max(0, len(lines)-n):], "")
	return last[max(0, len(last)-output.TailBytes):]
}
