package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/footprint"
	"bulkhead.dev/bulkhead/lab"
)

func TestTheAPIServerCountsAndSendsNothing(t *testing.T) {
	l := lab.Start(t)
	namespace := l.Namespace(t)
	var manifests strings.Builder
	for i := range 25 {
		fmt.Fprintf(&manifests, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\n", i)
	}
	for i := range 120 { // more than a page
		fmt.Fprintf(&manifests, `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p%d}
spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 192.168.0.0/16}}], ports: [{port: 1}, {port: 2}, {port: 3}]}]}
`, i)
	}
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Kubectl(t, "apply", "--namespace", namespace, "-f", file)
	kinds := []footprint.Count{{Kind: "configmaps", Namespace: namespace, Unit: budget.Objects}, {Kind: budget.NetworkPolicies, Namespace: namespace, Unit: budget.Objects},
		{Kind: "foos.example.com", Unit: budget.Objects}, {Kind: "nodes", Unit: budget.Objects}, {Kind: budget.NetworkPolicies, Namespace: namespace, Unit: budget.Rules},
		{Kind: budget.All, Unit: budget.Bytes}}
	want := map[footprint.Count]int64{kinds[0]: 26, kinds[1]: 120, kinds[2]: 0, kinds[3]: 0, kinds[4]: 120 * 6} // with kube-root-ca.crt

	before := l.Count(t)
	got, denied, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: l.Kubeconfig(), UserAgent: "plan-test/1"}, kinds)
	// The database of an API server that has just started is larger than nothing.
	if size := got[kinds[5]]; size < 1<<16 || size > 1<<32 {
		t.Errorf("%d bytes", size)
	}
	delete(got, kinds[5])
	if d := cmp.Diff(want, got); d != "" || err != nil || len(denied) > 0 {
		t.Errorf("%v, denied: %q\n%s", err, denied, d)
	}
	// One for each kind that there is, two pages of policies, the metrics, and two that ask
	// which kinds there are.
	if n := l.Count(t).Since(before).Requests.Of(func(r lab.Request) bool { return r.Client == "plan-test" }); n > 8 {
		t.Errorf("%d requests", n)
	}

	t.Run("who may not list a kind is told", func(t *testing.T) {
		l.Kubectl(t, "create", "serviceaccount", "nobody", "--namespace", namespace)
		token := strings.TrimSpace(l.Kubectl(t, "create", "token", "nobody", "--namespace", namespace))
		config := l.Config()
		if err := rest.LoadTLSFiles(config); err != nil {
			t.Fatal(err)
		}
		path := kubeconfig(t, config.Host, string(config.CAData))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), "token: secret", "token: "+token, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		got, denied, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: path}, slices.Concat(kinds[:1], kinds[4:]))
		if err != nil || len(got) > 0 || cmp.Diff([]string{
			"configmaps in namespace " + namespace + " (to list them is not permitted)",
			"rules of networkpolicies.networking.k8s.io in namespace " + namespace + " (to list them is not permitted)",
			"bytes of all (to get /metrics of the API server is not permitted)"}, denied) != "" {
			t.Errorf("%v %v %q", err, got, denied)
		}
	})
	t.Run("credentials that it refuses are not taken for a cluster that is away", func(t *testing.T) {
		config := l.Config()
		if err := rest.LoadTLSFiles(config); err != nil {
			t.Fatal(err)
		}
		_, _, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: kubeconfig(t, config.Host, string(config.CAData))}, kinds)
		if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), "refuses the credentials") || strings.Contains(bulkhead.HintOf(err), "--live") {
			t.Errorf("%v\n%s", err, bulkhead.HintOf(err))
		}
	})
	t.Run("a cluster that is away is named", func(t *testing.T) {
		_, _, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: kubeconfig(t, "https://127.0.0.1:1", "")}, kinds)
		if bulkhead.CodeOf(err) != bulkhead.CodeUnavailable || !strings.Contains(bulkhead.HintOf(err), "--live") {
			t.Errorf("%v", err)
		}
	})
}
