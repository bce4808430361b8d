package output_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
)

// reader follows a whole run and remembers where it is.
type reader struct {
	dir       string
	positions map[int64]bulkhead.Position
	got       []string
}

func newReader(dir string) *reader {
	return &reader{dir: dir, positions: map[int64]bulkhead.Position{}}
}

var errCut = errors.New("cut")

// read reads what there is, and stops after n chunks.
func (r *reader) read(t fataler, n int) (cut bool) {
	t.Helper()
	err := output.FollowFrom(ctxOf(t), r.dir, slices.Collect(maps.Values(r.positions)), output.Following{Done: func() bool { return true }},
		func(item int64, attempt int, c output.Chunk, behind bulkhead.Position) error {
			r.got = append(r.got, fmt.Sprintf("%d.%d %s %s %q -%d", item, attempt, c.Stream, c.At, c.Data, c.Dropped))
			r.positions[behind.Segment] = behind
			if n--; n == 0 {
				return errCut
			}
			return nil
		})
	if err != nil && !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	return err != nil
}

// scribble lets several slots write attempts of several chunks, and leaves the
// last ones unfinished.
func scribble(t *rapid.T, writers []*output.Writer, from int) {
	for i := range rapid.IntRange(1, 12).Draw(t, "attempts") {
		w := writers[rapid.IntRange(0, len(writers)-1).Draw(t, "slot")]
		w.Begin(int64(from+i+1), 1, begin, int64(rapid.SampledFrom([]int{0, 40}).Draw(t, "most")))
		for j := range rapid.IntRange(0, 5).Draw(t, "chunks") {
			s := output.Stream(1 + (i+j)%2)
			write(t, w, s, after(time.Duration(from+i+j)*time.Second), strings.Repeat(line(j), 1+j))
		}
		end(t, w)
	}
	for _, w := range writers {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFollowerThatIsCutAtEveryChunkGetsEachOnce(t *testing.T) {
	root, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, strconv.Itoa(n))
		l := openLog(t, output.Options{Dir: dir, SegmentSize: 300})
		writers := []*output.Writer{l.Writer(), l.Writer(), l.Writer()}
		scribble(t, writers, 0)
		whole, cut := newReader(dir), newReader(dir)
		whole.read(t, 0)
		for cut.read(t, 1) { // each turn reads one more chunk
		}
		same(t, "cut at every chunk", cut.got, whole.got)

		// More comes, and what there was is sealed meanwhile.
		scribble(t, writers, 100)
		closeLog(t, l)
		for whole.read(t, 0) { // to the end
		}
		n := rapid.IntRange(1, 5).Draw(t, "at once")
		for cut.read(t, n) { // each turn reads some more chunks
		}
		slices.Sort(whole.got)
		slices.Sort(cut.got)
		same(t, "after more was written and sealed", cut.got, whole.got)
	})
}

func TestPositionsThatWereNeverGivenAreRefused(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	attempt(t, l.Writer(), 1, "x")
	closeLog(t, l)
	for name, p := range map[string]bulkhead.Position{
		"no segment":              {Offset: 10},
		"before the attempt":      {Segment: 1, Offset: 5, Attempt: 5},
		"less than nothing":       {Segment: 1, Offset: 10, Attempt: -1},
		"not an attempt":          {Segment: 1, Offset: 100, Attempt: 3},
		"within the header":       {Segment: 1, Offset: 1},
		"an attempt past the end": {Segment: 1, Offset: 1 << 41, Attempt: 1 << 40},
	} {
		err := output.FollowFrom(t.Context(), dir, []bulkhead.Position{p}, output.Following{Done: func() bool { return true }}, nil)
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALiveFollowerGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		w.Begin(1, 1, begin, 0)
		r := newReader(dir)
		for i := range 20 {
			write(t, w, output.Stdout, begin, line(i))
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			r.read(t, 1)
		}
		end(t, w)
		closeLog(t, l)
		r.read(t, 0)
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("1.1 stdout %s %q -0", begin.Truncate(1), line(i)))
		}
		same(t, "each line once", r.got, want)
	})
}
