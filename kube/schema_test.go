package kube_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
	"bulkhead.dev/bulkhead/lab"
)

// manifest is a ScriptClass with a spec.
func manifest(ns, name, spec string) string {
	return fmt.Sprintf("apiVersion: bulkhead.dev/v1alpha1\nkind: ScriptClass\nmetadata: {namespace: %s, name: %q}\nspec: %s\n", ns, name, spec)
}

// apply is kubectl apply, as people use it.
func (c *cluster) apply(t *testing.T, text string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "class.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), s.Kubernetes, append([]string{"kubectl", "--kubeconfig", s.Kubeconfig, "apply", "-f", file}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestTheSchemaIsStrict(t *testing.T) {
	c := start(t)
	ns := c.Namespace(t)
	for name, test := range map[string]struct{ name, spec, says string }{
		"a class with nothing but an image":   {"a", `{image: i}`, ""},
		"everything there is":                 {"b", everything, ""},
		"a misspelt field":                    {"a", `{image: i, workerz: {max: 1}}`, `unknown field "spec.workerz"`},
		"a misspelt field of the template":    {"a", `{image: i, template: {nodeselector: {a: b}}}`, `unknown field "spec.template.nodeselector"`},
		"a field that Bulkhead decides":       {"a", `{image: i, template: {restartPolicy: Always}}`, `unknown field "spec.template.restartPolicy"`},
		"a misspelt field of a container":     {"a", `{image: i, template: {container: {env: [{nam: A, value: b}]}}}`, `unknown field "spec.template.container.env[0].nam"`},
		"no image":                            {"a", `{}`, "spec.image: Required value"},
		"no workers":                          {"a", `{image: i, workers: {max: 0}}`, "spec.workers.max: Invalid value: 0"},
		"too many slots":                      {"a", `{image: i, workers: {slots: 1001}}`, "should be less than or equal to 1000"},
		"an idle timeout of nothing":          {"a", `{image: i, workers: {idleTimeout: 0s}}`, "must be a duration of more than 0"},
		"an age that is no duration":          {"a", `{image: i, workers: {maxAge: a day}}`, "spec.workers.maxAge"},
		"a timeout below nothing":             {"a", `{image: i, timeout: -5m}`, "must be a duration of more than 0"},
		"a policy that exists and rules":      {"a", `{image: i, networkPolicy: {existing: p, egress: []}}`, "exclude one another"},
		"a policy and none":                   {"a", `{image: i, networkPolicy: {existing: p, none: true}}`, "exclude one another"},
		"a pool of no slots":                  {"a", `{image: i, pools: [{name: db, slots: 0}]}`, "spec.pools[0].slots"},
		"one pool twice":                      {"a", `{image: i, pools: [{name: db, slots: 1}, {name: db, slots: 2}]}`, "Duplicate value"},
		"a label of Bulkhead's":               {"a", `{image: i, template: {labels: {bulkhead.dev/class: other}}}`, "are Bulkhead's own"},
		"a working folder that is not a path": {"a", `{image: i, dir: srv}`, "spec.dir"},
		"a name with a dot":                   {"a.b", `{image: i}`, "metadata.name: at most 49 of a-z, 0-9 and -"},
		"a name that is too long":             {strings.Repeat("a", 50), `{image: i}`, "metadata.name: at most 49"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := c.apply(t, manifest(ns, test.name, test.spec), "--dry-run=server")
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(out, test.says)) {
				t.Errorf("kubectl apply says %q (%v), not %q", out, err, test.says)
			}
		})
	}
}

const everything = `
  image: registry.example/mediawiki:1
  command: [php, maintenance/run.php]
  dir: /srv
  timeout: 1h30m
  limit: 5
  echoOutput: true
  pools: [{name: db, key: "{wiki}", slots: 2}]
  shapes: {max: 3}
  workers: {max: 10, slots: 4, idleTimeout: 1m, maxItems: 100, maxAge: 24h}
  networkPolicy: {egress: [{to: [{podSelector: {}}]}], ingress: []}
  template:
    labels: {app: scripts}
    annotations: {a: b}
    container:
      imagePullPolicy: IfNotPresent
      resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {memory: 1Gi}}
      env: [{name: A, value: b}, {name: S, valueFrom: {secretKeyRef: {name: s, key: k}}}]
      envFrom: [{configMapRef: {name: c}}]
      volumeMounts: [{name: v, mountPath: /v}]
      securityContext: {runAsUser: 33}
    initContainers: [{name: mcrouter, image: mcrouter:1, restartPolicy: Always}]
    volumes: [{name: v, configMap: {name: c}}]
    imagePullSecrets: [{name: pull}]
    nodeSelector: {a: b}
    tolerations: [{key: k, operator: Exists}]
    affinity: {nodeAffinity: {}}
    serviceAccountName: scripts
    securityContext: {fsGroup: 33}
    priorityClassName: low
    terminationGracePeriodSeconds: 120
    spool: 5Gi
    tmp: 100Mi`

func TestAClassInTheWordsOfBulkhead(t *testing.T) {
	var class v1alpha1.ScriptClass
	if err := yaml.UnmarshalStrict([]byte(manifest("mw", "wiki", everything)), &class); err != nil {
		t.Fatal(err)
	}
	want := bulkhead.Class{Name: "mw/wiki", Command: []string{"php", "maintenance/run.php"}, Dir: "/srv", Limit: 5, Timeout: 90 * 60e9,
		Echo: true, Shapes: true, Pools: []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 2}},
		Objects: []bulkhead.ObjectCount{{Kind: "ConfigMap", Count: 1}, {Kind: "NetworkPolicy", Count: 1}}}
	if diff := cmp.Diff(want, kube.ToClass(&class)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestShapesAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		shape bulkhead.Shape
		says  string
	}{
		"a good one":           {bulkhead.Shape{CPU: "500m", Memory: "1Gi"}, ""},
		"not a quantity":       {bulkhead.Shape{CPU: "lots"}, `cpu "lots" is not a quantity`},
		"a quantity below one": {bulkhead.Shape{Memory: "-1Gi"}, `memory "-1Gi" is not a quantity`},
	} {
		t.Run(name, func(t *testing.T) {
			err := kube.CheckShape(test.shape)
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAClassFromAWorkload(t *testing.T) {
	c := start(t)
	ns := c.Namespace(t)
	zero, deadline, parallel := int32(0), int64(600), int32(3)
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{lab.FakeNodeLabel: "no"}, HostNetwork: true,
			Containers: []corev1.Container{
				{Name: "web", Image: "web:1", Command: []string{"php"}, Args: []string{"-S"}, WorkingDir: "/srv",
					Env: []corev1.EnvVar{{Name: "A", Value: "b"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80}}},
				{Name: "proxy", Image: "proxy:1"},
			},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
	}
	job := *pod.DeepCopy()
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	selector := &metav1.LabelSelector{MatchLabels: pod.Labels}
	for name, test := range map[string]struct {
		object client.Object
		max    int32
		notes  []string
	}{
		"a Deployment": {&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &zero, Selector: selector, Template: pod}}, 1,
			[]string{"the labels app were left out", "container proxy became a sidecar", "hostNetwork", "container web: ports", `the arguments ["-S"]`}},
		"a Job": {&batchv1.Job{Spec: batchv1.JobSpec{Parallelism: &parallel, ActiveDeadlineSeconds: &deadline, Template: job}}, 3,
			[]string{"workers.max is 3"}},
		"a CronJob": {&batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 0 30 2 *",
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: job}}}}, 1,
			[]string{`the schedule "0 0 30 2 *"`}},
	} {
		t.Run(name, func(t *testing.T) {
			test.object.SetNamespace(ns)
			test.object.SetName(strings.ToLower(name[2:]) + ".old")
			if err := c.api.Create(t.Context(), test.object); err != nil {
				t.Fatal(err)
			}
			class, notes, err := kube.FromWorkload(test.object)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(notes, "\n")
			for _, part := range test.notes {
				if !strings.Contains(all, part) {
					t.Errorf("no note says %q:\n%s", part, all)
				}
			}
			if class.Spec.Workers.Max != test.max || class.Spec.Image != "web:1" || class.Spec.Dir != "/srv" || class.Name == test.object.GetName() {
				t.Errorf("class %+v", class)
			}
			text, err := yaml.Marshal(class)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := c.apply(t, string(text)); err != nil {
				t.Errorf("kubectl apply: %s\n%s", out, text)
			}
		})
	}
	if _, _, err := kube.FromWorkload(&corev1.Pod{}); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Errorf("a pod: %v", err)
	}
}

func TestTheRulesAreEnoughAndGiveNoRightToRead(t *testing.T) {
	for _, rule := range kube.Rules() {
		for _, verb := range rule.Verbs {
			if verb == "*" || slices.Contains(rule.Resources, "secrets") {
				t.Errorf("%q of %q", verb, rule.Resources)
			}
		}
	}
	// That they are enough is shown by every test that runs the controller.
	c := start(t)
	review := func(verb, group, kind string) bool { return c.may(t, verb, group, kind) }
	if review("get", "", "secrets") || review("delete", "bulkhead.dev", "scriptclasses") {
		t.Error("the rules allow what they should not")
	}
}

// may asks whether an account with the rules may do something.
func (c *cluster) may(t *testing.T, verb, group, kind string) bool {
	t.Helper()
	ns := c.namespace(t)
	config := c.Config()
	config.Impersonate.UserName = "system:serviceaccount:" + ns + ":bulkhead"
	api, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	object := &metav1.PartialObjectMetadata{}
	object.APIVersion, object.Kind = "v1", "Secret"
	if group != "" {
		object.APIVersion, object.Kind = group+"/v1alpha1", "ScriptClass"
	}
	object.Namespace, object.Name = ns, kind
	if verb == "delete" {
		err = api.Delete(t.Context(), object)
	} else {
		err = api.Get(t.Context(), client.ObjectKeyFromObject(object), object)
	}
	return !apierrors.IsForbidden(err)
}
