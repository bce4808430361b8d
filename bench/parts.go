package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
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
	// GNU parallel is so slow that a tenth of the items tells its rate.
	few := max(n/10, 20)
	parallel, err := b.timed("", numbers(few), "parallel", "-j2", "/bin/true", "{}")
	if err != nil {
		return err
	}
	perItem := func(d time.Duration, n int) float64 { return d.Seconds() / float64(n) }
	what := fmt.Sprintf("%d × /bin/true, two at a time: wall time / ", n)
	b.atMost(what+"xargs -P2 -n1", perItem(ours, n)/perItem(xargs, n), 0.8, "",
		fmt.Sprintf("%.0f/s, xargs %.0f/s;", 1/perItem(ours, n), 1/perItem(xargs, n)))
	b.atMost(what+"parallel -j2", perItem(ours, n)/perItem(parallel, few), 0.15, "",
		fmt.Sprintf("parallel %.0f/s (of %d);", 1/perItem(parallel, few), few))
	return nil
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
	b.atMost("submit to process start, one script: median, over the script itself", more.Seconds()*1000, 10, " ms",
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
