package handover

import (
	"fmt"
	"io"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// form is how a page is written.
type form struct {
	w         io.Writer
	page      *Page
	heading   func(string) string
	command   func(string) string
	clean     func(string) string // what is not ours
	item, sub string              // what begins a line of a list, and one below it
}

// Text writes the page for a terminal or a mail.
func (p *Page) Text(w io.Writer) error {
	same := func(s string) string { return s }
	f := form{w: w, page: p, heading: strings.ToUpper, command: same, clean: same, item: "  ", sub: "      "}
	return f.write()
}

// Markdown writes the page for a ticket or a wiki.
func (p *Page) Markdown(w io.Writer) error {
	f := form{w: w, page: p, item: "- ", sub: "  - ", clean: escape,
		heading: func(s string) string { return "## " + s },
		command: code}
	return f.write()
}

// code is a code span that its text cannot end.
func code(s string) string {
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		return fence + " " + s + " " + fence
	}
	return fence + s + fence
}

// escape takes the meaning from what Markdown has one for.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]<>#|~!&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (f *form) write() error {
	var b strings.Builder
	w := f.w
	f.w = &b
	f.head()
	f.entries("Not over", f.page.Open, f.page.OpenMore, "nothing runs and nothing waits")
	f.waits()
	f.entries("Ended since", f.page.Ended, f.page.EndedMore, "nothing")
	f.cluster()
	f.next()
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *form) line(start, format string, args ...any) {
	fmt.Fprintf(f.w, start+format+"\n", args...)
}

// section begins a section; a list has an empty line before it.
func (f *form) section(title string) {
	fmt.Fprintf(f.w, "\n%s\n", f.heading(title))
	if strings.HasPrefix(f.heading(title), "#") {
		fmt.Fprintln(f.w)
	}
}

func (f *form) more(n int, what string) {
	if n > 0 {
		f.line(f.item, "and %d more%s", n, what)
	}
}

func (f *form) head() {
	p, t := f.page, f.page.Totals
	title := fmt.Sprintf("Handover of %s, since %s", p.At.Format(fullTime), p.Since.Format(fullTime))
	if strings.HasPrefix(f.heading(""), "#") {
		title = "# " + title
	}
	if d := p.At.Sub(p.Since); d > 0 {
		title += " (" + length(d) + ")"
	}
	f.line("", "%s\n\nRuns %s.", title, f.clean(p.Where))
	least := ""
	if p.Partial {
		least = "At least "
	}
	f.line("", "%s%d not over%s, %d ended%s.", least, t.Open, list(" (", ")",
		number(t.Running, "running"), number(t.Held, "held"), number(t.Paused, "paused"), number(t.Accepting, "reading input")),
		t.Ended, list(" (", ")", number(t.Succeeded, "succeeded"), number(t.Failed, "failed"), number(t.Cancelled, "cancelled")))
	f.line("", "Items of these: %d failed, %d lost.", t.ItemsFailed, t.ItemsLost)
}

// number is a number of something, or nothing.
func number(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

// list joins what is not empty.
func list(before, after string, parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	if len(some) == 0 {
		return ""
	}
	return before + strings.Join(some, ", ") + after
}

const fullTime = "2006-01-02 15:04 MST"

// when is a time as short as it can be told: of the page's day without the day.
func (f *form) when(t time.Time) string {
	t = t.In(f.page.At.Location())
	if t.Format(time.DateOnly) == f.page.At.Format(time.DateOnly) {
		return t.Format("15:04 MST")
	}
	return t.Format(fullTime)
}

func (f *form) entries(title string, entries []Entry, more int, none string) {
	f.section(title)
	if len(entries) == 0 {
		f.line(f.item, "%s", none)
	}
	for i := range entries {
		f.entry(&entries[i])
	}
	f.more(more, " runs")
}

func (f *form) entry(e *Entry) {
	which := fmt.Sprintf("run %d", e.Run)
	if e.Runs > 1 {
		which = fmt.Sprintf("%d runs, %d to %d", e.Runs, e.Run, e.LastRun)
	}
	f.line(f.item, "%s: %s by %s%s%s", which, f.clean(e.Name), f.clean(e.Owner), f.prefixed(", class ", e.Class), f.prefixed(": ", e.Comment))
	f.line(f.sub, "%s%s%s", e.State, f.progress(e), f.times(e))
	switch {
	case e.state.Finished():
	case e.Estimate != nil:
		f.line(f.sub, "ends about %s: an estimate, from %s", f.when(e.Estimate.End), e.Estimate.Basis)
	case e.NoEnd != "":
		f.line(f.sub, "when it ends cannot be said: %s", e.NoEnd)
	}
	if e.Reason != "" {
		f.line(f.sub, "%s", f.clean(e.Reason))
	}
}

func (f *form) prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + f.clean(s)
}

// progress says what became of the items.
func (f *form) progress(e *Entry) string {
	c := e.Counts
	if e.single && e.Runs == 1 {
		switch {
		case c.Lost > 0:
			return ", lost: nobody saw its end"
		case e.ExitCode != nil && e.state == bulkhead.RunFailed:
			return fmt.Sprintf(", exit code %d", *e.ExitCode)
		}
		return ""
	}
	return fmt.Sprintf(": %d of %s done%s", c.Done(), counted(c.Total()), list(", ", "",
		number(int(c.Running), "running"), number(int(c.Failed), "failed"), number(int(c.Lost), "lost"), number(int(c.Cancelled), "cancelled")))
}

// times says when it was. A duration that would be less than nothing, because a
// clock was set back, is not told.
func (f *form) times(e *Entry) string {
	var parts []string
	if e.Started != nil {
		parts = append(parts, "started "+f.when(*e.Started))
	} else if e.Created != nil {
		parts = append(parts, "not started, accepted "+f.when(*e.Created))
	}
	if e.Finished != nil {
		text := "ended " + f.when(*e.Finished)
		if e.Started != nil && !e.Finished.Before(*e.Started) && e.Runs == 1 {
			text += ", took " + length(e.Finished.Sub(*e.Started))
		}
		parts = append(parts, text)
	}
	return list("; ", "", parts...)
}

func (f *form) waits() {
	if len(f.page.Waits) == 0 {
		return
	}
	f.section("What waits for what")
	for _, w := range f.page.Waits {
		runs := make([]string, len(w.Runs))
		for i, id := range w.Runs {
			runs[i] = id.String()
		}
		more := ""
		if w.More > 0 {
			more = fmt.Sprintf(" and %d more", w.More)
		}
		f.line(f.item, "%s: run %s%s, %s queued", f.clean(w.Reason), strings.Join(runs, ", "), more, counted(w.Items))
	}
	f.more(f.page.WaitsMore, " reasons")
}

func (f *form) cluster() {
	c := f.page.Cluster
	if len(c.Classes) == 0 {
		return
	}
	f.section("Classes, and what they have in the cluster")
	for _, k := range c.Classes {
		var objects []string
		for _, o := range k.Objects {
			objects = append(objects, number(o.Count, o.Kind))
		}
		f.line(f.item, "%s: %d workers with %d slots, %s queued, %d running%s", f.clean(k.Name), k.Workers, k.Slots, counted(k.Queued), k.Running,
			list("; in the cluster: ", "", objects...))
		if k.Blocked != "" {
			f.line(f.sub, "no worker comes: %s", f.clean(k.Blocked))
		}
	}
	f.more(c.More, " classes")
	if c.Known {
		f.line(f.item, "per run: %d objects", c.PerRun)
	}
}

func (f *form) next() {
	f.section("What to do next")
	if len(f.page.Next) == 0 {
		f.line(f.item, "nothing needs a hand")
	}
	for _, s := range f.page.Next {
		f.line(f.item, "%-32s %s", f.command(s.Command), f.clean(s.What))
	}
	f.more(f.page.NextMore, " like these")
}

// length is a duration for people: 45s, 3m20s, 5h02m, 12d.
func length(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
