package census_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/lab"
)

// A million objects, through all that a real one goes through here.
func BenchmarkAMillionObjects(b *testing.B) {
	const objects, changes, steady = 1_000_000, 100, 20 * time.Second
	for b.Loop() {
		before := heap()
		peak := newPeak()
		began := time.Now()
		c, stop := run(b, generator(b, objects, changes), census.Options{Kinds: []string{"-*", "configmaps"}})
		waitFor(b, func() bool { return status(c.Snapshot(), "configmaps").Exact })
		b.ReportMetric(time.Since(began).Seconds(), "s-to-list")
		b.ReportMetric(mib(peak.stop()-before), "MiB-peak-heap")
		b.ReportMetric(mib(heap()-before), "MiB-heap")
		b.ReportMetric(float64(len(c.Snapshot().Tallies)), "families")

		cpu, began := cpuTime(), time.Now()
		<-time.After(steady)
		b.ReportMetric(100*(cpuTime()-cpu).Seconds()/time.Since(began).Seconds(), "%-of-a-core")
		snapshots := time.Now()
		c.Snapshot()
		b.ReportMetric(float64(time.Since(snapshots).Microseconds())/1000, "ms/snapshot")
		stop()
	}
}

// A hundred thousand real ones, and what their list costs the API server.
func BenchmarkAHundredThousandRealObjects(b *testing.B) {
	const objects = 100_000
	l := lab.Start(b)
	ns := l.Namespace(b)
	configMaps(b, l, ns, objects)
	server := apiServer(b)
	for b.Loop() {
		resetPeak(b, server)
		<-time.After(30 * time.Second) // it goes on with what it does anyway
		quiet := memory(b, server, "VmHWM")
		resetPeak(b, server)
		before, most := heap(), newPeak()
		requests := l.Requests(b)
		began := time.Now()
		c, stop := run(b, l.Config(), census.Options{})
		waitFor(b, func() bool { return status(c.Snapshot(), census.BuiltIn[len(census.BuiltIn)-1]).Exact })
		b.ReportMetric(time.Since(began).Seconds(), "s-to-list")
		b.ReportMetric(mib(memory(b, server, "VmHWM"))/mib(quiet), "x-peak-of-API-server")
		b.ReportMetric(mib(quiet), "MiB-API-server")
		b.ReportMetric(mib(most.stop()-before), "MiB-peak-heap")
		b.ReportMetric(mib(heap()-before), "MiB-heap")
		b.ReportMetric(float64(l.Requests(b).Of(mine)-requests.Of(mine)), "requests")

		began = time.Now()
		// The API server gives each such request a minute.
		for err := errors.New("not tried yet"); err != nil && b.Context().Err() == nil; {
			err = l.Client().CoreV1().ConfigMaps(ns).DeleteCollection(b.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "username=ann"})
		}
		waitFor(b, func() bool { return tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config").Objects == 0 })
		b.ReportMetric(time.Since(began).Seconds(), "s-to-delete")
		if got := tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config").Deleted; got != objects {
			b.Errorf("%d deleted, want %d", got, objects)
		}
		stop()
	}
}

// apiServer is the process of this test's lab.
func apiServer(t testing.TB) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	l := lab.Start(t)
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(line), "kube-apiserver\x00") || !strings.Contains(string(line), l.Dir()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			return pid
		}
	}
	t.Fatal("the API server's process was not found")
	return 0
}

// resetPeak makes a process's peak of memory what it has now (proc(5), clear_refs).
func resetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// heap is what is live.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// peak looks how large the heap gets, garbage and all.
type peak struct {
	most atomic.Uint64
	end  chan struct{}
	done chan struct{}
}

func newPeak() *peak {
	p := &peak{end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			p.most.Store(max(p.most.Load(), m.HeapInuse))
			select {
			case <-ticker.C:
			case <-p.end:
				return
			}
		}
	}()
	return p
}

func (p *peak) stop() uint64 {
	close(p.end)
	<-p.done
	return p.most.Load()
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// waitFor asks until ok.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("it did not come")
		}
	}
}

// memory of a process in bytes, as /proc/PID/status calls it.
func memory(t testing.TB, pid int, field string) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s of process %d", field, pid)
	return 0
}
