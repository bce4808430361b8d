package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

func (a *app) itemsCmd() *cobra.Command {
	var out outputFlag
	var states []string
	cmd := &cobra.Command{
		Use:   "items RUN [ITEM…]",
		Short: "List the items of a run and what became of them",
		Long: `List the items of a run, in input order, and what became of them.

-o json is an array of: item, values (by column), state, attempt, exit_code,
signal, how (exit, signal, timeout, start, cancel, lost), error, started,
duration_seconds, cpu_seconds, peak_memory_bytes, output_bytes,
output_dropped_bytes, command. What is not known is null.`,
		Example: `  bulkhead items 7 --state failed
  bulkhead items 7 12 -o json`,
		Args:              atLeast("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := bulkhead.ItemQuery{}
			for _, s := range states {
				if err := a.itemState(s, &q); err != nil {
					return err
				}
			}
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				wanted, err := parseItems(r, args[1:])
				if err != nil {
					return err
				}
				return a.items(cmd.Context(), h, r, q, wanted, out)
			})
		},
	}
	outputVar(cmd, &out, "text or json")
	cmd.Flags().StringArrayVar(&states, "state", nil,
		"only items in this `state`: queued, running, succeeded, failed, lost, cancelled; a path is the state folder, as everywhere")
	completeFlag(cmd, "state", "queued", "running", "succeeded", "failed", "lost", "cancelled")
	return cmd
}

// itemState reads --state of items. Everywhere else it names the state folder;
// here people mean the state of items, and a folder is told by its slash.
func (a *app) itemState(text string, q *bulkhead.ItemQuery) error {
	s, err := bulkhead.ParseItemState(text)
	switch {
	case err == nil && q.State != nil:
		return usage("", "--state %s: only one state can be asked for", text)
	case err == nil:
		q.State = &s
	case strings.Contains(text, "/"):
		a.state = text
	default:
		return err
	}
	return nil
}

// parseItems reads item numbers.
func parseItems(r *bulkhead.Run, args []string) ([]int64, error) {
	items := make([]int64, len(args))
	for i, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 1 || n > r.Counts.Total() {
			return nil, usage("", "%q is not an item of run %d, which has items 1 to %d", arg, r.ID, r.Counts.Total())
		}
		items[i] = n
	}
	return items, nil
}

// eachItem calls fn for the wanted items, or for all that q asks for.
func eachItem(ctx context.Context, h lister, r *bulkhead.Run, q bulkhead.ItemQuery, wanted []int64, fn func(bulkhead.ItemStatus) error) error {
	if len(wanted) == 0 {
		return h.Items(ctx, r, q, fn)
	}
	for _, n := range wanted {
		q.From, q.To = n, n
		if err := h.Items(ctx, r, q, fn); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) items(ctx context.Context, h home, r *bulkhead.Run, q bulkhead.ItemQuery, wanted []int64, out outputFlag) error {
	command, err := parseAll(r.Spec.Command, r.Spec.Columns)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(a.stdout)
	if out == "json" {
		list := jsonList{w: w}
		err := eachItem(ctx, h, r, q, wanted, func(it bulkhead.ItemStatus) error {
			return list.add(newItemView(&r.Spec, command, it))
		})
		if err != nil {
			return err
		}
		list.end()
		return w.Flush()
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "ITEM\tSTATE\tTRY\tRESULT\tTIME\tCPU\tMEMORY\tCOMMAND")
	n := 0
	err = eachItem(ctx, h, r, q, wanted, func(it bulkhead.ItemStatus) error {
		printItem(tw, it, command)
		if n++; n%1000 == 0 {
			return tw.Flush() // widths are per thousand; memory stays bounded
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return w.Flush()
}

func printItem(w io.Writer, it bulkhead.ItemStatus, command []bulkhead.Template) {
	at := it.Attempt
	took, cpu, memory := "", "", ""
	if at.N > 0 && at.State != bulkhead.ItemRunning && at.State != bulkhead.ItemLost {
		took, cpu = fmt.Sprintf("%.2fs", at.Duration.Seconds()), fmt.Sprintf("%.2fs", at.CPU.Seconds())
		if memory = "-"; at.PeakMemory > 0 { // less than can be told, see worker.Run
			memory = fmt.Sprintf("%.0fM", float64(at.PeakMemory)/(1<<20))
		}
	}
	fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", it.Index, it.State, at.N, outcome(at), took, cpu, memory,
		printable(shellLine(expandAll(command, it.Item)), 100))
}

// outcome is how an attempt ended, in a few words.
func outcome(a bulkhead.Attempt) string {
	switch {
	case a.N == 0 || a.State == bulkhead.ItemRunning:
		return ""
	case a.How == bulkhead.HowExit:
		return fmt.Sprintf("exit %d", a.ExitCode)
	case a.How == bulkhead.HowSignal:
		return fmt.Sprintf("signal %d", a.Signal)
	case a.How == bulkhead.HowStart:
		return "not started: " + printable(a.Error, 120)
	}
	return a.How.String()
}

// jsonList writes a JSON array one element at a time.
type jsonList struct {
	w     io.Writer
	begun bool
}

func (l *jsonList) add(v any) error {
	sep := ",\n  "
	if !l.begun {
		l.begun, sep = true, "[\n  "
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(l.w, "%s%s", sep, b)
	return err
}

func (l *jsonList) end() {
	if !l.begun {
		fmt.Fprint(l.w, "[")
	}
	fmt.Fprintln(l.w, "\n]")
}

func (a *app) exportCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export RUN --format joblog|json|csv",
		Short: "Write every item of a run for other programs",
		Long: `Write every item of a run, in input order, for other programs.

joblog is GNU parallel's: parallel --resume-failed --joblog FILE takes it and
runs what did not succeed. json is one object per line (the fields of bulkhead
items -o json). csv has one column per input column, then the result; what is
not known is empty.`,
		Example: `  bulkhead export 7 --format joblog > log
  parallel --resume-failed --joblog log ./script :::: wikis.txt`,
		Args:              exactly("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := map[string]func(io.Writer, *bulkhead.Run, []bulkhead.Template) (func(bulkhead.ItemStatus) error, func() error){
				"joblog": joblog, "json": exportJSON, "csv": exportCSV,
			}[format]
			if !ok {
				return usage("joblog, json or csv", "--format %q is not known", format)
			}
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				command, err := parseAll(r.Spec.Command, r.Spec.Columns)
				if err != nil {
					return err
				}
				w := bufio.NewWriter(a.stdout)
				each, end := write(w, r, command)
				if err := h.Items(cmd.Context(), r, bulkhead.ItemQuery{}, each); err != nil {
					return err
				}
				if err := end(); err != nil {
					return err
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "json", "`joblog`, json or csv")
	completeFlag(cmd, "format", "joblog", "json", "csv")
	return cmd
}

// joblog writes GNU parallel's format (parallel's print_joblog, version
// 20221122): tab-separated, newlines of the command as NUL. Items that never
// ran are left out, so that parallel runs them.
func joblog(w io.Writer, _ *bulkhead.Run, command []bulkhead.Template) (func(bulkhead.ItemStatus) error, func() error) {
	fmt.Fprintln(w, "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand")
	return func(it bulkhead.ItemStatus) error {
		at := it.Attempt
		if at.N == 0 || at.State == bulkhead.ItemRunning {
			return nil
		}
		code := at.ExitCode
		if code == 0 && at.Signal == 0 && at.State != bulkhead.ItemSucceeded {
			code = -1 // parallel's word for "no exit value"
		}
		line := strings.ReplaceAll(shellLine(expandAll(command, it.Item)), "\n", "\x00")
		_, err := fmt.Fprintf(w, "%d\t:\t%.3f\t%10.3f\t0\t%d\t%d\t%d\t%s\n", it.Index,
			float64(at.Started.UnixMicro())/1e6, at.Duration.Seconds(), at.Output.Bytes, code, at.Signal, line)
		return err
	}, func() error { return nil }
}

func exportJSON(w io.Writer, r *bulkhead.Run, command []bulkhead.Template) (func(bulkhead.ItemStatus) error, func() error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(it bulkhead.ItemStatus) error {
		return enc.Encode(newItemView(&r.Spec, command, it))
	}, func() error { return nil }
}

func exportCSV(w io.Writer, r *bulkhead.Run, _ []bulkhead.Template) (func(bulkhead.ItemStatus) error, func() error) {
	cw := csv.NewWriter(w)
	_ = cw.Write(append(append([]string{"item"}, r.Spec.Columns...), "state", "attempt", "result", "exit_code", "signal",
		"started", "duration_seconds", "cpu_seconds", "peak_memory_bytes", "output_bytes")) // kept until Error below
	return func(it bulkhead.ItemStatus) error {
			at, v := it.Attempt, newItemView(&r.Spec, nil, it)
			row := append([]string{strconv.FormatInt(it.Index, 10)}, it.Values...)
			row = append(row, v.State, strconv.Itoa(v.Attempt), outcome(at), known("%d", v.ExitCode), known("%d", v.Signal))
			if at.N == 0 || at.State == bulkhead.ItemRunning {
				return cw.Write(append(row, "", "", "", "", ""))
			}
			started := ""
			if v.Started != nil {
				started = v.Started.Format(time.RFC3339Nano)
			}
			return cw.Write(append(row, started, known("%.6f", v.Duration), known("%.6f", v.CPU),
				known("%d", v.PeakMemory), strconv.FormatInt(v.Output, 10)))
		}, func() error {
			cw.Flush()
			return cw.Error()
		}
}

// known writes a number, and nothing where JSON has null.
func known[T any](format string, number *T) string {
	if number == nil {
		return ""
	}
	return fmt.Sprintf(format, *number)
}

func (a *app) rmCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "rm RUN…",
		SuggestFor:        []string{"delete", "remove"},
		Short:             "Remove finished runs with their results and output",
		Example:           "  bulkhead rm 3 4",
		Args:              atLeast("RUN"),
		ValidArgsFunction: a.completeMoreRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				err := a.withRun(cmd.Context(), arg, func(h home, r *bulkhead.Run) error {
					return h.remove(cmd.Context(), r)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// unended refuses to remove a run that has not ended.
func unended(r *bulkhead.Run) error {
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d is %s", r.ID, r.Shown()),
		Hint: fmt.Sprintf("bulkhead cancel %d first", r.ID)}
}
