package worker_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// measured are the fields of a Result that no test can foretell.
var measured = cmpopts.IgnoreFields(bulkhead.Result{}, "Started", "Duration", "CPU", "PeakMemory")

func TestHowAnAttemptEnds(t *testing.T) {
	w := newWorker(t)
	tests := map[string]struct {
		job  worker.Job
		want bulkhead.Result
	}{
		"exit code 0 is success": {sh("exit 0"), bulkhead.Result{}},
		"another exit code is a failure": {sh("exit 3"),
			bulkhead.Result{State: bulkhead.ItemFailed, ExitCode: 3}},
		"a signal that we did not send is a failure of its own kind": {sh("kill -USR1 $$"),
			bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowSignal, Signal: int(syscall.SIGUSR1)}},
		"the exit code survives a script that closes its streams": {sh("exec >&- 2>&-; exit 4"),
			bulkhead.Result{State: bulkhead.ItemFailed, ExitCode: 4}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := time.Now()
			got := w.Run(t.Context(), tt.job, newOutput())
			if diff := cmp.Diff(tt.want, got, measured); diff != "" {
				t.Error(diff)
			}
			if got.Started.Before(before) || got.Duration <= 0 || got.Duration > time.Since(before) {
				t.Errorf("started %v, took %v; it is %v", got.Started, got.Duration, time.Now())
			}
		})
	}
}

func TestCPUAndMemoryAreTheScripts(t *testing.T) {
	w := newWorker(t)
	r := w.Run(t.Context(), actor("busy", "100ms", "300"), nil)
	if r.State != bulkhead.ItemSucceeded || r.CPU < 100*time.Millisecond {
		t.Errorf("%v, CPU %v; want at least 100ms", r.State, r.CPU)
	}
	if r.PeakMemory < 300<<20 || r.PeakMemory > 1<<30 {
		t.Errorf("peak memory %d MiB of a script that used 300", r.PeakMemory>>20)
	}
	// Linux counts our memory as the child's, so what is less than ours is not
	// known, and must not be shown as if it were.
	if r := w.Run(t.Context(), sh("exit 0"), nil); r.PeakMemory != 0 {
		t.Errorf("peak memory of a small shell: %d KiB", r.PeakMemory>>10)
	}
}

func TestOutputOfBothStreamsIsComplete(t *testing.T) {
	w := newWorker(t)
	const size = 10 << 20
	out := newOutput()
	r := w.Run(t.Context(), sh(`head -c $1 /dev/zero >&2 & head -c $1 /dev/zero | tr '\0' x; wait`, "10485760"), out)
	if r.State != bulkhead.ItemSucceeded {
		t.Fatalf("%+v", r)
	}
	if got := out.stdout(); len(got) != size || strings.Trim(got, "x") != "" {
		t.Errorf("stdout has %d bytes, want %d × x", len(got), size)
	}
	if got := out.stderr(); len(got) != size {
		t.Errorf("stderr has %d bytes, want %d", len(got), size)
	}
}

func TestOutputArrivesWhileTheScriptRuns(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	result := background(t, w, ctx, sh("echo ready; exec sleep 1000"), out)
	if got := out.line(t); got != "ready" {
		t.Errorf("first line %q", got)
	}
	cancel()
	if r := result(); r.State != bulkhead.ItemCancelled {
		t.Errorf("%+v", r)
	}
}

func TestStdin(t *testing.T) {
	w := newWorker(t)
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB, more than any pipe takes
	empty := ""
	file := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tests := map[string]struct {
		stdin *string
		file  *os.File
		want  string
	}{
		"nothing is an end of file at once": {},
		"an empty text too":                 {stdin: &empty},
		"a megabyte arrives whole":          {stdin: &big, want: big},
		"a file is passed through":          {file: f, want: "from a file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			job, out := sh("cat"), newOutput()
			job.Stdin, job.StdinFile = tt.stdin, tt.file
			if r := w.Run(t.Context(), job, out); r.State != bulkhead.ItemSucceeded {
				t.Fatalf("%+v", r)
			}
			if got := out.stdout(); got != tt.want {
				t.Errorf("read %d bytes, want %d", len(got), len(tt.want))
			}
		})
	}
}

func TestStdinMayStayUnread(t *testing.T) {
	w := newWorker(t)
	text := strings.Repeat("x", 1<<20)
	job := sh("exit 0")
	job.Stdin = &text
	if r := w.Run(t.Context(), job, newOutput()); r.State != bulkhead.ItemSucceeded {
		t.Errorf("%+v", r)
	}
}

func TestEnvironmentFolderAndArgumentsAreTheJobs(t *testing.T) {
	w := newWorker(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\nprintf '%s|' \"$@\" \"$A\"; pwd; umask; env | wc -l\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	for name, job := range map[string]worker.Job{
		"by PATH":            {Args: []string{"tool", "a b", "", "$x\n"}, Env: []string{"A=1", "PATH=/bin:/usr/bin:" + dir}},
		"by relative path":   {Args: []string{"./tool", "a b", "", "$x\n"}, Env: []string{"A=1", "PATH=/bin:/usr/bin"}},
		"by a PATH of .":     {Args: []string{"tool", "a b", "", "$x\n"}, Env: []string{"A=1", "PATH=/bin:/usr/bin:."}},
		"by the given path":  {Args: []string{"x", "a b", "", "$x\n"}, Path: filepath.Join(dir, "tool"), Env: []string{"A=1", "PATH=/bin"}},
		"by the second PATH": {Args: []string{"tool", "a b", "", "$x\n"}, Env: []string{"A=1", "PATH=/nowhere", "PATH=/bin:" + dir}},
	} {
		t.Run(name, func(t *testing.T) {
			out := newOutput()
			job.Dir = dir
			if r := w.Run(t.Context(), job, out); r.State != bulkhead.ItemSucceeded {
				t.Fatalf("%+v", r)
			}
			// The shell adds PWD, and SHLVL and _ where it is bash.
			want := "a b||$x\n|1|" + dir + "\n0027\n"
			if got, ok := strings.CutPrefix(out.stdout(), want); !ok || strings.TrimSpace(got) > "6" {
				t.Errorf("got %q after %q", out.stdout(), want)
			}
		})
	}
}

func TestWhatIsFoundInPATHMayMove(t *testing.T) {
	w := newWorker(t)
	first, second := t.TempDir(), t.TempDir()
	job := worker.Job{Args: []string{"moving"}, Env: []string{"PATH=" + first + ":" + second}}
	for _, dir := range []string{first, second} {
		os.Remove(filepath.Join(first, "moving"))
		if err := os.WriteFile(filepath.Join(dir, "moving"), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if r := w.Run(t.Context(), job, nil); r.State != bulkhead.ItemSucceeded {
			t.Errorf("%+v", r)
		}
	}
}

func TestNothingOfOursReachesTheScript(t *testing.T) {
	// Descriptors that we were started with are those that Go does not close.
	file, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	leak, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)

	w := newWorker(t)
	for script, want := range map[string]string{
		"exec ls /proc/self/fd": "0\n1\n2\n3\n", // the last one is the folder that ls reads
		ownSignals:              "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
	} {
		out := newOutput()
		if r := w.Run(t.Context(), sh(script), out); r.State != bulkhead.ItemSucceeded {
			t.Fatalf("%+v", r)
		}
		if diff := cmp.Diff(want, out.stdout()); diff != "" {
			t.Error(diff)
		}
	}
}

// ownSignals prints its own signals: a shell has all of them blocked while it
// starts a command, and some files open.
const ownSignals = `exec grep -E 'Sig(Blk|Ign)' /proc/self/status`

func TestSignalsAreDefaultHoweverWeWereStarted(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	// The middle one is a worker that was started with signals ignored and
	// blocked, as nohup and careless programs do.
	job := actor("careless")
	if r := w.Run(t.Context(), job, out); r.State != bulkhead.ItemSucceeded {
		t.Fatalf("%+v %s", r, out.stderr())
	}
	want := "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
	if diff := cmp.Diff(want, out.stdout()); diff != "" {
		t.Error(diff)
	}
}

func TestASinkThatFailsForAWhileLosesNothing(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	out.full, out.err = 7, syscall.ENOSPC
	var want bytes.Buffer
	for i := range 200_000 {
		want.WriteString(string(rune('a'+i%26)) + "\n")
	}
	text := want.String()
	job := sh("cat")
	job.Stdin = &text
	if r := w.Run(t.Context(), job, out); r.State != bulkhead.ItemSucceeded || r.Output.Dropped != 0 {
		t.Fatalf("%+v", r)
	}
	if got := out.stdout(); got != text {
		t.Errorf("%d bytes arrived, want %d", len(got), len(text))
	}
}

func TestASinkThatFailsForEverIsGivenUpByTheHardStop(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	out.full, out.err = 1<<30, syscall.ENOSPC
	other := newOutput()
	ctx, cancel := context.WithCancelCause(t.Context())
	result := background(t, w, ctx, sh("echo lost"), out)
	if r := w.Run(t.Context(), sh("echo kept"), other); r.State != bulkhead.ItemSucceeded || other.stdout() != "kept\n" {
		t.Errorf("another attempt: %+v, %q", r, other.stdout())
	}
	eventually(t, "the sink has refused", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.full < 1<<30
	})
	cancel(worker.ErrKill)
	r := result()
	// Whether it had ended by then is a matter of luck.
	if r.State == bulkhead.ItemFailed || r.Output.Dropped != int64(len("lost\n")) {
		t.Errorf("%+v", r)
	}
}

func TestClosedAndSecondWorkers(t *testing.T) {
	w, err := worker.New(worker.Options{NoGuardian: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := worker.New(worker.Options{}); err == nil {
		t.Error("a second worker was made beside the first")
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	result := background(t, w, ctx, sh("echo up; exec sleep 1000"), out)
	out.line(t)
	if err := w.Close(); err == nil {
		t.Error("closed while an attempt runs")
	}
	cancel()
	result()
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if r := w.Run(t.Context(), sh("exit 0"), nil); r.How != bulkhead.HowStart {
		t.Errorf("ran after Close: %+v", r)
	}
}
