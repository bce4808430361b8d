package main

import (
	"fmt"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// statusEvery is how often a batch says how it stands where no live display is.
const statusEvery = 10 * time.Second

// progress shows how a run goes while it is followed.
type progress struct {
	app     *app
	status  func(live int) engine.Status // now, with so many of the items that run
	command []bulkhead.Template
	began   time.Time // when we began to follow
	told    bool      // it was said already what is to run
}

// display shows how a batch goes, until the function it returns is called.
func (p *progress) display(r *bulkhead.Run) (stop func()) {
	if r.State.Finished() {
		return func() {}
	}
	if r.Spec.Single() {
		return p.waits()
	}
	if tty := p.app.stderr.terminal(); tty != nil {
		return p.live(tty, r)
	}
	return p.statusLines(r)
}

// since is when the run was begun or, if we came later, when we did.
func (p *progress) since(r *bulkhead.Run) time.Time {
	if r.Started.IsZero() || r.Started.After(p.began) {
		return r.Started
	}
	return p.began
}

// lookEvery is how often it is looked whether the run was paused or held, which
// is told at once.
const lookEvery = 500 * time.Millisecond

// statusLines prints a line every statusEvery and whenever the run's state
// changes, and one at the start that says what to type in another terminal.
func (p *progress) statusLines(r *bulkhead.Run) (stop func()) {
	if !p.told {
		p.app.tell("run %d: %s: %s, limit %d", r.ID, shownName(r), toGo(r.Counts), r.Limit)
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		report, shown := every(statusEvery), bulkhead.RunRunning
		meter := meter{}
		meter.add(time.Now(), r.Counts.Finished())
		for {
			select {
			case now := <-tick.C:
				for _, st := range p.status(0).Runs {
					meter.add(now, st.Counts.Finished())
					if st.Shown() != shown && !st.State.Finished() || report() {
						p.app.tell("%s", statusLine(&st.Run, &meter))
					}
					shown = st.Shown()
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}

// waits says of a single script why it does not start.
func (p *progress) waits() (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		w := waiting{app: p.app}
		for {
			select {
			case now := <-tick.C:
				for _, st := range p.status(0).Runs {
					w.look(&st.Run, now)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}

// toGo says how many items are left to run.
func toGo(c bulkhead.Counts) string {
	items := counted(c.Total())
	if left := c.Queued + c.Running; left < c.Total() {
		return fmt.Sprintf("%d of %s to go", left, items)
	}
	return items
}

// statusLine is how a run stands, in one line.
func statusLine(st *bulkhead.Run, m *meter) string {
	c, total := st.Counts, st.Counts.Total()
	parts := []string{fmt.Sprintf("run %d: %s: %d of %d done (%d%%)", st.ID, standing(st), c.Done(), total,
		c.Done()*100/max(total, 1))}
	if c.Running > 0 {
		parts = append(parts, fmt.Sprintf("%d running", c.Running))
	}
	parts = append(parts, unsuccessful(c)...)
	parts = append(parts, m.forecast(st)...)
	if why := waits(st); why != "" {
		parts = append(parts, why)
	}
	return strings.Join(parts, ", ")
}

// reasonOf is the reason to show, also of a run that somebody or its halt has
// ended and of which something still runs.
func reasonOf(r *bulkhead.Run) string {
	if r.Ending != 0 && !r.State.Finished() {
		return bulkhead.Stopping + r.Reason
	}
	return r.Reason
}

// waits says why nothing more starts, or not the next item.
func waits(r *bulkhead.Run) string {
	why := reasonOf(r)
	if why == "" || stopping(r) {
		return why
	}
	return "waits: " + why
}

// stopping reports whether nothing more of a run starts, and what runs goes on to
// its end.
func stopping(r *bulkhead.Run) bool { return strings.HasPrefix(reasonOf(r), bulkhead.Stopping) }

// counted is a number of items in words.
func counted(n int64) string {
	if n == 1 {
		return "1 item"
	}
	return fmt.Sprintf("%d items", n)
}

// unsuccessful says how many items ended in which other way than well.
func unsuccessful(c bulkhead.Counts) (parts []string) {
	for _, p := range []struct {
		n    int64
		what string
	}{{c.Failed, "failed"}, {c.Lost, "lost"}, {c.Cancelled, "cancelled"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return parts
}

// standing is the state of a run and, while the rest of it ends, the next one.
func standing(r *bulkhead.Run) string {
	if r.Ending != 0 && !r.State.Finished() {
		return fmt.Sprintf("%s once what runs has ended", r.Ending)
	}
	return r.Shown().String()
}

// summary says how a batch ended and what to do about it. Since is when it was
// begun, or taken up again.
func (a *app) summary(r *bulkhead.Run, since time.Time) {
	c := r.Counts
	switch {
	case r.Spec.Single():
		if r.Reason != "" && r.State != bulkhead.RunFailed {
			a.tell("run %d: %s: %s", r.ID, r.Shown(), printable(r.Reason, 0))
		}
		return
	case r.State == bulkhead.RunAccepting:
		a.tell("run %d: %s", r.ID, printable(r.Reason, 0))
		return
	case c.Total() == 0:
		fmt.Fprintf(a.stderr, "run %d: %s: 0 items: the input is empty\n", r.ID, r.State)
		return
	}
	took := ""
	if !since.IsZero() && !r.Finished.IsZero() {
		took = " in " + age(r.Finished.Sub(since))
		if since.After(r.Started) {
			took += fmt.Sprintf(" (%s since it started)", age(r.Finished.Sub(r.Started)))
		}
	}
	fmt.Fprintf(a.stderr, "run %d: %s%s: %d succeeded, %d failed, %d lost, %d cancelled", r.ID, r.Shown(), took,
		c.Succeeded, c.Failed, c.Lost, c.Cancelled)
	if c.Queued > 0 {
		fmt.Fprintf(a.stderr, ", %d still queued", c.Queued)
	}
	fmt.Fprintln(a.stderr)
	if r.Reason != "" {
		a.tell("  %s", printable(r.Reason, 0))
	}
	a.advise(r)
}

// advise says what can be typed next: a command a line, to be copied.
func (a *app) advise(r *bulkhead.Run) {
	c := r.Counts
	for _, hint := range []struct {
		n             int64
		command, what string
	}{
		{c.Failed, "logs %d --failed", "shows why"},
		{c.Failed, "retry %d --failed", "runs what failed again"},
		{c.Lost, "retry %d --lost", "runs lost items, which may have run before"},
		{c.Cancelled, "retry %d --cancelled", "runs what was cancelled"},
		{c.Queued, "resume %d", "goes on with what is queued"},
	} {
		if hint.n > 0 {
			fmt.Fprintf(a.stderr, "  %-32s %s\n", a.typed(hint.command, r.ID), hint.what)
		}
	}
}

// meter measures the rate at which items finish, over the last minute.
type meter struct {
	at   []time.Time
	done []int64
}

const meterWindow = time.Minute

func (m *meter) add(now time.Time, done int64) {
	m.at, m.done = append(m.at, now), append(m.done, done)
	for len(m.at) > 2 && now.Sub(m.at[0]) > meterWindow {
		m.at, m.done = m.at[1:], m.done[1:]
	}
}

// rate is items per second.
func (m *meter) rate() float64 {
	last := len(m.at) - 1
	if last < 1 {
		return 0
	}
	span := m.at[last].Sub(m.at[0]).Seconds()
	if span <= 0 {
		return 0
	}
	return max(float64(m.done[last]-m.done[0])/span, 0)
}

// forecast says how fast items end and when all have, while the run goes on.
func (m *meter) forecast(r *bulkhead.Run) (parts []string) {
	rate := m.rate()
	if rate <= 0 || r.Shown() != bulkhead.RunRunning || stopping(r) {
		return nil
	}
	parts = append(parts, perSecond(rate))
	if left, ok := m.left(r.Counts.Queued + r.Counts.Running); ok {
		parts = append(parts, age(left)+" left")
	}
	return parts
}

// perSecond is a rate of items for people.
func perSecond(rate float64) string {
	if rate >= 10 {
		return fmt.Sprintf("%.0f/s", rate)
	}
	return fmt.Sprintf("%.2g/s", rate)
}

// left is how long n more items take at this rate.
func (m *meter) left(n int64) (time.Duration, bool) {
	rate := m.rate()
	if rate <= 0 || float64(n)/rate > (1000*24*time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(float64(n) / rate * float64(time.Second)), true
}
