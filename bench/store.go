package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// childArg makes this program run the engine alone, so that its memory is its own.
const childArg = "engine-child"

// noopWorkers is how many workers ask at once in the engine benchmark: the size
// of a large installation, and of a group commit.
const noopWorkers = 1000

// engineReport is what the child measured.
type engineReport struct {
	AcceptSeconds, RunSeconds float64
	PeakMemory                int64 // bytes
	Store                     int64 // bytes
}

func (b *bench) engine() error {
	n := b.items(1_000_000)
	small, err := b.engineChild("small", b.items(10_000))
	if err != nil {
		return err
	}
	large, err := b.engineChild("large", n)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	what := fmt.Sprintf("engine, no-op worker, %d items: ", n)
	b.AtMost(what+"accepted", large.AcceptSeconds, 3, " s", "")
	b.AtLeast(what+"finished", float64(n)/large.RunSeconds, 50_000, "/s", fmt.Sprintf("%d workers;", noopWorkers))
	b.AtMost(what+"peak memory", float64(large.PeakMemory)/mib, 150, " MiB", "")
	b.AtMost(what+"above that of 10,000 items", float64(large.PeakMemory-small.PeakMemory)/mib, 50, " MiB", "")
	b.AtMost(what+"store per item", float64(large.Store)/float64(n), 100, " B", "")
	return nil
}

func (b *bench) engineChild(name string, n int) (r engineReport, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.Command(self, childArg, b.state("engine-"+name), strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return r, errors.New("no resource usage")
	}
	r.PeakMemory = usage.Maxrss << 10
	return r, nil
}

func child(args []string) {
	n, err := strconv.Atoi(args[1])
	if err == nil {
		var r engineReport
		if r, err = measureEngine(args[0], int64(n)); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measureEngine(dir string, n int64) (rep engineReport, err error) {
	ctx := context.Background()
	st, err := sqlite.Open(ctx, dir)
	if err != nil {
		return rep, err
	}
	start := time.Now()
	r, err := submit(ctx, st, n)
	if err != nil {
		return rep, err
	}
	rep.AcceptSeconds = time.Since(start).Seconds()
	start = time.Now()
	e := engine.New(engine.Options{Store: st})
	if err := e.Adopt(ctx, r); err != nil {
		return rep, err
	}
	var wg sync.WaitGroup
	for slot := range noopWorkers {
		wg.Go(func() { noop(ctx, e, slot) })
	}
	if err := e.Run(ctx); err != nil {
		return rep, err
	}
	wg.Wait()
	rep.RunSeconds = time.Since(start).Seconds()
	if err := st.Close(); err != nil {
		return rep, err
	}
	info, err := os.Stat(filepath.Join(dir, "bulkhead.db"))
	if err != nil {
		return rep, err
	}
	rep.Store = info.Size()
	return rep, nil
}

func noop(ctx context.Context, e *engine.Engine, slot int) {
	var done *engine.Done
	for {
		a, err := e.Next(ctx, engine.Ask{Slot: slot, Done: done})
		if err != nil {
			return // the engine is closed: all is done
		}
		done = &engine.Done{Lease: a.Lease, Result: bulkhead.Result{Started: time.Now(), Duration: 2 * time.Millisecond,
			CPU: time.Millisecond, PeakMemory: 2 << 20}}
	}
}

// submit stores a run of n numbered items that this process owns.
func submit(ctx context.Context, st *sqlite.Store, n int64) (*bulkhead.Run, error) {
	r := &bulkhead.Run{Created: time.Now(), Spec: bulkhead.Spec{Name: "noop", Command: []string{"noop", "{}"},
		Columns: []string{"1"}, Limit: noopWorkers}}
	if err := st.Create(ctx, r); err != nil {
		return nil, err
	}
	var items []bulkhead.Item
	for i := int64(1); i <= n; i++ {
		items = append(items, bulkhead.Item{Index: i, Values: []string{"item-" + strconv.FormatInt(i, 10)}})
		if len(items) == 32<<10 {
			if err := st.Append(ctx, r.ID, items); err != nil {
				return nil, err
			}
			items = items[:0]
		}
	}
	return r, st.Accept(ctx, r, items, n, "")
}

// large asks for what people look at, in a state folder of 100 runs and ten
// million attempts.
func (b *bench) large() error {
	ctx, dir := context.Background(), b.state("large")
	const runs = 100
	per := int64(b.items(100_000))
	st, err := sqlite.Open(ctx, dir)
	if err != nil {
		return err
	}
	var last *bulkhead.Run
	for range runs {
		if last, err = filledRun(ctx, st, dir, per); err != nil {
			return err
		}
	}
	if err := st.Close(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"ls"}, {"show", last.ID.String()}, {"logs", "50", strconv.FormatInt(per/2, 10)},
		{"items", "50", "--state", "failed"},
	} {
		var took []time.Duration
		for range 11 {
			d, err := b.timed(dir, "", b.binary, args...)
			if err != nil {
				return err
			}
			took = append(took, d)
		}
		b.AtMost(fmt.Sprintf("%s, %d runs, %d attempts: median", args[0], runs, runs*per), median(took).Seconds()*1000, 100, " ms", "whole process;")
	}
	return nil
}

// filledRun stores a finished run: every item has a row, one in a thousand
// failed, and every one wrote a line.
func filledRun(ctx context.Context, st *sqlite.Store, dir string, n int64) (*bulkhead.Run, error) {
	r, err := submit(ctx, st, n)
	if err != nil {
		return nil, err
	}
	log, err := output.OpenLog(output.Options{Dir: filepath.Join(dir, "output", r.ID.String())})
	if err != nil {
		return nil, err
	}
	w := log.Writer()
	const step = 10_000
	for first := int64(1); first <= n; first += step {
		give, end := &bulkhead.Batch{Runs: []*bulkhead.Run{r}}, &bulkhead.Batch{Runs: []*bulkhead.Run{r}}
		for i := first; i < min(first+step, n+1); i++ {
			pos := w.Position()
			ref, err := writeLine(w, i)
			if err != nil {
				return nil, err
			}
			give.Leases = append(give.Leases, bulkhead.Lease{Run: r.ID, Item: bulkhead.Item{Index: i}, Attempt: 1, Token: uint64(i), Since: time.Now(), Output: pos})
			res := bulkhead.Result{Started: time.Now(), Duration: time.Millisecond, Output: ref}
			if i%1000 == 0 {
				res.State, res.ExitCode = bulkhead.ItemFailed, 1
			}
			r.Counts.Queued--
			*r.Counts.Of(res.State)++
			end.Ended = append(end.Ended, bulkhead.Attempt{Run: r.ID, Item: i, N: 1, Final: true, Result: res})
		}
		r.Next = min(first+step, n+1)
		if err := errors.Join(st.Commit(ctx, give), st.Commit(ctx, end)); err != nil {
			return nil, err
		}
	}
	r.State, r.Finished = bulkhead.RunFailed, time.Now()
	err = st.Commit(ctx, &bulkhead.Batch{Runs: []*bulkhead.Run{r}})
	return r, errors.Join(err, log.Close(ctx), st.Disown(r.ID))
}

func writeLine(w *output.Writer, i int64) (bulkhead.OutputRef, error) {
	w.Begin(i, 1, time.Now(), 0)
	if err := w.Write(output.Stdout, time.Now(), []byte(fmt.Sprintf("item %d is done\n", i))); err != nil {
		return bulkhead.OutputRef{}, err
	}
	return w.End()
}
