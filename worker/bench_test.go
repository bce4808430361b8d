package worker_test

import (
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// BenchmarkTrue runs /bin/true, two at a time, as an attempt with captured
// output, as a bare fork, exec and wait, and with os/exec and captured output.
// The three take turns, so that a busy machine is busy for all of them; the
// ratios are of wall time against the bare loop.
func BenchmarkTrue(b *testing.B) {
	w := openWorker(b, worker.Options{})
	env := os.Environ()
	job := worker.Job{Args: []string{"true"}, Path: "/bin/true", Env: env, Dir: "/"}
	out := newOutput()
	ways := []struct {
		name string
		once func()
		took time.Duration
	}{
		{name: "bare", once: func() {
			pid, err := syscall.ForkExec("/bin/true", job.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
			if err != nil {
				b.Error(err)
				return
			}
			for {
				if _, err = syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
					break
				}
			}
		}},
		{name: "worker", once: func() {
			if r := w.Run(b.Context(), job, out); r.State != bulkhead.ItemSucceeded {
				b.Errorf("%+v", r)
			}
		}},
		{name: "os/exec", once: func() {
			cmd := exec.Command("/bin/true")
			cmd.Stdout, cmd.Stderr = counter{}, counter{}
			if err := cmd.Run(); err != nil {
				b.Error(err)
			}
		}},
	}
	const batch = 50
	n := 0
	for b.Loop() {
		for i := range ways {
			start := time.Now()
			twoAtATime(batch, ways[i].once)
			ways[i].took += time.Since(start)
		}
		n += batch
	}
	b.ReportMetric(0, "ns/op")
	for _, way := range ways {
		b.ReportMetric(float64(n)/way.took.Seconds(), way.name+"/s")
		if way.name != "bare" {
			b.ReportMetric(float64(way.took)/float64(ways[0].took), way.name+"-ratio")
		}
	}
}

func twoAtATime(n int64, f func()) {
	var next atomic.Int64
	var slots sync.WaitGroup
	for range 2 {
		slots.Go(func() {
			for next.Add(1) <= n {
				f()
			}
		})
	}
	slots.Wait()
}

// counter is a writer that os/exec does not know, so that it makes a pipe.
type counter struct{}

func (counter) Write(p []byte) (int, error) { return len(p), nil }
