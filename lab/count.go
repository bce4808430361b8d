package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Counts is what the cluster holds and has been asked at one moment, or, as
// returned by Since, between two.
type Counts struct {
	// Requests are those that the API server has answered, by its audit log.
	// Watches count when they begin.
	Requests Requests
	// Served is the API server's own count of the same, by its metric
	// apiserver_request_total: "LIST pods", with watches counted when they end.
	Served map[string]int
	// Objects by resource, as etcd keeps them: "pods", "jobs", and with their
	// group those of custom resources, "runs.bulkhead.dev". Exact at the moment of
	// the count, where apiserver_resource_objects is up to a minute old.
	Objects map[string]int
	// EtcdBytes is how much room etcd's file takes; EtcdInUse how much of that is
	// not free for reuse.
	EtcdBytes, EtcdInUse int64
}

// Request is one kind of request.
type Request struct {
	User     string // "system:serviceaccount:lab:default"
	Client   string // of the user agent, up to its version: "kubelet"
	Verb     string // in lower case: get, list, watch, create, …
	Resource string // with its subresource: "pods/status"; a path for what is none: "/readyz"
	Code     int    // of HTTP
	Fresh    bool   // a list that names no resource version, so that a cache may not answer it
}

// Requests counts requests.
type Requests map[Request]int

// Total is how many there were.
func (r Requests) Total() int { return r.Of(func(Request) bool { return true }) }

// Of is how many were of some kind.
func (r Requests) Of(kind func(Request) bool) int {
	n := 0
	for request, times := range r {
		if kind(request) {
			n += times
		}
	}
	return n
}

// By groups the requests: by client and verb, say.
func (r Requests) By(name func(Request) string) map[string]int {
	by := map[string]int{}
	for request, times := range r {
		by[name(request)] += times
	}
	return by
}

// Since is what has changed since an earlier count. What has not is left out.
func (c Counts) Since(before Counts) Counts {
	return Counts{
		Requests: difference(c.Requests, before.Requests), Served: difference(c.Served, before.Served),
		Objects: difference(c.Objects, before.Objects), EtcdBytes: c.EtcdBytes - before.EtcdBytes,
		EtcdInUse: c.EtcdInUse - before.EtcdInUse,
	}
}

func difference[M ~map[K]int, K comparable](now, before M) M {
	d := M{}
	for key, n := range now {
		d[key] = n - before[key]
	}
	for key, n := range before {
		if _, ok := now[key]; !ok {
			d[key] = -n
		}
	}
	maps.DeleteFunc(d, func(_ K, n int) bool { return n == 0 })
	return d
}

// Count counts requests, objects and bytes, all at once. Its own requests to the
// API server are not among them, but for the one for its metrics.
func (l *Lab) Count(t testing.TB) Counts {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var c Counts
	s, err := l.Status(ctx)
	if err == nil {
		c.Objects, err = l.objects(ctx)
	}
	if err == nil {
		err = l.etcdSize(ctx, s.EtcdMetrics, &c)
	}
	if err == nil {
		c.Served, err = l.served(ctx)
	}
	if err == nil {
		c.Requests, err = l.audit.read(filepath.Join(l.dir, LogFolder, AuditFile))
	}
	if err != nil {
		t.Fatal("count:", err)
	}
	return c
}

// Objects counts what the cluster holds, by resource.
func (l *Lab) Objects(t testing.TB) map[string]int {
	t.Helper()
	objects, err := l.objects(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal("count objects:", err)
	}
	return objects
}

// Requests counts what the API server has answered so far, by its audit log.
func (l *Lab) Requests(t testing.TB) Requests {
	t.Helper()
	requests, err := l.audit.read(filepath.Join(l.dir, LogFolder, AuditFile))
	if err != nil {
		t.Fatal("count requests:", err)
	}
	return requests
}

// audit reads the audit log of the API server, each part of it once.
type audit struct {
	mu       sync.Mutex
	seen     int64 // bytes
	requests Requests
}

// event is what is of interest of an audit event.
type event struct {
	Stage      string
	Verb       string
	RequestURI string
	UserAgent  string
	User       struct{ Username string }
	ObjectRef  *struct{ Resource, Subresource, APIGroup string }

	ResponseStatus struct{ Code int }
}

func (a *audit) read(path string) (Requests, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.requests == nil {
		a.requests = Requests{}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(a.seen, io.SeekStart); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // a line that is not complete is for the next time
			return maps.Clone(a.requests), nil
		}
		if err != nil {
			return nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		a.seen += int64(len(line))
		a.note(&e)
	}
}

// note counts each request once: a long one at its begin, others at their end.
func (a *audit) note(e *event) {
	long := e.Verb == "watch" || e.ObjectRef != nil && slices.Contains([]string{"log", "exec", "attach", "portforward", "proxy"}, e.ObjectRef.Subresource)
	switch e.Stage {
	case "ResponseStarted":
		if !long {
			return
		}
	case "ResponseComplete":
		if long && e.ResponseStatus.Code < 300 {
			return // it has been counted
		}
	default:
		return
	}
	client, _, _ := strings.Cut(e.UserAgent, "/")
	path, query, _ := strings.Cut(e.RequestURI, "?")
	r := Request{User: e.User.Username, Client: client, Verb: e.Verb, Resource: path, Code: e.ResponseStatus.Code}
	if asked, err := url.ParseQuery(query); err == nil && e.Verb == "list" {
		r.Fresh = asked.Get("resourceVersion") == "" && asked.Get("continue") == ""
	}
	if ref := e.ObjectRef; ref != nil {
		r.Resource = ref.Resource
		if ref.Subresource != "" {
			r.Resource += "/" + ref.Subresource
		}
	}
	a.requests[r]++
}

// served reads apiserver_request_total.
func (l *Lab) served(ctx context.Context) (map[string]int, error) {
	stream, err := l.client.Discovery().RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	families, err := parseMetrics(stream)
	if err != nil {
		return nil, err
	}
	total := map[string]int{}
	for _, m := range families["apiserver_request_total"].GetMetric() {
		var verb, resource string
		for _, label := range m.GetLabel() {
			switch label.GetName() {
			case "verb":
				verb = label.GetValue()
			case "resource":
				resource = label.GetValue()
			}
		}
		total[strings.TrimSpace(verb+" "+resource)] += int(m.GetCounter().GetValue())
	}
	return total, nil
}

func parseMetrics(r io.Reader) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(r)
}

func (l *Lab) etcdSize(ctx context.Context, url string, c *Counts) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("etcd's metrics: %w", err)
	}
	defer resp.Body.Close()
	families, err := parseMetrics(resp.Body)
	if err != nil {
		return fmt.Errorf("etcd's metrics: %w", err)
	}
	for name, to := range map[string]*int64{
		"etcd_mvcc_db_total_size_in_bytes": &c.EtcdBytes, "etcd_mvcc_db_total_size_in_use_in_bytes": &c.EtcdInUse,
	} {
		for _, m := range families[name].GetMetric() {
			*to = int64(m.GetGauge().GetValue())
		}
	}
	return nil
}
