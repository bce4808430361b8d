package handover

import (
	"fmt"

	"bulkhead.dev/bulkhead"
)

// steps are what to do next, the most urgent first.
func steps(open, ended []Entry, in Input) (out []Step) {
	add := func(what, format string, args ...any) {
		out = append(out, Step{Command: in.Command(format, args...), What: what})
	}
	for _, s := range in.Classes {
		if s.Blocked != "" && s.Queued > 0 {
			add(fmt.Sprintf("class %s: no worker comes, and %s", s.Name, wait(s.Queued)), "class ls")
		}
	}
	for _, e := range open {
		e.steps(add)
	}
	for _, e := range ended {
		e.steps(add)
	}
	return out
}

func wait(n int64) string {
	if n == 1 {
		return "1 item waits"
	}
	return fmt.Sprintf("%d items wait", n)
}

// steps are those for a run; of several the first stands for all.
func (e *Entry) steps(add func(what, format string, args ...any)) {
	like := ""
	if e.Runs > 1 {
		like = fmt.Sprintf(" (and %d like it)", e.Runs-1)
	}
	switch e.state {
	case bulkhead.RunPaused:
		add(fmt.Sprintf("goes on with run %d%s, which is paused", e.Run, like), "resume %d", e.Run)
	case bulkhead.RunHeld:
		add(fmt.Sprintf("says how run %d%s stands, of which nothing starts", e.Run, like), "show %d", e.Run)
	}
	if e.Counts.Failed > 0 {
		add(fmt.Sprintf("shows why %s of run %d%s failed", counted(e.Counts.Failed), e.Run, like), "logs %d --failed", e.Run)
	}
	if e.Counts.Lost > 0 {
		add(fmt.Sprintf("shows the %s of run %d%s that may have run; retry --lost runs them again", counted(e.Counts.Lost), e.Run, like),
			"items %d --state lost", e.Run)
	}
}

func counted(n int64) string {
	if n == 1 {
		return "1 item"
	}
	return fmt.Sprintf("%d items", n)
}
