// Package handover makes one page for whoever looks after things next: what ran and
// runs, whose, why, where it stands, when it will end, what waits for what, what it
// left in the cluster, and what to do about it.
//
// A page is made of runs and classes as they stand, without asking anybody, and is
// text, Markdown or JSON. It fits a page: what does not is counted.
//
//	runs, classes → Compose → Page → Text, Markdown, JSON
package handover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// What fits a page.
const (
	mostOpen    = 12
	mostEnded   = 10
	mostWaits   = 8
	mostClasses = 10
	mostSteps   = 10
	textLength  = 60 // characters of a name, an owner, a comment
	whyLength   = 160
)

// Input is what a page is made of.
type Input struct {
	Now, Since time.Time // in the zone of the page
	Where      string    // where the runs are: "at URL", "in FOLDER"
	// Runs are those that are not over, with their reasons, and those that ended
	// since, newest first.
	Runs []*bulkhead.Run
	More bool // there were more runs than those
	// Classes of a server; Server says that there is one.
	Classes []bulkhead.ClassStatus
	Server  bool
	// Command makes a command for people to copy.
	Command func(format string, args ...any) string
}

// Page is a handover. As JSON its field names are a contract: add, never rename.
// Times are RFC 3339; what is not known is null.
type Page struct {
	At      time.Time `json:"at"`
	Since   time.Time `json:"since"`
	Where   string    `json:"where"`
	Partial bool      `json:"partial"` // there were more runs than could be looked at
	Totals  Totals    `json:"totals"`
	// Open are the runs that are not over, Ended those that ended since, those that
	// went wrong first. More says how many there are beside those.
	Open      []Entry `json:"open"`
	OpenMore  int     `json:"open_more"`
	Ended     []Entry `json:"ended"`
	EndedMore int     `json:"ended_more"`
	// Waits says what waits for what.
	Waits     []Wait  `json:"waits"`
	WaitsMore int     `json:"waits_more"`
	Cluster   Cluster `json:"cluster"`
	// Next is what to do.
	Next     []Step `json:"next"`
	NextMore int    `json:"next_more"`
}

// Totals counts runs by how they are shown, and items of all of them that went wrong.
type Totals struct {
	Open        int   `json:"open"`
	Accepting   int   `json:"accepting"`
	Running     int   `json:"running"`
	Held        int   `json:"held"`
	Paused      int   `json:"paused"`
	Ended       int   `json:"ended"`
	Succeeded   int   `json:"succeeded"`
	Failed      int   `json:"failed"`
	Cancelled   int   `json:"cancelled"`
	ItemsFailed int64 `json:"items_failed"`
	ItemsLost   int64 `json:"items_lost"`
}

// Entry is a run, or several that are alike: of the same owner, name, comment, class
// and state. Of several the counts are those of all, and the times the first start
// and the last end.
type Entry struct {
	Run      bulkhead.RunID  `json:"run"`      // the first
	LastRun  bulkhead.RunID  `json:"last_run"` // the same, of one run
	Runs     int             `json:"runs"`
	Name     string          `json:"name"`
	Owner    string          `json:"owner"`
	Comment  string          `json:"comment"`
	Class    string          `json:"class"` // empty: of this machine
	State    string          `json:"state"`
	Reason   string          `json:"reason"`
	Counts   bulkhead.Counts `json:"counts"` // items by state
	Created  *time.Time      `json:"created"`
	Started  *time.Time      `json:"started"`
	Finished *time.Time      `json:"finished"`
	ExitCode *int            `json:"exit_code"` // of a single script that has ended
	Estimate *Estimate       `json:"estimate"`  // of the end; null: there is nothing to tell it from
	NoEnd    string          `json:"no_estimate"`

	single bool
	state  bulkhead.RunState
}

// Estimate is when a run ends if it goes on as it did.
type Estimate struct {
	End     time.Time `json:"end"`
	Seconds float64   `json:"seconds_left"`
	Rate    float64   `json:"items_per_second"`
	Basis   string    `json:"basis"` // what it is made from
}

// Wait is one reason, and what waits for it.
type Wait struct {
	Reason string           `json:"reason"`
	Runs   []bulkhead.RunID `json:"runs"` // the first ones
	More   int              `json:"more"`
	Items  int64            `json:"items"` // queued
}

// Cluster is what runs have left in the cluster.
type Cluster struct {
	Known   bool    `json:"known"`   // false: there is none, or no server to ask
	PerRun  int     `json:"per_run"` // objects that each run adds: none
	Classes []Class `json:"classes"`
	More    int     `json:"more"`
}

// Class is how a class stands.
type Class struct {
	Name    string                 `json:"name"`
	Workers int                    `json:"workers"`
	Slots   int                    `json:"slots"`
	Queued  int64                  `json:"queued"` // items
	Running int64                  `json:"running"`
	Blocked string                 `json:"blocked"` // why no worker comes
	Objects []bulkhead.ObjectCount `json:"objects"`
}

// Step is a command to type, and what for.
type Step struct {
	Command string `json:"command"`
	What    string `json:"what"`
}

// Compose makes the page.
func Compose(in Input) *Page {
	p := &Page{At: in.Now, Since: in.Since, Where: bulkhead.OneLine(in.Where, whyLength), Partial: in.More}
	var open, ended []Entry
	for _, r := range in.Runs {
		p.Totals.count(r)
		if r.State.Finished() {
			ended = join(ended, newEntry(r, in.Now))
		} else {
			open = join(open, newEntry(r, in.Now))
		}
	}
	slices.SortStableFunc(open, func(a, b Entry) int { return cmp.Compare(a.urgency(), b.urgency()) })
	slices.SortStableFunc(ended, func(a, b Entry) int { return cmp.Compare(a.urgency(), b.urgency()) })
	p.Waits, p.WaitsMore = cut(waits(in.Runs), mostWaits)
	p.Cluster = clusterOf(in)
	p.Next, p.NextMore = cut(steps(open, ended, in), mostSteps)
	p.Open, p.OpenMore = cutEntries(open, mostOpen)
	p.Ended, p.EndedMore = cutEntries(ended, mostEnded)
	return p
}

// cut is the first of a list, and how many there are beside.
func cut[T any](list []T, most int) ([]T, int) {
	n := min(len(list), most)
	return append([]T{}, list[:n]...), len(list) - n
}

// cutEntries is cut, and counts runs.
func cutEntries(list []Entry, most int) (kept []Entry, more int) {
	kept, _ = cut(list, most)
	for _, e := range list[len(kept):] {
		more += e.Runs
	}
	return kept, more
}

func (t *Totals) count(r *bulkhead.Run) {
	t.ItemsFailed += r.Counts.Failed
	t.ItemsLost += r.Counts.Lost
	if r.State.Finished() {
		t.Ended++
	} else {
		t.Open++
	}
	for state, n := range map[bulkhead.RunState]*int{
		bulkhead.RunAccepting: &t.Accepting, bulkhead.RunRunning: &t.Running, bulkhead.RunHeld: &t.Held, bulkhead.RunPaused: &t.Paused,
		bulkhead.RunSucceeded: &t.Succeeded, bulkhead.RunFailed: &t.Failed, bulkhead.RunCancelled: &t.Cancelled,
	} {
		if r.Shown() == state {
			*n++
		}
	}
}

func newEntry(r *bulkhead.Run, now time.Time) Entry {
	e := Entry{
		Run: r.ID, LastRun: r.ID, Runs: 1, Name: bulkhead.OneLine(r.Spec.Name, textLength), Owner: bulkhead.OneLine(r.Spec.Owner, textLength),
		Comment: bulkhead.OneLine(r.Spec.Comment, textLength), Class: r.Spec.Class, State: r.Shown().String(),
		Reason: bulkhead.OneLine(r.Reason, whyLength), Counts: r.Counts, Created: in(r.Created, now), Started: in(r.Started, now), Finished: in(r.Finished, now),
		single: r.Spec.Single(), state: r.Shown(),
	}
	switch {
	case r.Ending != 0 && !r.State.Finished():
		e.State = fmt.Sprintf("%s once what runs has ended", r.Ending)
		e.NoEnd = "it is being stopped"
	case r.State.Finished():
		if e.single {
			e.ExitCode = &r.ExitCode
		}
	default:
		e.Estimate, e.NoEnd = estimate(r, now)
	}
	return e
}

// in is a time in the zone of another one; nil for none.
func in(t, zone time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.In(zone.Location())
	return &t
}

// estimate says when a run ends if it goes on as it did since it started, or why
// that cannot be said.
func estimate(r *bulkhead.Run, now time.Time) (*Estimate, string) {
	elapsed, done := now.Sub(r.Started), r.Counts.Done()
	const longest = 1000 * 24 * time.Hour
	switch {
	case r.State == bulkhead.RunAccepting:
		return nil, "it is still reading its input"
	case r.Shown() != bulkhead.RunRunning:
		return nil, "nothing of it starts"
	case r.Started.IsZero():
		return nil, "nothing of it has started"
	case r.Spec.Single():
		return nil, "it is one script"
	case done == 0:
		return nil, "no item of it has ended"
	case elapsed <= 0:
		return nil, "its start is in the future: a clock was set back"
	}
	rate := float64(done) / elapsed.Seconds()
	left := float64(r.Counts.Queued+r.Counts.Running) / rate
	if left > longest.Seconds() {
		return nil, "at its rate it takes years"
	}
	d := time.Duration(left * float64(time.Second))
	return &Estimate{End: now.Add(d).Truncate(time.Second), Seconds: float64(int64(left)), Rate: rate,
		Basis: fmt.Sprintf("%s on average since it started", perTime(rate))}, ""
}

// perTime is a rate for people.
func perTime(rate float64) string {
	switch {
	case rate >= 1:
		return fmt.Sprintf("%.3g items a second", rate)
	case rate*60 >= 1:
		return fmt.Sprintf("%.3g items a minute", rate*60)
	}
	return fmt.Sprintf("%.3g items an hour", rate*3600)
}

// join adds an entry, to one that is alike if there is one.
func join(list []Entry, e Entry) []Entry {
	at := slices.IndexFunc(list, func(o Entry) bool {
		// Of batches that go on each has its own story.
		return o.Name == e.Name && o.Owner == e.Owner && o.Comment == e.Comment && o.Class == e.Class && o.State == e.State &&
			o.single == e.single && (o.state.Finished() || o.single && o.Reason == e.Reason)
	})
	if at < 0 {
		return append(list, e)
	}
	o := &list[at]
	if e.Reason != o.Reason {
		o.Reason = ""
	}
	o.Run, o.LastRun, o.Runs = min(o.Run, e.Run), max(o.LastRun, e.LastRun), o.Runs+1
	for s := bulkhead.ItemSucceeded; s <= bulkhead.ItemRunning; s++ {
		*o.Counts.Of(s) += *e.Counts.Of(s)
	}
	o.Created, o.Started = earlier(o.Created, e.Created), earlier(o.Started, e.Started)
	if o.Finished != nil && e.Finished != nil && e.Finished.After(*o.Finished) {
		o.Finished = e.Finished
	}
	if o.ExitCode != nil && e.ExitCode != nil && *o.ExitCode != *e.ExitCode {
		o.ExitCode = nil
	}
	return list
}

func earlier(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// urgency orders what needs a hand before what goes well.
func (e *Entry) urgency() int {
	switch {
	case e.state == bulkhead.RunFailed || e.state == bulkhead.RunHeld:
		return 0
	case e.state == bulkhead.RunPaused || e.state == bulkhead.RunCancelled:
		return 1
	case e.Counts.Failed+e.Counts.Lost > 0:
		return 2
	case e.state == bulkhead.RunAccepting:
		return 4
	}
	return 3
}

// waits are the reasons for which items wait, those of most items first.
func waits(runs []*bulkhead.Run) []Wait {
	const most = 10 // runs named with a reason
	var out []Wait
	for _, r := range runs {
		if r.State.Finished() || r.Reason == "" || strings.HasPrefix(r.Reason, bulkhead.Stopping) {
			continue
		}
		reason := bulkhead.OneLine(r.Reason, whyLength)
		at := slices.IndexFunc(out, func(w Wait) bool { return w.Reason == reason })
		if at < 0 {
			at = len(out)
			out = append(out, Wait{Reason: reason, Runs: []bulkhead.RunID{}})
		}
		w := &out[at]
		w.Items += r.Counts.Queued
		if len(w.Runs) < most {
			w.Runs = append(w.Runs, r.ID)
		} else {
			w.More++
		}
	}
	slices.SortStableFunc(out, func(a, b Wait) int { return cmp.Compare(b.Items, a.Items) })
	return out
}

// clusterOf lists the classes that have something there, or that are blocked.
func clusterOf(in Input) Cluster {
	c := Cluster{Classes: []Class{}}
	for _, s := range in.Classes {
		c.Known = c.Known || len(s.Objects) > 0
		one := Class{Name: s.Name, Workers: s.Workers, Slots: s.Slots, Queued: s.Queued, Running: s.Running,
			Blocked: bulkhead.OneLine(s.Blocked, whyLength), Objects: append([]bulkhead.ObjectCount{}, s.Objects...)}
		if len(c.Classes) < mostClasses {
			c.Classes = append(c.Classes, one)
		} else {
			c.More++
		}
	}
	return c
}
