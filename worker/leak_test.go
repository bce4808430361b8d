package worker_test

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

func TestFiveHundredAttemptsLeakNothing(t *testing.T) {
	w := newWorker(t)
	text := "stdin"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	jobs := []worker.Job{
		{Args: []string{"true"}, Env: os.Environ()},
		{Args: []string{"true"}, Env: os.Environ()},
		{Args: []string{"cat"}, Env: os.Environ(), Stdin: &text},
		{Args: []string{"/nowhere"}, Env: os.Environ()},
		{Args: []string{"true"}, Env: os.Environ(), Timeout: 1 << 40},
	}
	attempts := func(n int) {
		var slots sync.WaitGroup
		for slot := range 4 {
			slots.Go(func() {
				for i := range n / 4 {
					job := jobs[(slot+i)%len(jobs)]
					r := w.Run(ctx, job, newOutput())
					if failed := r.State != bulkhead.ItemSucceeded; failed != (job.Args[0] == "/nowhere") {
						t.Errorf("%v: %+v", job.Args, r)
					}
				}
			})
		}
		slots.Wait()
	}
	attempts(20) // what is made once
	files, routines := openFiles(t), runtime.NumGoroutine()
	attempts(500)
	if got := openFiles(t); got != files {
		t.Errorf("%d open files, before %d", got, files)
	}
	// A goroutine that has said that it is done still has to return.
	eventually(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= routines })
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestManyAtOnceTakeNoThreads(t *testing.T) {
	w := newWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	var slots sync.WaitGroup
	outs := make([]*output, 100)
	for i := range outs {
		outs[i] = newOutput()
		slots.Go(func() {
			job := sh("echo up; exec sleep 1000")
			if r := w.Run(ctx, job, outs[i]); r.State != bulkhead.ItemCancelled {
				t.Errorf("%+v", r)
			}
		})
	}
	for _, out := range outs {
		out.line(t)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) >= len(outs) {
		t.Errorf("%d threads for %d scripts", len(threads), len(outs))
	}
	cancel()
	slots.Wait()
}
