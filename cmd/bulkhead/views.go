package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// runView is a run in JSON. Its field names are a contract: add, never rename.
type runView struct {
	ID       bulkhead.RunID  `json:"id"`
	Name     string          `json:"name"`
	State    string          `json:"state"` // accepting, running, held, paused, succeeded, failed, cancelled
	Reason   string          `json:"reason"`
	Comment  string          `json:"comment"`
	Owner    string          `json:"owner"`
	Created  *time.Time      `json:"created"`
	Started  *time.Time      `json:"started"`  // null before the first attempt
	Finished *time.Time      `json:"finished"` // null before the end
	Counts   bulkhead.Counts `json:"counts"`
	Command  []string        `json:"command"`
	Limit    int             `json:"limit"`
	Class    string          `json:"class,omitempty"`     // of a run at a server
	ExitCode *int            `json:"exit_code,omitempty"` // of a finished single script
}

func newRunView(r *bulkhead.Run) runView {
	v := runView{
		ID: r.ID, Name: r.Spec.Name, State: r.Shown().String(), Reason: reasonOf(r), Comment: r.Spec.Comment,
		Owner: r.Spec.Owner, Created: when(r.Created), Started: when(r.Started), Finished: when(r.Finished),
		Counts: r.Counts, Command: r.Spec.Command, Limit: r.Limit, Class: r.Spec.Class,
	}
	if r.Spec.Single() && r.State.Finished() {
		v.ExitCode = &r.ExitCode
	}
	return v
}

// itemView is an item with its running or last attempt in JSON. A contract too.
type itemView struct {
	Item       int64             `json:"item"`
	Values     map[string]string `json:"values"`
	State      string            `json:"state"`
	Attempt    int               `json:"attempt"` // 0: none yet
	ExitCode   *int              `json:"exit_code"`
	Signal     *int              `json:"signal"`
	How        string            `json:"how,omitempty"` // exit, signal, timeout, start, cancel, lost
	Error      string            `json:"error,omitempty"`
	Started    *time.Time        `json:"started"`
	Duration   *float64          `json:"duration_seconds"`
	CPU        *float64          `json:"cpu_seconds"`
	PeakMemory *int64            `json:"peak_memory_bytes"` // null also for less than can be told, see worker.Run
	Output     int64             `json:"output_bytes"`
	Dropped    int64             `json:"output_dropped_bytes"`
	Command    []string          `json:"command"`
}

func newItemView(spec *bulkhead.Spec, command []bulkhead.Template, it bulkhead.ItemStatus) itemView {
	v := itemView{Item: it.Index, Values: map[string]string{}, State: it.State.String(), Attempt: it.Attempt.N,
		Started: when(it.Attempt.Started), Command: expandAll(command, it.Item)}
	for i, c := range spec.Columns {
		if i < len(it.Values) {
			v.Values[c] = strings.ToValidUTF8(it.Values[i], "\uFFFD")
		}
	}
	a := it.Attempt
	if a.N == 0 || a.State == bulkhead.ItemRunning {
		return v
	}
	v.How, v.Error = a.How.String(), a.Error
	if a.How == bulkhead.HowExit || a.How == bulkhead.HowStart {
		v.ExitCode = &a.ExitCode
	}
	if a.Signal != 0 {
		v.Signal = &a.Signal
	}
	if a.State != bulkhead.ItemLost {
		duration, cpu := a.Duration.Seconds(), a.CPU.Seconds()
		v.Duration, v.CPU = &duration, &cpu
	}
	if a.PeakMemory > 0 {
		v.PeakMemory = &a.PeakMemory
	}
	v.Output, v.Dropped = a.Output.Bytes, a.Output.Dropped
	return v
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// parseAll parses the templates of a spec that was checked when it was made.
func parseAll(texts, columns []string) ([]bulkhead.Template, error) {
	out := make([]bulkhead.Template, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = bulkhead.ParseTemplate(text, columns); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func expandAll(templates []bulkhead.Template, it bulkhead.Item) []string {
	out := make([]string, len(templates))
	for i, t := range templates {
		out[i] = t.Expand(it)
	}
	return out
}

// shownOwner is an owner in a table. Of the service accounts of a cluster the
// beginning is always the same, and what tells them apart at the end.
func shownOwner(owner string, most int) string {
	if account, ok := strings.CutPrefix(owner, "system:serviceaccount:"); ok {
		owner = account
	}
	return printable(owner, most)
}

// checkOwner shows what the store cannot know: that nobody works on the run.
func checkOwner(h home, r *bulkhead.Run) error {
	if r.State != bulkhead.RunRunning && r.State != bulkhead.RunAccepting {
		return nil
	}
	owned, err := h.Owned(r.ID)
	if err != nil || owned {
		return err
	}
	if r.State == bulkhead.RunAccepting {
		r.Reason = "cut off while reading its input; " + afterCutOff(r)
		return nil
	}
	r.Held = true
	r.Reason = fmt.Sprintf("the process that ran it is gone; `bulkhead resume %d` goes on", r.ID)
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// me is who asks, as user@host.
func me() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		} else {
			name = fmt.Sprint(os.Getuid())
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}

// outputFlag is -o of the commands that list.
type outputFlag string

func (o *outputFlag) String() string { return string(*o) }
func (o *outputFlag) Type() string   { return "format" }
func (o *outputFlag) Set(v string) error {
	if v != "json" && v != "text" {
		return fmt.Errorf("%q is not a format; use text or json", v)
	}
	*o = outputFlag(v)
	return nil
}

// outputVar gives a command its -o.
func outputVar(cmd *cobra.Command, out *outputFlag, what string) {
	cmd.Flags().VarP(out, "output", "o", what)
	completeFlag(cmd, "output", "text", "json")
}

// age is a duration for people: 45s, 3m, 5h, 12d.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// harmless is text that may have several lines, in which what users write does
// nothing to a terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return dotted(r)
	}, s)
}

// printable makes text safe for a terminal line: control bytes become ·. What
// takes more than width columns is cut; 0 is any width.
func printable(s string, width int) string {
	s = strings.Map(dotted, s)
	if width > 0 {
		return ansi.TruncateWc(s, width, "…")
	}
	return s
}

// dotted is a character, or a dot for one that a terminal acts on.
func dotted(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\uFFFD' || (r >= 0x80 && r < 0xa0) {
		return '·'
	}
	return r
}

// shownName is what is shown of a run's name in a line with other things.
func shownName(r *bulkhead.Run) string { return printable(r.Spec.Name, 60) }
