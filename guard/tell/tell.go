// Package tell brings the guard's findings to people and to their machines: metrics
// with alert rules, one Event of Kubernetes per finding, and a webhook in the format
// of Alertmanager.
//
//	guard ── Look ──► what was found last ──► Collector       metrics, when they are asked for
//	                                     └──► place, webhook  opened, worse, still there, ended
//	                                     └──► place, events   the same
//
// A place is told of the state of the world, not of what happened: it compares what
// was found last with what it has told before (its journal) and sends the difference.
// So there is no queue that could fill up, a place that was away for a day gets what
// is true now, and a guard that starts anew neither repeats what was told nor forgets
// to say that something has ended. Each place has a goroutine of its own; the guard
// never waits for one.
//
// All that comes from the cluster is somebody's text: it is cut, and what would move
// a cursor or begin a line is shown as ·, before it goes anywhere. So are labels of
// metrics, of which there is a bounded number.
package tell

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/webhook"
)

// Options of New. Their zero value tells only by metrics.
type Options struct {
	// State is the folder of the journals. "": what was told is forgotten with the
	// process, and the next one tells it again.
	State string
	// Webhook gets findings as Alertmanager sends alerts; its zero value: nobody does.
	Webhook webhook.Webhook
	// Events says where Events are made; nil: nowhere.
	Events *Events
	// Link is the address of the guard for people, the generatorURL of alerts. "": none.
	Link string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Log is told what cannot be told otherwise. Default: slog.Default.
	Log *slog.Logger
	// Backoff is the pause before a place that does not take something is tried again;
	// it doubles, up to 300 times as long, and a random half of it is left out.
	// Default: a second.
	Backoff time.Duration
}

// Events says where Events of Kubernetes are made.
type Events struct {
	Config *rest.Config
	// Namespace is where the Events are that concern no namespace, or one in which the
	// guard may not make any. Default: default.
	Namespace string
	// Reporter names this guard among others, as a pod's name does. Default: bulkhead.
	Reporter string
}

// Look is what one look of the guard has brought.
type Look struct {
	Census   bulkhead.Census
	Findings []bulkhead.Finding
	Rulings  []bulkhead.Ruling
	Took     time.Duration
	// Err says why it brought nothing; then the rest is that of the look before.
	Err error
}

// Teller tells. Create it with New; its methods may be called from any goroutine.
type Teller struct {
	opts    Options
	metrics *metrics
	places  []*place
}

// New checks the options. What is wrong with them is CodeUsage.
func New(o Options) (*Teller, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	t := &Teller{opts: o, metrics: newMetrics()}
	if o.Webhook.Given() {
		poster, err := webhook.New(o.Webhook)
		if err != nil {
			return nil, err
		}
		if err := t.add(&alertmanager{poster: poster, link: o.Link}); err != nil {
			return nil, err
		}
	}
	if o.Events != nil {
		events, err := newEvents(*o.Events, o.Now)
		if err != nil {
			return nil, err
		}
		if err := t.add(events); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Teller) add(s sender) error {
	file := ""
	if t.opts.State != "" {
		file = filepath.Join(t.opts.State, "told-"+s.name()+".json")
	}
	j, err := openJournal(file)
	if err != nil {
		return err
	}
	t.places = append(t.places, &place{sender: s, journal: j, opts: &t.opts, told: t.metrics.told, wake: make(chan struct{}, 1)})
	return nil
}

// Tell takes note of a look, and returns at once.
func (t *Teller) Tell(l Look) {
	t.metrics.look(l, t.opts.Now())
	if l.Err != nil {
		return
	}
	alerts := alertsOf(l.Findings, t.opts.Now())
	for _, p := range t.places {
		p.put(alerts)
	}
}

// Run tells places until ctx ends. What they have not got by then they get from the
// next process, if it has the same state folder.
func (t *Teller) Run(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, len(t.places))
	for i, p := range t.places {
		all.Go(func() { errs[i] = p.run(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}
