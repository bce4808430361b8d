package clean_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead/guard/clean"
)

// revision is one of a Helm release, as Helm would have written it.
type revision struct {
	release  string
	number   int
	status   string        // default deployed
	about    string        // the release that it says to be of; default that one
	age      time.Duration // since it was deployed; default a week
	manifest string
	hook     string // manifest of one
}

// record writes Helm's record of a revision.
func (s *space) record(r revision) {
	s.Helper()
	orElse := func(a, b string) string {
		if a == "" {
			return b
		}
		return a
	}
	if r.age == 0 {
		r.age = 7 * 24 * time.Hour
	}
	named := func(manifest string) string { return strings.ReplaceAll(manifest, "NAME", r.release) }
	text, err := json.Marshal(map[string]any{
		"name": orElse(r.about, r.release), "namespace": s.ns, "manifest": named(r.manifest), "hooks": []any{map[string]any{"manifest": named(r.hook)}},
		"info": map[string]any{"status": orElse(r.status, "deployed"), "last_deployed": time.Now().Add(-r.age)},
	})
	s.check(err)
	s.secret(fmt.Sprintf("sh.helm.release.v1.%s.v%d", r.release, r.number), func(o *corev1.Secret) {
		o.Labels = map[string]string{"owner": "helm", "name": r.release, "version": fmt.Sprint(r.number)}
		o.Type, o.Data = "helm.sh/release.v1", map[string][]byte{"release": []byte(base64.StdEncoding.EncodeToString(text))}
	})
}

// of is what Helm puts on an object of a release.
func (s *space) of(release string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"},
		Annotations: map[string]string{"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": s.ns}}
}

// job makes one of a release that finishes at a time.
func (s *space) job(release, name string, finished time.Time) {
	s.Helper()
	suspended := true
	job := &batchv1.Job{ObjectMeta: s.of(release), Spec: batchv1.JobSpec{Suspend: &suspended, Template: corev1.PodTemplateSpec{Spec: podSpec()}}}
	job.Name = name
	job, err := s.Client().BatchV1().Jobs(s.ns).Create(s.Context(), job, metav1.CreateOptions{})
	s.check(err)
	at := metav1.NewTime(finished)
	condition := func(kind batchv1.JobConditionType) batchv1.JobCondition {
		return batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at}
	}
	started := metav1.NewTime(finished.Add(-time.Minute))
	job.Status = batchv1.JobStatus{StartTime: &started, CompletionTime: &at,
		Conditions: []batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet), condition(batchv1.JobComplete)}}
	// The cluster says meanwhile that it is suspended.
	job.ResourceVersion = ""
	_, err = s.Client().BatchV1().Jobs(s.ns).UpdateStatus(s.Context(), job, metav1.UpdateOptions{})
	s.check(err)
}

func (s *space) configMapOf(release, name string) {
	s.configMap(name, func(c *corev1.ConfigMap) {
		of := s.of(release)
		c.Labels, c.Annotations = of.Labels, of.Annotations
	})
}

// Manifests of objects that are called as their release.
const (
	aJob        = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: NAME}\n---\n"
	aConfigMap  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\n---\n"
	aPod        = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod}\n---\n"
	aDeployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n"
	elsewhere   = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, namespace: elsewhere}\n---\n"
)

// TestARecordSaysWhatStays: each case is a release with a Job that has finished hours ago
// unless it says something else.
func TestARecordSaysWhatStays(t *testing.T) {
	t.Parallel()
	s, calls := newSpace(t), 0
	hours := func(n float64) time.Time { return time.Now().Add(time.Duration(n * float64(time.Hour))) } // later() is in three
	for name, c := range map[string]struct {
		revisions []revision
		ended     float64 // hours from now
		why       string  // "": it goes
	}{
		"its Job has ended": {[]revision{{manifest: aJob + aConfigMap}}, 0, ""},
		"its Job has ended a moment ago, though it was deployed last week": {[]revision{{manifest: aJob + aConfigMap}}, 2.5, "have passed since its end"},
		"its Job is gone, and it was deployed a moment ago":                {[]revision{{manifest: strings.ReplaceAll(aJob, "NAME", "gone-NAME") + aConfigMap, age: -150 * time.Minute}}, 0, "have passed since its end"},
		"Helm is at work on it":                                                 {[]revision{{manifest: aJob, status: "pending-upgrade"}}, 0, `Helm is at work on it ("pending-upgrade")`},
		"Helm is removing it":                                                   {[]revision{{manifest: aJob, status: "uninstalling"}}, 0, "Helm is at work on it"},
		"the record is about another release":                                   {[]revision{{manifest: aJob, about: "other"}}, 0, "it is about"},
		"it has something in another namespace":                                 {[]revision{{manifest: aJob + elsewhere}}, 0, "it has objects in namespace"},
		"it has a pod of its own":                                               {[]revision{{manifest: aJob + aPod}}, 0, "it has a pod of its own"},
		"it has no Job":                                                         {[]revision{{manifest: aConfigMap}}, 0, "it has no Job whose end would say that it is over"},
		"only its hook is a Job, which ends when it is installed":               {[]revision{{manifest: aConfigMap, hook: aJob}}, 0, "it has no Job whose end would say that it is over"},
		"it has something that is no Job since its last revision":               {[]revision{{number: 2, manifest: aJob}, {number: 10, manifest: aJob + aDeployment}}, 0, `it has a "Deployment"`},
		"it has nothing but a Job since its last revision":                      {[]revision{{number: 2, manifest: aJob + aDeployment}, {number: 10, manifest: aJob + aConfigMap}}, 0, ""},
		"another revision is being installed, and has not a Job any more":       {[]revision{{number: 1, manifest: aJob}, {number: 2, manifest: aConfigMap, status: "pending-upgrade"}}, 0, "Helm is at work on it"},
		"it was uninstalled, and the record kept, with what Helm was to delete": {[]revision{{manifest: aConfigMap, status: "uninstalled"}}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			calls++
			release := fmt.Sprintf("call-%d", calls)
			for i, r := range c.revisions {
				if r.release = release; r.number == 0 {
					r.number = i + 1
				}
				s.record(r)
			}
			if c.revisions[0].status != "uninstalled" {
				s.job(release, release, hours(c.ended))
			}
			s.configMapOf(release, release)
			o := s.options()
			o.Release = release
			_, f := s.find(o)
			if c.why == "" {
				if len(f.Leftovers) < 2 || len(f.Spared) > 0 || f.Releases != 1 {
					t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
				}
				return
			}
			if len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, c.why) {
				t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
			}
		})
	}
}

func TestWhatTwoReleasesHaveStaysWithBoth(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, name := range []string{"one", "two"} {
		s.record(revision{release: name, number: 1, manifest: aJob + strings.ReplaceAll(aConfigMap, "NAME", "settings")})
		s.job(name, name, time.Now())
	}
	s.configMapOf("one", "settings")
	o := s.options()
	for _, release := range []string{"one", "two"} {
		o.Members = append(o.Members, keyOfRelease(s.ns, release))
	}
	_, f := s.find(o)
	why := ""
	for _, o := range f.Spared {
		why += o.Why + "\n"
	}
	if len(f.Leftovers) > 0 || len(f.Spared) != 2 || !contains(why, `is of release "one", too`) || !contains(why, `is of release "two", too`) {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
}

func TestAReleaseThatIsUpgradedMeanwhileStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.record(revision{release: "call", number: 1, manifest: aJob + aConfigMap})
	s.job("call", "call", time.Now())
	s.configMapOf("call", "call")
	o := s.options()
	o.Release = "call"
	c, f := s.find(o)
	if len(f.Leftovers) != 3 {
		t.Fatalf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
	before := s.there()
	s.record(revision{release: "call", number: 2, manifest: aJob + aConfigMap, status: "pending-upgrade"})
	u, err := clean.CreateUndo(filepath.Join(t.TempDir(), "undo.json"), time.Now())
	s.check(err)
	defer u.Close()
	sum, err := c.Remove(t.Context(), f, u, nil)
	if err != nil || sum.Total() != 0 || len(sum.Spared) != 3 {
		t.Errorf("%+v %v", sum, err)
	}
	if diff := cmp.Diff(all(before, []string{"secrets/sh.helm.release.v1.call.v2"}), s.there()); diff != "" {
		t.Errorf("there -want +got:\n%s", diff)
	}
}
