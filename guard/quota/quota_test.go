package quota_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/quota"
	"bulkhead.dev/bulkhead/lab"
)

// space is a namespace of the lab.
type space struct {
	testing.TB
	*lab.Lab
	ns string
}

func newSpace(t testing.TB) *space {
	l := lab.Start(t)
	return &space{t, l, l.Namespace(t)}
}

func (s *space) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *space) options(kinds ...string) quota.Options {
	return quota.Options{Config: s.Config(), Namespace: s.ns, Kinds: kinds}
}

func (s *space) look(o quota.Options) *quota.Plan {
	s.Helper()
	p, err := quota.Look(s.Context(), o)
	s.check(err)
	return p
}

// write writes a quota that leaves no room, and waits until the cluster heeds it.
func (s *space) write(o quota.Options, headroom string) *quota.Plan {
	s.Helper()
	var err error
	o.Headroom, err = quota.ParseHeadroom(headroom)
	s.check(err)
	p := s.look(o)
	_, err = quota.Apply(s.Context(), o.Config, p)
	s.check(err)
	return p
}

// quotas are the names of the namespace's quotas.
func (s *space) quotas() (all []string) {
	s.Helper()
	list, err := s.Client().CoreV1().ResourceQuotas(s.ns).List(s.Context(), metav1.ListOptions{})
	s.check(err)
	for _, q := range list.Items {
		all = append(all, q.Name)
	}
	return all
}

func (s *space) foreign(name string, labels map[string]string) {
	s.Helper()
	_, err := s.Client().CoreV1().ResourceQuotas(s.ns).Create(s.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/jobs.batch": resource.MustParse("1000"), "pods": resource.MustParse("500")}}}, metav1.CreateOptions{})
	s.check(err)
}

// install installs a Helm release of what grows.
func (s *space) install(name string) (string, error) {
	s.Helper()
	chart := s.TempDir()
	s.check(os.MkdirAll(filepath.Join(chart, "templates"), 0o700))
	s.check(os.WriteFile(filepath.Join(chart, "Chart.yaml"), []byte("apiVersion: v2\nname: x\nversion: 0.1.0\n"), 0o600))
	s.check(os.WriteFile(filepath.Join(chart, "templates", "all.yaml"), []byte(`
apiVersion: batch/v1
kind: Job
metadata: {name: "{{ .Release.Name }}"}
spec: {template: {spec: {restartPolicy: Never, nodeSelector: {none: such}, containers: [{name: c, image: none}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "{{ .Release.Name }}"}
spec: {podSelector: {matchLabels: {a: "{{ .Release.Name }}"}}}
`), 0o600))
	status, err := s.Status(s.Context())
	s.check(err)
	out, err := exec.Command(status.Kubernetes, "helm", "install", name, chart, "--namespace", s.ns, "--kubeconfig", s.Kubeconfig()).CombinedOutput()
	return string(out), err
}

func TestTheAPIRefusesGrowthAndNothingElseUntilItsTimeIsOver(t *testing.T) {
	lab.Start(t).FakeNodes(t, 1) // they outlive the namespace, whose pods would else stay for a minute
	s := newSpace(t)
	s.foreign("team", nil)
	if out, err := s.install("first"); err != nil {
		t.Fatal(out)
	}
	s.Kubectl(t, "create", "deployment", "web", "--image=none", "-n", s.ns)
	p := s.write(s.options("jobs", "netpol"), "0")
	if diff := cmp.Diff([]string{"bulkhead-guard", "team"}, s.quotas()); diff != "" {
		t.Fatal(diff)
	}
	out, err := s.install("second")
	if err == nil || !strings.Contains(out, "exceeded quota: bulkhead-guard") && !strings.Contains(out, "status unknown for quota: bulkhead-guard") {
		t.Errorf("a release more: %v\n%s", err, out)
	}
	// What is no growth goes on: deployments roll, and what is there can be changed.
	s.Kubectl(t, "rollout", "restart", "deployment/web", "-n", s.ns)
	s.Kubectl(t, "rollout", "status", "deployment/web", "-n", s.ns, "--timeout=60s")
	s.Kubectl(t, "annotate", "job", "first", "-n", s.ns, "a=b")
	s.Kubectl(t, "create", "configmap", "more", "-n", s.ns)

	ctx := t.Context()
	if removed, err := quota.Expire(ctx, s.Client(), p.Until.Add(-time.Second), s.ns); err != nil || len(removed) > 0 {
		t.Errorf("before its time: %q %v", removed, err)
	}
	if removed, err := quota.Expire(ctx, s.Client(), p.Until); err != nil || !slices.Equal(removed, []string{s.ns}) {
		t.Errorf("after its time: %q %v", removed, err)
	}
	if diff := cmp.Diff([]string{"team"}, s.quotas()); diff != "" {
		t.Error(diff)
	}
	s.Eventually(t, "a release can be installed", func(context.Context) bool {
		_, err := s.install("third")
		return err == nil
	})
}

func TestWhatItWouldDoIsSaidFirst(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.foreign("team", nil)
	if out, err := s.install("first"); err != nil {
		t.Fatal(out)
	}
	for i := range 41 {
		_, err := s.Client().CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i)}}, metav1.CreateOptions{})
		s.check(err)
	}
	s.Kubectl(t, "create", "deployment", "web", "--image=none", "--replicas=0", "-n", s.ns)
	s.Kubectl(t, "create", "cronjob", "nightly", "--image=none", "--schedule=0 0 1 1 *", "-n", s.ns)
	p := s.look(s.options("jobs.batch", "cm", "pods", "job"))
	got := map[string][2]int64{}
	text := map[string]string{}
	for _, k := range p.Kinds {
		got[k.Kind] = [2]int64{k.Count, k.Limit}
		text[k.Kind] = strings.Join(k.Refuses, "\n")
	}
	if diff := cmp.Diff(map[string][2]int64{"jobs.batch": {1, 2}, "configmaps": {42, 45}, "pods": {1, 2}}, got); diff != "" {
		t.Errorf("kinds -want +got:\n%s", diff)
	}
	for kind, part := range map[string]string{"jobs.batch": "cron jobs miss their times", "pods": "deployments cannot roll", "configmaps": "kustomize"} {
		if !strings.Contains(text[kind], part) {
			t.Errorf("%s: %q", kind, text[kind])
		}
	}
	jobs := p.Kinds[0].Makers
	if len(jobs) != 1 || jobs[0].Client != "helm" || jobs[0].LastHour != 1 || jobs[0].Newest != "first" {
		t.Errorf("makers of jobs: %+v", jobs)
	}
	if pods := p.Kinds[2].Makers; len(pods) != 1 || pods[0].Owner != "Job" || pods[0].Client != "kube-controller-manager" {
		t.Errorf("makers of pods: %+v", pods)
	}
	if len(p.Others) != 2 || p.Others[0].Name != "team" || p.Others[0].Hard != "1k" {
		t.Errorf("others: %+v", p.Others)
	}
	if len(s.quotas()) != 1 {
		t.Errorf("looking has written: %q", s.quotas())
	}
	if want := p.Until.Format(time.RFC3339); p.Manifest.Annotations[quota.UntilAnnotation] != want || time.Until(p.Until) < 119*time.Minute {
		t.Errorf("until %s: %v", want, p.Manifest.Annotations)
	}
	// Ours is replaced, kinds and all, and can be removed.
	s.write(s.options("jobs"), "10")
	p = s.write(s.options("netpol"), "20%")
	if p.Replaces.IsZero() {
		t.Error("it does not say what it replaces")
	}
	q, err := s.Client().CoreV1().ResourceQuotas(s.ns).Get(t.Context(), quota.Name, metav1.GetOptions{})
	s.check(err)
	if n := q.Spec.Hard["count/networkpolicies.networking.k8s.io"]; len(q.Spec.Hard) != 1 || n.Value() != 2 || q.Labels[quota.ManagedByLabel] != quota.ManagedBy {
		t.Errorf("%+v %v", q.Spec.Hard, q.Labels)
	}
	for _, want := range []bool{true, false} {
		if was, err := quota.Remove(t.Context(), s.Client(), s.ns); err != nil || was != want {
			t.Errorf("removed %v, want %v: %v", was, want, err)
		}
	}
}

func TestQuotasOfOthersAreNotTouched(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.foreign(quota.Name, nil)
	s.foreign("managed", map[string]string{quota.ManagedByLabel: quota.ManagedBy})
	o := s.options("jobs")
	if _, err := quota.Look(t.Context(), o); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Errorf("looked at: %v", err)
	}
	if _, err := quota.Remove(t.Context(), s.Client(), s.ns); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Errorf("removed: %v", err)
	}
	if removed, err := quota.Expire(t.Context(), s.Client(), time.Now().Add(1000*time.Hour), s.ns); err != nil || len(removed) > 0 {
		t.Errorf("expired: %q %v", removed, err)
	}
	if _, err := quota.Hold(t.Context(), s.Client(), s.ns); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Errorf("held: %v", err)
	}
	// One of ours that does not say until when stays, and it is said.
	s.Kubectl(t, "label", "resourcequota", quota.Name, "-n", s.ns, quota.ManagedByLabel+"="+quota.ManagedBy)
	if removed, err := quota.Expire(t.Context(), s.Client(), time.Now().Add(1000*time.Hour), s.ns); err == nil || len(removed) > 0 {
		t.Errorf("one without a time: %q %v", removed, err)
	}
	if n := len(s.quotas()); n != 2 {
		t.Errorf("%d quotas are there", n)
	}
}

func TestWhoHoldsAQuotaRemovesItAtItsTimeOrWhenInterrupted(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	p := s.look(s.options("jobs"))
	p.Manifest.Annotations[quota.UntilAnnotation] = time.Now().Add(2 * time.Second).Format(time.RFC3339)
	_, err := quota.Apply(t.Context(), s.Config(), p)
	s.check(err)
	if removed, err := quota.Hold(t.Context(), s.Client(), s.ns); err != nil || !removed || len(s.quotas()) > 0 {
		t.Errorf("at its time: %v %v, %q are there", removed, err, s.quotas())
	}
	s.write(s.options("jobs"), "0")
	ctx, cancel := context.WithCancel(t.Context())
	type end struct {
		removed bool
		err     error
	}
	held := make(chan end, 1)
	hold := func() {
		removed, err := quota.Hold(ctx, s.Client(), s.ns)
		held <- end{removed, err}
	}
	go hold()
	cancel()
	if e := <-held; e.err != nil || !e.removed || len(s.quotas()) > 0 {
		t.Errorf("when interrupted: %+v, %q are there", e, s.quotas())
	}
	// Somebody else removes it meanwhile: it does not wait for its time, and is not its doing.
	s.write(s.options("jobs"), "0")
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go hold()
	if was, err := quota.Remove(t.Context(), s.Client(), s.ns); err != nil || !was {
		t.Errorf("%v %v", was, err)
	}
	if e := <-held; e.err != nil || e.removed {
		t.Errorf("removed by somebody else: %+v", e)
	}
}

func TestWhatANewQuotaNoLongerLimitsIsSaidFirst(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	if p := s.write(s.options("jobs", "cm", "netpol"), "0"); len(p.Lifts) > 0 {
		t.Errorf("the first lifts %q", p.Lifts)
	}
	p := s.look(s.options("jobs"))
	if diff := cmp.Diff([]string{"configmaps", "networkpolicies.networking.k8s.io"}, p.Lifts); diff != "" || p.Replaces.IsZero() {
		t.Errorf("-want +got:\n%s", diff)
	}
	if p = s.look(s.options("cm", "secrets", "netpol", "jobs")); len(p.Lifts) > 0 {
		t.Errorf("one of more kinds lifts %q", p.Lifts)
	}
}

// hangs is the way to an API server that takes requests and never answers.
type hangs struct{}

func (hangs) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestAnAPIServerThatHangsKeepsNobodyFromTryingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://example.org", Transport: hangs{}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		removed, err := quota.Expire(t.Context(), client, began, "a", "b")
		if took := time.Since(began); took > time.Minute || len(removed) > 0 || err == nil || !strings.Contains(err.Error(), "the API server does not answer") {
			t.Errorf("after %s: %q %v", took, removed, err)
		}
	})
}

func TestRemovingWhatIsNotThereIsDone(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.write(s.options("jobs"), "0")
	for n, want := range []bool{true, false, false} {
		if was, err := quota.Remove(t.Context(), s.Client(), s.ns); was != want || err != nil {
			t.Errorf("%d times: %v %v", n+1, was, err)
		}
	}
	if _, err := quota.Remove(t.Context(), s.Client(), "no-such"); bulkhead.CodeOf(err) != bulkhead.CodeNotFound {
		t.Errorf("in no namespace: %v", err)
	}
}

func TestWhoMayNotIsTold(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	sees := rbacv1.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{"*"}, Resources: []string{"jobs", "cronjobs"}}
	quotas := rbacv1.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"resourcequotas"}}
	for says, rules := range map[string][]rbacv1.PolicyRule{
		"you may not list jobs.batch": nil, "you may not list resourcequotas": {sees}, "you may not write resourcequotas": {sees, quotas},
	} {
		user := "user-" + fmt.Sprint(len(rules))
		_, err := s.Client().RbacV1().Roles(s.ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{})
		s.check(err)
		_, err = s.Client().RbacV1().RoleBindings(s.ns).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}}, metav1.CreateOptions{})
		s.check(err)
		o := s.options("jobs")
		o.Config.Impersonate.UserName = user
		p, err := quota.Look(t.Context(), o)
		if err == nil {
			_, err = quota.Apply(t.Context(), o.Config, p)
		}
		if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), says) || !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for name, c := range map[string]struct {
		change func(*quota.Options)
		says   string
		hint   string
	}{
		"no namespace":                {func(o *quota.Options) { o.Namespace = "" }, "a quota is for one namespace", "--namespace"},
		"a namespace that is missing": {func(o *quota.Options) { o.Namespace = "no-such" }, `there is no namespace "no-such"`, "kubectl get namespaces"},
		"no kinds":                    {func(o *quota.Options) { o.Kinds = nil }, "which kinds are limited", "bulkhead why"},
		"a misspelt kind":             {func(o *quota.Options) { o.Kinds = []string{"confgmaps"} }, `no kind "confgmaps"`, "did you mean configmaps?"},
		"a kind of the cluster":       {func(o *quota.Options) { o.Kinds = []string{"nodes"} }, `no kind "nodes"`, "kubectl api-resources"},
		"events":                      {func(o *quota.Options) { o.Kinds = []string{"events"} }, "a limit on events", "hour"},
		"for no time":                 {func(o *quota.Options) { o.For = time.Second }, "out of range", "from 1m to 7d"},
		"for good":                    {func(o *quota.Options) { o.For = 1000 * time.Hour }, "out of range", "from 1m to 7d"},
	} {
		o := s.options("jobs")
		c.change(&o)
		_, err := quota.Look(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(bulkhead.HintOf(err), c.hint) {
			t.Errorf("%s: %v (%s)", name, err, bulkhead.HintOf(err))
		}
	}
	for _, text := range []string{"", "%", "-1", "-5%", "1.5", "many", "NaN", "Inf", "1e300", "5 %"} {
		if h, err := quota.ParseHeadroom(text); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("headroom %q is %v: %v", text, h, err)
		}
	}
	for text, want := range map[string]string{"0": "0", "20": "20", "5%": "5%", "0.5%": "0.5%", "0%": "0"} {
		if h, err := quota.ParseHeadroom(text); err != nil || h.String() != want {
			t.Errorf("headroom %q is %v: %v", text, h, err)
		}
	}
}
