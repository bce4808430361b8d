package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// daemon is what a script does that wants to get away: two forks, a session of
// its own, an empty environment, no open files, no signals. It writes its pid
// once it is there.
const daemon = `
d=$(mktemp -d); mkfifo "$d/up"
(setsid env -i /bin/sh -c '
	trap "" TERM HUP INT
	cd /; exec <&- 2>&-
	echo $$ > "$0/up"
	exec >&-
	while :; do /bin/sleep 1000; done' "$d" &)
read pid < "$d/up"; rm -r "$d"; echo $pid
`

func TestStopping(t *testing.T) {
	w := newWorker(t)
	tests := map[string]struct {
		script string
		grace  time.Duration
		want   bulkhead.Result
	}{
		"SIGTERM is enough for most": {
			"echo up; exec sleep 1000", time.Hour,
			bulkhead.Result{Signal: int(syscall.SIGTERM)}},
		"a script may clean up and say how it ended": {
			`trap "exit 9" TERM; echo up; while :; do sleep 0.01; done`, time.Hour,
			bulkhead.Result{ExitCode: 9}},
		"who ignores SIGTERM is killed after the grace": {
			`trap "" TERM; echo up; while :; do sleep 0.01; done`, 50 * time.Millisecond,
			bulkhead.Result{Signal: int(syscall.SIGKILL)}},
		"without grace there is no SIGTERM": {
			`trap "exit 9" TERM; echo up; while :; do sleep 0.01; done`, 0,
			bulkhead.Result{Signal: int(syscall.SIGKILL)}},
		"a stopped script is woken up to end": {
			`trap "exit 9" TERM; echo up; kill -STOP $$; exit 1`, time.Hour,
			bulkhead.Result{ExitCode: 9}},
		"who runs elsewhere is stopped at the same time": {
			`setsid sh -c 'trap "exit 9" TERM; echo up; while :; do sleep 0.01; done' & trap "wait; exit 8" TERM; wait`, time.Hour,
			bulkhead.Result{ExitCode: 8}},
		"who was told as another program is told again": {
			`bash -c 'trap "exec sleep 1000" TERM; echo up; while :; do sleep 0.01; done' & trap "exit 8" TERM; wait`, time.Hour,
			bulkhead.Result{ExitCode: 8}},
		"who was told as another program is told again while its script waits for it": {
			`bash -c 'trap "exec sleep 1000" TERM; echo up; while :; do sleep 0.01; done' & trap : TERM; wait; wait; exit 8`, time.Hour,
			bulkhead.Result{ExitCode: 8}},
		"a daemon that wants to stay goes too": {
			daemon + "exec sleep 1000", 50 * time.Millisecond,
			bulkhead.Result{Signal: int(syscall.SIGTERM)}},
	}
	for name, tt := range tests {
		t.Run("cancelled: "+name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			job, out := sh(tt.script), newOutput()
			job.Grace = tt.grace
			result := background(t, w, ctx, job, out)
			out.line(t)
			cancel()
			want := tt.want
			want.State, want.How = bulkhead.ItemCancelled, bulkhead.HowCancel
			if diff := cmp.Diff(want, result(), measured); diff != "" {
				t.Error(diff)
			}
			nothingIsLeft(t, w)
		})
	}
	t.Run("timed out", func(t *testing.T) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // each waits for its time
				job, out := sh(tt.script), newOutput()
				job.Grace, job.Timeout = tt.grace, 2*time.Second
				r := w.Run(t.Context(), job, out)
				want := tt.want
				want.State, want.How = bulkhead.ItemFailed, bulkhead.HowTimeout
				if diff := cmp.Diff(want, r, measured); diff != "" {
					t.Error(diff)
				}
				if r.Duration < job.Timeout {
					t.Errorf("stopped after %v, before the timeout of %v", r.Duration, job.Timeout)
				}
			})
		}
	})
	nothingIsLeft(t, w)
}

// nothingIsLeft looks for processes of any attempt of the worker.
func nothingIsLeft(t *testing.T, w *worker.Worker) {
	t.Helper()
	n, err := worker.KillMarked(t.Context(), w.Mark(), 0)
	if n != 0 || err != nil {
		t.Errorf("%d processes were left (%v)", n, err)
	}
}

func TestTheHardStops(t *testing.T) {
	const deaf = `trap "" TERM; echo up; while :; do sleep 0.01; done`
	want := bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel, Signal: int(syscall.SIGKILL)}
	job := sh(deaf)
	job.Grace = time.Hour

	t.Run("a context that ends with ErrKill", func(t *testing.T) {
		w, out := newWorker(t), newOutput()
		ctx, cancel := context.WithCancelCause(t.Context())
		result := background(t, w, ctx, job, out)
		out.line(t)
		cancel(fmt.Errorf("third interrupt: %w", worker.ErrKill))
		if diff := cmp.Diff(want, result(), measured); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("Kill during the grace", func(t *testing.T) {
		w, out := newWorker(t), newOutput()
		ctx, cancel := context.WithCancel(t.Context())
		noticed := sh(`trap "echo noticed" TERM; echo up; while :; do sleep 0.01; done`)
		noticed.Grace = time.Hour
		result := background(t, w, ctx, noticed, out)
		out.line(t)
		cancel()
		eventually(t, "the script has got SIGTERM", func() bool { return strings.Contains(out.stdout(), "noticed") })
		w.Kill()
		if diff := cmp.Diff(want, result(), measured); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("Kill without anything before", func(t *testing.T) {
		w, out := newWorker(t), newOutput()
		result := background(t, w, t.Context(), job, out)
		out.line(t)
		w.Kill()
		if diff := cmp.Diff(want, result(), measured); diff != "" {
			t.Error(diff)
		}
		if r := w.Run(t.Context(), sh("exit 0"), nil); r.State != bulkhead.ItemCancelled || !r.Started.IsZero() {
			t.Errorf("afterwards: %+v", r)
		}
	})
}

func TestACancelledContextStartsNothing(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want := bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	if diff := cmp.Diff(want, w.Run(ctx, sh("exit 0"), nil)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatAScriptLeavesBehindEnds(t *testing.T) {
	w := newWorker(t)
	tests := map[string]struct {
		script string
		least  time.Duration // the result waits for it
	}{
		"a background process":                 {`sleep 1000 & echo $!`, time.Second},
		"one that has given up the output":     {`sleep 1000 >&- 2>&- & echo $!`, time.Second},
		"one in another session":               {`setsid -f sh -c 'echo $$; exec sleep 1000'`, time.Second},
		"a daemon that wants to stay":          {daemon, time.Second + 50*time.Millisecond},
		"a stopped process":                    {`sleep 1000 & kill -STOP $!; echo $!`, time.Second},
		"a child of a killed shell":            {`(trap "" TERM; sleep 1000 >&- 2>&- & echo $!); kill -KILL $$`, time.Second},
		"one that sets the limit itself":       {`prlimit --rttime=1000000 sleep 1000 & echo $!`, time.Second},
		"one that needs a moment to end alone": {`sleep 0.2 & echo $!`, 200 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			job, out := sh(tt.script), newOutput()
			job.Grace = 50 * time.Millisecond
			r := w.Run(t.Context(), job, out)
			if r.How != bulkhead.HowExit && r.How != bulkhead.HowSignal || r.Error != "" {
				t.Errorf("%+v", r)
			}
			if r.Duration < tt.least {
				t.Errorf("took %v, want at least %v: it counts until all are gone", r.Duration, tt.least)
			}
			if pid, err := strconv.Atoi(strings.TrimSpace(out.stdout())); err == nil && alive(pid) {
				t.Errorf("process %d is alive", pid)
			}
			nothingIsLeft(t, w)
		})
	}
}

func TestAShortTailLosesNothing(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	// The script ends before the tee at the end of its pipe has written.
	r := w.Run(t.Context(), sh(`(sleep 0.1; echo late) & echo early`), out)
	if r.State != bulkhead.ItemSucceeded || out.stdout() != "early\nlate\n" {
		t.Errorf("%+v, %q", r, out.stdout())
	}
}

func TestForkStormsEnd(t *testing.T) {
	w := newWorker(t)
	tests := map[string]string{
		"chains that hop from process to process": `h() { h & }; trap "" TERM; for i in 1 2 3 4; do h; done; echo; sleep 1000`,
		"a chain across sessions":                 `trap "" TERM; s='setsid -f sh -c "$0" "$0"'; sh -c "$s" "$s"; echo; sleep 1000`,
		"a tree":                                  `trap "" TERM; t() { [ $1 = 0 ] && sleep 1000; t $(($1-1)) & t $(($1-1)) & wait; }; t 5 & echo; wait`,
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			job, out := sh(script), newOutput()
			job.Grace = 20 * time.Millisecond
			result := background(t, w, ctx, job, out)
			out.line(t)
			cancel()
			if r := result(); r.State != bulkhead.ItemCancelled || r.Error != "" {
				t.Errorf("%+v", r)
			}
			nothingIsLeft(t, w)
		})
	}
}

func TestTheEndOfOneAttemptLeavesOthersAlone(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	job := sh(daemon + "exec sleep 1000")
	job.Grace = 10 * time.Millisecond
	result := background(t, w, ctx, job, out)
	pid := out.pid(t)
	quick := sh(`sleep 1000 & exit 0`)
	quick.Grace = 10 * time.Millisecond
	if r := w.Run(t.Context(), quick, nil); r.State != bulkhead.ItemSucceeded {
		t.Errorf("%+v", r)
	}
	if !alive(pid) {
		t.Error("the daemon of a running attempt was killed by the end of another one")
	}
	cancel()
	result()
	if alive(pid) {
		t.Error("the daemon has outlived its attempt")
	}
}

func TestOrphansAreReaped(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	result := background(t, w, ctx, sh(`(setsid sh -c 'echo $$' &); exec sleep 1000`), out)
	pid := out.pid(t)
	eventually(t, "an orphan is reaped while its attempt runs", func() bool { return !alive(pid) })
	cancel()
	result()
	for range 20 {
		w.Run(t.Context(), sh(`(exit 0 &); (setsid true &)`), nil)
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("there is a child: %d (%v)", pid, err)
	}
}

func TestChildrenOfOthersAreNotReaped(t *testing.T) {
	w := newWorker(t)
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	w.ReapOrphans()
	if got, err := syscall.Wait4(pid, nil, 0, nil); got != pid || err != nil {
		t.Errorf("the status of a child of somebody else was taken: %d, %v", got, err)
	}
}

func TestAPipeThatWasGivenAwayIsNotWaitedForLong(t *testing.T) {
	w := newWorker(t)
	stdin, goOn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out := newOutput()
	job := sh(`echo $$; read x; exit 0`)
	job.StdinFile = stdin
	result := background(t, w, t.Context(), job, out)
	pid := out.pid(t)
	// Somebody who does not belong to the script takes its standard output.
	held, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.WriteString("from a stranger\n"); err != nil {
		t.Fatal(err)
	}
	goOn.Close()
	if r := result(); r.State != bulkhead.ItemSucceeded {
		t.Errorf("%+v", r)
	}
	if want := fmt.Sprintf("%d\nfrom a stranger\n", pid); out.stdout() != want {
		t.Errorf("got %q, want %q", out.stdout(), want)
	}
}

func TestABulkheadInAScriptEndsWithIt(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	job := actor("nested")
	job.Grace = 50 * time.Millisecond
	result := background(t, w, ctx, job, out)
	eventually(t, "the inner script is up", func() bool { return strings.HasSuffix(out.stdout(), "\n\n") })
	inner, err := strconv.ParseUint(strings.TrimSpace(out.stdout()), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if r := result(); r.State != bulkhead.ItemCancelled {
		t.Errorf("%+v", r)
	}
	if n, err := worker.KillMarked(t.Context(), inner, 0); n != 0 || err != nil {
		t.Errorf("%d processes of the inner one were left (%v)", n, err)
	}
}
