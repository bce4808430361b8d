package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

// A script says when it and the first process of its container were started: the
// kernel's word for it, to 10 ms, by a clock that pods and this machine share.
var whenStarted = []string{"/bin/cat", "/proc/self/stat", "/proc/1/stat"}

// moment is a time since this machine was booted.
type moment = time.Duration

func sinceBoot() moment {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // it cannot fail for this clock
	return time.Duration(ts.Nano())
}

// started reads what whenStarted prints.
func started(b *testing.B, text string) (script, first moment) {
	b.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 2 {
		b.Fatalf("not two processes: %q", text)
	}
	return startTime(b, lines[0]), startTime(b, lines[1])
}

// startTime is the start of a process, see proc_pid_stat(5).
func startTime(b *testing.B, stat string) moment {
	b.Helper()
	_, rest, _ := strings.Cut(stat, ") ")
	const starttime, tick = 19, 10 * time.Millisecond
	fields := strings.Fields(rest)
	if len(fields) <= starttime {
		b.Fatalf("not of a process: %q", stat)
	}
	n, err := strconv.ParseInt(fields[starttime], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)*tick + tick/2 // somewhere within the tick
}

// run starts a command that ends up at whenStarted, and says how long before its
// script started that was, and when its container did.
func run(b *testing.B, name string, args ...string) (took time.Duration, script, first moment) {
	b.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_STATE="+b.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	begin := sinceBoot()
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v: %s", name, err, said.String())
	}
	script, first = started(b, string(out))
	return script - begin, script, first
}

// cli is the arguments of bulkhead that run a script as people do.
func (d *bed) cli(command ...string) []string {
	args := []string{"run", "--server", d.URL, "--ca", d.Key("ca.crt"), "--token-file", d.Key("token"), "--class", d.Class(), "--"}
	return append(args, command...)
}

// BenchmarkStart is how long it takes from a command at a shell to the start of its
// script.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		d := newBed(b)
		d.warm()
		d.cold()
		d.job()
	}
}

// warm measures with a worker that waits.
func (d *bed) warm() {
	d.define("{max: 1, idleTimeout: 10m}", testbed.RealNode)
	run(d.b, testbed.Binary, d.cli(whenStarted...)...)
	var direct, through []time.Duration
	for range scaled(40, 5) {
		took, _, _ := run(d.b, whenStarted[0], whenStarted[1:]...)
		direct = append(direct, took)
		took, _, _ = run(d.b, testbed.Binary, d.cli(whenStarted...)...)
		through = append(through, took)
	}
	middle := median(through) // which also sorts them
	result.AtMost("submit to script start, warm: median, over the script itself", ms(middle-median(direct)), 100, " ms",
		fmt.Sprintf("p90 %.0f ms, of %d; the script itself %.0f ms;", ms(through[len(through)*9/10]), len(through), ms(median(direct))))
}

// cold measures without a worker: what Bulkhead takes before there is a pod, and
// after the pod's container has started. What is between is the cluster's.
func (d *bed) cold() {
	var before, pod, after, all []time.Duration
	for range scaled(10, 3) {
		d.noWorkers()
		created := d.watchPods()
		begin := sinceBoot()
		took, script, first := run(d.b, testbed.Binary, d.cli(whenStarted...)...)
		made := <-created
		before, pod, after = append(before, made-begin), append(pod, first-made), append(after, script-first)
		all = append(all, took)
	}
	result.AtMost("submit to script start, cold: median, over the start of the pod", ms(median(before)+median(after)), 300, " ms",
		fmt.Sprintf("%.0f ms until the pod exists, %.0f ms after its container started;", ms(median(before)), ms(median(after))))
	result.Note("  the whole, cold: median", fmt.Sprintf("%.0f ms", ms(median(all))),
		fmt.Sprintf("of which the pod's start %.0f ms; of %d", ms(median(pod)), len(all)))
}

// noWorkers deletes the workers and waits until they are gone.
func (d *bed) noWorkers() {
	d.Lab.Kubectl(d, "delete", "pods", "--all", "--namespace", d.Namespace, "--wait")
	d.Lab.Eventually(d, "the server knows that", func(ctx context.Context) bool {
		classes, err := d.Client.Classes(ctx)
		return err == nil && len(classes) == 1 && classes[0].Workers == 0
	})
}

// watchPods tells when the next pod has been made.
func (d *bed) watchPods() <-chan moment {
	d.Helper()
	pods := d.Lab.Client().CoreV1().Pods(d.Namespace)
	list, err := pods.List(d.Context(), metav1.ListOptions{})
	if err != nil {
		d.Fatal(err)
	}
	w, err := pods.Watch(d.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		d.Fatal(err)
	}
	made := make(chan moment, 1)
	go func() {
		defer w.Stop()
		for event := range w.ResultChan() {
			if event.Type == watch.Added {
				made <- sinceBoot()
				return
			}
		}
	}()
	return made
}

// job is the same by kubectl create job: from the command to the script.
func (d *bed) job() {
	var all []time.Duration
	for i := range scaled(10, 3) {
		name := fmt.Sprintf("job-%d", i)
		begin := sinceBoot()
		d.Lab.Kubectl(d, append([]string{"create", "job", name, "--namespace", d.Namespace, "--image", lab.BusyboxImage, "--"}, whenStarted...)...)
		d.Lab.Kubectl(d, "wait", "--namespace", d.Namespace, "--for=condition=complete", "--timeout=2m", "job/"+name)
		script, _ := started(d.b, d.Lab.Kubectl(d, "logs", "--namespace", d.Namespace, "job/"+name))
		all = append(all, script-begin)
	}
	result.Note("  kubectl create job: to the start of the script: median", fmt.Sprintf("%.0f ms", ms(median(all))), fmt.Sprintf("of %d", len(all)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkIdle is what a server asks of the cluster while nobody wants anything.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		d := newBed(b)
		d.define("{max: 1, idleTimeout: 10m}", testbed.RealNode)
		run(b, testbed.Binary, d.cli(whenStarted...)...)
		<-time.After(5 * time.Second) // its worker is no news any more
		idle(d, time.Duration(scaled(60, 20))*time.Second)
	}
}

func idle(d *bed, wait time.Duration) {
	before := d.Lab.Requests(d)
	<-time.After(wait)
	after := d.Lab.Requests(d)
	asked := func(r lab.Request) bool { return ours(r) && r.Verb != "watch" }
	n := after.Of(asked) - before.Of(asked)
	result.AtMost("server idle, one worker waiting: API requests in 10 s besides watches", float64(n)*10/wait.Seconds(), 1, "",
		fmt.Sprintf("%d in %s;", n, wait))
}
