package tell

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulkhead.dev/bulkhead"
)

// Bounds of labels. What is beyond them is summed up under the word others, or left out.
const (
	mostFamilies = 100
	mostKinds    = 500
	others       = "others"
)

// metrics are what was counted and found, and the guard itself. Kinds and families
// have a bounded number of values; ids of findings are those of the findings that go
// on, mostAlerts at most.
type metrics struct {
	told  *prometheus.CounterVec
	looks *prometheus.CounterVec
	took  prometheus.Histogram

	mu     sync.Mutex
	last   Look
	at     time.Time // of the last look that brought something
	shown  []bulkhead.Finding
	counts census
}

var (
	objectsDesc  = prometheus.NewDesc("bulkhead_guard_objects", "Objects in the cluster.", []string{"kind"}, nil)
	rulesDesc    = prometheus.NewDesc("bulkhead_guard_rules", "Rules of network policies: peers x ports.", []string{"kind"}, nil)
	bytesDesc    = prometheus.NewDesc("bulkhead_guard_bytes", "Bytes of objects, as the API server estimates them.", []string{"kind"}, nil)
	missingDesc  = prometheus.NewDesc("bulkhead_guard_kind_missing", "1 if a kind cannot be counted: not permitted, not seen for now; else 0.", []string{"kind"}, nil)
	familyDesc   = prometheus.NewDesc("bulkhead_guard_family_objects", "Objects of the largest families.", []string{"kind", "namespace", "family"}, nil)
	familiesDesc = prometheus.NewDesc("bulkhead_guard_families", "Families that were counted.", nil, nil)
	findingDesc  = prometheus.NewDesc("bulkhead_guard_finding", "Seconds until the growth reaches its first budget, 0 if it has; +Inf if it reaches none.",
		[]string{"id", "severity", "kind", "namespace"}, nil)
	rulingsDesc = prometheus.NewDesc("bulkhead_guard_rulings", "Verdicts that hold back work, by level: slow or stop; exempt: that do not, because their finding is meant.", []string{"level"}, nil)
	lookDesc    = prometheus.NewDesc("bulkhead_guard_look_timestamp_seconds", "When the guard last looked and saw something, Unix time; 0: never.", nil, nil)
)

func newMetrics() *metrics {
	return &metrics{
		told: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulkhead_guard_told_total",
			Help: "Findings told to a place (webhook, events) that it took (sent), and tries that it did not (failed)."}, []string{"to", "result"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulkhead_guard_looks_total",
			Help: "Looks at the census, by result: ok or error."}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bulkhead_guard_look_seconds", Help: "How long a look took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}), // to 16 s
	}
}

// Collector gives the metrics of what was told to t.
func (t *Teller) Collector() prometheus.Collector { return t.metrics }

// look takes note of a look. What is summed up is summed up now, once, and not at
// each scrape.
func (m *metrics) look(l Look, now time.Time) {
	result := "ok"
	if l.Err != nil {
		result = "error"
	}
	m.looks.WithLabelValues(result).Inc()
	m.took.Observe(l.Took.Seconds())
	if l.Err != nil {
		return
	}
	counts, shown := censusOf(&l.Census), open(l.Findings)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.at, m.counts, m.shown = Look{Rulings: l.Rulings}, now, counts, shown
}

// open are the findings that go on, the most severe first, mostAlerts at most.
func open(findings []bulkhead.Finding) []bulkhead.Finding {
	var out []bulkhead.Finding
	for i := range findings {
		if findings[i].Ended.IsZero() {
			out = append(out, findings[i])
		}
	}
	slices.SortStableFunc(out, func(a, b bulkhead.Finding) int {
		return cmp.Or(rank(b.Severity)-rank(a.Severity), strings.Compare(a.ID, b.ID))
	})
	return out[:min(len(out), mostAlerts)]
}

// census is a census as metrics show it.
type census struct {
	kinds    []kindCount
	families []familyCount
	all      int
}

type kindCount struct {
	kind                  string
	objects, rules, bytes int64
	missing               bool
}

type familyCount struct {
	kind, namespace, family string
	objects                 int64
}

func censusOf(c *bulkhead.Census) census {
	rules := map[string]int64{}
	families := map[[3]string]int64{} // families that only differ in their origin are one line here
	for i := range c.Tallies {
		t := &c.Tallies[i]
		rules[t.Kind] += t.Rules
		families[[3]string{word(t.Kind), word(t.Namespace), word(t.Family)}] += t.Objects
	}
	out := census{kinds: kindsOf(c.Kinds, rules), all: len(families)}
	for key, n := range families {
		out.families = append(out.families, familyCount{key[0], key[1], key[2], n})
	}
	slices.SortFunc(out.families, func(a, b familyCount) int {
		return cmp.Or(cmp.Compare(b.objects, a.objects), strings.Compare(a.kind, b.kind), strings.Compare(a.namespace, b.namespace),
			strings.Compare(a.family, b.family))
	})
	out.families = slices.Clip(out.families[:min(len(out.families), mostFamilies)])
	return out
}

func kindsOf(kinds []bulkhead.KindStatus, rules map[string]int64) []kindCount {
	counts := map[string]kindCount{}
	for _, k := range kinds {
		name := word(k.Kind)
		if _, known := counts[name]; !known && len(counts) >= mostKinds {
			name = others
		}
		sum := counts[name]
		counts[name] = kindCount{name, sum.objects + k.Objects, sum.rules + rules[k.Kind], sum.bytes + k.Bytes, sum.missing || k.Lacks()}
	}
	out := make([]kindCount, 0, len(counts))
	for _, k := range counts {
		out = append(out, k)
	}
	return out
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{objectsDesc, rulesDesc, bytesDesc, missingDesc, familyDesc, familiesDesc, findingDesc, rulingsDesc, lookDesc} {
		to <- d
	}
	m.told.Describe(to)
	m.looks.Describe(to)
	m.took.Describe(to)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.told.Collect(to)
	m.looks.Collect(to)
	m.took.Collect(to)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m.mu.Lock()
	counts, shown, rulings, at := m.counts, m.shown, m.last.Rulings, m.at
	m.mu.Unlock()
	for _, k := range counts.kinds {
		gauge(objectsDesc, float64(k.objects), k.kind)
		if k.rules > 0 {
			gauge(rulesDesc, float64(k.rules), k.kind)
		}
		if k.bytes > 0 {
			gauge(bytesDesc, float64(k.bytes), k.kind)
		}
		gauge(missingDesc, map[bool]float64{true: 1}[k.missing], k.kind)
	}
	for _, f := range counts.families {
		gauge(familyDesc, float64(f.objects), f.kind, f.namespace, f.family)
	}
	gauge(familiesDesc, float64(counts.all))
	seen := map[string]bool{}
	for i := range shown {
		if f := &shown[i]; !seen[word(f.ID)] {
			seen[word(f.ID)] = true
			gauge(findingDesc, secondsOf(f), word(f.ID), word(string(f.Severity)), word(kindOf(f)), word(f.Namespace))
		}
	}
	levels := map[bulkhead.Level]float64{}
	spared := 0.0
	for _, r := range rulings {
		if slices.ContainsFunc(shown, func(f bulkhead.Finding) bool { return f.Exempt != nil && f.ID == r.Finding }) {
			spared++
		} else {
			levels[r.Verdict.Level]++
		}
	}
	gauge(rulingsDesc, levels[bulkhead.Slow], "slow")
	gauge(rulingsDesc, levels[bulkhead.Stop], "stop")
	gauge(rulingsDesc, spared, "exempt")
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	gauge(lookDesc, float64(at.UnixMilli())/1000)
}

// secondsOf is how long it takes to the first budget.
func secondsOf(f *bulkhead.Finding) float64 {
	first := math.Inf(1)
	for _, r := range f.Reaches {
		first = min(first, max(r.In.Seconds(), 0))
	}
	return first
}

// Requests counts the guard's own requests to the API server: wrap the configuration
// of its client with Wrap, and register it.
type Requests struct{ *prometheus.CounterVec }

// NewRequests returns a counter of nothing yet.
func NewRequests() Requests {
	return Requests{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulkhead_guard_requests_total",
		Help: "Requests of the guard to the API server and to kubelets, by verb (list and get are get) and code (0: no answer)."},
		[]string{"verb", "code"})}
}

// Wrap is for rest.Config.Wrap.
func (r Requests) Wrap(next http.RoundTripper) http.RoundTripper { return counting{r, next} }

type counting struct {
	requests Requests
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c counting) RoundTrip(req *http.Request) (*http.Response, error) {
	verb := strings.ToLower(req.Method)
	if w := req.URL.Query().Get("watch"); w == "true" || w == "1" {
		verb = "watch"
	}
	res, err := c.next.RoundTrip(req)
	code := 0
	if err == nil {
		code = res.StatusCode
	}
	c.requests.WithLabelValues(verb, strconv.Itoa(code)).Inc()
	return res, err
}

// WrappedRoundTripper lets client-go see through.
func (c counting) WrappedRoundTripper() http.RoundTripper { return c.next }
