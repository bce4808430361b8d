package kubernetes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

// bed is a server on this machine that runs scripts in the lab, as long as the
// benchmark.
type bed struct {
	*testbed.Bed
	b *testing.B
}

// podsPerSecond is how fast the servers of these benchmarks start pods.
const podsPerSecond = 50

func newBed(b *testing.B) *bed {
	b.Helper()
	args := []string{"--pods-per-second", fmt.Sprint(podsPerSecond)}
	if addr := os.Getenv("BENCH_PPROF"); addr != "" {
		args = append(args, "--pprof", addr)
	}
	d := &bed{testbed.New(b, args...), b}
	d.Patience = 10 * time.Minute
	return d
}

// define makes the class. Workers is YAML, as are node selectors.
func (d *bed) define(workers, selector string) {
	d.Helper()
	d.Define(selector, "  workers: "+workers+"\n")
}

// submit submits a run of so many numbered items.
func (d *bed) submit(items int64, limit int, command ...string) bulkhead.RunID {
	d.Helper()
	return d.Submit(items, bulkhead.Spec{Command: command, Limit: limit})
}

// over waits until all items of a run have succeeded.
func (d *bed) over(id bulkhead.RunID) {
	d.Helper()
	if r := d.Over(id); r.State != bulkhead.RunSucceeded {
		d.Fatalf("run %d: %s %+v", id, r.State, r.Counts)
	}
}

// ours are the requests of the server to the API server.
func ours(r lab.Request) bool { return r.Client == filepath.Base(testbed.Binary) }

// peakMemory is the most memory that the server had resident, in MiB.
func (d *bed) peakMemory() float64 {
	d.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))
	if err != nil {
		d.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		d.Fatal("no VmHWM:", err)
	}
	return kib / 1024
}
