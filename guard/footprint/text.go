package footprint

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bulkhead.dev/bulkhead/guard/budget"
)

// shownRows is how many kinds fit a screen with all else that is said.
const shownRows = 12

// Text writes a plan for people. It fits a screen.
func (p *Plan) Text(to io.Writer) error {
	w := &strings.Builder{}
	fmt.Fprintln(w, p.head())
	fmt.Fprintln(w)
	known := false
	for _, r := range p.Rows {
		known = known || r.Now != nil || len(r.Unknown) > 0
	}
	rows := [][]string{{"KIND", "EACH", "KEPT", "PEAK", "BUDGET", "CROSSED"}}
	if known {
		rows[0] = []string{"KIND", "EACH", "KEPT", "NOW", "PEAK", "BUDGET", "CROSSED"}
	}
	for _, r := range p.Rows[:min(len(p.Rows), shownRows)] {
		rows = append(rows, r.cells(known))
	}
	table(w, rows, len(rows[0])-1)
	if more := len(p.Rows) - shownRows; more > 0 {
		fmt.Fprintf(w, "… and %d kinds more, none of them nearer to a budget; -o json has them\n", more)
	}
	fmt.Fprintln(w)
	p.tellChanges(w)
	p.tellWatchers(w)
	p.tellAgents(w)
	for _, note := range p.Notes {
		tell(w, "note", note)
	}
	p.verdict(w)
	_, err := io.WriteString(to, w.String())
	return err
}

// head is what is repeated, and how.
func (p *Plan) head() string {
	objects := int64(0)
	for _, r := range p.Rows {
		if r.Unit == budget.Objects {
			objects = plus(objects, r.Each)
		}
	}
	text := counted(objects, "object") + " an invocation"
	if p.Helm {
		text += " of Helm"
	}
	switch {
	case p.Times == nil:
		text += ", without end"
	case *p.Times > 1:
		text += ", " + group(*p.Times) + " times"
	}
	switch {
	case p.EverySeconds > 0 && p.EverySeconds < 1:
		text += fmt.Sprintf(", %s/s", trim(1/p.EverySeconds))
	case p.EverySeconds > 0:
		text += fmt.Sprintf(", one every %s (%s/h)", fraction(p.EverySeconds), trim(3600/p.EverySeconds))
	}
	if p.KeepSeconds == nil {
		return text + "; nobody removes them (--keep)"
	}
	return text + "; removed after " + span(*p.KeepSeconds)
}

func (r *Row) cells(known bool) []string {
	kept, peak, limit, now := "for good", "no end", "-", "-"
	if r.Kept != nil {
		kept = span(*r.Kept)
	}
	if r.Peak != nil {
		peak = r.amount(*r.Peak)
	}
	if r.Budget != nil {
		limit = r.amount(int64(math.Min(r.Budget.Limit, 1<<62)))
		if r.Budget.Namespace != "" {
			limit = "@" + r.Budget.Namespace + " " + limit
		}
	}
	switch {
	case r.Now != nil:
		now = r.amount(*r.Now)
	case len(r.Unknown) > 0:
		now = "?"
	}
	cells := []string{r.shortKind(), r.amount(r.Each), kept, now, peak, limit, r.crossed()}
	if !known {
		cells = append(cells[:3], cells[4:]...)
	}
	return cells
}

func (r *Row) crossed() string {
	switch {
	case r.Budget == nil:
		return ""
	case r.CrossedAt == nil && len(r.Unknown) > 0:
		return "not known"
	case r.CrossedAt == nil:
		return fmt.Sprintf("no (%s %%)", percent(r.used))
	case *r.CrossedAt == 1:
		return "by the first"
	}
	return r.when() + "by no. " + group(*r.CrossedAt)
}

// when is after which time a budget is crossed, "" if that is at once.
func (r *Row) when() string {
	if *r.CrossedAfter == 0 {
		return ""
	}
	return "after " + span(*r.CrossedAfter) + ", "
}

// amount is a number in the unit of a row.
func (r *Row) amount(n int64) string {
	if r.Unit == budget.Bytes {
		return size(n)
	}
	return group(n)
}

func (p *Plan) tellChanges(w io.Writer) {
	if p.Changes == nil {
		return
	}
	if len(p.Changes) == 0 {
		tell(w, "now", "nothing differs from what is used now")
		return
	}
	rows := [][]string{{"CHANGED", "EACH", "KEPT", "LOAD"}}
	for _, c := range p.Changes[:min(len(p.Changes), shownRows)] {
		row := Row{Kind: c.Kind, Unit: c.Unit}
		rows = append(rows, []string{row.shortKind(), fromTo(row.amount(c.WasEach), row.amount(c.Each)),
			fromTo(kept(c.WasKept, c.WasEach), kept(c.Kept, c.Each)), c.factor()})
	}
	table(w, rows, len(rows[0]))
	fmt.Fprintln(w)
}

func kept(seconds *float64, each int64) string {
	switch {
	case each == 0:
		return "-"
	case seconds == nil:
		return "for good"
	}
	return span(*seconds)
}

func fromTo(a, b string) string {
	if a == b {
		return a
	}
	return a + " → " + b
}

func (c *Change) factor() string {
	switch {
	case c.Factor == nil && c.WasEach == 0:
		return "new"
	case c.Factor == nil:
		return "no end now"
	case *c.Factor == 0 && c.Each == 0:
		return "gone"
	case *c.Factor == 0:
		return "ends now"
	}
	return "×" + trim(*c.Factor)
}

// tellWatchers says what the agents of nodes must hold: that is what multiplies.
func (p *Plan) tellWatchers(w io.Writer) {
	var parts []string
	nodes := "on every node"
	for _, h := range p.Watchers {
		if len(h.OnNodes) == 0 {
			continue
		}
		parts = append(parts, budget.Short(h.Kind)+" by "+strings.Join(h.OnNodes, ", "))
		if h.Copies != nil {
			nodes = "on each of " + counted(*h.Copies/int64(len(h.OnNodes)), "node")
		}
	}
	if len(parts) > 0 {
		tell(w, "held", nodes+": "+strings.Join(parts, "; "))
	}
}

func (p *Plan) tellAgents(w io.Writer) {
	if len(p.Agents) == 0 {
		return
	}
	parts := make([]string, len(p.Agents))
	for i, a := range p.Agents {
		n := a.Each
		if a.Bytes != nil {
			n = *a.Bytes
		}
		parts[i] = "+" + size(n) + " " + a.Name
	}
	often := "at the peak"
	if p.Agents[0].Bytes == nil {
		often = "with each invocation, without end"
	}
	tell(w, "memory", fmt.Sprintf("about %s, each, %s", strings.Join(parts, ", "), often))
}

// verdict is the last line, and before it where the limits come from that decide it.
func (p *Plan) verdict(w io.Writer) {
	first := p.First()
	if len(p.Unknown) > 0 {
		tell(w, "unknown", "whether they are crossed, with what is there now: "+strings.Join(p.Unknown[:min(len(p.Unknown), shownRows)], ", "))
	}
	switch {
	case first == nil && len(p.Unknown) > 0:
		fmt.Fprintf(w, "verdict: not known whether %s crossed\n", verb(len(p.Unknown)))
		return
	case first == nil:
		fmt.Fprintln(w, "verdict: no budget is crossed")
		return
	}
	// The rows that cross one are at the front. Those that are not shown are of the default
	// of each kind, whose source is said already, or of somebody's own.
	for _, r := range p.Rows[:min(len(p.Crossed), shownRows)] {
		tell(w, "budget", r.Budget.Name+" "+r.amount(int64(r.Budget.Limit))+": "+r.Budget.Source)
	}
	fmt.Fprintf(w, "verdict: %s crossed: %s %s\n", verb(len(p.Crossed)), first.Budget.Name, first.crossed())
}

func verb(n int) string {
	if n == 1 {
		return "1 budget would be"
	}
	return fmt.Sprintf("%d budgets would be", n)
}

// tell writes a labelled line, broken at 80 columns.
func tell(w io.Writer, label, text string) {
	const width, indent = 80, 9
	line := fmt.Sprintf("%-*s", indent-1, label)
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width && strings.TrimSpace(line) != "" {
			fmt.Fprintln(w, line)
			line = strings.Repeat(" ", indent-1)
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}

// table writes rows in columns, all but the first up to column left aligned at the right.
func table(w io.Writer, rows [][]string, left int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || i >= left {
				cell += pad
			} else {
				cell = pad + cell
			}
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return group(n) + " " + what + "s"
}

// group is a number with its thousands apart.
func group(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return trim(f) + " " + units[i]
}

// trim is a number with three digits, or all of them before the point.
func trim(f float64) string {
	switch {
	case f >= 1e15:
		return fmt.Sprintf("%.1e", f)
	case f >= 100:
		return group(int64(math.Round(f)))
	case f == math.Round(f):
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func percent(share float64) string {
	p := share * 100
	if p > 0 && p < 1 {
		return "< 1"
	}
	return fmt.Sprintf("%.0f", math.Floor(p))
}

// fraction is a short time, with what is behind the point.
func fraction(seconds float64) string {
	if seconds < 60 {
		return trim(seconds) + "s"
	}
	return span(seconds)
}

// span is a time in its two largest units, rounded up, as a time until a limit is
// never to be said too short by more than that.
func span(seconds float64) string {
	units := []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	if seconds < 1 && seconds > 0 {
		return "1s"
	}
	if seconds >= math.MaxInt64/float64(time.Second) {
		return "292 years"
	}
	d := time.Duration(math.Round(seconds)) * time.Second
	for i, u := range units[:len(units)-1] {
		if d < u.d {
			continue
		}
		small := units[i+1]
		d = (d + small.d - 1).Truncate(small.d)
		text := strconv.FormatInt(int64(d/u.d), 10) + u.name
		if rest := d % u.d / small.d; rest > 0 {
			text += strconv.FormatInt(int64(rest), 10) + small.name
		}
		return text
	}
	return fmt.Sprintf("%.0fs", math.Ceil(seconds))
}
