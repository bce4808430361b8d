// Package lookout is the wiring of the guard: the census of a cluster, the history of
// it, what is found in both, and who is told. `bulkhead guard` is one by itself, and a
// server has one if it is started with --guard.
//
//	census.Run ──► Snapshot ──► guard.Step, once a minute ──► findings, rulings
//	                                 │                            │
//	                           history, guard.db            tell: metrics, Events, webhook
//	                                                        Looked: who has started it
package lookout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/guard/tell"
	"bulkhead.dev/bulkhead/store/history"
)

// Options of New. Config and State are required.
type Options struct {
	// Config leads to the cluster.
	Config *rest.Config
	// State is the folder of the history.
	State string
	// Census says what is counted. Its Log and Now are New's.
	Census census.Options
	// Agents says how memory and CPU of agents are measured: AgentsOff, AgentsKubelets, or
	// AgentsPrometheus with the address behind it. Default: not at all.
	Agents string
	// Containers are the names of those to measure. Default: those of known agents.
	Containers []string
	// AgentsTokenFile has the token for Prometheus. Default: none.
	AgentsTokenFile string
	// AuditLogs are the API servers' audit logs; "-" is Stdin. Default: none is read.
	AuditLogs []string
	Stdin     io.Reader
	// Budgets are those that count. Default: budget.Defaults.
	Budgets []bulkhead.Budget
	// Tell says who is told. Its State, Now and Log are New's.
	Tell tell.Options
	// Events are made, with Tell.Events, whose Config is New's.
	Events bool
	// Runs: it is the guard of a server, which has runs that a brake can hold.
	Runs bool
	// Every is how often it looks. Default: a minute.
	Every time.Duration
	// Speed makes its time run so many times as fast, to try it out: growth of hours
	// is found in minutes then. Default: 1.
	Speed float64
	// Log is told what happens. Default: slog.Default.
	Log *slog.Logger
	// Looked is called after each look that saw something. It must not wait. Default:
	// nobody is told.
	Looked func(changes []Change, rulings []bulkhead.Ruling)
	// Class says whether there is a class of this name. Default: there are none.
	Class func(name string) bool
	// Exempt is who lets runs go on in spite of a finding; nil: nobody. Default: nobody does.
	Exempt func(finding string) *bulkhead.Exemption
}

// Change is what has become of a finding since the look before.
type Change struct {
	What    What             `json:"event"`
	At      time.Time        `json:"at"`
	Finding bulkhead.Finding `json:"finding"`
}

// What has become of a finding.
type What string

// The changes. Changed is another severity; Still is one that was open when a guard of
// this state folder looked last, before this one began.
const (
	Opened  What = "opened"
	Still   What = "still open"
	Changed What = "changed"
	Ended   What = "ended"
)

const (
	// firstLook is how often it is tried to look before there was something to see.
	firstLook = time.Second
	// endedFor is how long findings that have ended are shown, and mostEnded how many.
	endedFor  = time.Hour
	mostEnded = 50
)

// Lookout watches a cluster. Create it with New, end it with Close; its methods may be
// called from any goroutine.
type Lookout struct {
	opts     Options
	census   *census.Census
	history  *history.Store // nil: it cannot be opened
	guard    *guard.Guard
	teller   *tell.Teller
	requests tell.Requests
	audit    *auditLogs
	client   kubernetes.Interface // for quotas

	// Of the goroutine that looks.
	began   bool              // it was logged what is watched
	said    string            // the trouble that was logged last
	reasons map[string]string // that were logged, by kind
	before  map[string]bool   // findings that were open before this guard began, until they were told

	mu     sync.Mutex
	looked time.Time
	open   map[string]bulkhead.Finding
	ended  []bulkhead.Finding // the last one first
}

// New opens the history and checks the options. It asks nothing of the cluster yet.
func New(o Options) (_ *Lookout, err error) {
	o.defaults()
	l := &Lookout{opts: o, requests: tell.NewRequests(), audit: newAuditLogs(&o), open: map[string]bulkhead.Finding{}}
	config := rest.CopyConfig(o.Config)
	config.Wrap(l.requests.Wrap)
	if l.census, err = census.New(config, o.Census); err != nil {
		return nil, err
	}
	if l.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	if o.Events {
		events := tell.Events{}
		if o.Tell.Events != nil {
			events = *o.Tell.Events
		}
		events.Config = config
		o.Tell.Events = &events
	}
	if l.teller, err = tell.New(o.Tell); err != nil {
		return nil, err
	}
	measured, err := agentsOf(&o, config)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.State, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	watches := guard.Options{Snapshot: l.census.Snapshot, Budgets: o.Budgets, Agents: measured, Class: o.Class, Runs: o.Runs, Makers: l.audit.makers(), Now: o.Tell.Now}
	watches.TTL = func(ctx context.Context, key bulkhead.Key, example string) (time.Duration, error) {
		return census.TTL(ctx, config, key, example)
	}
	// A full disk or a damaged file keep nobody from watching, and no server from its runs.
	if l.history, err = history.Open(filepath.Join(o.State, history.Name)); err == nil {
		watches.History = l.history
	} else {
		o.Log.Warn("the history cannot be opened: what is seen is kept in memory only", "error", err)
	}
	l.guard = guard.New(watches)
	return l, nil
}

func (o *Options) defaults() {
	if o.Every == 0 {
		o.Every = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Looked == nil {
		o.Looked = func([]Change, []bulkhead.Ruling) {}
	}
	now := o.clock()
	o.Census.Log, o.Census.Now = o.Log, now
	o.Tell.State, o.Tell.Log, o.Tell.Now = o.State, o.Log, now
}

// clock is the time of the guard.
func (o *Options) clock() func() time.Time {
	if o.Speed == 0 || o.Speed == 1 {
		return time.Now
	}
	began := time.Now()
	return func() time.Time {
		return began.Add(time.Duration(float64(time.Since(began)) * o.Speed)).Round(0)
	}
}

// Alone reports whether no other guard writes the history.
func (l *Lookout) Alone() bool { return l.history == nil || l.history.Writes() }

// Collectors are the metrics.
func (l *Lookout) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.teller.Collector(), l.requests, l.audit.lines}
}

// Close closes the history.
func (l *Lookout) Close() error {
	if l.history == nil {
		return nil
	}
	return l.history.Close()
}

// Run watches until ctx ends.
func (l *Lookout) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	errs := make(chan error, 4)
	for _, part := range []func(context.Context) error{l.census.Run, l.teller.Run, l.expireQuotas, l.audit.run} {
		parts.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				errs <- err
				cancel() // a guard that lacks a part should not look as if it had all
			}
		})
	}
	l.before = l.openBefore(ctx)
	l.lookAgainAndAgain(ctx)
	parts.Wait()
	close(errs)
	return <-errs
}

// openBefore are the findings that were open when a guard of this folder looked last. If
// they cannot be read, they are told as new ones.
func (l *Lookout) openBefore(ctx context.Context) map[string]bool {
	before := map[string]bool{}
	if l.history == nil {
		return before
	}
	findings, err := l.history.Findings(ctx, false)
	if err != nil {
		return before // the guard reads them, too, and says so
	}
	for i := range findings {
		before[findings[i].ID] = true
	}
	return before
}

func (l *Lookout) lookAgainAndAgain(ctx context.Context) {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		next := l.opts.Every
		if !l.look(ctx) {
			next = min(firstLook, next)
		}
		timer.Reset(next)
	}
}

// errBlind is what a look says that saw nothing: the alert for a guard that is stuck
// goes by the time of the last one that did.
var errBlind = errors.New("nothing is known of the cluster")

// look is one look. It reports whether there was anything to see.
func (l *Lookout) look(ctx context.Context) bool {
	seen := l.census.Snapshot()
	if seen.At.IsZero() {
		return false
	}
	began := time.Now() // the time it takes is real, whatever the clock says
	err := l.guard.Step(ctx)
	if ctx.Err() != nil {
		return true
	}
	now := l.opts.Tell.Now()
	l.sayKinds(seen.Kinds)
	l.sayTrouble(err)
	changes := l.compare(l.guard.Findings(), now)
	all, _ := l.Findings()
	// That the history cannot be kept is told, and what was seen all the same counts.
	look := tell.Look{Census: seen, Findings: all, Rulings: l.guard.Rulings(), Took: time.Since(began)}
	if l.guard.Blind() {
		look.Err = errBlind
	}
	l.teller.Tell(look)
	l.opts.Looked(changes, l.guard.Rulings())
	return true
}

// compare notes what has become of findings.
func (l *Lookout) compare(open []bulkhead.Finding, now time.Time) (changes []Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.guard.Blind() {
		l.looked = now
	}
	before := l.open
	l.open = make(map[string]bulkhead.Finding, len(open))
	for _, f := range open {
		l.open[f.ID] = f
		switch old, known := before[f.ID]; {
		case !known && l.before[f.ID]:
			changes = append(changes, Change{Still, now, f})
		case !known:
			changes = append(changes, Change{Opened, now, f})
		case old.Severity != f.Severity:
			changes = append(changes, Change{Changed, now, f})
		}
		delete(before, f.ID)
		delete(l.before, f.ID)
		l.ended = slices.DeleteFunc(l.ended, func(e bulkhead.Finding) bool { return e.ID == f.ID })
	}
	for _, f := range before {
		f.Ended = cmp.Or(f.Ended, now)
		changes = append(changes, Change{Ended, now, f})
		l.ended = append([]bulkhead.Finding{f}, l.ended...)
	}
	l.ended = slices.DeleteFunc(l.ended, func(f bulkhead.Finding) bool { return now.Sub(f.Ended) > endedFor })
	l.ended = l.ended[:min(len(l.ended), mostEnded)]
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(strings.Compare(string(a.What), string(b.What)), strings.Compare(a.Finding.ID, b.Finding.ID))
	})
	return changes
}

// Findings are those that go on, the worst first, and those that have ended in the last
// hour; looked is when it looked last, zero if it has not yet.
func (l *Lookout) Findings() (findings []bulkhead.Finding, looked time.Time) {
	findings = l.guard.Findings()
	for i := range findings {
		if l.opts.Exempt != nil {
			findings[i].Exempt = l.opts.Exempt(findings[i].ID)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(findings, l.ended...), l.looked
}

// Began is since when it looks without a gap; zero: it has not looked yet.
func (l *Lookout) Began() time.Time { return l.guard.Began() }

// Census is what is counted now.
func (l *Lookout) Census() bulkhead.Census { return l.census.Snapshot() }

// Rulings are verdicts about Bulkhead's own work.
func (l *Lookout) Rulings() []bulkhead.Ruling { return l.guard.Rulings() }

// notYet begins the reason of a kind whose first list goes on.
const notYet = "not counted yet"

// sayKinds logs what is watched, once, and which kinds cannot be counted, each reason
// once.
func (l *Lookout) sayKinds(kinds []bulkhead.KindStatus) {
	var exact []string
	reasons := make(map[string]string, len(kinds))
	complete, denied := true, false
	for _, k := range kinds {
		if k.Exact {
			exact = append(exact, k.Kind)
		}
		switch reasons[k.Kind] = k.Reason; {
		case strings.HasPrefix(k.Reason, notYet):
			complete = false
		case k.Lacks() && l.reasons[k.Kind] != k.Reason:
			l.opts.Log.Warn("a kind cannot be counted", "kind", k.Kind, "reason", k.Reason)
			denied = denied || strings.HasPrefix(k.Reason, "not permitted")
		}
	}
	if denied {
		l.opts.Log.Warn("rights are missing; bulkhead guard rbac prints those that a guard needs")
	}
	l.reasons = reasons
	if !l.began && complete {
		l.began = true
		l.opts.Log.Info("watching", "kinds", strings.Join(exact, " "), "state", l.opts.State)
	}
}

// sayTrouble logs what keeps the guard from its work, once: the guard's own words, since
// agents that cannot be measured are no reason to stop, and so no error.
func (l *Lookout) sayTrouble(err error) {
	if err == nil && !l.began && l.guard.Blind() {
		return // it has just begun
	}
	trouble := l.guard.Trouble()
	text, _, _ := strings.Cut(trouble, ":") // which node did not answer is another each time
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == l.said:
	case errors.Is(err, history.ErrOther):
		l.opts.Log.Warn("another guard writes the history: what this one sees is kept in memory only", "state", l.opts.State)
	case err != nil:
		l.opts.Log.Warn("what is seen is kept in memory only", "error", err)
	case text != "":
		l.opts.Log.Warn("the guard lacks something", "trouble", trouble)
	default:
		l.opts.Log.Info("the guard has all it needs again")
	}
	l.said = text
}
