package serve

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// metrics are what a server counts of itself. Labels are classes, which operators
// define, and a few fixed words: never a run, an item or a user.
type metrics struct {
	*prometheus.Registry
	started  *prometheus.CounterVec
	finished *prometheus.CounterVec
	wait     *prometheus.HistogramVec
	took     *prometheus.HistogramVec
	commit   prometheus.Histogram
	reviews  *prometheus.CounterVec
	told     *prometheus.CounterVec
	calls    calls
}

func newMetrics(s *server) *metrics {
	m := &metrics{
		Registry: prometheus.NewRegistry(),
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_attempts_started_total", Help: "Leases that were given.",
		}, []string{"class"}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_attempts_finished_total", Help: "Attempts that ended, by state: succeeded, failed, lost or cancelled.",
		}, []string{"class", "state"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulkhead_first_item_wait_seconds", Help: "Time from the acceptance of a run to the lease of its first item.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10), // to 44 minutes
		}, []string{"class"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulkhead_attempt_duration_seconds", Help: "Run time of attempts.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 12), // to 12 hours
		}, []string{"class"}),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_cluster_reviews_total",
			Help: "Questions to the API server: whose a token is (user, worker), and what somebody may do (access).",
		}, []string{"kind", "outcome"}),
		calls: newCalls(),
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_announcements_total",
			Help: "Lines about starts and ends of runs, by place (log, webhook, admin_log) and result: sent, failed (refused, or tried too often) or dropped.",
		}, []string{"to", "result"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bulkhead_store_commit_seconds", Help: "Time of a transaction of the engine, sync included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // to 4 s
		}),
	}
	m.MustRegister(m.started, m.finished, m.wait, m.took, m.commit, m.reviews, m.told, m.calls.ended, m.calls.took, m.calls.streams, &standing{server: s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// requests is the metric of client-go in which requests to the API server are
// counted, by verb and code.
const requests = "rest_client_requests_total"

// all are the metrics of the server, and of its requests to an API server.
func (m *metrics) all() prometheus.Gatherer {
	return prometheus.Gatherers{m, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := ctrlmetrics.Registry.Gather()
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() != requests }), err
	})}
}

// leased counts a lease.
func (m *metrics) leased(r *bulkhead.Run, l bulkhead.Lease) {
	m.started.WithLabelValues(r.Spec.Class).Inc()
	if r.Started.Equal(l.Since) {
		m.wait.WithLabelValues(r.Spec.Class).Observe(l.Since.Sub(r.Created).Seconds())
	}
}

// reviewed counts a question to the API server.
func (m *metrics) reviewed(kind, outcome string) { m.reviews.WithLabelValues(kind, outcome).Inc() }

// ended counts an attempt whose result is durable.
func (m *metrics) ended(r *bulkhead.Run, a bulkhead.Attempt) {
	m.finished.WithLabelValues(r.Spec.Class, a.State.String()).Inc()
	if a.State != bulkhead.ItemLost {
		m.took.WithLabelValues(r.Spec.Class).Observe(a.Duration.Seconds())
	}
}

// Announced implements announce.Metrics.
func (m *metrics) Announced(to, result string) { m.told.WithLabelValues(to, result).Inc() }

// calls counts the calls of the API; it is rpc.Metrics.
type calls struct {
	ended   *prometheus.CounterVec
	took    *prometheus.HistogramVec
	streams *prometheus.GaugeVec
}

func newCalls() calls {
	return calls{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_rpc_calls_total", Help: "Calls that have ended, streams included.",
		}, []string{"procedure", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulkhead_rpc_call_seconds", Help: "How long calls of users took that are no streams.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // to 16 s
		}, []string{"procedure"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bulkhead_rpc_streams", Help: "Streams that are open.",
		}, []string{"procedure"}),
	}
}

// Ended implements rpc.Metrics.
func (c calls) Ended(procedure, code string) { c.ended.WithLabelValues(procedure, code).Inc() }

// Took implements rpc.Metrics.
func (c calls) Took(procedure string, d time.Duration) {
	c.took.WithLabelValues(procedure).Observe(d.Seconds())
}

// Streams implements rpc.Metrics.
func (c calls) Streams(procedure string, n int) {
	c.streams.WithLabelValues(procedure).Add(float64(n))
}

// timed is a store whose commits are timed.
type timed struct {
	*sqlite.Store
	commit prometheus.Observer
}

// Commit implements engine.Store.
func (t timed) Commit(ctx context.Context, b *bulkhead.Batch) error {
	began := time.Now()
	err := t.Store.Commit(ctx, b)
	t.commit.Observe(time.Since(began).Seconds())
	return err
}

var (
	itemsDesc  = prometheus.NewDesc("bulkhead_items", "Items of runs that are not over, by state: queued or running.", []string{"class", "state"}, nil)
	runsDesc   = prometheus.NewDesc("bulkhead_runs", "Runs that are not over, by state as it is shown.", []string{"class", "state"}, nil)
	agentsDesc = prometheus.NewDesc("bulkhead_agents", "Agents that were heard of in the last minutes.", []string{"class"}, nil)
	slotsDesc  = prometheus.NewDesc("bulkhead_agent_slots", "Attempts that agents can run at once, by use: busy or idle.", []string{"class", "use"}, nil)
	brakesDesc = prometheus.NewDesc("bulkhead_brakes", "Brakes in force, by what they are on: everything, namespace, class, pool or run.", []string{"on"}, nil)
	fromDesc   = prometheus.NewDesc("bulkhead_held_runs", "Runs of which nothing may start, by who holds them: brake, guard, pool or store.", []string{"from"}, nil)
	heldDesc   = prometheus.NewDesc("bulkhead_held", "1 while the store or output lets nothing start.", nil, nil)
)

// standing says how things stand, when it is asked.
type standing struct{ server *server }

// Describe implements prometheus.Collector.
func (c *standing) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{itemsDesc, runsDesc, agentsDesc, slotsDesc, heldDesc, brakesDesc, fromDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *standing) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	type key struct{ class, word string }
	items, runs := map[key]int64{}, map[key]int64{}
	for _, st := range c.server.engine.Status(0).Runs {
		items[key{st.Spec.Class, "queued"}] += st.Counts.Queued
		items[key{st.Spec.Class, "running"}] += st.Counts.Running
		runs[key{st.Spec.Class, st.Shown().String()}]++
	}
	for k, n := range items {
		gauge(itemsDesc, n, k.class, k.word)
	}
	for k, n := range runs {
		gauge(runsDesc, n, k.class, k.word)
	}
	agents, slots := map[string]int64{}, map[key]int64{}
	for _, a := range c.server.engine.Agents("") {
		if !connected(a) {
			continue
		}
		agents[a.Class]++
		slots[key{a.Class, "busy"}] += int64(a.Busy)
		slots[key{a.Class, "idle"}] += int64(max(a.Slots-a.Busy, 0))
	}
	for class, n := range agents {
		gauge(agentsDesc, n, class)
	}
	for k, n := range slots {
		gauge(slotsDesc, n, k.class, k.word)
	}
	held := int64(0)
	if c.server.engine.Held() != "" {
		held = 1
	}
	gauge(heldDesc, held)
	c.collectBrakes(gauge)
}

// heldFrom and brakedOn are the labels that are always there: an alert can ask for
// what is not.
var (
	heldFrom = []string{bulkhead.FromBrake, bulkhead.FromGuard, "pool", "store"}
	brakedOn = []bulkhead.ScopeKind{bulkhead.ScopeAll, bulkhead.ScopeNamespace, bulkhead.ScopeClass, bulkhead.ScopePool, bulkhead.ScopeRun}
)

func (c *standing) collectBrakes(gauge func(*prometheus.Desc, int64, ...string)) {
	on := map[bulkhead.ScopeKind]int64{}
	for _, b := range c.server.engine.Brakes() {
		on[b.Scope.Kind]++ // on a finding: an exemption, see bulkhead_guard_rulings
	}
	for _, kind := range brakedOn {
		gauge(brakesDesc, on[kind], cmp.Or(string(kind), "everything"))
	}
	from := c.server.engine.HeldRuns()
	for _, who := range heldFrom {
		gauge(fromDesc, int64(from[who]), who)
	}
}
