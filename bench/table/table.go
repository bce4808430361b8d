// Package table prints what was measured, beside its target and beside what
// people would use instead, measured in the same run.
package table

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// Table is rows in the order in which they were added.
type Table struct{ rows []row }

type row struct {
	what, value, target, beside string
	ok                          bool
}

// AtMost adds a row whose value should not exceed the target.
func (t *Table) AtMost(what string, value, target float64, unit, beside string) {
	t.rows = append(t.rows, row{what, Format(value, unit), "≤ " + Format(target, unit), beside, value <= target})
}

// AtLeast adds a row whose value should reach the target.
func (t *Table) AtLeast(what string, value, target float64, unit, beside string) {
	t.rows = append(t.rows, row{what, Format(value, unit), "≥ " + Format(target, unit), beside, value >= target})
}

// Note adds a row without a target.
func (t *Table) Note(what, value, beside string) {
	t.rows = append(t.rows, row{what: what, value: value, beside: beside})
}

// Print writes the table, under a line that says on what machine it was.
func (t *Table) Print(w io.Writer, more string) {
	fmt.Fprintf(w, "machine: %s, %d CPUs, %s, %s, load %s%s\n\n", cpuModel(), runtime.NumCPU(), kernel(), runtime.Version(), load(), more)
	fmt.Fprintf(w, "%-72s %14s %14s  %s\n", "what", "measured", "target", "beside")
	for _, r := range t.rows {
		mark := "missed"
		if r.ok {
			mark = "met"
		}
		if r.target == "" {
			mark = ""
		}
		fmt.Fprintf(w, "%-72s %14s %14s  %s %s\n", r.what, r.value, r.target, r.beside, mark)
	}
}

// Format writes a number with three digits that say something.
func Format(v float64, unit string) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f%s", v, unit)
	}
	return fmt.Sprintf("%.3g%s", v, unit)
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // only a label
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	data, _ := os.ReadFile("/proc/sys/kernel/osrelease") // only a label
	return "Linux " + strings.TrimSpace(string(data))
}

// load is how many processes wanted to run: others, too, on a machine that is shared.
func load() string {
	data, _ := os.ReadFile("/proc/loadavg") // only a label
	one, _, _ := strings.Cut(string(data), " ")
	return one
}
