package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// gated is a script that appends its number and waits for the file go, or for
// one of its own.
const gated = `echo "$1" >> ran; until [ -e go ] || [ -e "go.$1" ]; do sleep 0.01; done; echo "$1" >> done`

// gatedRun starts a run of gated scripts, and returns once as many run as may.
func gatedRun(p *place, items, limit int, more ...string) *process {
	p.t.Helper()
	args := append([]string{"run", "--each", fmt.Sprintf("1..%d", items), "--limit", fmt.Sprint(limit)}, more...)
	q := p.start(append(args, "--", "sh", "-c", gated, "sh", "{}")...)
	p.ran(limit)
	return q
}

// ran waits until exactly the items up to n have been started, which a run with
// that limit cannot exceed.
func (p *place) ran(n int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d items have started", n), func() bool { return len(p.appended("ran")) >= n })
	if ran := p.appended("ran"); len(ran) > n {
		p.t.Errorf("items %v have started, want %d", ran, n)
	}
}

// open opens the gates of some items, or with none the one of all.
func (p *place) open(items ...int) {
	p.t.Helper()
	if len(items) == 0 {
		p.write("go", "")
	}
	for _, n := range items {
		p.write(fmt.Sprintf("go.%d", n), "")
	}
}

func TestManyMayBeTheFirstOfAStateFolder(t *testing.T) {
	t.Parallel()
	for range 30 {
		p := newPlace(t)
		like := p.command()
		cmd := exec.Command("sh", "-c", `for i in 1 2 3 4 5 6 7 8; do "$1" ls & done; wait`, "sh", p.bin)
		cmd.Dir, cmd.Env = like.Dir, like.Env
		q := p.launch(cmd)
		if code, says := q.wait(), q.says(); code != 0 || strings.Contains(says, "bulkhead:") {
			t.Errorf("exit code %d: %s", code, says)
		}
	}
}

func TestFourProcessesShareAStateFolder(t *testing.T) {
	t.Parallel()
	const processes, items = 4, 40
	p := racing(t)
	var all []*process
	for n := range processes {
		name := fmt.Sprint(n)
		all = append(all, p.start("run", "--name", name, "--each", fmt.Sprintf("1..%d", items), "--limit", "2", "--", "sh", "-c",
			`echo "$1" >> "ran.$2"; until [ -e go ]; do sleep 0.01; done; echo "$2" >> order; echo "ran $1"`, "sh", "{}", name))
	}
	eventually(t, "all of them run", func() bool {
		runs := p.ls()
		return len(runs) == processes && !slices.ContainsFunc(runs, func(r runView) bool { return r.Counts.Running != 2 })
	})
	p.open()
	for _, q := range all {
		if code := q.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, q.says())
		}
	}
	for id := 1; id <= processes; id++ {
		if r, _ := p.consistent(id); r.State != "succeeded" || r.Counts.Succeeded != items {
			t.Errorf("%+v", r)
		}
	}
	for n := range processes {
		once(p, fmt.Sprintf("ran.%d", n), items)
	}
	// When the first one has ended, the others must have had their share, too.
	done := map[string]int{}
	for name := range strings.FieldsSeq(read(t, filepath.Join(p.dir, "order"))) {
		if done[name]++; done[name] == items {
			break
		}
	}
	t.Log("ended when the first run had all: ", done)
	for n := range processes {
		if done[fmt.Sprint(n)] < items/8 {
			t.Errorf("a process had to wait: %v", done)
		}
	}
}

// once checks that so many items have run, each once.
func once(p *place, file string, items int) {
	p.t.Helper()
	ran := p.appended(file)
	for n, times := range ran {
		if times != 1 {
			p.t.Errorf("item %d ran %d times", n, times)
		}
	}
	if len(ran) != items {
		p.t.Errorf("%d items ran, want %d", len(ran), items)
	}
}

func TestOfTwoResumesAtOnceOneOwnsTheRun(t *testing.T) {
	t.Parallel()
	for range 5 {
		p := newPlace(t)
		q := gatedRun(p, 12, 2)
		q.kill()
		p.open()
		both := []*process{p.start("resume", "1"), p.start("resume", "1")}
		owners := 0
		for _, q := range both {
			code := q.wait()
			switch says := q.says(); {
			case code == 1 && strings.Contains(says, "12 items to go, limit 2"): // it says what it begins
				owners++
			case code == 0 && strings.Contains(says, "run 1: running"): // the other one does
			case code == 0 && strings.Contains(says, "run 1: failed"): // the other one did, before this one looked again
			case code == 1 && strings.Contains(says, "run 1: failed"), code == 2 && strings.Contains(says, "has ended"): // has done
			default:
				t.Errorf("exit code %d: %s", code, says)
			}
		}
		r, _ := p.consistent(1)
		if owners != 1 || r.Counts.Succeeded+r.Counts.Lost != 12 || r.Counts.Lost > 2 {
			t.Errorf("%d owners, %+v\n%s\n%s", owners, r, both[0].says(), both[1].says())
		}
		for n, times := range p.appended("ran") {
			if times != 1 {
				t.Errorf("item %d ran %d times", n, times)
			}
		}
	}
}

func TestAnotherProcessPausesLimitsResumesAndCancels(t *testing.T) {
	t.Parallel()
	p := racing(t)
	q := gatedRun(p, 1000, 1)
	p.ok("limit", "1", "3")
	p.ran(3)
	p.ok("pause", "1")
	p.open(1, 2, 3)
	r := p.waitFor(1, "what runs has ended", func(r runView) bool { return r.Counts.Running == 0 })
	if r.State != "paused" || r.Counts.Succeeded != 3 || q.over() {
		t.Errorf("paused: %+v", r)
	}
	p.ran(3)
	p.ok("resume", "1")
	p.ran(6)
	p.ok("limit", "1", "1")
	p.open(4, 5)
	p.waitFor(1, "one runs", func(r runView) bool { return r.Counts.Running == 1 && r.Counts.Succeeded == 5 && r.Limit == 1 })
	p.ran(6)
	p.ok("cancel", "1")
	if code := q.wait(); code != 3 {
		t.Errorf("exit code %d: %s", code, q.says())
	}
	r, _ = p.consistent(1)
	if r.State != "cancelled" || r.Counts.Succeeded != 5 || r.Counts.Cancelled != 995 {
		t.Errorf("cancelled: %+v", r)
	}
	if _, stderr, code := p.run("resume", "1"); code != 2 || !strings.Contains(stderr, "has ended (cancelled)") {
		t.Errorf("resumed: exit code %d: %s", code, stderr)
	}
	once(p, "ran", 6)
}

func TestAStoppedOwnerIsNotADeadOne(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	q := gatedRun(p, 4, 1)
	q.signal(syscall.SIGSTOP)
	t.Cleanup(func() { _ = q.Process.Signal(syscall.SIGCONT) })
	other := p.start("resume", "1")
	eventually(t, "the other one waits", func() bool { return strings.Contains(other.says(), "waiting for the process that owns it") })
	p.open() // its script ends, and nobody may take the next
	eventually(t, "the script has ended", func() bool { return len(p.appended("done")) == 1 })
	if r := p.show(1); r.State != "running" || r.Counts.Running != 1 || other.over() {
		t.Errorf("%+v", r)
	}
	p.ran(1)
	q.signal(syscall.SIGCONT)
	for _, q := range []*process{q, other} {
		if code := q.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, q.says())
		}
	}
	r, _ := p.consistent(1)
	if r.Counts.Succeeded != 4 {
		t.Errorf("%+v", r)
	}
	once(p, "ran", 4)
}

// Monotonic clocks begin anew with the machine: what one process has read is of
// no use to the next. Ten days forth and back stand for that.
func TestAProcessThatResumesHasAMonotonicClockOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, days := range []int{10, 0} {
		p := newPlace(t)
		q := gatedRun(p, 4, 1, "--retries", "1", "--retry-delay", "10ms")
		q.kill()
		p.open()
		// The clock cannot be set to before the machine's start: so the first process
		// has the real one, or the second.
		like := p.command()
		cmd := exec.Command("unshare", "--time", "--fork", fmt.Sprintf("--monotonic=%d", days*86400), fmt.Sprintf("--boottime=%d", days*86400),
			p.bin, "resume", "1")
		cmd.Dir, cmd.Env = like.Dir, like.Env
		q = p.launch(cmd)
		if code := q.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, q.says())
		}
		if r, _ := p.consistent(1); r.Counts.Succeeded != 4 {
			t.Errorf("%+v", r)
		}
	}
}

func TestARunGoesOnWhenItsInputIsGoneAndIsRefusedWhenItsInputHasChanged(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("input", "a\nb\nc\n")
	q := p.start("run", "--each", "input", "--limit", "1", "--", "sh", "-c", gated, "sh", "{#}")
	p.ran(1)
	q.kill()
	p.open()
	p.write("input", "a\nb\nd\n")
	if _, stderr, code := p.run("resume", "1"); code != 2 || strings.Count(stderr, "sha256") != 2 {
		t.Errorf("changed input: exit code %d: %s", code, stderr)
	}
	if err := os.Remove(filepath.Join(p.dir, "input")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := p.run("resume", "1"); code == 0 || code == 1 {
		t.Errorf("no input: exit code %d: %s", code, stderr)
	}
	p.ran(1)
	_, stderr, code := p.run("resume", "--accepted", "1")
	if r, _ := p.consistent(1); code != 1 || r.Counts.Lost != 1 || r.Counts.Succeeded != 2 {
		t.Errorf("exit code %d, %+v: %s", code, r, stderr)
	}
	once(p, "ran", 3)
}
