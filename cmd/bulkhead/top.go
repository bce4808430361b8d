package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// What top asks for at most, and how often.
const (
	topRuns     = 500
	topPools    = 50
	topInterval = 2 * time.Second
	topLeast    = time.Second
)

// topFlags is the command line of top.
type topFlags struct {
	interval string
	once     bool
	output   outputFlag
}

func (a *app) topCmd() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:        "top",
		SuggestFor: []string{"watch", "htop"},
		Short:      "Watch classes, pools and runs that are not over; q quits",
		Long: `Watch classes, pools and runs that are not over. Runs of which items run come
first, newest first. RATE is items ended per second, lately or, at first, since
the run started; LEFT is an estimate from it. q, Esc or Ctrl-C quits. At a server
it makes a call a second.

Where standard output is no terminal, with --once and with -o it prints one page.
Classes and pools are those of a server.

-o json is an object: at, where; classes (name, command, workers, slots, queued,
running, blocked); pools (name, key, used, slots, waiting: items of those that were
read ahead), full ones first, and pools_more; runs (as of bulkhead ls -o json, and
items_per_second, seconds_left, both null if there is nothing to tell them from),
and more_runs, whether there are more.`,
		Example: `  bulkhead top
  bulkhead top --once
  bulkhead top -o json | jq '.pools[] | select(.waiting > 0)'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.top(cmd.Context(), &f) },
	}
	cmd.Flags().StringVarP(&f.interval, "interval", "n", "2s", "`time` between two looks, at least 1s; a bare number is seconds")
	cmd.Flags().BoolVar(&f.once, "once", false, "print one page")
	outputVar(cmd, &f.output, "print one page: text or json")
	completeNoFiles(cmd, "interval")
	return cmd
}

func (a *app) top(ctx context.Context, f *topFlags) error {
	interval, err := plan.ParseDuration(f.interval)
	if err != nil {
		return fmt.Errorf("--interval: %w", err)
	}
	if interval < topLeast {
		return usage("", "--interval %s is less than %s", f.interval, topLeast)
	}
	h, err := a.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	w := &topWatch{home: h, meters: map[bulkhead.RunID]*meter{}}
	if tty := a.topTerminal(f); tty != nil {
		return a.topLive(ctx, w, tty, interval)
	}
	t, err := w.look(ctx, true)
	if err != nil {
		return err
	}
	if f.output == "json" {
		return writeJSON(a.stdout, t.view())
	}
	_, err = fmt.Fprintln(a.stdout, strings.Join(t.lines(0, 0), "\n"))
	return err
}

// topTerminal is the terminal to watch on; nil: one page is printed.
func (a *app) topTerminal(f *topFlags) *os.File {
	if f.once || f.output != "" {
		return nil
	}
	for _, end := range []any{a.stdin, a.stdout} {
		file, ok := end.(*os.File)
		if !ok {
			return nil
		}
		if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
			return nil
		}
	}
	if term := os.Getenv("TERM"); term == "" || term == "dumb" {
		return nil
	}
	return a.stdout.(*os.File)
}

// topWatch looks at a home again and again. It makes at most two calls a look, and
// keeps what it needs to tell rates.
type topWatch struct {
	home   home
	meters map[bulkhead.RunID]*meter
	last   top
	looks  int
}

// top is how things stand.
type top struct {
	at       time.Time
	where    string
	server   bool
	classes  []bulkhead.ClassStatus
	pools    []bulkhead.PoolStatus
	more     int // pools
	runs     []topRun
	moreRuns bool
}

// topRun is a run with what is told from several looks.
type topRun struct {
	*bulkhead.Run
	rate float64       // items per second; 0: not known
	left time.Duration // 0: not known
}

// look asks how things stand. Classes and pools take turns, unless all is wanted.
func (w *topWatch) look(ctx context.Context, all bool) (*top, error) {
	t := w.last
	t.where = w.home.where()
	runs, err := recent(ctx, w.home, bulkhead.RunQuery{Unfinished: true, Limit: topRuns + 1})
	if err != nil {
		return nil, err
	}
	s, server := w.home.(*remote)
	t.server = server
	if server && (all || w.looks%2 == 0) {
		if t.classes, err = s.Classes(ctx); err != nil {
			return nil, err
		}
	}
	if server && (all || w.looks%2 == 1) {
		if t.pools, t.more, err = s.Pools(ctx, topPools); err != nil {
			return nil, err
		}
	}
	w.looks++
	t.at = time.Now()
	t.moreRuns = len(runs) > topRuns
	t.runs = w.measure(runs[:min(len(runs), topRuns)], t.at)
	w.last = t
	return &t, nil
}

// measure tells the rates of runs, and forgets those that are not there any more.
func (w *topWatch) measure(runs []*bulkhead.Run, now time.Time) []topRun {
	meters, out := map[bulkhead.RunID]*meter{}, make([]topRun, len(runs))
	for i, r := range runs {
		m := w.meters[r.ID]
		if m == nil {
			m = &meter{}
			// What was before the first look is known of a run that has not been paused.
			if !r.Started.IsZero() && now.After(r.Started) {
				m.add(r.Started, 0)
			}
		}
		m.add(now, r.Counts.Finished())
		meters[r.ID], out[i] = m, topRun{Run: r}
		if r.Shown() == bulkhead.RunRunning && !stopping(r) {
			out[i].rate = m.rate()
			out[i].left, _ = m.left(r.Counts.Queued + r.Counts.Running)
		}
	}
	w.meters = meters
	slices.SortStableFunc(out, func(a, b topRun) int {
		idle := func(r topRun) int { return cmp.Compare(0, min(r.Counts.Running, 1)) }
		return idle(a) - idle(b)
	})
	return out
}

// topView is top in JSON. Its field names are a contract: add, never rename.
type topView struct {
	At       time.Time             `json:"at"`
	Where    string                `json:"where"`
	Classes  []classView           `json:"classes"`
	Pools    []bulkhead.PoolStatus `json:"pools"`
	MorePool int                   `json:"pools_more"`
	Runs     []topRunView          `json:"runs"`
	MoreRuns bool                  `json:"more_runs"`
}

type topRunView struct {
	runView
	Rate *float64 `json:"items_per_second"`
	Left *float64 `json:"seconds_left"`
}

func (t *top) view() topView {
	v := topView{At: t.at.UTC(), Where: t.where, Classes: []classView{}, Pools: append([]bulkhead.PoolStatus{}, t.pools...),
		MorePool: t.more, Runs: []topRunView{}, MoreRuns: t.moreRuns}
	for _, c := range t.classes {
		v.Classes = append(v.Classes, newClassView(c))
	}
	for _, r := range t.runs {
		rv := topRunView{runView: newRunView(r.Run)}
		if r.rate > 0 {
			rv.Rate = &r.rate
		}
		if r.left > 0 {
			left := r.left.Seconds()
			rv.Left = &left
		}
		v.Runs = append(v.Runs, rv)
	}
	return v
}

// table are lines with columns, the first one a heading.
func table(heading string, rows []string) []string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, heading)
	for _, row := range rows {
		fmt.Fprintln(tw, row)
	}
	_ = tw.Flush() // into memory
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// lines are the page, of at most so many lines, each at most so wide; 0: any number.
func (t *top) lines(width, height int) []string {
	classes, pools, runs := len(t.classes), len(t.pools), len(t.runs)
	if height > 0 {
		// Most room is for runs; a third each is what the others get when it is short.
		classes = min(classes, max(height/4, 1))
		pools = min(pools, max(height/4, 1))
		// Headings, empty lines, what is left out, the first line.
		runs = min(runs, max(height-classes-pools-9, 1))
	}
	out := []string{fmt.Sprintf("%s  %s  %s", t.at.Format("15:04:05 MST"), t.summary(), printable(t.where, 0))}
	section := func(heading string, rows []string, more int, what string) {
		out = append(append(out, ""), table(heading, rows)...)
		if more > 0 {
			out = append(out, fmt.Sprintf("and %d more %s", more, what))
		}
	}
	if t.server {
		section("CLASS\tWORKERS\tSLOTS\tBUSY\tQUEUED\tREASON", t.classRows(classes), len(t.classes)-classes, "classes")
	}
	if len(t.pools) > 0 {
		section("POOL\tUSED\tSLOTS\tWAITING", t.poolRows(pools), len(t.pools)-pools+t.more, "pools")
	}
	section("RUN\tSTATE\tDONE\tRUNNING\tFAILED\tLOST\tRATE\tLEFT\tOWNER\tNAME\tCOMMENT\tREASON", t.runRows(runs), len(t.runs)-runs, "runs")
	if t.moreRuns {
		out = append(out, fmt.Sprintf("there are more than these %d", topRuns))
	}
	if height > 0 {
		out = out[:min(len(out), height)]
	}
	if width > 0 {
		for i := range out {
			out[i] = printable(out[i], width)
		}
	}
	return out
}

// summary counts what is running and what waits.
func (t *top) summary() string {
	var running, queued int64
	for _, r := range t.runs {
		running, queued = running+r.Counts.Running, queued+r.Counts.Queued
	}
	return fmt.Sprintf("%d not over: %s running, %d queued", len(t.runs), counted(running), queued)
}

func (t *top) classRows(n int) (rows []string) {
	for _, c := range t.classes[:n] {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%s", printable(c.Name, 0), c.Workers, c.Slots, c.Running, c.Queued, printable(c.Blocked, 0)))
	}
	return rows
}

func (t *top) poolRows(n int) (rows []string) {
	for _, p := range t.pools[:n] {
		name := p.Name
		if p.Key != "" {
			name += ":" + p.Key
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d", printable(name, 60), p.Used, p.Slots, p.Waiting))
	}
	return rows
}

func (t *top) runRows(n int) (rows []string) {
	for _, r := range t.runs[:n] {
		c, rate, left := r.Counts, "", ""
		if r.rate > 0 {
			rate = perSecond(r.rate)
		}
		if r.left > 0 {
			left = age(r.left)
		}
		rows = append(rows, fmt.Sprintf("%d\t%s\t%d/%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s", r.ID, r.Shown(), c.Done(), c.Total(), c.Running, c.Failed, c.Lost,
			rate, left, shownOwner(r.Spec.Owner, 25), printable(r.Spec.Name, 25), printable(r.Spec.Comment, 30), printable(r.Reason, 0)))
	}
	return rows
}
