package agents_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/agents"
)

var noon = time.Date(2024, 10, 9, 12, 0, 0, 0, time.UTC)

// answers are what a Prometheus with the kubelets and kube-state-metrics has, by metric.
var answers = map[string]string{
	"container_memory_working_set_bytes": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node","node":"w1","image":"docker.io/calico/node:v3.23.3"},"value":[1728475200.1,"429916160"]},
		{"metric":{"namespace":"kube-system","pod":"calico-node-fghij","container":"calico-node","instance":"10.0.0.2:10250","image":"registry:5000/calico/node:v3.23.3@sha256:00"},"value":[1728475200.1,"419430400"]},
		{"metric":{"namespace":"cert","pod":"cm-1","container":"cert-manager-controller","node":"w1","image":"cm"},"value":[1728475200.1,"1e+08"]}`,
	"container_memory_rss": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"400000000"]}`,
	"container_memory_cache": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"60000000"]}`,
	"container_spec_memory_limit_bytes": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"524288000"]},
		{"metric":{"namespace":"cert","pod":"cm-1","container":"cert-manager-controller"},"value":[1728475200.1,"0"]}`,
	`kube_pod_container_resource_limits{resource="memory",`: `
		{"metric":{"namespace":"kube-system","pod":"calico-node-fghij","container":"calico-node"},"value":[1728475200.1,"524288000"]},
		{"metric":{"namespace":"kube-system","pod":"gone","container":"calico-node"},"value":[1728475200.1,"524288000"]}`,
	"container_memory_failures_total": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"28"]}`,
	"container_cpu_usage_seconds_total": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"0.25"]},
		{"metric":{"namespace":"cert","pod":"cm-1","container":"cert-manager-controller"},"value":[1728475200.1,"NaN"]}`,
	// Half a core, as cAdvisor has it; what the pod says counts more.
	"container_spec_cpu_quota": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"0.5"]},
		{"metric":{"namespace":"cert","pod":"cm-1","container":"cert-manager-controller"},"value":[1728475200.1,"0.25"]}`,
	`kube_pod_container_resource_limits{resource="cpu",`: `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"1.5"]}`,
	"kube_pod_container_status_restarts_total": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"3"]}`,
	"kube_pod_container_status_ready": `
		{"metric":{"namespace":"kube-system","pod":"calico-node-abcde","container":"calico-node"},"value":[1728475200.1,"0"]}`,
}

// serve answers as Prometheus' API does.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server.URL
}

func respond(w http.ResponseWriter, r *http.Request) {
	query := r.FormValue("query")
	for metric, result := range answers {
		if !strings.Contains(metric, "{") {
			metric += "{"
		}
		if strings.Contains(query, metric) && strings.Contains(query, `container=~"`) && !strings.Contains(query, "%") {
			fmt.Fprintf(w, `{"status":"success","warnings":["one"],"data":{"resultType":"vector","result":[%s]}}`, result)
			return
		}
	}
	http.Error(w, `{"status":"error","errorType":"bad_data","error":"what is `+query+`?"}`, http.StatusBadRequest)
}

func TestPrometheusTellsOfAgents(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/prometheus/api/v1/query" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked for %s as %q", r.URL, r.Header.Get("Authorization"))
		}
		respond(w, r)
	})
	source, err := agents.Prometheus(address+"/prometheus", agents.PrometheusOptions{TokenFile: token, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	got, err := source.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []agents.Sample{
		{
			Agent: "calico-node", Namespace: "kube-system", Pod: "calico-node-abcde", Node: "w1", Container: "calico-node", Version: "v3.23.3",
			At: noon, Memory: 4e8, WorkingSet: 429916160, Limit: 524288000, CPU: 0.25, CPULimit: 1.5, MajorFaults: 28, PageCache: 6e7, Restarts: 3,
		},
		{
			Agent: "calico-node", Namespace: "kube-system", Pod: "calico-node-fghij", Node: "10.0.0.2", Container: "calico-node", Version: "v3.23.3",
			At: noon, WorkingSet: 419430400, Limit: 524288000, Ready: true,
		},
		{
			Agent: "cert-manager", Namespace: "cert", Pod: "cm-1", Node: "w1", Container: "cert-manager-controller",
			At: noon, WorkingSet: 1e8, CPULimit: 0.25, Ready: true,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if asked != len(answers) {
		t.Errorf("it took %d questions", asked)
	}
}

func TestTheWorstOfEachAgentAreItsFullestAndItsBusiest(t *testing.T) {
	of := func(agent, pod string, memory, limit, cpu, cpuLimit float64) agents.Sample {
		return agents.Sample{Agent: agent, Pod: pod, WorkingSet: memory, Limit: limit, CPU: cpu, CPULimit: cpuLimit}
	}
	var pods []string
	for _, s := range agents.Worst([]agents.Sample{
		of("b", "b-small", 1, 0, 0.1, 0), of("b", "b-large", 2, 0, 0.2, 0),
		of("a", "a-calm", 3, 10, 0.1, 1), of("a", "a-full", 9, 10, 0.1, 1), of("a", "a-busy", 1, 10, 0.9, 1), of("a", "a-no-limit", 99, 0, 99, 0),
	}) {
		pods = append(pods, s.Pod)
	}
	if diff := cmp.Diff([]string{"a-full", "b-large", "a-busy"}, pods); diff != "" {
		t.Error(diff)
	}
}

func TestAPrometheusThatDoesNotHelp(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
		hint    string
		code    string
	}{
		"it refuses": {
			func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no\x1b[31m!", http.StatusForbidden) },
			`answers 403: no\x1b[31m!`, "", bulkhead.CodeDenied,
		},
		"it has an error": {
			func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, `{"status":"error","errorType":"timeout","error":"query timed out"}`, http.StatusServiceUnavailable)
			}, "answers 503: query timed out", "", bulkhead.CodeUnavailable,
		},
		"it fails with 200": {
			func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"error","error":"odd"}`) },
			"it says odd", "", bulkhead.CodeInternal,
		},
		"it is no Prometheus": {
			func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) },
			"invalid character '<'", "", bulkhead.CodeInternal,
		},
		"it answers half": {
			func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"status":"success","data":{"result":[{"me`)
			},
			"unexpected EOF", "", bulkhead.CodeInternal,
		},
		"it has nothing": {
			func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
			}, "has no container_memory_working_set_bytes", "scrape the kubelets", bulkhead.CodeNotFound,
		},
		"it never ends": {
			func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[`)
				one := `{"metric":{"pod":"` + strings.Repeat("a", 1<<20) + `"},"value":[1,"1"]},`
				for range 20 {
					fmt.Fprint(w, one)
				}
			}, "the answer is too long", "", bulkhead.CodeInternal,
		},
		"it sends elsewhere": {
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/there", http.StatusFound)
			},
			"stopped after 10 redirects", "", bulkhead.CodeUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := agents.Prometheus(serve(t, c.handler), agents.PrometheusOptions{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = source.Read(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || bulkhead.CodeOf(err) != c.code || !strings.Contains(bulkhead.HintOf(err), c.hint) {
				t.Errorf("%v, %q, %s", err, bulkhead.HintOf(err), bulkhead.CodeOf(err))
			}
		})
	}
	for _, address := range []string{"", "prometheus:9090", "ftp://x", "http://", "\x00"} {
		if _, err := agents.Prometheus(address, agents.PrometheusOptions{}); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%q is an address: %v", address, err)
		}
	}
	source, err := agents.Prometheus("http://127.0.0.1:1", agents.PrometheusOptions{TokenFile: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Read(t.Context()); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Errorf("without its token it says %v", err)
	}
}

func TestATokenIsNotSentInTheClear(t *testing.T) {
	for address, refused := range map[string]bool{
		"http://prometheus.monitoring:9090": true, "http://10.0.0.1:9090": true,
		"https://prometheus.monitoring": false, "http://localhost:9090": false, "http://[::1]:9090": false,
	} {
		if _, err := agents.Prometheus(address, agents.PrometheusOptions{TokenFile: "token"}); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}
