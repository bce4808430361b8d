package worker_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// startOwner starts another process with a worker and a script. It returns the
// mark, what the script wrote, and the lock file.
func startOwner(t *testing.T, script string, args ...string) (cmd *exec.Cmd, mark uint64, line, lock string) {
	t.Helper()
	lock = filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("/proc/self/exe", append([]string{lock, script}, args...)...)
	cmd.Env = become("owner")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r := bufio.NewReader(stdout)
	first, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if mark, err = strconv.ParseUint(strings.TrimSpace(first), 10, 64); err != nil {
		t.Fatal(err)
	}
	if line, err = r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd, mark, strings.TrimSpace(line), lock
}

// locked waits for the lock of a file, as long as it takes.
func locked(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make(chan error, 1)
	go func() { got <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the lock is not released")
	}
}

func TestNothingSurvivesTheOwnersDeath(t *testing.T) {
	cmd, mark, line, lock := startOwner(t, daemon+"exec sleep 1000")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	locked(t, lock)
	if stat := state(pid); stat != "" && stat != "Z" {
		t.Errorf("the lock was released while a process is alive (%s)", stat)
	}
	if n, err := worker.KillMarked(t.Context(), mark, 0); n != 0 || err != nil {
		t.Errorf("%d processes were left (%v)", n, err)
	}
}

// state is the letter that ps shows; "" if there is no such process. After the
// death of its owner an orphan's zombie is for init to reap.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func TestTheGuardianStaysUntilItsOwnerIsDead(t *testing.T) {
	cmd, mark, _, lock := startOwner(t, "echo up; exec sleep 1000")
	guard := guardianOf(t, mark)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		if err := syscall.Kill(guard, sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	locked(t, lock)
	if n, err := worker.KillMarked(t.Context(), mark, 0); n != 0 || err != nil {
		t.Errorf("%d processes were left (%v)", n, err)
	}
}

func TestAKilledGuardianIsReplaced(t *testing.T) {
	cmd, mark, _, lock := startOwner(t, "echo up; exec sleep 1000")
	first := guardianOf(t, mark)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is another guardian", func() bool {
		pid := findGuardian(mark)
		return pid != 0 && pid != first
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	locked(t, lock)
	if n, err := worker.KillMarked(t.Context(), mark, 0); n != 0 || err != nil {
		t.Errorf("%d processes were left (%v)", n, err)
	}
}

// guardianOf waits until the guardian is up: until it ignores SIGTERM.
func guardianOf(t *testing.T, mark uint64) (pid int) {
	t.Helper()
	eventually(t, "the guardian is up", func() bool {
		pid = findGuardian(mark)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return false
		}
		_, after, _ := strings.Cut(string(status), "SigIgn:\t")
		ignored, err := strconv.ParseUint(after[:16], 16, 64)
		return err == nil && ignored&(1<<(syscall.SIGPIPE-1)) != 0
	})
	return pid
}

func findGuardian(mark uint64) int {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), worker.GuardianArg+"\x00"+strconv.FormatUint(mark, 16)+"\x00") {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			return pid
		}
	}
	return 0
}

func TestCloseLeavesNoGuardian(t *testing.T) {
	for range 3 { // at once, while it comes up
		w, err := worker.New(worker.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w, err := worker.New(worker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	guard := guardianOf(t, w.Mark())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if alive(guard) {
		t.Error("the guardian is still there")
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("there is a child: %d (%v)", pid, err)
	}
}

func TestKillMarkedEndsWhatADeadOwnerLeft(t *testing.T) {
	cmd, mark, line, _ := startOwner(t, daemon+"exec sleep 1000", "without guardian")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !alive(pid) {
		t.Fatal("without a guardian the daemon should have survived its owner")
	}
	// The daemon, its sleep, and the script.
	n, err := worker.KillMarked(t.Context(), mark, 20*time.Millisecond)
	if n < 3 || err != nil {
		t.Errorf("%d processes were signalled (%v), want 3 or more", n, err)
	}
	if stat := state(pid); stat != "" && stat != "Z" {
		t.Errorf("the daemon is alive (%s)", stat)
	}
}

func TestKillMarkedKnowsWhatAMarkIs(t *testing.T) {
	if n, err := worker.KillMarked(t.Context(), 0, 0); n != 0 || err != nil {
		t.Errorf("no mark: %d, %v", n, err)
	}
	if _, err := worker.KillMarked(t.Context(), 12345, 0); err == nil {
		t.Error("12345 was taken for a mark")
	}
}

func TestWithoutRoomForMarksTheSessionCounts(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	r := w.Run(t.Context(), actor("limited"), out)
	if want := "marked false, succeeded, left false, <nil>\n"; out.stdout() != want {
		t.Errorf("got %q %q, want %q; %+v", out.stdout(), out.stderr(), want, r)
	}
}

func TestAMainThatForgetsTheGuardianDoesNotMultiply(t *testing.T) {
	w := newWorker(t)
	job := actor("forgetful")
	// Its guardian is started without the variable that makes it an actor, and
	// would be this test again; so give it one that says it is a guardian.
	if r := w.Run(t.Context(), job, nil); r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
	job.Env = append(job.Env, "BULKHEAD_GUARDIAN=1")
	if r := w.Run(t.Context(), job, nil); r.ExitCode != 7 {
		t.Errorf("a worker was made in a guardian: %+v", r)
	}
}

func TestTheGuardianEndsWhatIsBeyondItsLimitWhileItsOwnerIsStopped(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "trap '' TERM; while :; do sleep 1000; done")
	cmd.Env = become("stopped")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	eventually(t, "the owner has stopped", func() bool { return state(cmd.Process.Pid) == "T" })
	eventually(t, "its script has ended", func() bool {
		left := 0
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		for _, thread := range threads {
			children, _ := os.ReadFile(thread) // it may have ended
			for pid := range strings.FieldsSeq(string(children)) {
				if n, err := strconv.Atoi(pid); err == nil && state(n) != "Z" {
					left++
				}
			}
		}
		return err == nil && left == 1 // the guardian
	})
	if s := state(cmd.Process.Pid); s != "T" {
		t.Errorf("the owner is %s", s)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "failed 9\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}

func TestALimitThatIsMovedOrOfAnAttemptThatIsOverEndsNothing(t *testing.T) {
	w := openWorker(t, worker.Options{})
	var late func(time.Time)
	for range 3 {
		if late != nil {
			late(time.Now())
		}
		job := sh("sleep 0.05")
		job.Watch = func(limit func(time.Time)) {
			late = limit
			limit(time.Now().Add(time.Minute))
			limit(time.Now().Add(time.Hour))
		}
		if r := w.Run(t.Context(), job, nil); r.State != bulkhead.ItemSucceeded {
			t.Fatalf("%+v", r)
		}
	}
}
