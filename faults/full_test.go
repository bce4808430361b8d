package faults_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full is how a reason must name a full disk.
var full = regexp.MustCompile(`(?i)disk is full|no space left`)

// smallDisk puts the state folder of a new place on a disk of its own.
func smallDisk(t *testing.T, size string) (p *place, disk string) {
	t.Helper()
	p = newPlace(t)
	disk = ramDisk(t, "size="+size)
	p.state = filepath.Join(disk, "state")
	return p, disk
}

// fill takes all space that is left on a disk, and may be called again.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(disk, "ballast"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// free gives back what fill took.
func free(t *testing.T, disk string) {
	t.Helper()
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
}

// slowly is a batch of which some items have ended when this returns.
func slowly(p *place, items int) *process {
	p.t.Helper()
	q := p.start("run", "--each", fmt.Sprintf("1..%d", items), "--limit", "2", "--", "sh", "-c", `echo "$1" >> ran; sleep 0.02; echo "ran $1"`, "sh", "{}")
	eventually(p.t, "some items have ended", func() bool { return len(p.appended("ran")) > 5 })
	return q
}

// held waits until the run is shown as held by a full disk, which costs nothing.
func held(p *place) {
	p.t.Helper()
	r := p.waitFor(1, "the run is held", func(r runView) bool { return r.State == "held" })
	if !full.MatchString(r.Reason) {
		p.t.Errorf("held, but the reason does not name the full disk: %q", r.Reason)
	}
	// What was running ends; nothing else starts, however often one looks.
	ran := len(p.appended("ran"))
	for range 10 {
		p.show(1)
	}
	if now := len(p.appended("ran")); now > ran+2 {
		p.t.Errorf("%d items were started while the run was held", now-ran)
	}
}

// allOnce checks that all items of run 1 have run, once, with their output.
func allOnce(p *place, items int) {
	p.t.Helper()
	r, views := p.consistent(1)
	ran := p.appended("ran")
	if r.State != "succeeded" || len(views) != items || len(ran) != items {
		p.t.Errorf("%+v, %d of %d items ran", r, len(ran), items)
	}
	for n, times := range ran {
		if times != 1 || views[n].Attempt != 1 {
			p.t.Errorf("item %d ran %d times: %+v", n, times, views[n])
		}
	}
	logs := p.ok("logs", "1")
	for n := range items {
		if want := fmt.Sprintf("[%d] ran %[1]d\n", n+1); strings.Count(logs, want) != 1 {
			p.t.Errorf("%q is not in the output", want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.state, "reserve.*")); len(left) > 0 {
		p.t.Errorf("left behind: %v", left)
	}
}

func TestARunIsHeldWhileTheDiskIsFullAndGoesOnByItself(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	q := slowly(p, 60)
	fill(t, disk)
	held(p)
	fill(t, disk) // what was kept in reserve, too
	held(p)
	p.consistent(1)
	waiter := p.start("wait", "1")
	eventually(t, "who waits for it is told why", func() bool { return strings.Contains(waiter.says(), "run 1: held: ") })
	if !full.MatchString(waiter.says()) {
		t.Errorf("wait does not name the full disk: %s", waiter.says())
	}
	free(t, disk)
	begin := time.Now()
	if code := q.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, q.says())
	}
	t.Logf("over %v after there was room", time.Since(begin))
	if code := waiter.wait(); code != 0 {
		t.Errorf("exit code %d of wait: %s", code, waiter.says())
	}
	allOnce(p, 60)
}

func TestAHeldRunGoesOnAtResume(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	q := slowly(p, 60)
	fill(t, disk)
	held(p)
	fill(t, disk)
	free(t, disk)
	begin := time.Now()
	p.ok("resume", "1")
	p.waitFor(1, "it goes on", func(r runView) bool { return r.State != "held" })
	t.Logf("went on %v after resume", time.Since(begin))
	if code := q.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, q.says())
	}
	allOnce(p, 60)
}

func TestAProcessThatDiesOnAFullDiskIsResumedOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	q := slowly(p, 60)
	fill(t, disk)
	held(p)
	fill(t, disk)
	q.kill()
	if err := os.Remove(filepath.Join(p.state, "reserve.1")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	fill(t, disk)
	// It cannot be resumed yet, and trying changes nothing.
	if _, stderr, code := p.run("resume", "1"); code != 125 || !full.MatchString(stderr) {
		t.Errorf("resume on the full disk: exit code %d: %s", code, stderr)
	}
	free(t, disk)
	_, stderr, _ := p.run("resume", "1")
	r, items := p.consistent(1)
	ran := p.appended("ran")
	if c := r.Counts; c.Succeeded+c.Lost != 60 || c.Lost > 2 {
		t.Errorf("%+v: %s", r, stderr)
	}
	for n, it := range items {
		if it.State == "succeeded" && ran[n] != 1 || ran[n] > 1 {
			t.Errorf("item %d ran %d times: %+v", n, ran[n], it)
		}
	}
}

func TestScriptsThatFillTheDiskThemselvesWaitUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	const items, size = 12, 3_000_000
	p.write("write-much", `#!/bin/sh
echo "$1" >> ran
head -c 3000000 /dev/zero | tr '\0' x
`)
	q := p.start("run", "--each", "1..12", "--limit", "3", "--", "./write-much", "{}")
	held(p)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if code := q.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, q.says())
	}
	t.Logf("over %v after there was room", time.Since(begin))
	r, _ := p.consistent(1)
	if len(p.appended("ran")) != items || r.Counts.Succeeded != items {
		t.Errorf("%+v, %v ran", r, p.appended("ran"))
	}
	for n := range items {
		if out := p.ok("logs", "1", fmt.Sprint(n+1)); out != strings.Repeat("x", size) {
			t.Errorf("the output of item %d has %d bytes, want %d", n+1, len(out), size)
		}
	}
}

func TestCtrlCTwiceEndsScriptsWhoseOutputHasNoRoom(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	q := p.start("run", "--each", "1..9", "--limit", "3", "--grace", "100ms", "--", "sh", "-c", `echo "$1" >> ran; yes`, "sh", "{}")
	held(p)
	for _, says := range []string{"interrupted", "cancelling"} {
		q.signal(syscall.SIGINT)
		eventually(t, says, func() bool { return strings.Contains(q.says(), says) })
	}
	if code := q.wait(); code != 3 {
		t.Errorf("exit code %d: %s", code, q.says())
	}
	r, _ := p.consistent(1)
	if ran := p.appended("ran"); r.State != "cancelled" || r.Counts.Cancelled != 9 || len(ran) != 3 {
		t.Errorf("%+v, %v ran: %s", r, ran, q.says())
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for n := range p.appended("ran") {
		out := p.ok("logs", "1", fmt.Sprint(n))
		if kept += len(out); out != strings.Repeat("y\n", len(out)/2) {
			t.Errorf("of item %d %d bytes are kept, not all of them what it wrote", n, len(out))
		}
	}
	if kept < 8<<20 {
		t.Errorf("%d bytes of output are kept of a disk that was full of it", kept)
	}
}

func TestCtrlCTwiceEndsARunOnAFullDisk(t *testing.T) {
	t.Parallel()
	p, disk := smallDisk(t, "16m")
	q := slowly(p, 60)
	fill(t, disk)
	held(p)
	fill(t, disk)
	q.signal(syscall.SIGINT)
	eventually(t, "the first Ctrl-C is heard", func() bool { return q.over() || strings.Contains(q.says(), "interrupted") })
	if !q.over() {
		q.signal(syscall.SIGINT)
	}
	begin := time.Now()
	code := q.wait()
	t.Logf("exit code %d, %v after the second Ctrl-C: %s", code, time.Since(begin), q.says())
	if code != 3 && code != 125 {
		t.Errorf("exit code %d", code)
	}
	free(t, disk)
	r, _ := p.consistent(1)
	if r.State == "running" {
		t.Errorf("%+v", r)
	}
	for n, times := range p.appended("ran") {
		if times != 1 {
			t.Errorf("item %d ran %d times", n, times)
		}
	}
}

func TestADiskThatIsFullAtStartIsAnErrorThatLeavesNothing(t *testing.T) {
	for name, used := range map[string]bool{"a new state folder": false, "one with a run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, disk := smallDisk(t, "8m")
			want := 0
			if used {
				p.ok("run", "--each", "a,b", "--", "true")
				want = 1
			}
			fill(t, disk)
			for _, args := range [][]string{
				{"run", "--each", "1..5", "--", "sh", "-c", "echo $1 >> ran", "sh", "{}"},
				{"run", "-d", "--each", "1..5", "--", "sh", "-c", "echo $1 >> ran", "sh", "{}"},
				{"run", "--", "sh", "-c", "echo 1 >> ran"},
			} {
				if _, stderr, code := p.run(args...); code != 125 || !full.MatchString(stderr) {
					t.Errorf("%v: exit code %d: %s", args, code, stderr)
				}
			}
			free(t, disk)
			if ran := p.appended("ran"); len(ran) > 0 || len(p.ls()) != want {
				t.Errorf("runs: %+v, ran: %v", p.ls(), ran)
			}
			if left, _ := filepath.Glob(filepath.Join(p.state, "reserve.*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
