package output_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/output"
)

// bytesRead is what this process has read from files so far, by the kernel's
// count.
func bytesRead(t fataler) (n int64) {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// logLines is text as scripts write it.
func logLines(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "2026-03-01T12:%02d:%02d wiki%04d: updated page %d (%x)\n", r.IntN(60), r.IntN(60), r.IntN(900), r.IntN(1e7), r.Uint32())
	}
	return b.String()[:n]
}

// kibibyte is the output of one item of manyAttempts.
func kibibyte(lines string, item int64) string {
	at := int(item * 977 % int64(len(lines)-1024))
	return lines[at : at+1024]
}

// manyAttempts writes items of a kibibyte each and returns some of them.
func manyAttempts(t fataler, dir string, items int) (some []output.Attempt) {
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	lines := logLines(8 << 20)
	for i := range int64(items) {
		w.Begin(i, 1, begin, 0)
		if err := w.Write(output.Stdout, begin, []byte(kibibyte(lines, i))); err != nil {
			t.Fatal(err)
		}
		a := output.Attempt{Item: i, N: 1, Ref: end(t, w)}
		if i%int64(items/100+1) == 0 {
			some = append(some, a)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return some
}

func TestOneAttemptAmongManyIsReadAlone(t *testing.T) {
	dir := runDir(t)
	lines := logLines(8 << 20)
	for _, a := range manyAttempts(t, dir, 100_000) {
		before := bytesRead(t)
		same(t, "text", text(read(t, dir, a)), kibibyte(lines, a.Item))
		if _, err := output.Tail(dir, a, 10); err != nil {
			t.Fatal(err)
		}
		if n := bytesRead(t) - before; n > 256<<10 {
			t.Fatalf("%d bytes were read for 1 KiB of output", n)
		}
	}
}

func TestATailReadsLittleOfALongAttempt(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir, SegmentSize: 1 << 30}) // the sealer reads, too
	w := l.Writer()
	w.Begin(1, 1, begin, 0)
	all := logLines(10 << 20)
	write(t, w, output.Stdout, begin, all)
	write(t, w, output.Stderr, begin, "\nthe end\n")
	a := output.Attempt{Item: 1, N: 1, Ref: end(t, w)}
	check := func() {
		t.Helper()
		before := bytesRead(t)
		tail, err := output.Tail(dir, a, 20)
		if err != nil || string(tail) != lastLines(all+"\nthe end\n", 20) {
			t.Fatalf("%q %v", tail, err)
		}
		if n := bytesRead(t) - before; n > 300<<10 {
			t.Fatalf("%d bytes were read for 20 lines", n)
		}
	}
	check()
	closeLog(t, l)
	check()
	tail, err := output.Tail(dir, a, 1<<30)
	if err != nil || len(tail) != output.TailBytes || !strings.HasSuffix(all+"\nthe end\n", string(tail)) {
		t.Fatal(len(tail), err)
	}
}

func BenchmarkAttemptWithoutOutput(b *testing.B) {
	l := openLog(b, output.Options{Dir: b.TempDir()})
	defer closeLog(b, l)
	w := l.Writer()
	b.ReportAllocs()
	for b.Loop() {
		_ = w.Position()
		w.Begin(1, 1, begin, 0)
		if _, err := w.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttempt(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			dir := b.TempDir()
			l := openLog(b, output.Options{Dir: dir})
			w := l.Writer()
			p := []byte(logLines(min(size, 32<<10)))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w.Begin(1, 1, begin, 0)
				for n := 0; n < size; n += len(p) {
					if err := w.Write(output.Stdout, begin, p); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := w.End(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			closeLog(b, l)
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	dir := b.TempDir()
	p := []byte(logLines(8 << 20))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	var raw, sealed int64
	for b.Loop() {
		b.StopTimer()
		l := openLog(b, output.Options{Dir: dir})
		w := l.Writer()
		w.Begin(1, 1, begin, 0)
		_ = w.Write(output.Stdout, begin, p)
		raw = end(b, w).Length
		b.StartTimer()
		closeLog(b, l)
		b.StopTimer()
		sealed, _ = output.Size(dir)
		_ = output.Remove(dir)
		b.StartTimer()
	}
	b.ReportMetric(float64(raw)/float64(sealed), "ratio")
}

func BenchmarkReadOneAmongAMillion(b *testing.B) {
	dir := b.TempDir()
	some := manyAttempts(b, dir, 1_000_000)
	size, _ := output.Size(dir)
	b.ReportAllocs()
	before, i := bytesRead(b), 0
	for b.Loop() {
		if got := read(b, dir, some[i%len(some)]); len(got) != 1 {
			b.Fatal(got)
		}
		i++
	}
	b.ReportMetric(float64(bytesRead(b)-before)/float64(i), "read-B/op")
	b.ReportMetric(float64(size)/1e6, "disk-B/item")
}
