// Package announce tells people what is running: one line for each run when it
// starts and one when it ends, with who, what and why.
//
// The engine says what happened and goes on; a goroutine, the desk, does the rest:
//
//	engine → queue → desk → log                      every run
//	                      → gather → webhook         alike ones in one line
//	                               → admin log       of those, what its users asked for
//
// A loop of many short runs must not flood people. Runs of the same owner, name and
// comment are alike: the first start and the first end are told at once; what else
// begins and ends within a minute is one line, and so on, a line a minute, until a
// minute is quiet. So of alike runs there are at most three lines in the first
// minute and one in each further one.
//
// Each place has a queue and a goroutine of its own: one that hangs keeps nobody
// else waiting, least of all the engine. Every queue is bounded; what does not fit
// is dropped and counted.
//
// A journal in the state folder says which starts were told and which ends have
// arrived, so that the next server, after kill -9 too, goes on: a start is told at
// most once, and an end at least once. An end that was told at the moment of the
// kill can come a second time. The journal is not synced: after a loss of power
// what was told in the last seconds may be told again.
package announce

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/webhook"
)

// Kind says what happened to a run.
type Kind string

// What is announced. KindMore is the line of what was gathered.
const (
	KindStart Kind = "start"
	KindEnd   Kind = "end"
	KindMore  Kind = "more"
)

// Event is what happened to one run.
type Event struct {
	Kind     Kind
	At       time.Time
	Run      bulkhead.RunID
	Again    bool // it had ended before, and items of it are retried
	Owner    string
	Name     string
	Command  string // cut, see commandLength
	Comment  string
	Class    string
	State    bulkhead.RunState
	Reason   string
	Counts   bulkhead.Counts
	Single   bool
	ExitCode int
	Started  time.Time
	Announce bool // its user asked for the admin log
}

// What of a run is told is cut to so many characters: a line is to be read, and a
// command may be a megabyte.
const (
	commandLength = 200
	textLength    = 120
)

// eventOf copies what is told of a run; the run is the engine's.
func eventOf(kind Kind, r *bulkhead.Run, at time.Time) Event {
	s := &r.Spec
	return Event{
		Kind: kind, At: at, Run: r.ID, Owner: bulkhead.OneLine(s.Owner, textLength), Name: bulkhead.OneLine(s.Name, textLength),
		Command: bulkhead.CommandLine(s.Command, commandLength), Comment: bulkhead.OneLine(s.Comment, textLength), Class: s.Class,
		State: r.State, Reason: bulkhead.OneLine(r.Reason, textLength), Counts: r.Counts, Single: s.Single(), ExitCode: r.ExitCode,
		Started: r.Started, Announce: s.Announce,
	}
}

// Options of New. Journal and Store are required.
type Options struct {
	// Journal is the file that remembers what was told.
	Journal string
	// Store knows what became of runs while nobody listened.
	Store Store
	// Webhook is where each line is posted; its zero value: nowhere.
	Webhook webhook.Webhook
	// AdminLog is the file that lines are added to, or tcp://HOST:PORT; "": none.
	AdminLog string
	// AdminLogAll has all runs in the admin log, also those that did not ask for it.
	AdminLogAll bool
	// Log gets every start and end. Default: slog.Default.
	Log *slog.Logger
	// Metrics counts. Default: nobody counts.
	Metrics Metrics
	// Window is how long alike runs are gathered. Default: a minute.
	Window time.Duration
	// Backoff is the pause before a line is sent a second time; it doubles, up to 50
	// times as long, and a random half of it is left out. A line is given up after 6
	// tries. Default: a second.
	Backoff time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Store is what the next server asks of the last one's runs.
type Store interface {
	Run(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error)
	Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error)
}

// Metrics counts announcements. Both words are of a fixed few: to is log, webhook or
// admin_log; result is sent, failed or dropped.
type Metrics interface{ Announced(to, result string) }

// What becomes of a line.
const (
	resultSent    = "sent"
	resultFailed  = "failed"  // refused, or tried too often
	resultDropped = "dropped" // the queue was full, or the server stopped
)

type uncounted struct{}

func (uncounted) Announced(string, string) {}

// Announcer announces. Create it with New; its methods may be called from any
// goroutine.
type Announcer struct {
	opts    Options
	queue   chan Event
	journal *journal
	places  []*place
	gather  gatherer
	lost    dropped // of the queue

	stop chan struct{} // closed by Close
	done chan struct{} // closed when the desk has ended
	once sync.Once
}

// queued is how many events may wait for the desk, which writes a log and a journal.
const queued = 8192

// New returns an announcer that listens.
func New(o Options) (*Announcer, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = uncounted{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.Window == 0 {
		o.Window = time.Minute
	}
	a := &Announcer{opts: o, queue: make(chan Event, queued), stop: make(chan struct{}), done: make(chan struct{}),
		gather: gatherer{window: o.Window, groups: map[groupKey]*group{}}}
	senders, err := o.senders()
	if err != nil {
		return nil, err
	}
	if a.journal, err = openJournal(o.Journal, o.Now); err != nil {
		return nil, err
	}
	for _, s := range senders {
		a.places = append(a.places, newPlace(s, a))
	}
	go a.desk()
	return a, nil
}

// Began announces that a run starts. It only queues.
func (a *Announcer) Began(r *bulkhead.Run, again bool) {
	e := eventOf(KindStart, r, a.opts.Now())
	e.Again = again
	a.add(e)
}

// Over announces that a run has ended. It only queues.
func (a *Announcer) Over(r *bulkhead.Run) { a.add(eventOf(KindEnd, r, a.opts.Now())) }

func (a *Announcer) add(e Event) {
	select {
	case a.queue <- e:
	default:
		a.opts.Metrics.Announced("log", resultDropped)
		a.lost.add(a.opts.Log, a.opts.Now(), "log")
	}
}

// CatchUp announces what happened while no server was there, or was not told before
// the last one was killed. Call it once, before runs go on.
func (a *Announcer) CatchUp(ctx context.Context) error {
	told, since := a.journal.left()
	for _, id := range told {
		r, err := a.opts.Store.Run(ctx, id)
		switch {
		case bulkhead.CodeOf(err) == bulkhead.CodeNotFound:
			a.journal.ended(id) // somebody has removed it
		case err != nil:
			return err
		case r.State.Finished():
			a.Over(r)
		}
	}
	if since.IsZero() { // nobody ever announced here: what runs has begun before
		return a.adopt(ctx)
	}
	const most = 1000
	runs, err := a.opts.Store.Recent(ctx, bulkhead.RunQuery{Unfinished: true, FinishedAfter: since, Limit: most})
	if err != nil {
		return err
	}
	for _, r := range runs {
		switch {
		case r.Spec.Class == "" || r.Started.IsZero() || a.journal.knows(r.ID):
		case r.State.Finished():
			a.Over(r)
		default:
			a.Began(r, false)
		}
	}
	return nil
}

// adopt takes the runs that go on for announced.
func (a *Announcer) adopt(ctx context.Context) error {
	runs, err := a.opts.Store.Recent(ctx, bulkhead.RunQuery{Unfinished: true})
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Spec.Class != "" && !r.Started.IsZero() {
			a.journal.began(r.ID)
		}
	}
	return nil
}

// desk takes what has happened, and tells it.
func (a *Announcer) desk() {
	defer close(a.done)
	tick := time.NewTicker(a.opts.Window / 4)
	defer tick.Stop()
	for {
		select {
		case e := <-a.queue:
			a.take(e)
		case <-tick.C:
			a.pass(a.gather.due(a.opts.Now()))
		case <-a.stop:
			for len(a.queue) > 0 {
				a.take(<-a.queue)
			}
			a.pass(a.gather.flush(a.opts.Now()))
			return
		}
	}
}

func (a *Announcer) take(e Event) {
	if e.Kind == KindStart {
		// Before it is told: so a start is never told twice.
		a.journal.began(e.Run)
	}
	a.log(e)
	if line, ok := a.gather.add(e, e.At); ok {
		a.pass([]Line{line})
	}
}

// pass hands lines to the places that want them. An end has arrived once each of
// them has sent it or given up.
func (a *Announcer) pass(lines []Line) {
	for _, line := range lines {
		line.settle = a.settling(line.ended)
		for _, p := range a.places {
			if p.wants(&line) {
				line.settle.wait.Add(1)
				p.put(line)
			}
		}
		line.settle.done()
	}
}

// settling is what becomes of one line in all places.
type settling struct {
	wait counter
	then func()
}

func (a *Announcer) settling(ended []bulkhead.RunID) *settling {
	s := &settling{then: func() {
		for _, id := range ended {
			a.journal.ended(id)
		}
	}}
	s.wait.Add(1) // ours
	return s
}

func (s *settling) done() {
	if s.wait.Add(-1) == 0 {
		s.then()
	}
}

func (a *Announcer) log(e Event) {
	attrs := []any{"run", int64(e.Run), "owner", e.Owner, "name", e.Name, "command", e.Command, "comment", e.Comment,
		"class", e.Class, "items", e.Counts.Total()}
	message := "run starts"
	if e.Kind == KindEnd {
		message = "run is over"
		attrs = append(attrs, "state", e.State.String(), "failed", e.Counts.Failed, "lost", e.Counts.Lost, "cancelled", e.Counts.Cancelled)
		if e.Single {
			attrs = append(attrs, "exit_code", e.ExitCode)
		}
		if took, ok := e.took(); ok {
			attrs = append(attrs, "took", took.Round(time.Millisecond).String())
		}
		if e.Reason != "" {
			attrs = append(attrs, "reason", e.Reason)
		}
	} else if e.Again {
		message = "run goes on"
	}
	a.opts.Log.Info(message, attrs...)
	a.opts.Metrics.Announced("log", resultSent)
}

// took is how long a run took. A clock that was set back says nothing of it.
func (e *Event) took() (time.Duration, bool) {
	d := e.At.Sub(e.Started)
	return d, !e.Started.IsZero() && d >= 0
}

// closeTime is how long Close lets places send what they have.
const closeTime = 2 * time.Second

// Close tells what was gathered and ends the announcer. What a place has not taken
// in time is dropped, and told again by the next server if it was an end.
func (a *Announcer) Close() {
	a.once.Do(func() {
		close(a.stop)
		<-a.done
		timer := time.NewTimer(closeTime)
		defer timer.Stop()
		for _, p := range a.places {
			close(p.lines)
		}
		for _, p := range a.places {
			select {
			case <-p.done:
			case <-timer.C:
				timer.Reset(0)
				p.cancel()
				<-p.done
			}
		}
		a.journal.close()
	})
}
