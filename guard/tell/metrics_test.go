package tell_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/tell"
)

func measured(t *testing.T, c *clock) (*tell.Teller, *prometheus.Registry) {
	t.Helper()
	teller, err := tell.New(tell.Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(teller.Collector())
	return teller, registry
}

func TestMetricsSayWhatWasCountedAndFound(t *testing.T) {
	c := newClock()
	teller, registry := measured(t, c)
	key := func(family, origin string) bulkhead.Key {
		return bulkhead.Key{Kind: "networkpolicies.networking.k8s.io", Namespace: "mw-script", Family: family, Origin: origin}
	}
	slow := growth("cd34", bulkhead.Notice)
	slow.Reaches, slow.Exempt = nil, &bulkhead.Exemption{Owner: "ann", Reason: "T123: meant"}
	teller.Tell(tell.Look{
		Census: bulkhead.Census{
			Tallies: []bulkhead.Tally{{Key: key("mediawiki-*", "release/*"), Objects: 224, Rules: 20160}, {Key: key("mediawiki-*", ""), Objects: 1, Rules: 3}},
			Kinds:   []bulkhead.KindStatus{{Kind: "networkpolicies.networking.k8s.io", Objects: 225, Bytes: 4096, Exact: true}, {Kind: "secrets", Reason: "not permitted"}, {Kind: "events", Objects: 7, Reason: "counted once a minute, never watched"}},
		},
		Findings: []bulkhead.Finding{growth("ab12", bulkhead.Critical), slow, over(growth("ef56", bulkhead.Warning), c.Now())},
		Rulings:  []bulkhead.Ruling{{Finding: "ab12", Verdict: bulkhead.Verdict{Level: bulkhead.Stop}}, {Finding: "cd34", Verdict: bulkhead.Verdict{Level: bulkhead.Slow}}},
	})
	teller.Tell(tell.Look{Err: errors.New("the API server does not answer")})
	want := fmt.Sprintf(`
# HELP bulkhead_guard_bytes Bytes of objects, as the API server estimates them.
# TYPE bulkhead_guard_bytes gauge
bulkhead_guard_bytes{kind="networkpolicies.networking.k8s.io"} 4096
# HELP bulkhead_guard_families Families that were counted.
# TYPE bulkhead_guard_families gauge
bulkhead_guard_families 1
# HELP bulkhead_guard_family_objects Objects of the largest families.
# TYPE bulkhead_guard_family_objects gauge
bulkhead_guard_family_objects{family="mediawiki-*",kind="networkpolicies.networking.k8s.io",namespace="mw-script"} 225
# HELP bulkhead_guard_finding Seconds until the growth reaches its first budget, 0 if it has; +Inf if it reaches none.
# TYPE bulkhead_guard_finding gauge
bulkhead_guard_finding{id="ab12",kind="networkpolicies.networking.k8s.io",namespace="mw-script",severity="critical"} 13800
bulkhead_guard_finding{id="cd34",kind="networkpolicies.networking.k8s.io",namespace="mw-script",severity="notice"} %v
# HELP bulkhead_guard_kind_missing 1 if a kind cannot be counted: not permitted, not seen for now; else 0.
# TYPE bulkhead_guard_kind_missing gauge
bulkhead_guard_kind_missing{kind="events"} 0
bulkhead_guard_kind_missing{kind="networkpolicies.networking.k8s.io"} 0
bulkhead_guard_kind_missing{kind="secrets"} 1
# HELP bulkhead_guard_look_timestamp_seconds When the guard last looked and saw something, Unix time; 0: never.
# TYPE bulkhead_guard_look_timestamp_seconds gauge
bulkhead_guard_look_timestamp_seconds %v
# HELP bulkhead_guard_looks_total Looks at the census, by result: ok or error.
# TYPE bulkhead_guard_looks_total counter
bulkhead_guard_looks_total{result="error"} 1
bulkhead_guard_looks_total{result="ok"} 1
# HELP bulkhead_guard_objects Objects in the cluster.
# TYPE bulkhead_guard_objects gauge
bulkhead_guard_objects{kind="events"} 7
bulkhead_guard_objects{kind="networkpolicies.networking.k8s.io"} 225
bulkhead_guard_objects{kind="secrets"} 0
# HELP bulkhead_guard_rules Rules of network policies: peers x ports.
# TYPE bulkhead_guard_rules gauge
bulkhead_guard_rules{kind="networkpolicies.networking.k8s.io"} 20163
# HELP bulkhead_guard_rulings Verdicts that hold back work, by level: slow or stop; exempt: that do not, because their finding is meant.
# TYPE bulkhead_guard_rulings gauge
bulkhead_guard_rulings{level="exempt"} 1
bulkhead_guard_rulings{level="slow"} 0
bulkhead_guard_rulings{level="stop"} 1
`, math.Inf(1), float64(c.Now().Unix()))
	var names []string
	for line := range strings.Lines(want) {
		if name, is := strings.CutPrefix(line, "# TYPE "); is {
			names = append(names, strings.Fields(name)[0])
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestMetricsHaveABoundedNumberOfLabelsWhateverIsInTheCluster(t *testing.T) {
	teller, registry := measured(t, newClock())
	var l tell.Look
	for i := range 5000 {
		name := fmt.Sprintf("%s\n\"%d", strings.Repeat("é", 200), i%3000)
		l.Census.Tallies = append(l.Census.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: fmt.Sprint(i, name), Namespace: name, Family: fmt.Sprint(i)}, Objects: int64(i)})
		l.Census.Kinds = append(l.Census.Kinds, bulkhead.KindStatus{Kind: fmt.Sprint(i, name), Objects: 1, Bytes: 1, Exact: true})
		f := growth(fmt.Sprint(i%4000), bulkhead.Warning)
		f.Namespace = name
		l.Findings = append(l.Findings, f)
	}
	teller.Tell(l)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, f := range families {
		lines += len(f.GetMetric())
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if v := label.GetValue(); len(v) > 400 || strings.Contains(v, "\n") {
					t.Fatalf("%s: %q", f.GetName(), v)
				}
			}
		}
	}
	if lines > 2000 {
		t.Errorf("%d lines", lines)
	}
}

func TestRequestsAreCountedByWhatTheyAre(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	defer server.Close()
	requests := tell.NewRequests()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: requests.Wrap(transport), Timeout: time.Minute}
	for _, query := range []string{"/api/v1/pods", "/api/v1/pods?watch=true", "/api/v1/pods?watch=1"} {
		res, err := client.Get(server.URL + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	want := `
# HELP bulkhead_guard_requests_total Requests of the guard to the API server and to kubelets, by verb (list and get are get) and code (0: no answer).
# TYPE bulkhead_guard_requests_total counter
bulkhead_guard_requests_total{code="429",verb="get"} 1
bulkhead_guard_requests_total{code="429",verb="watch"} 2
`
	if err := testutil.CollectAndCompare(requests, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
