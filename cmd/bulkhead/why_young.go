package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

const (
	// youngFor is how far back one look counts as lately, and birthStep how long the steps
	// are in which a census tells births. The step in which that time began counts as a
	// whole: who leaves it out says that fewer come than do.
	youngFor  = 45 * time.Minute
	birthStep = 15 * time.Minute
	// manyYoung objects of one family are worth a line, shownYoung lines are enough.
	manyYoung  = 20
	shownYoung = 8
)

// newcomers are the objects of a family that were created lately.
type newcomers struct {
	bulkhead.Tally
	lately int64
}

// young writes what was created lately, if that is much, and why it cannot be told yet
// whether it goes on: to say that nothing grows would be untrue.
func young(w io.Writer, c bulkhead.Census, why string) bool {
	var all []newcomers
	since := c.At.Add(-youngFor).Truncate(birthStep)
	for i := range c.Tallies {
		n := newcomers{Tally: c.Tallies[i]}
		for _, b := range n.Born {
			if !b.At.Before(since) {
				n.lately += b.Objects
			}
		}
		if n.lately >= manyYoung {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return false
	}
	slices.SortStableFunc(all, func(a, b newcomers) int { return cmp.Compare(b.lately, a.lately) })
	fmt.Fprintf(w, "%s. Created since %s UTC:\n", why, since.UTC().Format("15:04"))
	for _, n := range all[:min(len(all), shownYoung)] {
		maker := ""
		if n.Manager != "" {
			maker = ", by " + printable(n.Manager, 30)
		}
		fmt.Fprintf(w, "  %s of %s %s in %s: %s%s\n", guard.Number(float64(n.lately)), guard.Number(float64(n.Objects)), printable(n.Kind, 40),
			printable(n.Namespace, 30), printable(n.Family, 50), maker)
	}
	if more := len(all) - shownYoung; more > 0 {
		fmt.Fprintf(w, "  … and of %d more families\n", more)
	}
	fmt.Fprintln(w, "Ask again in a quarter of an hour, or let bulkhead guard watch.")
	return true
}
