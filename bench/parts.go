package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead.dev/bulkhead/bench/table"
)

// shortItems runs /bin/true as often as fits, two at a time, with output
// capture and durable results, beside the tools people use.
func (b *bench) shortItems() error {
	n := b.items(10_000)
	input := numbers(n)
	ours, err := b.timed(b.state("true"), input, b.binary, "run", "--each", "-", "--limit", "2", "--", "/bin/true", "{}")
	if err != nil {
		return err
	}
	xargs, err := b.timed("", input, "xargs", "-P2", "-n1", "/bin/true")
	if err != nil {
		return err
	}
	again, err := b.timed(b.state("true"), input, b.binary, "run", "--each", "-", "--limit", "2", "--", "/bin/true", "{}")
	if err != nil {
		return err
	}
	ours = (ours + again) / 2 // around xargs, since the machine's speed drifts
	bare, err := twoAtATime(n)
	if err != nil {
		return err
	}
	syncing, err := b.syncTime()
	if err != nil {
		return err
	}
	// GNU parallel is so slow that a tenth of the items tells its rate.
	few := max(n/10, 20)
	parallel, err := b.timed("", numbers(few), "parallel", "-j2", "/bin/true", "{}")
	if err != nil {
		return err
	}
	perItem := func(d time.Duration, n int) float64 { return d.Seconds() / float64(n) }
	what := fmt.Sprintf("%d × /bin/true, two at a time: wall time / ", n)
	b.AtMost(what+"xargs -P2 -n1", perItem(ours, n)/perItem(xargs, n), 0.8, "",
		fmt.Sprintf("%.0f/s, xargs %.0f/s;", 1/perItem(ours, n), 1/perItem(xargs, n)))
	// What no tool can do without: below it, a target is out of reach.
	b.Note(what+"xargs, by fork, exec and wait alone", table.Format(perItem(bare, n)/perItem(xargs, n), ""),
		fmt.Sprintf("%.0f/s, nothing kept;", 1/perItem(bare, n)))
	b.Note("write and sync a page, as each of these commits does: median", table.Format(syncing.Seconds()*1000, " ms"), "")
	b.AtMost(what+"parallel -j2", perItem(ours, n)/perItem(parallel, few), 0.15, "",
		fmt.Sprintf("parallel %.0f/s (of %d);", 1/perItem(parallel, few), few))
	return nil
}

// twoAtATime runs /bin/true n times as a loop around fork, exec and wait.
func twoAtATime(n int) (time.Duration, error) {
	var next atomic.Int64
	var slots sync.WaitGroup
	errs := make(chan error, 2)
	begin := time.Now()
	for range 2 {
		slots.Go(func() {
			for next.Add(1) <= int64(n) {
				process, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
				if err == nil {
					_, err = process.Wait()
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	slots.Wait()
	took := time.Since(begin)
	select {
	case err := <-errs:
		return 0, err
	default:
		return took, nil
	}
}

// syncTime is how long it takes to write a page behind the last one and sync it.
func (b *bench) syncTime() (time.Duration, error) {
	f, err := os.Create(filepath.Join(b.dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	page := make([]byte, 4096)
	var times []time.Duration
	for range 200 {
		begin := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	return median(times), nil
}

func numbers(n int) string {
	var s strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&s, i)
	}
	return s.String()
}

// latency is how much later a script starts when Bulkhead starts it.
func (b *bench) latency() error {
	var direct, ours []time.Duration
	for range b.items(60) {
		d, err := b.untilStart("date", "+%s%N")
		if err != nil {
			return err
		}
		direct = append(direct, d)
		if d, err = b.untilStart(b.binary, "run", "--", "date", "+%s%N"); err != nil {
			return err
		}
		ours = append(ours, d)
	}
	more := median(ours) - median(direct)
	b.AtMost("submit to process start, one script: median, over the script itself", more.Seconds()*1000, 10, " ms",
		fmt.Sprintf("%.1f ms and %.1f ms;", median(ours).Seconds()*1000, median(direct).Seconds()*1000))
	return nil
}

// untilStart runs a command that prints the time in nanoseconds and returns how
// long after our start that was.
func (b *bench) untilStart(name string, args ...string) (time.Duration, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_STATE="+b.state("latency"))
	start := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	nanos, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, err
	}
	return time.Unix(0, nanos).Sub(start), nil
}
