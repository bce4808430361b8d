package clean_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/clean"
	"bulkhead.dev/bulkhead/guard/family"
	"bulkhead.dev/bulkhead/lab"
)

// TestReleases are those that need a node, on which their Jobs finish.
func TestReleases(t *testing.T) {
	lab.Start(t).FakeNodes(t, 1)
	t.Run("group", func(t *testing.T) {
		t.Run("one whose Job has finished goes with all it has and comes back", aReleaseGoesAndComesBack)
		t.Run("one stays as a whole", aReleaseStaysAsAWhole)
		t.Run("one that changes meanwhile stays", aReleaseThatChangesMeanwhileStays)
		t.Run("those of a family go", releasesOfAFamilyGo)
	})
}

func aReleaseGoesAndComesBack(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	r := s.releases(3)
	s.configMap("of-somebody")
	// The record of the second is gone: nothing says any more what is its.
	s.check(s.Client().CoreV1().Secrets(s.ns).Delete(t.Context(), "sh.helm.release.v1."+r[1]+".v1", metav1.DeleteOptions{}))
	before := s.contents()
	o := s.options()
	o.Release = r[0]
	_, f := s.find(o)
	if diff := cmp.Diff(ofRelease(r[0]), names(f.Leftovers)); diff != "" || f.Releases != 1 || len(f.Spared) > 0 {
		t.Fatalf("%d releases, spared %v, left over -want +got:\n%s", f.Releases, f.Spared, diff)
	}
	sum, undo, err := s.remove(o)
	if err != nil || sum.Total() != 10 || sum.Left != 0 {
		t.Fatalf("%+v %v", sum, err)
	}
	kept := all(ofRelease(r[1]), ofRelease(r[2]), []string{"configmaps/of-somebody"})
	kept = without(kept, "secrets/sh.helm.release.v1."+r[1]+".v1")
	if diff := cmp.Diff(kept, s.there()); diff != "" {
		t.Errorf("there -want +got:\n%s", diff)
	}
	done, err := s.restore(undo)
	if err != nil || done.Created != 10 || done.Suspended != 1 {
		t.Fatalf("%+v %v", done, err)
	}
	if diff := cmp.Diff(before, s.contents()); diff != "" {
		t.Errorf("before - and after it was put back +:\n%s", diff)
	}
	// Helm knows it again, and its script does not run again.
	s.Kubectl(t, "get", "secret", "-n", s.ns, "sh.helm.release.v1."+r[0]+".v1")
	job, err := s.Client().BatchV1().Jobs(s.ns).Get(t.Context(), "mediawiki-"+r[0], metav1.GetOptions{})
	if err != nil || job.Spec.Suspend == nil || !*job.Spec.Suspend {
		t.Errorf("the Job is not suspended: %v", err)
	}
	again, err := s.restore(undo)
	if err != nil || again.There != 10 || again.Created != 0 {
		t.Errorf("put back again: %+v %v", again, err)
	}
	_, f = s.find(o)
	if diff := cmp.Diff(ofRelease(r[0]), names(f.Leftovers)); diff != "" {
		t.Errorf("a release that is back and never runs -want +got:\n%s", diff)
	}
	// Whose Job somebody has resumed is in use, also if it is suspended once more.
	for _, suspend := range []string{"false", "true"} {
		s.Kubectl(t, "patch", "job", "-n", s.ns, "mediawiki-"+r[0], "--type=merge", "-p", `{"spec":{"suspend":`+suspend+`}}`)
	}
	_, f = s.find(o)
	job, err = s.Client().BatchV1().Jobs(s.ns).Get(t.Context(), "mediawiki-"+r[0], metav1.GetOptions{})
	if s.check(err); len(f.Leftovers) > 0 && !finished(job) {
		t.Errorf("a Job that ran is left over though it has not finished: %+v", f)
	}
}

func aReleaseStaysAsAWhole(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	patch := func(kind, name, patch string) func(string) {
		return func(r string) {
			s.Kubectl(t, "patch", kind, "-n", s.ns, "mediawiki-"+r+name, "--type=merge", "-p", patch)
		}
	}
	for name, c := range map[string]struct {
		change func(release string)
		option func(*clean.Options)
		why    string
	}{
		"with a ConfigMap that somebody's pod mounts": {change: func(r string) { s.check(s.pod("user-"+r, nil, mounting("mediawiki-"+r+"-php-config"))) }, why: "names it"},
		"with a policy that selects somebody's pod":   {change: func(r string) { s.check(s.pod("x-"+r, map[string]string{"app": "mediawiki", "release": r})) }, why: "is selected by it"},
		"with something that is to be kept":           {change: patch("configmap", "-php-config", `{"metadata":{"annotations":{"bulkhead.dev/keep":""}}}`), why: "annotation bulkhead.dev/keep"},
		"with something that Helm is to keep":         {change: patch("configmap", "-php-config", `{"metadata":{"annotations":{"helm.sh/resource-policy":"keep"}}}`), why: "annotation helm.sh/resource-policy"},
		"with something that has a finalizer":         {change: patch("configmap", "-php-config", `{"metadata":{"finalizers":["example.org/x"]}}`), why: "finalizer"},
		"with something that another release took":    {change: patch("configmap", "-php-config", `{"metadata":{"annotations":{"meta.helm.sh/release-name":"other"}}}`), why: "does not say that it is of this release"},
		"whose end is too recent":                     {option: func(o *clean.Options) { o.Now = time.Now }, why: "the grace is"},
		"that Helm is at work on": {change: func(r string) {
			s.Kubectl(t, "delete", "secret", "-n", s.ns, "sh.helm.release.v1."+r+".v1")
			s.secret("sh.helm.release.v1."+r+".v1", func(o *corev1.Secret) {
				o.Labels = map[string]string{"owner": "helm", "name": r, "status": "pending-upgrade"}
				o.Type, o.Data = "helm.sh/release.v1", map[string][]byte{"release": []byte("bm90IGEgcmVjb3Jk")}
			})
		}, why: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.releases(1)[0]
			if c.change != nil {
				c.change(r)
			}
			o := s.options()
			o.Release = r
			if c.option != nil {
				c.option(&o)
			}
			_, f := s.find(o)
			if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, c.why) {
				t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
			}
			// A finalizer would keep the namespace.
			s.Kubectl(t, "patch", "configmap", "-n", s.ns, "mediawiki-"+r+"-php-config", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		})
	}
}

// releasesOfAFamilyGo: names of eight random characters are one family, unless one of
// them reads like a word.
func releasesOfAFamilyGo(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var want []string
	for _, r := range s.releases(4) {
		if family.Name(r, family.Hints{}) == "*" {
			want = append(want, ofRelease(r)...)
		}
	}
	s.helm(t.TempDir(), finishedJob)
	s.finish("web")
	slices.Sort(want)
	o := s.options()
	o.Release = "*"
	_, f := s.find(o)
	if diff := cmp.Diff(want, names(f.Leftovers)); diff != "" || len(want) < 10 {
		t.Errorf("left over -want +got:\n%s", diff)
	}
	// A pattern that is no family of what is there says so, and what is.
	o.Release = "m*"
	_, none := s.find(o)
	if says := fmt.Sprint(none.Notes); len(none.Leftovers)+len(none.Spared) > 0 || !contains(says, "5 Helm releases are there: \"*\" (") || !contains(says, `; none is of the family "m*"`) {
		t.Errorf("of no family: %+v", none)
	}
	// A finding's families that come from releases stand for these.
	o.Release, o.Members = "", []bulkhead.Key{{Kind: "configmaps", Namespace: s.ns, Family: "mediawiki-*-php-config", Origin: "release/*"}, {Kind: "jobs.batch", Namespace: s.ns, Family: "mediawiki-*", Origin: "release/*"}}
	if _, f = s.find(o); cmp.Diff(want, names(f.Leftovers)) != "" {
		t.Errorf("of a finding: %v", names(f.Leftovers))
	}
}

// finishedJob is a chart whose Job finishes.
const finishedJob = `
apiVersion: batch/v1
kind: Job
metadata: {name: mediawiki-web}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}
`

func TestAReleaseWhoseJobRunsStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.helm(t.TempDir(), `
apiVersion: batch/v1
kind: Job
metadata: {name: web}
spec: {template: {spec: {nodeSelector: {none: such}, restartPolicy: Never, containers: [{name: c, image: none}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
`)
	o := s.options()
	o.Release = "web"
	_, f := s.find(o)
	if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, "it has not finished") {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
	// Its Job is deleted by its time to live: what it had is left over.
	background := metav1.DeletePropagationBackground
	s.check(s.Client().BatchV1().Jobs(s.ns).Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &background}))
	s.Kubectl(t, "delete", "pods", "--all", "--force", "--grace-period=0", "-n", s.ns)
	_, f = s.find(o)
	if diff := cmp.Diff([]string{"configmaps/web", "secrets/sh.helm.release.v1.web.v1"}, names(f.Leftovers)); diff != "" || f.Leftovers[0].Why != "its Job is gone" {
		t.Errorf("left over %v -want +got:\n%s", f.Leftovers, diff)
	}
}

// TestAReleaseThatLivesIsNoneThatIsOver: a release with anything but a Job and what
// Jobs need is not judged.
func TestAReleaseThatLivesIsNoneThatIsOver(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	chart := t.TempDir()
	s.helm(chart, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
`)
	o := s.options()
	o.Release = "web"
	_, f := s.find(o)
	if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, `it has a "Deployment"`) {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
	// What is of a release that is there goes with it only.
	o.Release, o.Family = "", "web"
	_, f = s.find(o)
	if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, "a release is removed as a whole") {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
}

func aReleaseThatChangesMeanwhileStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	touch := func(kind, name string) {
		s.Kubectl(t, "annotate", kind, "-n", s.ns, name, "touched=yes")
	}
	for name, c := range map[string]struct {
		step   clean.Step
		change func(release string)
		left   func(release string) []string // besides what is there at first; nil: all
	}{
		"its record, before it is read":  {clean.StepScan, func(r string) { touch("secret", "sh.helm.release.v1."+r+".v1") }, nil},
		"a ConfigMap, before it is read": {clean.StepScan, func(r string) { touch("configmap", "mediawiki-"+r+"-php-config") }, nil},
		"a ConfigMap, that a pod mounts before the last look": {clean.StepLook, func(r string) {
			s.check(s.pod("user-"+r, nil, mounting("mediawiki-"+r+"-php-config")))
		}, nil},
		"its policy, immediately before its delete": {clean.StepDelete, func(r string) { touch("networkpolicy", "mediawiki-"+r) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.releases(1)[0]
			o := s.options()
			o.Release = r
			armed := false
			o.At = func(step clean.Step, _ clean.Object) {
				if armed && step == c.step {
					armed = false
					c.change(r)
				}
			}
			sp := *s
			sp.TB = t
			cl, f := sp.find(o)
			if len(f.Leftovers) != 10 {
				t.Fatalf("left over %v, spared %v", f.Leftovers, f.Spared)
			}
			armed = true
			if c.step == clean.StepScan { // there is none before it is read
				armed = false
				c.change(r)
			}
			u, err := clean.CreateUndo(t.TempDir()+"/undo.json", time.Now())
			s.check(err)
			defer u.Close()
			sum, err := cl.Remove(t.Context(), f, u, nil)
			if err != nil || sum.Total() != 0 || len(sum.Spared) != 10 {
				t.Errorf("%+v %v", sum, err)
			}
			for _, want := range ofRelease(r) {
				if !has(s.there(), want) {
					t.Errorf("%s is gone", want)
				}
			}
		})
	}
}

func TestAHookThatRunsKeepsItsRelease(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	chart := t.TempDir()
	s.helm(chart, `
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {helm.sh/hook: test}}
spec: {template: {spec: {nodeSelector: {none: such}, restartPolicy: Never, containers: [{name: c, image: none}]}}}
`)
	o := s.options()
	o.Release = "web"
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "hook", Annotations: map[string]string{"helm.sh/hook": "test"}},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: podSpec()}}}
	_, err := s.Client().BatchV1().Jobs(s.ns).Create(t.Context(), job, metav1.CreateOptions{})
	s.check(err)
	_, f := s.find(o)
	if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, "it has not finished") {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
}
