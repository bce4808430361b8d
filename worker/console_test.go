package worker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// attached runs a job that somebody is attached to.
func attached(t *testing.T, w *worker.Worker, ctx context.Context, job worker.Job, out worker.Sink) (*worker.Console, func() bulkhead.Result) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	consoles := make(chan *worker.Console, 1)
	job.Attach = func(c *worker.Console) { consoles <- c }
	end := background(t, w, ctx, job, out)
	return <-consoles, end
}

// inTerminal is a job in a terminal.
func inTerminal(args ...string) worker.Job {
	return worker.Job{
		Args: args, Env: append(os.Environ(), "TERM=xterm", "PS1=$ ", "ENV="), Grace: 10 * time.Second,
		Terminal: true, Window: bulkhead.Window{Rows: 30, Columns: 100},
	}
}

func keys(t *testing.T, c *worker.Console, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func says(t *testing.T, out *output, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("it writes %q", text), func() bool { return strings.Contains(out.stdout(), text) })
}

func TestAScriptReadsWhatIsPipedIntoIt(t *testing.T) {
	w, out := newWorker(t), newOutput()
	c, end := attached(t, w, t.Context(), sh("sha256sum; echo on stderr >&2"), out)
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	sum := sha256.New()
	for range 200 {
		keys(t, c, string(piece))
		sum.Write(piece)
	}
	if err := c.End(); err != nil {
		t.Fatal(err)
	}
	r := end()
	if want := fmt.Sprintf("%x  -\n", sum.Sum(nil)); out.stdout() != want || out.stderr() != "on stderr\n" || r.State != bulkhead.ItemSucceeded {
		t.Errorf("%+v\nstdout %q, want %q; stderr %q", r, out.stdout(), want, out.stderr())
	}
}

func TestWhoTypesIntoAScriptThatReadsNoMoreIsTold(t *testing.T) {
	w, out := newWorker(t), newOutput()
	c, end := attached(t, w, t.Context(), sh("exec <&-; echo closed; sleep 1000"), out)
	says(t, out, "closed")
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("nobody reads it, and it was written")
	}
	w.Kill()
	end()
}

func TestAScriptThatDoesNotReadKeepsOnlyWhoTypesWaiting(t *testing.T) {
	w := newWorker(t)
	ctx, stop := context.WithCancel(t.Context())
	c, end := attached(t, w, ctx, sh("sleep 1000"), newOutput())
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 4<<20))
		wrote <- err
	}()
	stop()
	if r := end(); r.State != bulkhead.ItemCancelled {
		t.Errorf("%+v", r)
	}
	if err := <-wrote; err == nil {
		t.Error("it was all written")
	}
}

func TestAScriptInATerminalIsTypedInto(t *testing.T) {
	w, out := newWorker(t), newOutput()
	c, end := attached(t, w, t.Context(), inTerminal("sh", "-i"), out)
	says(t, out, "$ ")
	keys(t, c, "test -t 0 && test -t 1 && test -t 2 && echo is  a\"\"terminal\n")
	says(t, out, "is aterminal")
	keys(t, c, "stty size\n")
	says(t, out, "30 100")
	if err := c.Resize(bulkhead.Window{Rows: 40, Columns: 120}); err != nil {
		t.Fatal(err)
	}
	keys(t, c, "stty size\n")
	says(t, out, "40 120")
	keys(t, c, "sh -c 'echo be\"\"gun; exec sleep 1000'\n") // Ctrl-C before it has the terminal would be for the shell
	says(t, out, "begun\r\n")
	keys(t, c, "\x03") // Ctrl-C, which forgets what was typed before
	says(t, out, "^C")
	keys(t, c, "echo its exit code: $?.\n")
	says(t, out, "its exit code: 130.")
	keys(t, c, "exit 7\n")
	if r := end(); r.ExitCode != 7 || r.How != bulkhead.HowExit {
		t.Errorf("%+v", r)
	}
	if out.stderr() != "" {
		t.Errorf("stderr %q", out.stderr())
	}
}

func TestKeysOfATerminalStopContinueAndEnd(t *testing.T) {
	w, out := newWorker(t), newOutput()
	c, end := attached(t, w, t.Context(), inTerminal("sh", "-i"), out)
	says(t, out, "$ ")
	keys(t, c, "cat\n")
	keys(t, c, "to cat\n")
	says(t, out, "to cat\r\nto cat\r\n")
	keys(t, c, "\x1a") // Ctrl-Z
	says(t, out, "Stopped")
	keys(t, c, "fg\n")
	says(t, out, "fg\r\ncat\r\n")
	keys(t, c, "again\n")
	says(t, out, "again\r\nagain\r\n")
	if err := c.End(); err != nil { // of cat
		t.Fatal(err)
	}
	keys(t, c, "echo now \"\"sh\n")
	says(t, out, "now sh")
	if err := c.End(); err != nil { // of sh
		t.Fatal(err)
	}
	if r := end(); r.State != bulkhead.ItemSucceeded {
		t.Errorf("%+v", r)
	}
}

func TestAShellInATerminalEndsWhenItsAttemptIsCancelled(t *testing.T) {
	w := newWorker(t)
	for name, shell := range map[string][]string{"bash": {"bash", "--norc", "-i"}, "sh": {"sh", "-i"}} {
		t.Run(name, func(t *testing.T) {
			out := newOutput()
			ctx, stop := context.WithCancel(t.Context())
			job := inTerminal(shell...)
			job.Grace = 10 * time.Minute // it ignores SIGTERM, and not the hang-up
			c, end := attached(t, w, ctx, job, out)
			says(t, out, "$ ")
			keys(t, c, "sleep 1000 & sleep 1001\n")
			says(t, out, "sleep 1001\r\n")
			stop()
			if r := end(); r.State != bulkhead.ItemCancelled {
				t.Errorf("%+v", r)
			}
			out = newOutput()
			ctx, stop = context.WithCancel(t.Context())
			_, end = attached(t, w, ctx, job, out)
			says(t, out, "$ ") // where it waits for a command
			stop()
			if r := end(); r.State != bulkhead.ItemCancelled {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestNothingOutlivesAnAttemptInATerminal(t *testing.T) {
	w, out := newWorker(t), newOutput()
	job := inTerminal("sh", "-c", "(trap '' HUP TERM; setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; wait)& sleep 0.2; exit 3")
	job.Grace = time.Millisecond
	_, end := attached(t, w, t.Context(), job, out)
	r := end()
	if r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
	if pid := out.pid(t); alive(pid) {
		t.Error("it lives")
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestAScriptInATerminalThatCannotBeStartedLeavesNoTerminal(t *testing.T) {
	w := newWorker(t)
	before := openFiles(t)
	job := inTerminal("/does/not/exist")
	job.Attach = func(*worker.Console) { t.Error("attached") }
	if r := w.Run(t.Context(), job, newOutput()); r.How != bulkhead.HowStart {
		t.Errorf("%+v", r)
	}
	for range 3 {
		_, end := attached(t, w, t.Context(), inTerminal("true"), newOutput())
		end()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files were open, now %d", before, after)
	}
}
