package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// Bounds of the live display, where the terminal has room for them.
const (
	shownLive     = 8 // running items
	shownFailures = 5
	// valueBytes is how much of a value is looked at: a line does not hold more,
	// and a frame must not cost more because an item is large.
	valueBytes = 400
)

// scene is what the live display shows at one moment.
type scene struct {
	run      engine.RunStatus
	failures []engine.Failure // oldest first
	command  []bulkhead.Template
	forecast []string // of the meter
	now      time.Time
	since    time.Time // when it began, or was last taken up; zero: it has not
	rows     int       // kept for running items, also when fewer run just now
}

var (
	bold   = ansi.Style{}.Bold()
	faint  = ansi.Style{}.Faint()
	red    = ansi.Style{}.ForegroundColor(ansi.Red)
	green  = ansi.Style{}.ForegroundColor(ansi.Green)
	yellow = ansi.Style{}.ForegroundColor(ansi.Yellow)
)

// lines lays the scene out in at most height lines of at most width columns.
// What matters most stays when there is little room: the counts, then which run
// it is, why it waits, the bar, the items.
func (s *scene) lines(width, height int) []string {
	width, height = max(width, 1), max(height, 1)
	reason := s.reason(width)
	switch {
	case height == 1:
		return []string{s.counts(width)}
	case height == 2:
		return []string{s.header(width), s.counts(width)}
	case height == 3 && s.run.Reason != "":
		return []string{s.header(width), s.counts(width), reason}
	case height == 3:
		return []string{s.header(width), s.bar(width), s.counts(width)}
	}
	out := []string{s.header(width), s.bar(width), s.counts(width), reason}
	return append(out, s.items(width, height-len(out))...)
}

// header is which run it is and what it does.
func (s *scene) header(width int) string {
	r := &s.run.Run
	state := standing(r)
	if !s.since.IsZero() {
		state += " " + age(s.now.Sub(s.since))
	}
	name := printable(fmt.Sprintf("run %d: %s", r.ID, r.Spec.Name), width)
	gap := width - ansi.StringWidthWc(name) - ansi.StringWidthWc(state)
	if gap < 2 {
		return bold.Styled(printable(fmt.Sprintf("run %d: %s, %s", r.ID, state, r.Spec.Name), width))
	}
	comment := ""
	if r.Spec.Comment != "" && gap > 6 {
		comment = "  " + printable(r.Spec.Comment, gap-4)
	}
	gap -= ansi.StringWidthWc(comment)
	return bold.Styled(name) + faint.Styled(comment) + strings.Repeat(" ", gap) + s.tint().Styled(state)
}

// tint is the colour of the state and of the reason: what needs somebody's eye
// has one.
func (s *scene) tint() ansi.Style {
	if s.run.Shown() == bulkhead.RunRunning && !stopping(&s.run.Run) {
		return faint
	}
	return yellow
}

// bar is how much is done, what went wrong of it in red, what was cancelled in
// yellow.
func (s *scene) bar(width int) string {
	c := s.run.Counts
	ended, total := c.Finished(), max(c.Total(), 1)
	percent := fmt.Sprintf("%4d%%", c.Done()*100/total)
	cells := width - len(percent)
	if cells < 4 {
		return printable(strings.TrimSpace(percent), width)
	}
	full := int(ended * int64(cells) / total)
	share := func(n, most int64) int { // one among many is still seen
		if n == 0 {
			return 0
		}
		return int(min(max(n*int64(cells)/total, 1), most))
	}
	bad := share(c.Failed+c.Lost, int64(full))
	never := share(c.Cancelled, int64(full-bad))
	return green.Styled(strings.Repeat("━", full-bad-never)) + red.Styled(strings.Repeat("━", bad)) +
		yellow.Styled(strings.Repeat("━", never)) + faint.Styled(strings.Repeat("─", cells-full)) + percent
}

// counts is how many items are where, how fast they end and when all have.
func (s *scene) counts(width int) string {
	c := s.run.Counts
	parts := []string{fmt.Sprintf("%d/%d done", c.Done(), c.Total())}
	if c.Running > 0 {
		parts = append(parts, fmt.Sprintf("%d/%d running", c.Running, s.run.Limit))
	}
	bad := strings.Join(unsuccessful(c), ", ")
	if bad != "" {
		parts = append(parts, bad)
	}
	if c.Queued > 0 {
		parts = append(parts, fmt.Sprintf("%d queued", c.Queued))
	}
	parts = append(parts, s.forecast...)
	text := printable(strings.Join(parts, ", "), width)
	if bad == "" {
		return text
	}
	// If it was cut there is nothing to replace, and no colour.
	return strings.Replace(text, ", "+bad, ", "+red.Styled(bad), 1)
}

// reason is why the next item does not start; empty when nothing waits.
func (s *scene) reason(width int) string {
	why := waits(&s.run.Run)
	if why == "" {
		return ""
	}
	return s.tint().Styled(printable(why, width))
}

// row is one line about an item.
type row struct {
	label, number, what string // of the three columns
	style               ansi.Style
	text                func(width int) string // of the rest
}

// items are the running items and the last failures, in columns.
func (s *scene) items(width, height int) []string {
	failures := s.failures[max(0, len(s.failures)-min(shownFailures, height/3)):]
	rows := s.running(height - len(failures))
	for _, f := range slices.Backward(failures) {
		what := outcome(f.Attempt)
		if f.How == bulkhead.HowStart {
			what = "not started"
		}
		if !f.Final {
			what += ", again"
		}
		rows = append(rows, row{"failed", fmt.Sprint(f.Index), what, red, s.text(f.Item)})
	}
	numbers, whats := 0, map[string]int{}
	for _, r := range rows {
		numbers, whats[r.label] = max(numbers, len(r.number)), max(whats[r.label], len(r.what))
	}
	out, label := make([]string, len(rows)), ""
	for i, r := range rows {
		if r.label == "" {
			continue // kept free
		}
		head := ""
		if r.label != label {
			head, label = r.label, r.label
		}
		place := fmt.Sprintf("%-7s  %*s  ", head, numbers, r.number)
		what := fmt.Sprintf("%*s", whats[r.label], r.what)
		room := width - len(place) - len(what) - 2
		if room < 4 {
			out[i] = printable(place+what, width)
			continue
		}
		out[i] = faint.Styled(place) + r.style.Styled(what) + "  " + r.text(room)
	}
	return out
}

// running are the items that have run longest. What is left of s.rows is kept
// free, so that the display does not change its height all the time.
func (s *scene) running(height int) []row {
	live := s.run.Live[:min(len(s.run.Live), shownLive, height)]
	more := s.run.Counts.Running - int64(len(live))
	if more > 0 && len(live) == height && height > 0 { // the last line says so
		live = live[:height-1]
		more++
	}
	var rows []row
	for _, l := range live {
		rows = append(rows, row{"running", fmt.Sprint(l.Item.Index), age(s.now.Sub(l.Since)), ansi.Style{}, s.text(l.Item)})
	}
	if more > 0 && height > 0 {
		rows = append(rows, row{"running", "", "", faint, func(width int) string {
			return faint.Styled(printable(fmt.Sprintf("… and %d more", more), width))
		}})
	}
	for len(rows) < min(s.rows, height) {
		rows = append(rows, row{})
	}
	return rows
}

// wanted is how many lines the running items would take.
func (s *scene) wanted() int {
	n := len(s.run.Live)
	if s.run.Counts.Running > int64(n) {
		n++
	}
	return n
}

// text says which item it is: its command, or only its values where the command
// would be cut, because they are what tells it from the others.
func (s *scene) text(it bulkhead.Item) func(width int) string {
	return func(width int) string {
		short := bulkhead.Item{Index: it.Index, Values: make([]string, len(it.Values))}
		for i, v := range it.Values {
			short.Values[i] = v[:min(len(v), valueBytes)]
		}
		command := printable(shellLine(expandAll(s.command, short)), 0)
		if ansi.StringWidthWc(command) <= width {
			return command
		}
		values := make([]string, len(short.Values))
		for i, v := range short.Values {
			if column := s.run.Spec.Columns[i]; len(values) > 1 || column != "1" {
				v = column + "=" + v
			}
			values[i] = v
		}
		return printable(strings.Join(values, " "), width)
	}
}
