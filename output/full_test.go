package output_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead.dev/bulkhead/output"
)

const namespaceEnv = "BULKHEAD_OUTPUT_TEST_NAMESPACE"

// onSmallDisk runs the test on a file system of its own with 256 KiB. Who may
// not mount becomes root of a user namespace first, in a process of its own.
func onSmallDisk(t *testing.T, test func(t *testing.T, disk string)) {
	disk := t.TempDir()
	err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=0700")
	if errors.Is(err, syscall.EPERM) && os.Getenv(namespaceEnv) == "" {
		cmd := exec.CommandContext(t.Context(), "unshare", "-rm", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), namespaceEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in a namespace: %v\n%s", err, out)
		}
		return
	}
	if err != nil {
		t.Fatal("mount:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error("unmount:", err)
		}
	})
	test(t, disk)
}

// ballast takes all space that is left but n bytes, and returns what gives it
// back.
func ballast(t *testing.T, disk string, n int) func() {
	path := filepath.Join(disk, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for err == nil {
		var m int
		m, err = f.Write(make([]byte, 4096))
		size += int64(m)
	}
	if err := f.Truncate(size - int64(n)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskLosesNothingAndIsLeftWhenThereIsSpace(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		dir := filepath.Join(disk, "run")
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		before := attempt(t, w, 1, "before\n")
		free := ballast(t, disk, 40_000)

		position := w.Position()
		w.Begin(2, 1, begin, 0)
		want := ""
		var err error
		for i := 0; err == nil; i++ {
			p := strings.Repeat(line(i), 200)
			want += p // taken even when it returns an error
			err = w.Write(output.Stdout, begin, []byte(p))
		}
		for _, err := range []error{err, w.Flush(), w.Flush()} {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal("on a full disk:", err)
			}
		}
		if _, err := w.End(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		same(t, "the earlier attempt", text(read(t, dir, before)), "before\n")
		running := output.Attempt{Item: 2, N: 1, Ref: position}
		some := text(read(t, dir, running))
		if len(some) == 0 || !strings.HasPrefix(want, some) {
			t.Fatalf("%d bytes that are not the beginning of what was written", len(some))
		}
		crashed := filepath.Join(t.TempDir(), "crashed")
		copyFolder(t, dir, crashed)

		free()
		if err := w.Flush(); err != nil {
			t.Fatal("with space again:", err)
		}
		ref, err := w.End()
		if err != nil {
			t.Fatal(err)
		}
		after := attempt(t, w, 3, "after\n")
		check := func() {
			t.Helper()
			all := output.Attempt{Item: 2, N: 1, Ref: ref}
			if text(read(t, dir, all)) != want || text(read(t, dir, before)) != "before\n" || text(read(t, dir, after)) != "after\n" {
				t.Fatal("the output is not what was written")
			}
		}
		check()
		closeLog(t, l)
		check()

		closeLog(t, openLog(t, output.Options{Dir: crashed}))
		same(t, "killed on the full disk", text(read(t, crashed, running)), some)
	})
}

func TestADiskWithoutRoomForAFileIsLikeAFullOne(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		free := ballast(t, disk, 0)
		dir := filepath.Join(disk, "run")
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		w.Begin(1, 1, begin, 0)
		write(t, w, output.Stdout, begin, "hello")
		if _, err := w.End(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		free()
		a := output.Attempt{Item: 1, N: 1, Ref: end(t, w)}
		same(t, "text", text(read(t, dir, a)), "hello")
		closeLog(t, l)
	})
}

func TestMemoryIsBoundedEvenIfTheCallerIgnoresAFullDisk(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		dir := filepath.Join(disk, "run")
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		free := ballast(t, disk, 0)
		w.Begin(1, 1, begin, -1)
		const n, size = 200, 50_000
		for range n {
			_ = w.Write(output.Stderr, begin, make([]byte, size))
		}
		free()
		// 1 MiB does not fit on this disk, either: what is lost is only counted.
		_, err := w.End()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
			t.Fatal(err)
		}
		ref := end(t, w)
		if ref.Bytes+ref.Dropped != n*size || ref.Bytes < 1<<20 || ref.Bytes > 1<<20+2*size {
			t.Fatalf("%+v", ref)
		}
		chunks, dropped := merged(read(t, dir, output.Attempt{Item: 1, N: 1, Ref: ref}))
		if int64(len(text(chunks))) != ref.Bytes || dropped != ref.Dropped {
			t.Fatalf("%d bytes, %d dropped, want %+v", len(text(chunks)), dropped, ref)
		}
		closeLog(t, l)
	})
}

func TestSealingOnAFullDiskIsPutOffQuietly(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		dir := filepath.Join(disk, "run")
		l := openLog(t, output.Options{Dir: dir, SegmentSize: 100_000})
		a, want := fill(t, l.Writer(), 1, 150_000)
		if err := l.Close(context.Background()); err != nil {
			t.Fatal("closing on a full disk:", err)
		}
		same(t, "files", files(t, dir), []string{"1.seg"})
		if text(read(t, dir, a)) != want {
			t.Fatal("the output is not what was written")
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
			t.Fatal(err)
		}
		closeLog(t, openLog(t, output.Options{Dir: dir}))
		same(t, "files", files(t, dir), []string{"1.seg.zst"})
		if text(read(t, dir, a)) != want {
			t.Fatal("the output is not what was written")
		}
	})
}

func TestWhatADiskRefusedIsWrittenByItselfOnceThereIsSpace(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		synctest.Test(t, func(t *testing.T) {
			free := ballast(t, disk, 0)
			dir := filepath.Join(disk, "run")
			l := openLog(t, output.Options{Dir: dir})
			w := l.Writer()
			running := output.Attempt{Item: 1, N: 1, Ref: w.Position()}
			w.Begin(1, 1, begin, 0)
			write(t, w, output.Stdout, begin, "patience")
			<-time.After(5 * time.Second)
			same(t, "on the full disk", text(read(t, dir, running)), "")
			free()
			<-time.After(time.Second)
			synctest.Wait()
			same(t, "a second later", text(read(t, dir, running)), "patience")
			end(t, w)
			closeLog(t, l)
		})
	})
}
