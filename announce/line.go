package announce

import (
	"fmt"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// Line is one announcement: of a run, or of several that are alike.
type Line struct {
	Event
	// Gathered says what else of the kind happened; nil for one run.
	Gathered *Gathered

	ended  []bulkhead.RunID // whose end this tells
	asked  bool             // some of them asked for the admin log
	settle *settling
}

// Gathered are runs that are alike.
type Gathered struct {
	First     bulkhead.RunID `json:"first_run"`
	Last      bulkhead.RunID `json:"last_run"`
	Started   int            `json:"started"`
	Ended     int            `json:"ended"`
	Succeeded int            `json:"succeeded"`
	Failed    int            `json:"failed"`
	Cancelled int            `json:"cancelled"`
}

// Who is user@host; who has no host is at none.
func (l *Line) Who() string { return strings.ReplaceAll(l.Owner, " ", "·") }

// Text is what happened, in one line without who and when.
func (l *Line) Text() string {
	var b strings.Builder
	switch {
	case l.Gathered != nil:
		b.WriteString(l.gathered())
	case l.Kind == KindStart && l.Again:
		fmt.Fprintf(&b, "goes on with run %d: %s%s", l.Run, l.what(), l.items())
	case l.Kind == KindStart:
		fmt.Fprintf(&b, "started run %d: %s%s", l.Run, l.what(), l.items())
	default:
		fmt.Fprintf(&b, "%s run %d: %s%s", l.outcome(), l.Run, l.what(), l.result())
	}
	if l.Comment != "" {
		fmt.Fprintf(&b, " - %s", l.Comment)
	}
	return b.String()
}

// what is the name and, unless that says the same, the command.
func (l *Line) what() string {
	first, _, _ := strings.Cut(l.Command, " ")
	if l.Name == "" || l.Name == first || strings.HasSuffix(first, "/"+l.Name) {
		return l.Command
	}
	return fmt.Sprintf("%s (%s)", l.Name, l.Command)
}

func (l *Line) items() string {
	if l.Single {
		return ""
	}
	return ", " + counted(l.Counts.Total())
}

func counted(n int64) string {
	if n == 1 {
		return "1 item"
	}
	return fmt.Sprintf("%d items", n)
}

func (l *Line) outcome() string {
	switch l.State {
	case bulkhead.RunSucceeded:
		return "finished"
	case bulkhead.RunCancelled:
		return "cancelled"
	}
	return "failed"
}

// result says how a run ended and how long it took.
func (l *Line) result() string {
	var parts []string
	switch {
	case l.Single && l.Counts.Lost > 0:
		parts = append(parts, "lost: nobody saw its end")
	case l.Single && l.State == bulkhead.RunFailed:
		parts = append(parts, fmt.Sprintf("exit code %d", l.ExitCode))
	case !l.Single:
		parts = append(parts, fmt.Sprintf("%d of %s succeeded", l.Counts.Succeeded, counted(l.Counts.Total())))
		for _, c := range []struct {
			n    int64
			what string
		}{{l.Counts.Failed, "failed"}, {l.Counts.Lost, "lost"}, {l.Counts.Cancelled, "cancelled"}} {
			if c.n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
			}
		}
	}
	took, ok := l.took()
	switch {
	case ok:
		parts = append(parts, "took "+Length(took))
	case l.Started.IsZero():
		parts = append(parts, "nothing of it ran")
	}
	if l.Reason != "" {
		parts = append(parts, l.Reason)
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + strings.Join(parts, ", ")
}

func (l *Line) gathered() string {
	g := l.Gathered
	n := max(g.Started, g.Ended)
	parts := []string{fmt.Sprintf("%d started", g.Started)}
	for _, c := range []struct {
		n    int
		what string
	}{{g.Succeeded, "finished"}, {g.Failed, "failed"}, {g.Cancelled, "cancelled"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	runs := fmt.Sprintf("run %d", g.First)
	if g.Last != g.First {
		runs = fmt.Sprintf("runs %d to %d", g.First, g.Last)
	}
	return fmt.Sprintf("%s and %d more like it (%s): %s", l.Name, n, runs, strings.Join(parts, ", "))
}

// Length is a duration for people: 0.4s, 45s, 3m20s, 5h02m, 12d.
func Length(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
