package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/lab"
)

func TestTheAPIServerCountsAndSendsNothing(t *testing.T) {
	l := lab.Start(t)
	namespace := l.Namespace(t)
	var manifests strings.Builder
	for i := range 25 {
		fmt.Fprintf(&manifests, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\n", i)
	}
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Kubectl(t, "apply", "--namespace", namespace, "-f", file)
	kinds := []cluster.Kind{{"configmaps", namespace}, {"networkpolicies.networking.k8s.io", namespace}, {"foos.example.com", ""}, {"nodes", ""}}
	want := map[cluster.Kind]int64{kinds[0]: 26, kinds[1]: 0, kinds[2]: 0, kinds[3]: 0} // with kube-root-ca.crt

	before := l.Count(t)
	got, denied, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: l.Kubeconfig(), UserAgent: "plan-test/1"}, kinds)
	if d := cmp.Diff(want, got); d != "" || err != nil || len(denied) > 0 {
		t.Errorf("%v, denied: %q\n%s", err, denied, d)
	}
	// One for each kind that there is, and two that ask which there are.
	if n := l.Count(t).Since(before).Requests.Of(func(r lab.Request) bool { return r.Client == "plan-test" }); n > 5 {
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
		got, denied, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: path}, kinds[:1])
		if err != nil || len(got) > 0 || len(denied) != 1 || denied[0] != "configmaps (to list them is not permitted)" {
			t.Errorf("%v %v %q", err, got, denied)
		}
	})
	t.Run("a cluster that is away is named", func(t *testing.T) {
		_, _, err := cluster.Count(t.Context(), cluster.Options{Kubeconfig: kubeconfig(t, "https://127.0.0.1:1", "")}, kinds)
		if bulkhead.CodeOf(err) != bulkhead.CodeUnavailable || !strings.Contains(bulkhead.HintOf(err), "--live") {
			t.Errorf("%v", err)
		}
	})
}
