package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead/kube"
)

func TestTheClusterTakesEveryManifestStrictly(t *testing.T) {
	s := newSite(t)
	ns := s.Namespace(t)
	before := s.objects()
	for name, values := range map[string]string{
		"the defaults":        "",
		"as much as there is": "namespaces: [default, " + ns + "]\nstorage: {storageClass: other, size: 1Ti, keep: true}\ncrd: {keep: true}\nnetworkPolicy: {enabled: true, from: [{namespaceSelector: {}}]}\npriorityClassName: system-cluster-critical\nnodeSelector: {a: b}\ntolerations: [{operator: Exists}]\nimage: {pullSecrets: [a]}",
		"as little":           "userRoles: false\ncrd: {install: false}\nstorage: {ephemeral: true}\nconnect: {groups: []}",
	} {
		t.Run(name, func(t *testing.T) {
			file := s.manifests("--no-namespace", "--namespace", ns, "--values", s.file("values.yaml", values))
			s.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file)
			out := s.Kubectl(t, "create", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", file)
			text, err := os.ReadFile(file)
			if n, want := strings.Count(out, "(server dry run)"), strings.Count(string(text), "---\n"); n != want || n < 10 {
				t.Errorf("%d objects of %d, %v:\n%s", n, want, err, out)
			}
		})
	}
	s.leaves(before)
}

func TestKubectlInstallsAndRemovesAll(t *testing.T) {
	s := newSite(t)
	scripts := s.Namespace(t)
	before := s.objects()
	requests := s.Count(t)
	const ns = "bulkhead"
	s.Kubectl(t, "apply", "-f", s.manifests())
	s.ready(ns)
	s.Kubectl(t, "apply", "--server-side", "--force-conflicts", "-f", s.manifests()) // the other way works as well, and changes nothing
	s.ready(ns)
	if level := s.Kubectl(t, "get", "namespace", ns, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); level != "restricted" {
		t.Errorf("pods of the server's namespace are held to %q", level)
	}
	s.people(scripts)
	d := s.open(ns)
	class := scripts + "/scripts"
	d.bulkhead("run", "--class", class, "--each", "1..50", "--limit", "4", "--", "echo", "item {}")
	if out := d.bulkhead("logs", "1", "42"); out != "item 42\n" {
		t.Errorf("item 42 wrote %q", out)
	}
	if out := d.bulkhead("run", "--class", class, "--", "id", "-u"); out != "1000\n" {
		t.Errorf("a script of one item wrote %q", out)
	}
	s.rights(ns, scripts)
	s.reaches(ns, scripts)
	// Whatever it has asked for, it was allowed to.
	account := "system:serviceaccount:" + ns + ":bulkhead"
	for r, n := range s.Count(t).Since(requests).Requests {
		if r.User == account && (r.Code == 401 || r.Code == 403) {
			t.Errorf("the server was refused %d times: %+v", n, r)
		}
	}
	s.leave()
	s.Kubectl(t, "delete", "--ignore-not-found", "-f", s.manifests())
	s.leaves(before)
}

// rights compares all that the server's account may do with what it needs, in four
// namespaces.
func (s *site) rights(own, classes string) {
	s.Helper()
	everywhere := slices.Concat(kube.Rules(), kube.ReviewRules())
	reader := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"extension-apiserver-authentication"},
		Verbs: []string{"get", "list", "watch"}}
	for namespace, rules := range map[string][]rbacv1.PolicyRule{
		classes: everywhere, "default": everywhere, "kube-system": append(slices.Clip(everywhere), reader),
		own: slices.Concat(everywhere, kube.OwnRules()),
	} {
		want := map[string]bool{}
		for _, r := range rules {
			spread(want, r.Verbs, r.APIGroups, r.Resources, r.ResourceNames)
		}
		got := s.mayDo("system:serviceaccount:"+own+":bulkhead", own, namespace)
		for right := range s.mayDo("system:serviceaccount:"+own+":default", own, namespace) {
			if !want[right] {
				delete(got, right) // everybody's
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			s.Errorf("in namespace %s the server needs (-) and may (+):\n%s", namespace, diff)
		}
	}
}

// reaches looks that everybody may find the server and reach it, and no more of its
// namespace.
func (s *site) reaches(own, classes string) {
	s.Helper()
	const everybody = "system:serviceaccount:default:default"
	got := s.mayDo(everybody, "default", own)
	for right := range s.mayDo(everybody, "default", classes) {
		delete(got, right)
	}
	want := map[string]bool{"list pods. *": true, "create pods/portforward. *": true, "get pods/portforward. *": true, "get configmaps. bulkhead-ca": true}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("in the server's namespace everybody should (-) and may (+):\n%s", diff)
	}
}

// mayDo is what `kubectl auth can-i --list` says.
func (s *site) mayDo(account, own, namespace string) map[string]bool {
	s.Helper()
	config := s.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + own}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	said, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(s.Context(), review, metav1.CreateOptions{})
	if err != nil || said.Status.Incomplete {
		s.Fatalf("what may %s do in %s? %v %+v", account, namespace, err, said)
	}
	rights := map[string]bool{}
	for _, r := range said.Status.ResourceRules {
		spread(rights, r.Verbs, r.APIGroups, r.Resources, r.ResourceNames)
	}
	return rights
}

// spread notes each right of a rule by itself.
func spread(rights map[string]bool, verbs, groups, resources, names []string) {
	if len(names) == 0 {
		names = []string{"*"}
	}
	for _, verb := range verbs {
		for _, group := range groups {
			for _, resource := range resources {
				for _, name := range names {
					rights[fmt.Sprintf("%s %s.%s %s", verb, resource, group, name)] = true
				}
			}
		}
	}
}

// gate holds scripts until it is opened in their pod.
const gate = "until [ -e /tmp/open ]; do sleep 0.1; done; echo item {}"

func TestHelmUpgradesWhileARunGoesOnAndRemovesAll(t *testing.T) {
	s := newSite(t)
	ns, scripts := s.Namespace(t), s.Namespace(t)
	s.restrict(ns)
	before := s.objects()
	chart := filepath.Join(s.dir, "chart")
	s.say(binary, "install", "--chart", chart)
	helm := func(args ...string) {
		t.Helper()
		s.say(s.helm, append([]string{"helm"}, args...)...)
	}
	helm(append([]string{"install", "bulkhead", chart, "-n", ns, "--wait", "--set", "storage.keep=true"}, inLab...)...)
	s.people(scripts)
	d := s.open(ns)
	class := scripts + "/scripts"
	d.bulkhead("run", "--class", class, "--detach", "--each", "1..40", "--limit", "4", "--", "sh", "-c", gate)
	s.Eventually(t, "four items run", func(context.Context) bool {
		return strings.Count(d.bulkhead("items", "1", "--state", "running"), "running") == 4
	})
	running := func() string {
		var items []string
		for line := range strings.Lines(d.bulkhead("items", "1", "--state", "running")) {
			items = append(items, strings.Fields(line)[0])
		}
		return strings.Join(items, " ")
	}
	ran := running()
	first := s.Kubectl(t, "get", "pods", "-n", ns, "-o", "name")

	newer(t, chart)
	helm(append([]string{"upgrade", "bulkhead", chart, "-n", ns, "--wait", "--set", "storage.keep=true", "--set", "podsPerSecond=7"}, inLab...)...)
	if now := s.Kubectl(t, "get", "pods", "-n", ns, "-o", "name"); now == first {
		t.Errorf("the server is still %s", now)
	}
	s.Kubectl(t, "explain", "scriptclass.spec.novelty")
	if now := running(); now != ran {
		t.Errorf("what ran before the upgrade\n%s\nand runs after it\n%s", ran, now)
	}
	for pod := range strings.FieldsSeq(s.Kubectl(t, "get", "pods", "-n", scripts, "-o", "name")) {
		s.Kubectl(t, "exec", "-n", scripts, pod, "-c", "script", "--", "touch", "/tmp/open")
	}
	d.bulkhead("wait", "1")
	for _, item := range []string{"1", "4", "5", "40"} {
		if out := d.bulkhead("logs", "1", item); out != "item "+item+"\n" {
			t.Errorf("item %s wrote %q", item, out)
		}
	}
	ended := d.bulkhead("show", "1")
	if !strings.Contains(ended, "40 succeeded, 0 failed, 0 lost") {
		t.Errorf("the run ended so:\n%s", ended)
	}

	// What is to be kept is, and the next installation finds it.
	s.leave()
	helm("uninstall", "bulkhead", "-n", ns, "--wait")
	s.leaves(before, "persistentvolumeclaims. "+ns+"/bulkhead")
	helm(append([]string{"install", "bulkhead", chart, "-n", ns, "--wait"}, inLab...)...)
	s.people(scripts)
	if again := d.bulkhead("show", "1"); again != ended {
		t.Errorf("the run is remembered as\n%s\nand was\n%s", again, ended)
	}
	s.leave()
	helm("uninstall", "bulkhead", "-n", ns, "--wait")
	s.leaves(before)
}

// newer makes the chart a later one: its ScriptClass has a field more.
func newer(t *testing.T, chart string) {
	t.Helper()
	file := filepath.Join(chart, "templates", "crd.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const command = "\n              command:\n"
	if !strings.Contains(string(text), command) {
		t.Fatal("ScriptClass has no command; did the definition change?")
	}
	now := strings.Replace(string(text), command, "\n              novelty:\n                type: string"+command, 1)
	if err := os.WriteFile(file, []byte(now), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAServerOfFewNamespacesHasNoRightsInOthers(t *testing.T) {
	s := newSite(t)
	ns, scripts, others := s.Namespace(t), s.Namespace(t), s.Namespace(t)
	before := s.objects()
	install := []string{"--no-namespace", "--namespace", ns, "--set", "namespaces=[default, " + scripts + "]", "--set", "storage.ephemeral=true"}
	s.Kubectl(t, "apply", "-f", s.manifests(install...))
	s.ready(ns)
	s.people(scripts)
	d := s.open(ns)
	if out := d.bulkhead("run", "--class", scripts+"/scripts", "--", "echo", "one script"); out != "one script\n" {
		t.Errorf("it wrote %q", out)
	}
	account := "system:serviceaccount:" + ns + ":bulkhead"
	for namespace, want := range map[string]bool{"default": true, scripts: true, others: false, "kube-system": false} {
		if may := s.mayDo(account, ns, namespace)["create pods. *"]; may != want {
			t.Errorf("in namespace %s the server may make pods: %v", namespace, may)
		}
	}
	s.leave()
	s.Kubectl(t, "delete", "-f", s.manifests(install...))
	s.leaves(before)
}
