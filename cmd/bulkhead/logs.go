package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

type logsFlags struct {
	follow, failed, times bool
	tail, attempt         int
}

func (a *app) logsCmd() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs RUN [ITEM]",
		Short: "Print what scripts wrote",
		Long: `Print what the scripts of a run wrote: of one item, or of all.

What a script wrote to its standard output goes to standard output, the rest to
standard error. With more than one item each line begins with the item's number.
Without -f the items come in order; with -f what is there comes first, then
lines as they are written, until the run is over or Ctrl-C.

What cannot be read is named and left out; the exit code is then 125.`,
		Example: `  bulkhead logs 7 12
  bulkhead logs 7 -f
  bulkhead logs 7 --failed`,
		Args:              atMost("RUN", "ITEM"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				items, err := parseItems(r, args[1:])
				if err != nil {
					return err
				}
				ctx, stop := a.interruptible(cmd.Context())
				defer stop()
				return a.logs(ctx, h, r, items, f)
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "print what is there, then what is written, until the run is over")
	fl.BoolVar(&f.failed, "failed", false, "only failed items, the last lines of each")
	fl.IntVar(&f.tail, "tail", 0, "only the last `N` lines of each item (with --failed: 10)")
	fl.IntVar(&f.attempt, "attempt", 0, "this attempt of the item (default: the last)")
	fl.BoolVar(&f.times, "timestamps", false, "begin each line with its time")
	completeNoFiles(cmd, "tail", "attempt")
	return cmd
}

func (a *app) logs(ctx context.Context, h home, r *bulkhead.Run, items []int64, f logsFlags) error {
	l := &logReader{app: a, home: h, run: r, flags: f}
	if r.Spec.Single() {
		items = []int64{1}
	}
	err := f.check(len(items) > 0)
	if err != nil {
		return err
	}
	switch {
	case f.failed:
		err = l.allFailed(ctx, items)
	case f.follow && len(items) == 0:
		err = l.followRun(ctx)
	case f.follow:
		err = l.followItem(ctx, items[0])
	default:
		l.prefixed = len(items) == 0
		err = eachItem(ctx, h, r, bulkhead.ItemQuery{}, items, func(it bulkhead.ItemStatus) error {
			return l.print(ctx, it)
		})
	}
	if left(ctx, err) {
		return exitError(exitInterrupted)
	}
	return cmp.Or(err, l.unreadable())
}

// check refuses flags that do not go together, rather than ignore one.
func (f *logsFlags) check(item bool) error {
	const oneItem = "name one: bulkhead logs RUN ITEM"
	switch {
	case f.tail < 0:
		return usage("", "--tail %d is less than 0", f.tail)
	case f.attempt < 0:
		return usage("attempts count from 1", "--attempt %d is less than 0", f.attempt)
	case f.failed && f.follow:
		return usage("", "--failed and --follow exclude each other")
	case f.failed && f.times:
		return usage("", "--failed and --timestamps exclude each other")
	case f.failed && f.attempt > 0:
		return usage("", "--failed and --attempt exclude each other")
	case f.follow && f.attempt > 0:
		return usage("what follows is of the last attempt", "--follow and --attempt exclude each other")
	case f.attempt > 0 && !item:
		return usage(oneItem, "--attempt needs an item")
	case f.follow && f.tail > 0 && !item:
		return usage(oneItem, "--follow with --tail needs an item")
	}
	return nil
}

// logReader prints the output of a run's items.
type logReader struct {
	app      *app
	home     home
	run      *bulkhead.Run
	flags    logsFlags
	prefixed bool
	heads    func(item int64) string // what lines begin with; nil: the item's number, if prefixed
	unread   int                     // how often output could not be read
	outs     [2]*bufio.Writer
}

// cannotRead says what cannot be read, and lets the caller go on: output of which
// a part is damaged must not keep the rest from who looks for a reason.
func (l *logReader) cannotRead(err error) {
	l.unread++
	l.app.tell("bulkhead: %v", err)
	if hint := bulkhead.HintOf(err); hint != "" && l.unread == 1 {
		l.app.tell("  %s", hint)
	}
}

// unreadable is the end of a command that could not print everything.
func (l *logReader) unreadable() error {
	if l.unread == 0 {
		return nil
	}
	return exitError(exitInternal)
}

// print prints one item's output.
func (l *logReader) print(ctx context.Context, it bulkhead.ItemStatus) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at, err := l.pick(ctx, it)
	if err != nil {
		return err
	}
	if at.N == 0 {
		l.neverStarted(it)
		return nil
	}
	p := newLinePrinter(l, it.Index)
	p.skip = l.beforeTail(ctx, at)
	return errors.Join(l.read(ctx, at, p), p.end(at))
}

// neverStarted says of the one item that was asked for why there is nothing to print.
func (l *logReader) neverStarted(it bulkhead.ItemStatus) {
	if !l.prefixed {
		fmt.Fprintf(l.app.stderr, "item %d of run %d has not started: it is %s\n", it.Index, l.run.ID, it.State)
	}
}

// read gives what an attempt wrote to p. Its error is that of printing.
func (l *logReader) read(ctx context.Context, at bulkhead.Attempt, p *linePrinter) error {
	return l.printed(p, l.home.readOutput(ctx, at, p.chunk))
}

// printed tells of an error of the output, and returns one of printing it.
func (l *logReader) printed(p *linePrinter, err error) error {
	if err == nil || p.failed != nil {
		return p.failed
	}
	if other, ok := errors.AsType[notOutput](err); ok {
		return other
	}
	l.cannotRead(err)
	return nil
}

// pick is the attempt to print.
func (l *logReader) pick(ctx context.Context, it bulkhead.ItemStatus) (bulkhead.Attempt, error) {
	if l.flags.attempt == 0 && (it.State != bulkhead.ItemRunning || it.Attempt.Output.Segment > 0) {
		return it.Attempt, nil
	}
	if l.flags.attempt == 0 || l.flags.attempt == it.Attempt.N {
		return it.Attempt, nil
	}
	all, err := l.home.Attempts(ctx, l.run.ID, it.Index)
	if err != nil {
		return bulkhead.Attempt{}, err
	}
	for _, at := range all {
		if at.N == l.flags.attempt {
			return at, nil
		}
	}
	return bulkhead.Attempt{}, &bulkhead.Error{Code: bulkhead.CodeNotFound,
		Message: fmt.Sprintf("item %d of run %d has no attempt %d", it.Index, l.run.ID, l.flags.attempt)}
}

// beforeTail is how many lines of an attempt come before those that --tail asks
// for. It reads the output once more than it is printed, so that streams and
// times stay what they are.
func (l *logReader) beforeTail(ctx context.Context, at bulkhead.Attempt) int {
	if l.flags.tail == 0 {
		return 0
	}
	lines, mid := 0, [2]bool{}
	// What is wrong with the output is told when it is printed.
	_ = l.home.readOutput(ctx, at, func(c bulkhead.Chunk) error {
		if len(c.Data) > 0 {
			lines += bytes.Count(c.Data, []byte("\n"))
			mid[outOf(c)] = c.Data[len(c.Data)-1] != '\n'
		}
		return nil
	})
	for _, unfinished := range mid {
		if unfinished {
			lines++
		}
	}
	return max(lines-l.flags.tail, 0)
}

// printTail prints the last lines whatever their stream, from the end of the
// output: of many items that is much less to read.
func (l *logReader) printTail(ctx context.Context, at bulkhead.Attempt, lines int) error {
	tail, err := l.home.tailOutput(ctx, at, lines)
	if other, ok := errors.AsType[notOutput](err); ok {
		return other
	}
	if len(tail) > 0 && !bytes.HasSuffix(tail, []byte("\n")) {
		tail = append(tail, '\n')
	}
	if err != nil {
		l.cannotRead(err)
	}
	_, err = l.app.stdout.Write(tail)
	return err
}

// defaultTail is how many lines of each failed item are shown.
const defaultTail = 10

// allFailed prints the end of what every failed item wrote, with a line that
// says which item it was and how it ended.
func (l *logReader) allFailed(ctx context.Context, items []int64) error {
	lines := l.flags.tail
	if lines == 0 {
		lines = defaultTail
	}
	command, err := parseAll(l.run.Spec.Command, l.run.Spec.Columns)
	if err != nil {
		return err
	}
	failed := bulkhead.ItemFailed
	n := 0
	err = eachItem(ctx, l.home, l.run, bulkhead.ItemQuery{State: &failed}, items, func(it bulkhead.ItemStatus) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n++
		cut := ""
		if d := it.Attempt.Output.Dropped; d > 0 {
			cut = fmt.Sprintf(", %d bytes of output cut (--max-output)", d)
		}
		fmt.Fprintf(l.app.stdout, "== item %d: %s after %.1fs%s: %s\n", it.Index, outcome(it.Attempt),
			it.Attempt.Duration.Seconds(), cut, printable(shellLine(expandAll(command, it.Item)), 200))
		return l.printTail(ctx, it.Attempt, lines)
	})
	if err == nil && n == 0 {
		fmt.Fprintf(l.app.stderr, "run %d has no failed items\n", l.run.ID)
	}
	return err
}

func (l *logReader) followRun(ctx context.Context) error {
	l.prefixed = true
	printers := map[int64]*linePrinter{}
	err := l.home.followRun(ctx, l.run.ID, l.cannotRead, func(item int64, _ int, c bulkhead.Chunk) error {
		p := printers[item]
		if p == nil {
			if len(printers) >= 4096 {
				for i, old := range printers { // bounded: what they hold is half a line each
					_ = old.flush()
					delete(printers, i)
				}
			}
			p = newLinePrinter(l, item)
			printers[item] = p
		}
		return p.chunk(c)
	})
	for _, p := range printers {
		err = errors.Join(err, p.flush())
	}
	return err
}

// followItem follows one item through its attempts.
func (l *logReader) followItem(ctx context.Context, item int64) error {
	for seen := 0; ; {
		now, err := l.home.attemptAfter(ctx, l.run, item, seen)
		if err != nil {
			return err
		}
		at := now.Attempt
		if at.N <= seen {
			if seen == 0 {
				l.neverStarted(now)
			}
			return nil
		}
		p := newLinePrinter(l, item)
		if seen == 0 {
			p.skip = l.beforeTail(ctx, at)
		} else if err := l.printBetween(ctx, item, seen, at.N); err != nil {
			return err
		}
		seen = at.N
		if err := l.followAttempt(ctx, at, p); err != nil {
			return err
		}
	}
}

// followAttempt follows one attempt until it has ended.
func (l *logReader) followAttempt(ctx context.Context, at bulkhead.Attempt, p *linePrinter) error {
	err := l.home.followAttempt(ctx, l.run, at, p.chunk)
	if ctx.Err() != nil {
		return errors.Join(err, p.flush())
	}
	err = l.printed(p, err)
	if err == nil && !p.began && at.State == bulkhead.ItemRunning {
		// Nothing came of what ran when we looked. If it has written something all
		// the same, that is missing, and read says so.
		err = l.printBetween(ctx, at.Item, at.N-1, at.N+1)
	}
	return errors.Join(err, p.flush())
}

// printBetween prints the attempts after one and before another, which began
// and ended between two looks.
func (l *logReader) printBetween(ctx context.Context, item int64, after, before int) error {
	all, err := l.home.Attempts(ctx, l.run.ID, item)
	for _, at := range all {
		if at.N > after && at.N < before && err == nil {
			p := newLinePrinter(l, item)
			err = errors.Join(l.read(ctx, at, p), p.flush())
		}
	}
	return err
}
