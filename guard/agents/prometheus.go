package agents

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// PrometheusOptions say how Prometheus is asked. The zero value is right for one
// without authentication.
type PrometheusOptions struct {
	// TokenFile has the bearer token; it is read for each look, as tokens are renewed.
	TokenFile string
	// Containers are the names of the containers to measure; none: Containers().
	Containers []string
	// Client asks; nil: http.DefaultClient. A certificate authority of one's own is its transport's.
	Client *http.Client
	// Now is the time of the samples; nil: time.Now.
	Now func() time.Time
}

// prometheus asks for what cAdvisor and kube-state-metrics have said.
type prometheus struct {
	base    *url.URL
	options PrometheusOptions
	names   string // a regular expression
}

// maxAnswer is what one answer of Prometheus may have: 300 bytes for each of 50,000
// containers.
const maxAnswer = 16 << 20

// Prometheus reads from the HTTP API of a Prometheus, or of what has the same (Thanos,
// Mimir), whose address is given. A look is eleven instant queries
// (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
func Prometheus(address string, options PrometheusOptions) (Source, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, &bulkhead.Error{
			Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s is not the address of a Prometheus", plain(strconv.Quote(address))),
			Hint: "give one such as http://prometheus.monitoring:9090",
		}
	}
	if options.TokenFile != "" && base.Scheme == "http" && !here(base.Hostname()) {
		return nil, &bulkhead.Error{
			Code: bulkhead.CodeUsage, Message: "a token for Prometheus is not sent to an address that begins with http:",
			Hint: "use https, or an address of this machine",
		}
	}
	if options.Client == nil {
		options.Client = http.DefaultClient
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	var names []string
	for _, c := range containersOr(options.Containers) {
		names = append(names, regexp.QuoteMeta(c))
	}
	return &prometheus{base, options, strings.Join(names, "|")}, nil
}

// here reports whether a host is this machine: what goes there passes no network.
func here(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// query is one question, and what it adds to the samples. %[1]s is the selector of the
// containers. The first makes the samples, the others fill them.
type query struct {
	text string
	fill func(*Sample, float64)
}

// queries take of several series of one container (there are two while it restarts) the
// largest.
var queries = []query{
	{`max by (namespace, pod, container, node, instance, image) (container_memory_working_set_bytes{%[1]s})`,
		func(s *Sample, v float64) { s.WorkingSet = max(s.WorkingSet, v) }},
	{`max by (namespace, pod, container) (container_memory_rss{%[1]s})`, func(s *Sample, v float64) { s.Memory = v }},
	{`max by (namespace, pod, container) (container_memory_cache{%[1]s})`, func(s *Sample, v float64) { s.PageCache = v }},
	{`max by (namespace, pod, container) (container_spec_memory_limit_bytes{%[1]s})`, func(s *Sample, v float64) { s.Limit = v }},
	// What the pod says, where kube-state-metrics is there, counts more.
	{`max by (namespace, pod, container) (kube_pod_container_resource_limits{resource="memory",%[1]s})`,
		func(s *Sample, v float64) { s.Limit = v }},
	{`max by (namespace, pod, container) (container_memory_failures_total{failure_type="pgmajfault",scope="container",%[1]s})`,
		func(s *Sample, v float64) { s.MajorFaults = v }},
	// A counter that begins anew makes no rate below zero.
	{`sum by (namespace, pod, container) (rate(container_cpu_usage_seconds_total{%[1]s}[5m]))`, func(s *Sample, v float64) { s.CPU = v }},
	// Who has no limit has no quota.
	{`max by (namespace, pod, container) (container_spec_cpu_quota{%[1]s})
		/ max by (namespace, pod, container) (container_spec_cpu_period{%[1]s})`, func(s *Sample, v float64) { s.CPULimit = v }},
	{`max by (namespace, pod, container) (kube_pod_container_resource_limits{resource="cpu",%[1]s})`,
		func(s *Sample, v float64) { s.CPULimit = v }},
	{`max by (namespace, pod, container) (kube_pod_container_status_restarts_total{%[1]s})`, func(s *Sample, v float64) { s.Restarts = int(v) }},
	{`max by (namespace, pod, container) (kube_pod_container_status_ready{%[1]s})`, func(s *Sample, v float64) { s.Ready = v != 0 }},
}

// Read implements Source.
func (p *prometheus) Read(ctx context.Context) ([]Sample, error) {
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	now := p.options.Now()
	type key struct{ namespace, pod, container string }
	index := map[key]int{}
	var samples []Sample
	for i, q := range queries {
		err := p.ask(ctx, client, fmt.Sprintf(q.text, `container=~"`+p.names+`"`), func(labels map[string]string, v float64) {
			k := key{labels["namespace"], labels["pod"], labels["container"]}
			at, ok := index[k]
			if !ok && i == 0 {
				at, ok = len(samples), true
				index[k] = at
				samples = append(samples, sampleOf(labels, now))
			}
			if ok {
				q.fill(&samples[at], v)
			}
		})
		if err != nil {
			return samples, err
		}
		if len(samples) == 0 {
			return nil, &bulkhead.Error{
				Code: bulkhead.CodeNotFound, Message: "Prometheus has no container_memory_working_set_bytes of any agent",
				Hint: "it has to scrape the kubelets' /metrics/cadvisor; other agents are named by their containers",
			}
		}
	}
	return samples, nil
}

// sampleOf is a container as the labels name it.
func sampleOf(labels map[string]string, now time.Time) Sample {
	node := labels["node"]
	if node == "" {
		node = labels["instance"]
		if host, _, err := net.SplitHostPort(node); err == nil {
			node = host
		}
	}
	return Sample{
		Agent: agentOf(labels["container"]), Namespace: labels["namespace"], Pod: labels["pod"], Node: node,
		Container: labels["container"], Version: versionOf(labels["image"]), At: now, Ready: true,
	}
}

// client is the one to ask with, with the token of now.
func (p *prometheus) client() (*http.Client, error) {
	if p.options.TokenFile == "" {
		return p.options.Client, nil
	}
	token, err := os.ReadFile(p.options.TokenFile)
	if err != nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "read the token for Prometheus", Err: err}
	}
	client := *p.options.Client
	client.Transport = bearer{cmp.Or(client.Transport, http.DefaultTransport), strings.TrimSpace(string(token))}
	// A redirect must not carry the token elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client, nil
}

// bearer adds a token to each request.
type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// ask makes one instant query and gives each series of its answer.
func (p *prometheus) ask(ctx context.Context, client *http.Client, text string, series func(map[string]string, float64)) error {
	u := p.base.JoinPath("api/v1/query")
	u.RawQuery = url.Values{"query": {text}}.Encode()
	return get(ctx, client, u.String(), "application/json", maxAnswer, "Prometheus at "+p.base.Host, func(d *json.Decoder) error {
		return vector(d, series)
	})
}

// vector reads an answer, {"status": "success", "data": {"resultType": "vector",
// "result": [{"metric": {…}, "value": [time, "1"]}, …]}}, one series at a time.
func vector(d *json.Decoder, series func(map[string]string, float64)) error {
	var status, message, kind string
	err := fields(d, func(name string) (bool, error) {
		switch name {
		case "status":
			return true, d.Decode(&status)
		case "error":
			return true, d.Decode(&message)
		case "data":
			return true, fields(d, func(name string) (bool, error) {
				switch name {
				case "resultType":
					return true, d.Decode(&kind)
				case "result":
					return true, each(d, func() error { return one(d, series) })
				}
				return false, nil
			})
		}
		return false, nil
	})
	switch {
	case err != nil:
		return err
	case status != "success":
		return fmt.Errorf("it says %s", plain(cmp.Or(message, status, "nothing")))
	case kind != "vector":
		return fmt.Errorf("it answers with a %s, not with a vector", plain(kind))
	}
	return nil
}

// one reads one series.
func one(d *json.Decoder, series func(map[string]string, float64)) error {
	var s struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"`
	}
	if err := d.Decode(&s); err != nil {
		return err
	}
	text, ok := s.Value[1].(string)
	if !ok {
		return nil // a histogram
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("a value is %s", plain(text))
	}
	if v >= 0 { // not NaN
		series(s.Metric, v)
	}
	return nil
}
