package census

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// Options of a Census. The zero value counts all kinds that are known to multiply, and
// all custom resources.
type Options struct {
	// Kinds switches kinds: "-events" off, "+foos.example.org" on, "-*" off what is not on.
	Kinds []string
	// MetricsOnly reads the API server's own counts, and watches nothing. It costs next to
	// nothing, and tells no namespace and no family.
	MetricsOnly bool
	// FactKeys are the labels and annotations that say who or what made an object.
	// Default: DefaultFacts.
	FactKeys []string
	// Namespaces are those to look at, where all is not permitted. Default: all. What is in
	// no namespace is left out then.
	Namespaces []string
	// Log is told when a kind can no longer be counted, or again. Default: nobody.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Times between two looks. Each is spread by half of it.
const (
	lookForKinds  = 10 * time.Minute
	afterPoke     = 4 * time.Second
	metricsAlone  = time.Minute
	metricsBeside = 5 * time.Minute
	countEvents   = time.Minute
	betweenKinds  = 50 * time.Millisecond
	waitForKind   = 30 * time.Second
)

// Census counts the objects of a cluster.
type Census struct {
	options   Options
	switches  switches
	log       *slog.Logger
	now       func() time.Time
	clients   clients
	discovery discovery.DiscoveryInterfaceWithContext
	requests  atomic.Int64
	lists     chan struct{} // one kind lists at a time
	poked     chan struct{} // the kinds may have changed
	idle      time.Duration // how long a list may pause
	silent    time.Duration // how long a watch may bring nothing
	absent    []string      // switched kinds that the cluster has not, as it was said last

	mu      sync.Mutex
	counts  *counts
	watched map[string]*watched // by kind
	over    []string            // kinds that are too many to watch
	pending []string            // kinds that will be watched, each after the one before
	server  map[string]measured // the API server's own figures, by kind
	readAt  time.Time           // when they were read
	trouble string              // why those are missing
	tidied  time.Time
}

// watched is a kind that is followed.
type watched struct {
	kind    kind
	streams []*stream
	errs    map[*stream]error
	stop    context.CancelFunc
	tried   chan struct{} // closed when its first list has ended or failed
	once    sync.Once
}

// New makes a census of the cluster that a configuration leads to. It asks nothing yet.
func New(config *rest.Config, options Options) (*Census, error) {
	s, err := readSwitches(options.Kinds)
	if err != nil {
		return nil, err
	}
	c := &Census{
		options: options, switches: s, log: options.Log, now: options.Now,
		idle: idle, silent: silent, lists: make(chan struct{}, 1), poked: make(chan struct{}, 1),
		counts: newCounts(options.FactKeys), watched: map[string]*watched{}, server: map[string]measured{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	config = rest.CopyConfig(config)
	config.Timeout = 0 // of watches; what should not take long has a deadline of its own
	config.QPS, config.Burst, config.RateLimiter = 5, 10, nil
	config.UserAgent = "bulkhead-census"
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &counter{next, &c.requests} })
	if c.clients, err = newClients(config); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c.discovery = d
	return c, nil
}

// counter counts requests.
type counter struct {
	next http.RoundTripper
	n    *atomic.Int64
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// Requests is how many requests to the API server the census has made.
func (c *Census) Requests() int64 { return c.requests.Load() }

// Run counts until ctx ends, and returns why it ended.
func (c *Census) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	every := metricsBeside
	if c.options.MetricsOnly {
		every = metricsAlone
	}
	wg.Go(func() { c.repeat(ctx, every, c.readMetrics) })
	if c.options.MetricsOnly {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if c.switches.on(events, true) {
		wg.Go(func() { c.repeat(ctx, countEvents, c.readEvents) })
	}
	for wait := shortest; ; {
		err := c.look(ctx, &wg)
		if err == nil {
			wait = shortest
			if !c.untilLook(ctx) {
				return context.Cause(ctx)
			}
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.log.Warn("the kinds of the cluster are not known", "err", err)
		c.pause(ctx, wait)
		wait = min(2*wait, longest)
	}
}

// repeat does something now and then until ctx ends.
func (c *Census) repeat(ctx context.Context, every time.Duration, do func(context.Context)) {
	for {
		do(ctx)
		if !c.pause(ctx, every) {
			return
		}
	}
}

// pause waits for about d: half of it and up to as much again.
func (c *Census) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// poke makes the census look for kinds soon.
func (c *Census) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

// untilLook waits until it is time to look for kinds.
func (c *Census) untilLook(ctx context.Context) bool {
	timer := time.NewTimer(lookForKinds/2 + rand.N(lookForKinds))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-c.poked:
	}
	// A kind that comes changes several times.
	if !c.pause(ctx, afterPoke) {
		return false
	}
	select {
	case <-c.poked:
	default:
	}
	return true
}

// look finds out which kinds there are, starts those that are new, and lets go of those
// that are gone.
func (c *Census) look(ctx context.Context, wg *sync.WaitGroup) error {
	asking, cancel := context.WithTimeout(ctx, waitForKind)
	defer cancel()
	has, err := kindsOf(asking, c.discovery, c.switches)
	if err != nil {
		return err
	}
	if len(has.absent) > 0 && !slices.Equal(has.absent, c.absent) {
		c.log.Warn("the cluster has no such kinds, at the moment", "kinds", has.absent)
	}
	c.absent = has.absent
	c.mu.Lock()
	c.over, c.pending = has.over, nil
	for _, k := range has.kinds {
		if k.namespaced || len(c.options.Namespaces) == 0 {
			c.pending = append(c.pending, k.name)
		}
	}
	c.mu.Unlock()
	c.forget(has.kinds, has.failed)
	for _, k := range has.kinds {
		if w := c.start(ctx, wg, k); w != nil && !c.await(ctx, w) {
			return ctx.Err()
		}
	}
	return nil
}

// forget lets go of the kinds that are not among those. Of a group of which nothing
// is known nothing is forgotten.
func (c *Census) forget(kinds []kind, failed map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.watched {
		if failed[w.kind.Group] || slices.ContainsFunc(kinds, func(k kind) bool { return k == w.kind }) {
			continue
		}
		w.stop()
		for _, s := range w.streams {
			c.counts.close(s.table, c.now())
		}
		delete(c.watched, name)
		c.log.Info("the cluster has a kind no more", "kind", name)
	}
}

// follow makes what follows a kind.
func (c *Census) follow(k kind, once bool) *watched {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.watched[k.name]; known {
		return nil
	}
	namespaces := []string{""}
	if len(c.options.Namespaces) > 0 {
		namespaces = c.options.Namespaces
		if !k.namespaced {
			return nil
		}
	}
	w := &watched{kind: k, errs: map[*stream]error{}, tried: make(chan struct{}), stop: func() {}}
	for _, namespace := range namespaces {
		s := &stream{census: c, kind: k, source: c.clients.of(k, namespace), table: c.counts.open(k.name, namespace), once: once}
		w.streams = append(w.streams, s)
		w.errs[s] = errNotYet
	}
	c.watched[k.name] = w
	return w
}

// ready says that the first lists are over. One that goes on would look like growth.
func (w *watched) ready() bool {
	for _, s := range w.streams {
		if !s.table.complete && errors.Is(w.errs[s], errNotYet) {
			return false
		}
	}
	return true
}

// start follows a kind, if it is not followed already.
func (c *Census) start(ctx context.Context, wg *sync.WaitGroup, k kind) *watched {
	w := c.follow(k, false)
	if w == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	w.stop = cancel
	c.mu.Unlock()
	for _, s := range w.streams {
		wg.Go(func() {
			for s.run(ctx) {
				// The API had it when it was asked. It is for the next look to say that it is gone.
				c.poke()
				if !c.pause(ctx, longest) {
					return
				}
			}
		})
	}
	return w
}

// await waits until a kind was listed, so that kinds start one after the other, owners
// before what they own. A slow one does not hold up the others forever.
func (c *Census) await(ctx context.Context, w *watched) bool {
	timer := time.NewTimer(waitForKind)
	defer timer.Stop()
	select {
	case <-w.tried:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return c.pause(ctx, betweenKinds)
}

// turnToList waits until no other kind is listing. The function that it returns may
// be called more than once.
func (c *Census) turnToList(ctx context.Context) (release func(), err error) {
	select {
	case c.lists <- struct{}{}:
		return sync.OnceFunc(func() { <-c.lists }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// change changes the counts.
func (c *Census) change(do func(*counts, time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c.counts, c.now())
}

// report notes how a stream stands.
func (c *Census) report(s *stream, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched[s.kind.name]
	if w == nil || !slices.Contains(w.streams, s) {
		return // it was forgotten
	}
	w.once.Do(func() { close(w.tried) })
	if err == nil && !s.table.complete {
		return
	}
	before := w.errs[s]
	w.errs[s] = err
	switch {
	case err != nil && (before == nil || errors.Is(before, errNotYet)):
		c.log.Warn("a kind cannot be followed for now", "kind", s.kind.name, "namespace", s.table.namespace, "err", err)
	case err == nil && before != nil && !errors.Is(before, errNotYet):
		c.log.Info("a kind is followed again", "kind", s.kind.name, "namespace", s.table.namespace)
	}
}

// Once lists everything once, and returns what there is.
func Once(ctx context.Context, config *rest.Config, options Options) (bulkhead.Census, error) {
	c, err := New(config, options)
	if err != nil {
		return bulkhead.Census{}, err
	}
	c.readMetrics(ctx)
	if options.MetricsOnly {
		return c.Snapshot(), ctx.Err()
	}
	if c.switches.on(events, true) {
		c.readEvents(ctx)
	}
	has, err := kindsOf(ctx, c.discovery, c.switches)
	if err != nil {
		return bulkhead.Census{}, err
	}
	c.over = has.over
	for _, k := range has.kinds {
		c.listOnce(ctx, k)
	}
	return c.Snapshot(), ctx.Err()
}

// listOnce lists a kind; a server that cannot stream a list is asked for pages.
func (c *Census) listOnce(ctx context.Context, k kind) {
	w := c.follow(k, true)
	if w == nil {
		return
	}
	for _, s := range w.streams {
		err := s.turn(ctx)
		if err != nil && s.paged && ctx.Err() == nil {
			err = s.turn(ctx)
		}
		c.report(s, err)
	}
}

// Snapshot is what is known now.
func (c *Census) Snapshot() bulkhead.Census {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.tidied) >= time.Minute || now.Before(c.tidied) {
		c.counts.tidy(stepOf(now))
		c.tidied = now
	}
	s := bulkhead.Census{At: now}
	unready := map[string]bool{}
	for name, w := range c.watched {
		unready[name] = !w.ready()
	}
	s.Tallies = c.counts.tell(unready)
	for _, name := range slices.Sorted(maps.Keys(c.watched)) {
		s.Kinds = append(s.Kinds, c.status(name))
	}
	for _, name := range c.pending {
		if c.watched[name] == nil {
			s.Kinds = append(s.Kinds, bulkhead.KindStatus{Kind: name, Reason: notYet})
		}
	}
	c.addServers(&s)
	return s
}
