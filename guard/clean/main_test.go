package clean_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead/guard/clean"
	"bulkhead.dev/bulkhead/lab"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(killedEnv); file != "" {
		os.Exit(cleanUntilKilled(file))
	}
	os.Exit(m.Run())
}

// later is a clock in whose time everything that a test makes is past its grace.
func later() time.Time { return time.Now().Add(3 * time.Hour) }

// space is a namespace of the lab, and what a test does there.
type space struct {
	testing.TB
	*lab.Lab
	ns string
}

func newSpace(t testing.TB) *space {
	l := lab.Start(t)
	return &space{t, l, l.Namespace(t)}
}

// options are those of a clean-up in the space, to whose clock everything is old.
func (s *space) options() clean.Options {
	return clean.Options{Config: s.Config(), Namespace: s.ns, Now: later, Rate: 100}
}

func (s *space) find(o clean.Options) (*clean.Cleaner, *clean.Found) {
	s.Helper()
	c, err := clean.New(o)
	if err != nil {
		s.Fatal(err)
	}
	f, err := c.Find(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return c, f
}

// remove finds and removes, with an undo file that it returns the path of.
func (s *space) remove(o clean.Options) (sum clean.Summary, undo string, err error) {
	s.Helper()
	c, f := s.find(o)
	u, err := clean.CreateUndo(filepath.Join(s.TempDir(), "undo.json"), time.Now())
	if err != nil {
		s.Fatal(err)
	}
	defer u.Close()
	sum, err = c.Remove(s.Context(), f, u, nil)
	return sum, u.Path(), err
}

func (s *space) restore(undo string) (clean.Restored, error) {
	s.Helper()
	file, err := os.Open(undo)
	if err != nil {
		s.Fatal(err)
	}
	defer file.Close()
	return clean.Restore(s.Context(), s.Config(), file, 1000)
}

// names are the names of objects, by kind: "configmaps/a".
func names(objects []clean.Object) []string {
	var all []string
	for _, o := range objects {
		kind, _, _ := strings.Cut(o.Kind, ".")
		all = append(all, kind+"/"+o.Name)
	}
	slices.Sort(all)
	return all
}

// reasons are the reasons of objects by their names.
func reasons(objects []clean.Object) map[string]string {
	all := map[string]string{}
	for i, name := range names(objects) {
		_ = i
		for _, o := range objects {
			if kind, _, _ := strings.Cut(o.Kind, "."); kind+"/"+o.Name == name {
				all[name] = o.Why
			}
		}
	}
	return all
}

func (s *space) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *space) configMap(name string, change ...func(*corev1.ConfigMap)) *corev1.ConfigMap {
	s.Helper()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": name}}
	for _, f := range change {
		f(c)
	}
	c, err := s.Client().CoreV1().ConfigMaps(s.ns).Create(s.Context(), c, metav1.CreateOptions{})
	s.check(err)
	return c
}

func (s *space) secret(name string, change ...func(*corev1.Secret)) {
	s.Helper()
	c := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"key": []byte(name)}}
	for _, f := range change {
		f(c)
	}
	_, err := s.Client().CoreV1().Secrets(s.ns).Create(s.Context(), c, metav1.CreateOptions{})
	s.check(err)
}

func (s *space) policy(name string, selector metav1.LabelSelector) {
	s.Helper()
	_, err := s.Client().NetworkingV1().NetworkPolicies(s.ns).Create(s.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.NetworkPolicySpec{PodSelector: selector, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
	}, metav1.CreateOptions{})
	s.check(err)
}

func selecting(pairs ...string) metav1.LabelSelector {
	labels := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		labels[pair[0]] = pair[1]
	}
	return metav1.LabelSelector{MatchLabels: labels}
}

// podSpec is one that no node can have.
func podSpec(change ...func(*corev1.PodSpec)) corev1.PodSpec {
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, NodeSelector: map[string]string{"none": "such"},
		Containers: []corev1.Container{{Name: "main", Image: "none"}},
	}
	for _, f := range change {
		f(&spec)
	}
	return spec
}

func (s *space) pod(name string, labels map[string]string, change ...func(*corev1.PodSpec)) error {
	_, err := s.Client().CoreV1().Pods(s.ns).Create(s.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: podSpec(change...)}, metav1.CreateOptions{})
	return err
}

func mounting(configMap string) func(*corev1.PodSpec) {
	return func(spec *corev1.PodSpec) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", len(spec.Volumes)), VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
		}})
	}
}

// there are the names of the space's objects of the kinds that are removed, but for
// what the cluster puts there.
func (s *space) there() []string {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	var all []string
	cms, err := s.Client().CoreV1().ConfigMaps(s.ns).List(ctx, metav1.ListOptions{})
	s.check(err)
	for _, o := range cms.Items {
		if o.Name != "kube-root-ca.crt" {
			all = append(all, "configmaps/"+o.Name)
		}
	}
	secrets, err := s.Client().CoreV1().Secrets(s.ns).List(ctx, metav1.ListOptions{})
	s.check(err)
	for _, o := range secrets.Items {
		all = append(all, "secrets/"+o.Name)
	}
	policies, err := s.Client().NetworkingV1().NetworkPolicies(s.ns).List(ctx, metav1.ListOptions{})
	s.check(err)
	for _, o := range policies.Items {
		all = append(all, "networkpolicies/"+o.Name)
	}
	jobs, err := s.Client().BatchV1().Jobs(s.ns).List(ctx, metav1.ListOptions{})
	s.check(err)
	for _, o := range jobs.Items {
		if o.DeletionTimestamp == nil {
			all = append(all, "jobs/"+o.Name)
		}
	}
	slices.Sort(all)
	return all
}

// releases installs Helm releases and waits until their Jobs have finished.
func (s *space) releases(n int) []string {
	s.Helper()
	names := s.HelmRelease(s, s.ns, n)
	s.finish(names...)
	return names
}

// finish waits until the Jobs of releases have finished.
func (s *space) finish(names ...string) {
	s.Helper()
	s.Eventually(s, "the Jobs have finished", func(ctx context.Context) bool {
		for _, name := range names {
			job, err := s.Client().BatchV1().Jobs(s.ns).Get(ctx, "mediawiki-"+name, metav1.GetOptions{})
			if err != nil || !finished(job) {
				return false
			}
		}
		return true
	})
}

func finished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue
	})
}

// ofRelease are the objects of a release that are removed.
func ofRelease(name string) []string {
	all := []string{"jobs/mediawiki-" + name, "networkpolicies/mediawiki-" + name, "secrets/sh.helm.release.v1." + name + ".v1"}
	for _, c := range []string{"mail-config", "httpd-sites", "php-config", "mcrouter-config", "wikimedia-cluster", "rsyslog-config", "envoy-config"} {
		all = append(all, "configmaps/mediawiki-"+name+"-"+c)
	}
	slices.Sort(all)
	return all
}

func all(lists ...[]string) []string {
	joined := slices.Concat(lists...)
	slices.Sort(joined)
	return joined
}

// answers lets a function answer requests in place of the API server.
type answers struct {
	next http.RoundTripper
	to   func(*http.Request) int // status; 0: the server answers
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	code := a.to(r)
	if code == 0 {
		return a.next.RoundTrip(r)
	}
	status := apierrors.NewGenericServerResponse(code, r.Method, corev1.Resource("x"), "x", "made up by the test", 0, true).Status()
	text := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"made up by the test"}`, status.Reason, code)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {"1"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}
