package files_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/files"
)

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func open(t fataler, o files.Options) *files.Store {
	t.Helper()
	s, err := files.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put sends a whole file in pieces of n bytes.
func put(t fataler, s *files.Store, data []byte, n int) {
	t.Helper()
	have, complete, err := s.Stat(hashOf(data))
	for err == nil && !complete {
		end := min(int(have)+n, len(data))
		have, complete, err = s.Put(hashOf(data), int64(len(data)), have, data[have:end])
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t fataler, s *files.Store, hash string) []byte {
	t.Helper()
	f, err := s.Open(hash)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func code(err error) string {
	if err == nil {
		return "none"
	}
	return bulkhead.CodeOf(err)
}

func names(t fataler, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestAFileThatCameInPiecesIsRead(t *testing.T) {
	s := open(t, files.Options{Dir: t.TempDir()})
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789"), 1000)} {
		put(t, s, data, 999)
		if got := read(t, s, hashOf(data)); !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, want %d", len(got), len(data))
		}
		if have, complete, err := s.Stat(hashOf(data)); have != int64(len(data)) || !complete || err != nil {
			t.Fatal(have, complete, err)
		}
	}
}

func TestPiecesThatAreRepeatedLateOrEarlyChangeNothing(t *testing.T) {
	root, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, hashOf([]byte{byte(n), byte(n >> 8)})[:8])
		s := open(t, files.Options{Dir: dir})
		data := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "data")
		hash, size, complete := hashOf(data), int64(len(data)), false
		for range 200 {
			if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
				s = open(t, files.Options{Dir: dir})
			}
			from := rapid.IntRange(0, len(data)-1).Draw(t, "from")
			if rapid.Bool().Draw(t, "in order") {
				have, _, err := s.Stat(hash)
				if err != nil {
					t.Fatal(err)
				}
				from = int(have)
			}
			to := min(len(data), from+rapid.IntRange(1, 50).Draw(t, "n"))
			if from == len(data) {
				to = from
			}
			have, done, err := s.Put(hash, size, int64(from), data[from:to])
			if err != nil {
				t.Fatal(err)
			}
			if complete && !done {
				t.Fatal("what was complete is not any more")
			}
			if complete = done; done && have != size {
				t.Fatal(have)
			}
		}
		put(t, s, data, 50)
		if d := cmp.Diff(data, read(t, s, hash)); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff([]string{hash}, names(t, dir)); d != "" {
			t.Fatal(d)
		}
	})
}

func TestContentThatIsNotItsNameIsThrownAway(t *testing.T) {
	dir := t.TempDir()
	s := open(t, files.Options{Dir: dir})
	hash := hashOf([]byte("right"))
	if have, complete, err := s.Put(hash, 5, 0, []byte("wrong")); have != 0 || complete || code(err) != bulkhead.CodeConflict {
		t.Fatal(have, complete, err)
	}
	if _, err := s.Open(hash); code(err) != bulkhead.CodeNotFound {
		t.Fatal(err)
	}
	put(t, s, []byte("right"), 2)
	if got := read(t, s, hash); string(got) != "right" {
		t.Fatalf("%q", got)
	}
}

func TestWhatMakesNoSenseIsRefusedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, files.Options{Dir: dir, MaxFile: 10})
	hash := hashOf([]byte("x"))
	for name, put := range map[string]func() error{
		"a name that leaves the folder": func() error { _, _, err := s.Put("../../etc/passwd", 1, 0, []byte("x")); return err },
		"a name in capitals":            func() error { _, _, err := s.Put(strings.ToUpper(hash), 1, 0, []byte("x")); return err },
		"a short name":                  func() error { _, _, err := s.Put(hash[:63], 1, 0, []byte("x")); return err },
		"no name":                       func() error { _, _, err := s.Stat(""); return err },
		"a part":                        func() error { _, err := s.Open(hash + ".part"); return err },
		"too large":                     func() error { _, _, err := s.Put(hash, 11, 0, []byte("x")); return err },
		"less than nothing":             func() error { _, _, err := s.Put(hash, 1, -1, []byte("x")); return err },
		"past the end":                  func() error { _, _, err := s.Put(hash, 1, 1, []byte("x")); return err },
		"an overflow":                   func() error { _, _, err := s.Put(hash, 1, 1<<63-1, []byte("x")); return err },
		"an empty piece":                func() error { _, _, err := s.Put(hash, 1, 0, nil); return err },
	} {
		if err := put(); code(err) != bulkhead.CodeUsage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := names(t, dir); len(got) > 0 || s.Total() != 0 {
		t.Error(got, s.Total())
	}
}

func TestAPartIsGoneOnWithAfterACrash(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte("abc"), 100)
	hash := hashOf(data)
	s := open(t, files.Options{Dir: dir})
	if _, _, err := s.Put(hash, 300, 0, data[:200]); err != nil {
		t.Fatal(err)
	}
	s = open(t, files.Options{Dir: dir})
	if have, complete, err := s.Stat(hash); have != 200 || complete || err != nil {
		t.Fatal(have, complete, err)
	}
	// Killed when all was there, and before it had its name.
	if err := os.WriteFile(filepath.Join(dir, hash+".part"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, files.Options{Dir: dir})
	if have, complete, err := s.Put(hash, 300, 300, nil); have != 300 || !complete || err != nil {
		t.Fatal(have, complete, err)
	}
}

func TestAPartThatALossOfPowerSpoiltIsThrownAway(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte("abc"), 100)
	hash := hashOf(data)
	if err := os.WriteFile(filepath.Join(dir, hash+".part"), make([]byte, 200), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, files.Options{Dir: dir})
	if have, _, err := s.Put(hash, 300, 200, data[200:]); have != 0 || code(err) != bulkhead.CodeConflict {
		t.Fatal(have, err)
	}
	put(t, s, data, 100)
	if got := read(t, s, hash); !bytes.Equal(got, data) {
		t.Fatalf("%q", got)
	}
}

// clock is a time that tests set.
type clock struct{ now time.Time }

func (c *clock) after(d time.Duration) { c.now = c.now.Add(d) }

func TestTheOldestUnusedFilesMakeRoom(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: time.Now()}
	used := map[string]bool{}
	o := files.Options{Dir: dir, MaxTotal: 3 * 10_000, Now: func() time.Time { return c.now }, Used: func(h string) bool { return used[h] }}
	s := open(t, o)
	content := func(b byte) []byte { return bytes.Repeat([]byte{b}, 10_000) }
	for b := range byte(3) {
		put(t, s, content(b), 5000)
		c.after(time.Minute)
	}
	if _, _, err := s.Put(hashOf(content(3)), 10_000, 0, content(3)); code(err) != bulkhead.CodeConflict {
		t.Fatal("what has just come made room: ", err)
	}
	c.after(time.Hour)
	used[hashOf(content(0))] = true
	if _, _, err := s.Stat(hashOf(content(1))); err != nil { // somebody asks for it
		t.Fatal(err)
	}
	put(t, s, content(4), 10_000)
	kept := func(b byte) bool {
		_, complete, err := s.Stat(hashOf(content(b)))
		return complete && err == nil
	}
	if !kept(0) || !kept(1) || kept(2) || !kept(4) {
		t.Fatal(kept(0), kept(1), kept(2), kept(4))
	}
	// The order outlives the process.
	s = open(t, o)
	if s.Total() != 30_000 {
		t.Fatal(s.Total())
	}
	c.after(time.Hour)
	used[hashOf(content(1))], used[hashOf(content(4))] = true, true
	if _, _, err := s.Put(hashOf(content(5)), 10_000, 0, content(5)); code(err) != bulkhead.CodeConflict {
		t.Fatal("a file that a run needs made room: ", err)
	}
	if got := names(t, dir); len(got) != 3 {
		t.Fatal(got)
	}
}

func TestManySmallFilesAreBounded(t *testing.T) {
	s := open(t, files.Options{Dir: t.TempDir(), MaxTotal: 10 * 4096})
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		data := []byte{byte(n)}
		_, _, err = s.Put(hashOf(data), 1, 0, data)
	}
	if code(err) != bulkhead.CodeConflict || n != 11 {
		t.Fatal(n, err)
	}
}

func TestManyWhoSendTheSameFileHelpEachOther(t *testing.T) {
	dir := t.TempDir()
	s := open(t, files.Options{Dir: dir})
	data := bytes.Repeat([]byte("abcdefgh"), 5000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			have, complete, err := int64(0), false, error(nil)
			for err == nil && !complete {
				have, complete, err = s.Put(hashOf(data), int64(len(data)), have, data[have:min(int(have)+777, len(data))])
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s, hashOf(data)); !bytes.Equal(got, data) {
		t.Fatal("not what was sent")
	}
	if d := cmp.Diff([]string{hashOf(data)}, names(t, dir)); d != "" {
		t.Fatal(d)
	}
}

func TestAFolderThatCannotBeWrittenIsAnErrorAndLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	s := open(t, files.Options{Dir: dir})
	data := []byte("content")
	if _, _, err := s.Put(hashOf(data), 7, 0, data[:3]); err != nil {
		t.Fatal(err)
	}
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if have, complete, err := s.Put(hashOf(data), 7, 3, data[3:]); have != 3 || complete || !errors.Is(err, os.ErrNotExist) {
		t.Fatal(have, complete, err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	put(t, s, data, 7)
}
