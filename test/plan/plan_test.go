package plan_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/footprint"
	"bulkhead.dev/bulkhead/lab"
)

// manifests are of kinds of which controllers make something.
const manifests = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: none}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 4
  parallelism: 4
  template:
    spec: {restartPolicy: Never, containers: [{name: work, image: none}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: idle}
spec:
  schedule: "0 0 1 1 *"
  suspend: true
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: none}]}}}}
`

func read(t *testing.T, text string) *footprint.Footprint {
	t.Helper()
	f, err := footprint.Read(strings.NewReader(text), footprint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// live counts what is in a namespace, by kind, and the bytes of each as the API has them.
func live(t *testing.T, l *lab.Lab, namespace string) (objects map[string]int64, bytes map[string]int64) {
	t.Helper()
	kinds := "configmaps,secrets,networkpolicies,jobs,cronjobs,deployments,replicasets,statefulsets,controllerrevisions,services,endpoints,endpointslices,pods"
	var list struct{ Items []json.RawMessage }
	text := l.Kubectl(t, "get", kinds, "--namespace", namespace, "--show-managed-fields", "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	objects, bytes = map[string]int64{}, map[string]int64{}
	for _, item := range list.Items {
		var o struct {
			Kind, APIVersion string
			Metadata         struct{ Name string }
		}
		if err := json.Unmarshal(item, &o); err != nil {
			t.Fatal(err)
		}
		if o.Metadata.Name == "kube-root-ca.crt" {
			continue
		}
		var compact strings.Builder
		if err := json.NewEncoder(&compact).Encode(item); err != nil {
			t.Fatal(err)
		}
		kind, _ := budget.Resource(o.Kind)
		objects[kind]++
		bytes[kind] += int64(compact.Len())
	}
	return objects, bytes
}

// planned is what a footprint has of kinds that are in a namespace.
func planned(f *footprint.Footprint, times int64) (objects map[string]int64, bytes map[string]int64) {
	objects, bytes = map[string]int64{}, map[string]int64{}
	for _, p := range f.Parts {
		if p.Kind != budget.Events {
			objects[p.Kind] += p.Objects * times
			bytes[p.Kind] += p.Bytes * times
		}
	}
	return objects, bytes
}

// What is planned is what a real cluster has afterwards: of Helm releases, and of what
// controllers make. There is no node, so that nothing runs.
func TestAClusterHasAfterwardsWhatWasPlanned(t *testing.T) {
	l := lab.Start(t)
	t.Run("releases of Helm", func(t *testing.T) {
		namespace := l.Namespace(t)
		names := l.HelmRelease(t, namespace, 3)
		rendered, err := os.ReadFile("../../guard/footprint/testdata/incident.yaml")
		if err != nil {
			t.Fatal(err)
		}
		check(t, l, namespace, read(t, string(rendered)), int64(len(names)), 15)
	})
	t.Run("what controllers make", func(t *testing.T) {
		namespace := l.Namespace(t)
		file := filepath.Join(t.TempDir(), "manifests.yaml")
		if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
			t.Fatal(err)
		}
		l.Kubectl(t, "apply", "--namespace", namespace, "-f", file)
		check(t, l, namespace, read(t, manifests), 1, 50)
	})
}

// check waits until a namespace has what was planned; the bytes of each kind must be
// as planned but for so many percent.
func check(t *testing.T, l *lab.Lab, namespace string, f *footprint.Footprint, times int64, percent float64) {
	t.Helper()
	want, wantBytes := planned(f, times)
	var got, gotBytes map[string]int64
	l.Eventually(t, "what was planned is there", func(context.Context) bool {
		got, gotBytes = live(t, l, namespace)
		return cmp.Equal(want, got) || t.Context().Err() != nil
	})
	var lines []string
	for kind, n := range gotBytes {
		off := 100 * (float64(wantBytes[kind])/float64(n) - 1)
		lines = append(lines, fmt.Sprintf("%s: %d bytes, planned %d (%+.0f %%)", kind, n, wantBytes[kind], off))
		if math.Abs(off) > percent {
			t.Errorf("%s", lines[len(lines)-1])
		}
	}
	t.Log(strings.Join(lines, "\n"))
}
