package output_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
)

// isPrefix reports whether got is what want begins with. A chunk is there or
// it is not: none is there in part.
func isPrefix(got, want []output.Chunk) bool {
	return len(got) <= len(want) && (len(got) == 0 || cmp.Equal(got, want[:len(got)], byBytes))
}

// TestAnyPrefixOfASegmentYieldsAPrefixOfItsRecords cuts a segment at every
// byte, as a crash may, and reads every attempt both as ended and as lost.
func TestAnyPrefixOfASegmentYieldsAPrefixOfItsRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := tempFolder(t)
		defer os.RemoveAll(dir)
		path, attempts := drawSegment(t, dir)
		size := int64(len(readFile(t, path)))
		for cut := size; cut >= 0; cut-- {
			if err := os.Truncate(path, cut); err != nil {
				t.Fatal(err)
			}
			for _, m := range attempts {
				// Where the cut is in another attempt, nothing changes any more.
				if end := m.Ref.Offset + m.Ref.Length; m.Ref.Offset <= cut && cut <= end {
					m.checkDamaged(t, dir, cut == end)
				}
			}
		}
	})
}

func TestAWrongByteNeverShowsAsOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := tempFolder(t)
		defer os.RemoveAll(dir)
		path, attempts := drawSegment(t, dir)
		data := readFile(t, path)
		if len(data) == 0 {
			return
		}
		at := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		data[at] ^= rapid.ByteRange(1, 255).Draw(t, "flip")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, m := range attempts {
			whole := int64(at) < m.Ref.Offset || int64(at) >= m.Ref.Offset+m.Ref.Length
			m.checkDamaged(t, dir, whole)
		}
		// What lies beyond the damage survives sealing, too.
		closeLog(t, openLog(t, output.Options{Dir: dir}))
		same(t, "files", files(t, dir), []string{"1.seg.zst"})
		for _, m := range attempts {
			whole := int64(at) < m.Ref.Offset || int64(at) >= m.Ref.Offset+m.Ref.Length
			m.checkDamaged(t, dir, whole)
		}
	})
}

func tempFolder(t fataler) string {
	dir, err := os.MkdirTemp("", "output")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func readFile(t fataler, path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// drawSegment writes a small segment and leaves it unsealed, as a crash does.
func drawSegment(t *rapid.T, dir string) (path string, attempts []model) {
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	for item := range rapid.Int64Range(1, 3).Draw(t, "attempts") {
		m := model{Attempt: output.Attempt{Item: item, N: 1}}
		w.Begin(item, 1, begin, 20)
		for range rapid.IntRange(1, 3).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 1, 12).Draw(t, "data")
			if err := w.Write(output.Stdout, begin, p); err != nil {
				t.Fatal(err)
			}
		}
		m.Ref = end(t, w)
		m.chunks = read(t, dir, m.Attempt)
		attempts = append(attempts, m)
	}
	path = filepath.Join(dir, "1.seg")
	data := readFile(t, path)
	closeLog(t, l)
	if err := errors.Join(os.Remove(path+".zst"), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path, attempts
}

// checkDamaged reads an attempt that may not be whole.
func (m model) checkDamaged(t fataler, dir string, whole bool) {
	t.Helper()
	var got []output.Chunk
	err := output.Read(dir, m.Attempt, collect(&got))
	if whole != (err == nil) || !whole && !errors.Is(err, output.ErrDamaged) {
		t.Fatalf("whole: %v, but: %v", whole, err)
	}
	if !isPrefix(got, m.chunks) || whole && len(got) != len(m.chunks) {
		t.Fatalf("got %v\nof %v", got, m.chunks)
	}
	lost := m.Attempt
	lost.Ref = bulkhead.OutputRef{Segment: 1, Offset: m.Ref.Offset}
	as := read(t, dir, lost)
	same(t, "read as lost", as, got)
	ref, err := output.Measure(dir, lost)
	if err != nil || whole && ref != m.Ref || ref.Bytes != int64(len(text(as))) {
		t.Fatalf("measured %+v, want %+v: %v", ref, m.Ref, err)
	}
	tail, err := output.Tail(dir, m.Attempt, 1<<30)
	if whole != (err == nil) || string(tail) != text(got) {
		t.Fatalf("tail %q of %q: %v", tail, text(got), err)
	}
}

func TestAPositionThatNobodyWroteToIsNobodysOutput(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	silent := output.Attempt{Item: 1, N: 1, Ref: w.Position()}
	attempt(t, w, 1, "")
	same(t, "while nothing is there", read(t, dir, silent), []output.Chunk(nil))
	next := attempt(t, w, 2, "two\n")
	same(t, "the position was given again", read(t, dir, silent), []output.Chunk(nil))
	ref, err := output.Measure(dir, silent)
	if err != nil || ref != (bulkhead.OutputRef{}) {
		t.Fatal(ref, err)
	}
	// The first one's output was acknowledged and lost with the power, and its
	// place was given to the second: that must not show as the first one's.
	lost := output.Attempt{Item: 1, N: 1, Ref: next.Ref}
	if err := output.Read(dir, lost, nil); !errors.Is(err, output.ErrDamaged) {
		t.Fatal(err)
	}
	if tail, err := output.Tail(dir, lost, 5); !errors.Is(err, output.ErrDamaged) || len(tail) > 0 {
		t.Fatal(tail, err)
	}
	closeLog(t, l)
	lost.Ref.Segment = 99
	err = output.Read(dir, lost, nil)
	if bulkhead.CodeOf(err) != bulkhead.CodeNotFound || bulkhead.HintOf(err) == "" {
		t.Fatal(err)
	}
}

// FuzzDecode reads anything as a segment, in both directions.
func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	l := openLog(f, output.Options{Dir: dir})
	w := l.Writer()
	attempt(f, w, 1, "hello")
	attempt(f, w, 2, "world")
	good := readFile(f, filepath.Join(dir, "1.seg"))
	closeLog(f, l)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(slices.Clone(good), make([]byte, 100)...))
	f.Add([]byte("A\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		again, n := output.Scan(1, data)
		if !bytes.HasPrefix(data, again) {
			t.Fatal("the records that were read are not those that are there")
		}
		if back := output.ScanBack(1, again); back != n {
			t.Fatalf("%d records forwards, %d backwards", n, back)
		}
		output.ScanBack(1, data)
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, "1.seg"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		a := output.Attempt{Item: 1, N: 1, Ref: bulkhead.OutputRef{Segment: 1}}
		got := read(t, path, a)
		tail, err := output.Tail(path, a, 1<<30)
		if err != nil || string(tail) != text(got) && len(tail) < output.TailBytes {
			t.Fatal(err)
		}
	})
}
