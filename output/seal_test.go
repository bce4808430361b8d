package output_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"bulkhead.dev/bulkhead/output"
)

// sealSteps are those of a segment of three frames, in order. The sealed file
// must be synced before it gets its name, and the name before the raw file goes.
var sealSteps = []string{"create", "write", "write", "write", "sync", "rename", "sync folder", "remove"}

// fill writes incompressible output of n bytes.
func fill(t fataler, w *output.Writer, item int64, n int) (output.Attempt, string) {
	t.Helper()
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(item)}).Read(p)
	w.Begin(item, 1, begin, -1)
	write(t, w, output.Stdout, begin, string(p))
	return output.Attempt{Item: item, N: 1, Ref: end(t, w)}, string(p)
}

func TestACrashAtAnyStepOfSealingLosesNothing(t *testing.T) {
	dir, crashes := runDir(t), t.TempDir()
	l := openLog(t, output.Options{Dir: dir})
	var steps []string
	l.BeforeStep(func(step string) error {
		copyFolder(t, dir, filepath.Join(crashes, fmt.Sprint(len(steps))))
		steps = append(steps, step)
		return nil
	})
	w := l.Writer()
	one, wantOne := fill(t, w, 1, 300_000)
	two, wantTwo := fill(t, w, 2, 50_000)
	closeLog(t, l)
	same(t, "steps", steps, sealSteps)
	same(t, "files", files(t, dir), []string{"1.seg.zst"})

	for i, step := range steps {
		t.Run(fmt.Sprint("before ", step, " ", i), func(t *testing.T) {
			dir := filepath.Join(crashes, fmt.Sprint(i))
			check := func() {
				t.Helper()
				if text(read(t, dir, one)) != wantOne || text(read(t, dir, two)) != wantTwo {
					t.Fatal("the output is not what was written")
				}
			}
			check()
			l := openLog(t, output.Options{Dir: dir})
			check()
			w := l.Writer()
			if w.Position().Segment != 2 {
				t.Fatal("numbers do not go on:", w.Position())
			}
			closeLog(t, l)
			check()
			same(t, "files", files(t, dir), []string{"1.seg.zst"})
		})
	}
}

func TestWhereSealingFailsTheSegmentIsSealedLater(t *testing.T) {
	for _, step := range slices.Compact(slices.Clone(sealSteps)) {
		t.Run("at "+step, func(t *testing.T) {
			dir := runDir(t)
			l := openLog(t, output.Options{Dir: dir, SegmentSize: 1})
			failed := make(chan struct{}, 1)
			var once sync.Once
			l.BeforeStep(func(s string) (err error) {
				if s == step {
					once.Do(func() {
						err = syscall.EIO
						failed <- struct{}{}
					})
				}
				return err
			})
			a, want := fill(t, l.Writer(), 1, 300_000)
			<-failed
			if text(read(t, dir, a)) != want {
				t.Fatal("the output is not what was written")
			}
			closeLog(t, l) // tries again
			same(t, "files", files(t, dir), []string{"1.seg.zst"})
			if text(read(t, dir, a)) != want {
				t.Fatal("the output is not what was written")
			}
		})
	}
}

func TestClosingInAHurryLeavesSegmentsForTheNextOwner(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	v, w := l.Writer(), l.Writer()
	a, b := attempt(t, v, 1, "a"), attempt(t, w, 2, "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	same(t, "files", files(t, dir), []string{"1.seg", "2.seg"})
	// A file without a byte is what a crash leaves between creating and writing.
	if err := os.WriteFile(filepath.Join(dir, "3.seg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, output.Options{Dir: dir})
	c := attempt(t, l.Writer(), 3, "c")
	closeLog(t, l)
	same(t, "files", files(t, dir), []string{"1.seg.zst", "2.seg.zst", "4.seg.zst"})
	same(t, "texts", []string{text(read(t, dir, a)), text(read(t, dir, b)), text(read(t, dir, c))}, []string{"a", "b", "c"})
}

func TestADamagedSealedSegmentIsAnErrorNotOutput(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	a, _ := fill(t, l.Writer(), 1, 300_000)
	closeLog(t, l)
	path := filepath.Join(dir, "1.seg.zst")
	data := readFile(t, path)
	for name, damaged := range map[string][]byte{
		"cut off": data[:len(data)-1],
		"changed": append(slices.Clone(data[:1000]), append([]byte{data[1000] ^ 1}, data[1001:]...)...),
		"empty":   {},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := output.Read(dir, a, func(output.Chunk) error { return nil }); !errors.Is(err, output.ErrDamaged) {
				t.Fatal(err)
			}
		})
	}
}

func TestSealedSegmentsAreOrdinaryZstd(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	attempt(t, l.Writer(), 1, "a line for other tools\n")
	raw := readFile(t, filepath.Join(dir, "1.seg"))
	closeLog(t, l)
	got, err := output.Unzstd(readFile(t, filepath.Join(dir, "1.seg.zst")))
	if err != nil || string(got) != string(raw) {
		t.Fatalf("%q %v, want %q", got, err, raw)
	}
}

func TestSizeAndRemove(t *testing.T) {
	dir := runDir(t)
	if n, err := output.Size(dir); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := output.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, output.Options{Dir: dir})
	fill(t, l.Writer(), 1, 100_000)
	closeLog(t, l)
	if n, err := output.Size(dir); n < 100_000 || n > 200_000 || err != nil {
		t.Fatal(n, err)
	}
	foreign := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := output.Remove(dir); err == nil {
		t.Fatal("a folder with a foreign file was removed")
	}
	same(t, "files", files(t, dir), []string{"notes.txt"})
	if err := errors.Join(os.Remove(foreign), output.Remove(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

const childEnv = "BULKHEAD_OUTPUT_TEST_CHILD"

// childText is what the child writes for an item.
func childText(item int64) string {
	r := rand.New(rand.NewPCG(uint64(item), 1))
	p := make([]byte, r.IntN(r.IntN(100_000)+1)+1)
	for i := range p {
		p[i] = "abcdefgh\n"[r.IntN(9)]
	}
	return string(p)
}

// writeUntilKilled is the child: it says on its stdout which attempts begin,
// and which have ended.
func writeUntilKilled(dir string) {
	l, err := output.OpenLog(output.Options{Dir: dir, SegmentSize: 100_000})
	if err != nil {
		panic(err)
	}
	for slot := range int64(2) {
		w := l.Writer()
		go func() {
			for item := slot + 1; ; item += 2 {
				r := w.Position()
				fmt.Printf("begin %d %d %d\n", item, r.Segment, r.Offset)
				w.Begin(item, 1, begin, 0)
				if err := w.Write(output.Stdout, begin, []byte(childText(item))); err != nil {
					panic(err)
				}
				r, err := w.End()
				if err != nil {
					panic(err)
				}
				fmt.Printf("end %d %d %d %d %d\n", item, r.Segment, r.Offset, r.Length, r.Bytes)
			}
		}()
	}
	select {}
}

func TestKillingTheOwnerLosesNothingThatEnded(t *testing.T) {
	dir := runDir(t)
	for round := range 10 {
		dir := filepath.Join(dir, fmt.Sprint(round))
		ended, lost := killedAfter(t, dir, 1+rand.IntN(60))
		check := func() {
			t.Helper()
			for _, a := range ended {
				if text(read(t, dir, a)) != childText(a.Item) {
					t.Fatalf("item %d is not what was written", a.Item)
				}
			}
			for _, a := range lost {
				got := text(read(t, dir, a))
				if want := childText(a.Item); len(got) > len(want) || got != want[:len(got)] {
					t.Fatalf("item %d is not the beginning of what was written", a.Item)
				}
				if ref, err := output.Measure(dir, a); err != nil || ref.Bytes != int64(len(got)) {
					t.Fatal(ref, err)
				}
			}
		}
		check()
		l := openLog(t, output.Options{Dir: dir})
		check()
		closeLog(t, l)
		check()
		for _, name := range files(t, dir) {
			if filepath.Ext(name) != ".zst" {
				t.Fatal("left behind:", name)
			}
		}
	}
}

// killedAfter kills a child after it said n things, and returns the attempts
// that had ended and those that had only begun.
func killedAfter(t *testing.T, dir string, n int) (ended, begun map[int64]output.Attempt) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, begun = map[int64]output.Attempt{}, map[int64]output.Attempt{}
	for i := 0; ; i++ {
		if i == n {
			_ = cmd.Process.Kill()
		}
		var what string
		a := output.Attempt{N: 1}
		if _, err := fmt.Fscan(out, &what, &a.Item, &a.Ref.Segment, &a.Ref.Offset); err != nil {
			break
		}
		if what == "begin" {
			begun[a.Item] = a
			continue
		}
		if _, err := fmt.Fscan(out, &a.Ref.Length, &a.Ref.Bytes); err != nil {
			break
		}
		delete(begun, a.Item)
		ended[a.Item] = a
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatal("the child ended by itself:", err)
	}
	return ended, begun
}
