package chart_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/guard/tell"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/kube/chart"
	"bulkhead.dev/bulkhead/lab"
)

const version = "v1.2.3-4-gabcdef0"

// choices are values with which every line of every template is rendered.
var choices = map[string]string{
	"the defaults": "",
	"two namespaces only": `
namespaces: [default, kube-public]
connect: {groups: []}`,
	"no volume": "storage: {ephemeral: true}",
	"somebody's volume and a digest": `
storage: {existingClaim: mine}
image: {repository: registry.example/a/bulkhead, tag: "sha256:` + "0123456789012345678901234567890123456789012345678901234567890123" + `", pullSecrets: [one, two]}`,
	"everything that can be said": `
podsPerSecond: 0.5
storage: {size: 1.5Ti, storageClass: "fast: really", keep: true}
crd: {keep: true}
networkPolicy: {enabled: true, from: [{namespaceSelector: {matchLabels: {a: b}}}, {ipBlock: {cidr: 10.0.0.0/8}}]}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux, "on": "true"}
tolerations: [{key: a, operator: Exists, effect: NoSchedule}]
resources: {limits: {memory: 1Gi, cpu: 2}}
extraArgs: ["--pprof=localhost:6060", "--name=quo\"ted"]
connect: {groups: [system:authenticated, "oidc: people"]}`,
	"a guard": "guard: {enabled: true}",
	"a guard of few kinds that tells much": `
guard:
  enabled: true
  kinds: [pods, foos.a.example.org]
  budgets: ["networkpolicies=1000", 'configmaps@mw-script=500']
  events: false
  agents: prometheus=http://prometheus.example.org:9090
  webhook: {url: "https://alerts.example.org/hook?a=b", tokenSecret: hook}
  prometheusRule: {enabled: true, labels: {release: "kube: prometheus", "on": "true"}}`,
	"a guard that posts to a chat":   "guard: {enabled: true, webhook: {urlSecret: chat}}",
	"a guard that asks the kubelets": "guard: {enabled: true, kinds: [pods], events: false, agents: kubelets}",
	"nothing of the cluster's":       "{userRoles: false, crd: {install: false}, networkPolicy: {enabled: true}, resources: null, tolerations: null}",
}

// objects renders a choice, and is in the order that is applied.
func objects(t *testing.T, namespace, values string) []chart.Object {
	t.Helper()
	v, err := chart.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	all, err := chart.Objects(chart.Options{Namespace: namespace, Version: version, Values: v})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// nameOf says which object it is.
func nameOf(o chart.Object) string {
	meta, _ := o["metadata"].(map[string]any)
	namespace, _ := meta["namespace"].(string)
	name, _ := meta["name"].(string)
	kind, _ := o["kind"].(string)
	return kind + " " + namespace + "/" + name
}

// helm runs Helm, which the lab has, and needs no cluster for it.
func helm(t *testing.T, args ...string) []byte {
	t.Helper()
	programs, err := lab.Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(programs.Kubernetes, append([]string{"helm"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

// written is the chart in a folder.
func written(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bulkhead")
	if err := chart.Write(dir, version); err != nil {
		t.Fatal(err)
	}
	return dir
}

func valuesFile(t *testing.T, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHelmRendersTheSame(t *testing.T) {
	dir := written(t)
	for name, values := range choices {
		t.Run(name, func(t *testing.T) {
			out := helm(t, "template", "bulkhead", dir, "--namespace", "ship", "--values", valuesFile(t, values))
			want := map[string]chart.Object{}
			for part := range strings.SplitSeq(string(out), "\n---\n") {
				var o chart.Object
				if err := yaml.Unmarshal([]byte(part), &o); err != nil {
					t.Fatalf("helm template: %v\n%s", err, part)
				}
				if o != nil {
					want[nameOf(o)] = o
				}
			}
			got := map[string]chart.Object{}
			for _, o := range objects(t, "ship", values) {
				if got[nameOf(o)] != nil {
					t.Errorf("%s is there twice", nameOf(o))
				}
				got[nameOf(o)] = o
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("by Helm (-) and without it (+):\n%s", diff)
			}
		})
	}
}

func TestHelmHasNothingToSay(t *testing.T) {
	dir := written(t)
	for name, values := range choices {
		t.Run(name, func(t *testing.T) {
			out := string(helm(t, "lint", "--strict", dir, "--values", valuesFile(t, values)))
			if !strings.Contains(out, "0 chart(s) failed") || strings.Contains(out, "WARN") {
				t.Error(out)
			}
		})
	}
	if out := helm(t, "show", "chart", dir); !strings.Contains(string(out), "version: "+strings.TrimPrefix(version, "v")+"\n") {
		t.Errorf("the version is not the program's:\n%s", out)
	}
}

func TestEveryValueIsInTheSchema(t *testing.T) {
	read := func(file string) (out map[string]any) {
		text, err := os.ReadFile(filepath.Join("bulkhead", file))
		if err == nil {
			err = yaml.Unmarshal(text, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var compare func(path string, schema, values map[string]any)
	compare = func(path string, schema, values map[string]any) {
		properties, closed := schema["properties"].(map[string]any)
		if !closed {
			return
		}
		if schema["additionalProperties"] != false {
			t.Errorf("values%s may have any name", path)
		}
		for name, p := range properties {
			value, is := values[name]
			if !is && name != "global" {
				t.Errorf("values.yaml does not have%s.%s", path, name)
			}
			if below, is := value.(map[string]any); is {
				compare(path+"."+name, p.(map[string]any), below)
			}
		}
	}
	compare("", read("values.schema.json"), read("values.yaml"))
}

func TestValuesThatAreWrongSayWhatWouldBeRight(t *testing.T) {
	for name, c := range map[string]struct{ values, set, message, hint string }{
		"a misspelt name":             {values: "stroage: {}", message: `there is no value "stroage"`, hint: "did you mean storage?"},
		"below another":               {values: "storage: {sise: 1Gi}", message: `there is no value "storage.sise"`, hint: "did you mean storage.size?"},
		"like none":                   {values: "crd: {whatever: 1}", message: `there is no value "crd.whatever"`, hint: "there are install, keep"},
		"set":                         {set: "image.tga=1", message: `there is no value "image.tga"`, hint: "did you mean image.tag?"},
		"set below what is no map":    {set: "userRoles.a=1", message: "userRoles must be of type boolean"},
		"one of a few":                {set: "image.pullPolicy=Sometimes", message: "image.pullPolicy should be one of [Always IfNotPresent Never]"},
		"no quantity":                 {set: "storage.size=big", message: "storage.size should match"},
		"of another type":             {set: "crd.keep=perhaps", message: "crd.keep must be of type boolean"},
		"no namespace":                {set: "namespaces=[a, Ümlaut]", message: "namespaces[1] should match"},
		"no assignment":               {set: "image", message: `"image" is not PATH=VALUE`, hint: "for example storage.size=5Gi"},
		"not a map":                   {values: "storage: 5", message: "storage must be of type object"},
		"no YAML":                     {values: "a: [", message: "yaml: line 1"},
		"twice the same":              {values: "crd: {}\ncrd: {}", message: `key "crd" already set`},
		"set to what is no YAML":      {set: "namespaces=[", message: "namespaces:"},
		"an argument that is no text": {values: "extraArgs: [1]", message: "extraArgs[0] must be of type string"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := chart.ReadValues([]byte(c.values))
			if err == nil && c.set != "" {
				err = chart.Set(v, c.set)
			}
			if err == nil {
				_, err = chart.Objects(chart.Options{Namespace: "a", Version: version, Values: v})
			}
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), c.message) || !strings.Contains(bulkhead.HintOf(err), c.hint) {
				t.Errorf("%v\n  %s", err, bulkhead.HintOf(err))
			}
		})
	}
}

func TestSetTakesTextAsItIsAndTheRestAsYAML(t *testing.T) {
	got := map[string]any{}
	for _, assignment := range []string{"image.tag=1.20", "namespaces=[a, b]", "crd.keep=true", `nodeSelector.kubernetes\.io/os=true`, "image.repository=a=b"} {
		if err := chart.Set(got, assignment); err != nil {
			t.Error(err)
		}
	}
	want := map[string]any{"image": map[string]any{"tag": "1.20", "repository": "a=b"}, "namespaces": []any{"a", "b"},
		"crd": map[string]any{"keep": true}, "nodeSelector": map[string]any{"kubernetes.io/os": "true"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// as reads an object as what it is.
func as[T any](t *testing.T, all []chart.Object, name string) T {
	t.Helper()
	var out T
	at := slices.IndexFunc(all, func(o chart.Object) bool { return nameOf(o) == name })
	if at < 0 {
		t.Fatalf("there is no %s", name)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(all[at], &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheServerHasTheRightsThatItNeedsAndNoOthers(t *testing.T) {
	all := objects(t, "ship", choices["the defaults"])
	cluster := as[rbacv1.ClusterRole](t, all, "ClusterRole /bulkhead-server-ship")
	if diff := cmp.Diff(append(kube.ReviewRules(), kube.Rules()...), cluster.Rules); diff != "" {
		t.Errorf("in the cluster, of kube (-) and the chart (+):\n%s", diff)
	}
	own := as[rbacv1.Role](t, all, "Role ship/bulkhead")
	if diff := cmp.Diff(kube.OwnRules(), own.Rules); diff != "" {
		t.Errorf("in its own namespace, of kube (-) and the chart (+):\n%s", diff)
	}

	all = objects(t, "ship", choices["two namespaces only"])
	cluster = as[rbacv1.ClusterRole](t, all, "ClusterRole /bulkhead-server-ship")
	if diff := cmp.Diff(kube.ReviewRules(), cluster.Rules); diff != "" {
		t.Errorf("in the cluster, with namespaces, of kube (-) and the chart (+):\n%s", diff)
	}
	for _, namespace := range []string{"default", "kube-public"} {
		role := as[rbacv1.Role](t, all, "Role "+namespace+"/bulkhead-server-ship")
		if diff := cmp.Diff(kube.Rules(), role.Rules); diff != "" {
			t.Errorf("in a namespace, of kube (-) and the chart (+):\n%s", diff)
		}
	}
	for _, o := range all {
		if strings.HasPrefix(nameOf(o), "Role") || strings.HasPrefix(nameOf(o), "ClusterRole") {
			if text, err := json.Marshal(o); err != nil || bytes.Contains(text, []byte(`"secrets"`)) || bytes.Contains(text, []byte(`"*"`)) {
				t.Errorf("%s: %s %v", nameOf(o), text, err)
			}
		}
	}
}

func TestAGuardGetsTheRightsToWhatItCountsAndNoOthers(t *testing.T) {
	kinds, err := chart.GuardKinds()
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.DeleteFunc(slices.Clone(census.BuiltIn), func(k string) bool { return k == "secrets" }), "events")
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds that multiply, without Secrets (-), and those of the chart (+):\n%s", diff)
	}
	all := objects(t, "ship", choices["a guard"])
	role := as[rbacv1.ClusterRole](t, all, "ClusterRole /bulkhead-server-ship-guard")
	if diff := cmp.Diff(single(tell.Rights(kinds), tell.QuotaRules(), tell.EventRules()), single(role.Rules)); diff != "" {
		t.Errorf("of package tell (-) and the chart (+):\n%s", diff)
	}
	role = as[rbacv1.ClusterRole](t, objects(t, "ship", choices["a guard of few kinds that tells much"]), "ClusterRole /bulkhead-server-ship-guard")
	if diff := cmp.Diff(single(tell.Rights([]string{"pods", "foos.a.example.org"}), tell.QuotaRules()), single(role.Rules)); diff != "" {
		t.Errorf("of package tell (-) and the chart (+):\n%s", diff)
	}
	role = as[rbacv1.ClusterRole](t, objects(t, "ship", choices["a guard that asks the kubelets"]), "ClusterRole /bulkhead-server-ship-guard")
	if diff := cmp.Diff(single(tell.Rights([]string{"pods"}), tell.QuotaRules(), tell.AgentRules()), single(role.Rules)); diff != "" {
		t.Errorf("of package tell (-) and the chart (+):\n%s", diff)
	}
	for _, o := range objects(t, "ship", "") {
		if strings.Contains(nameOf(o), "guard") {
			t.Errorf("without a guard there is %s", nameOf(o))
		}
	}
}

// single are the rights of rules, one by one.
func single(rules ...[]rbacv1.PolicyRule) (all []string) {
	for _, r := range slices.Concat(rules...) {
		for _, verb := range r.Verbs {
			for _, url := range r.NonResourceURLs {
				all = append(all, verb+" "+url)
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					all = append(all, fmt.Sprint(verb, " ", resource, ".", group, r.ResourceNames))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestThePrometheusRuleIsTheTestedOne(t *testing.T) {
	var want struct{ Groups any }
	if err := yaml.Unmarshal(tell.Rules, &want); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, "ship", choices["a guard of few kinds that tells much"]) {
		if o["kind"] != "PrometheusRule" {
			continue
		}
		if diff := cmp.Diff(map[string]any{"groups": want.Groups}, o["spec"]); diff != "" {
			t.Errorf("go generate ./kube/... was not run (-want +got):\n%s", diff)
		}
		return
	}
	t.Error("there is none")
}

func TestTheDefinitionIsTheControllers(t *testing.T) {
	var want chart.Object
	if err := yaml.Unmarshal(kube.CRD, &want); err != nil {
		t.Fatal(err)
	}
	all := objects(t, "ship", "")
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Errorf("go generate ./kube/... was not run (-want +got):\n%s", diff)
	}
}

func TestWhatOthersNeedComesBeforeThem(t *testing.T) {
	var kinds []string
	for _, o := range objects(t, "ship", choices["everything that can be said"]) {
		kinds = append(kinds, o["kind"].(string))
	}
	want := []string{"CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
		"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "Service", "Deployment"}
	if diff := cmp.Diff(want, slices.Compact(kinds)); diff != "" {
		t.Error(diff)
	}
}

func TestAFolderWithSomethingInItIsLeftAlone(t *testing.T) {
	dir := written(t)
	if err := chart.Write(dir, version); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Errorf("%v", err)
	}
}
