package worker_test

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// actAs, in the environment, makes the test binary one of the programs in
// actors_test.go: owners that are killed, scripts that misbehave.
const actAs = "WORKER_TEST_ACT_AS"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.GuardianArg {
		os.Exit(worker.GuardianMain(os.Args[2:]))
	}
	if name := os.Getenv(actAs); name != "" {
		os.Exit(actors[name](os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// newWorker has no guardian: starting one takes a while and most tests do not
// die.
func newWorker(t testing.TB) *worker.Worker {
	t.Helper()
	return openWorker(t, worker.Options{NoGuardian: true})
}

func openWorker(t testing.TB, opts worker.Options) *worker.Worker {
	t.Helper()
	w, err := worker.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n, err := worker.KillMarked(context.Background(), w.Mark(), 0); n != 0 || err != nil {
			t.Errorf("%d processes were left behind (%v)", n, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// output is a Sink that keeps everything.
type output struct {
	mu   sync.Mutex
	text [3]bytes.Buffer
	// Full makes the next writes fail.
	full int
	err  error
	// wrote gets a value after a write, if somebody waits.
	wrote chan struct{}
}

func newOutput() *output { return &output{wrote: make(chan struct{}, 1)} }

func (o *output) Write(stream int, _ time.Time, p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full > 0 {
		o.full--
		return o.err
	}
	o.text[stream].Write(p)
	select {
	case o.wrote <- struct{}{}:
	default:
	}
	return nil
}

func (o *output) stdout() string { return o.stream(worker.Stdout) }
func (o *output) stderr() string { return o.stream(worker.Stderr) }

func (o *output) stream(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text[n].String()
}

// line waits until the script has written a whole line, and returns it.
func (o *output) line(t *testing.T) string {
	t.Helper()
	for {
		if text := o.stdout(); strings.HasSuffix(text, "\n") {
			return strings.TrimSpace(text)
		}
		select {
		case <-o.wrote:
		case <-time.After(patience):
			t.Fatalf("the script has not written a line in %v: stdout %q, stderr %q", patience, o.stdout(), o.stderr())
		}
	}
}

// pid waits for a script that writes a pid.
func (o *output) pid(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(o.line(t))
	if err != nil {
		t.Fatalf("the script did not write a pid: %v", err)
	}
	return pid
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// eventually waits for a state of the machine that it does not announce.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// sh is a job that runs a script of the shell.
func sh(script string, args ...string) worker.Job {
	return worker.Job{
		Args: append([]string{"sh", "-c", script, "sh"}, args...),
		Env:  os.Environ(), Grace: 10 * time.Second,
	}
}

// actor is a job that runs one of the programs in actors_test.go.
func actor(name string, args ...string) worker.Job {
	return worker.Job{
		Args: append([]string{"actor"}, args...), Path: "/proc/self/exe",
		Env: become(name), Grace: 10 * time.Second,
	}
}

// background runs a job; the returned function waits for its result.
func background(t *testing.T, w *worker.Worker, ctx context.Context, job worker.Job, sink worker.Sink) func() bulkhead.Result { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	done := make(chan bulkhead.Result, 1)
	go func() { done <- w.Run(ctx, job, sink) }()
	return func() bulkhead.Result {
		t.Helper()
		select {
		case r := <-done:
			return r
		case <-time.After(2 * patience):
			t.Fatal("the attempt does not end")
			return bulkhead.Result{}
		}
	}
}
