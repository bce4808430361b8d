package clean_test

import (
	"encoding/json"
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
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/clean"
)

func TestANameThatLooksLikeAWordIsMeantIfSomebodySaysSo(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	words := []string{"acfuba", "web", "mail", "cache", "search", "proxy", "login"}
	for _, word := range append(words, "x7k2q9", "4fd2b81") {
		s.configMap("import-" + word + "-cfg")
	}
	s.check(s.pod("user", nil, mounting("import-mail-cfg")))
	o := s.options()
	o.Family, o.Kind = "import-*-cfg", "configmaps"
	_, f := s.find(o)
	if d := cmp.Diff([]string{"configmaps/import-4fd2b81-cfg", "configmaps/import-x7k2q9-cfg"}, names(f.Leftovers)); d != "" {
		t.Error(d)
	}
	if note := strings.Join(f.Notes, "\n"); !contains(note, `"import-acfuba-cfg"`) || !contains(note, " and 2 more; if they are, --alike takes them in") {
		t.Error(note)
	}
	o.Alike = true
	_, f = s.find(o)
	if len(f.Leftovers) != 8 || len(f.Notes) > 0 || !contains(reasons(f.Spared)["configmaps/import-mail-cfg"], "pod") {
		t.Errorf("%q are left over, %v stay, notes %q", names(f.Leftovers), reasons(f.Spared), f.Notes)
	}
	// Of a finding, too, and the note says which families were meant.
	o = s.options()
	o.Members = []bulkhead.Key{{Kind: "configmaps", Namespace: s.ns, Family: "import-*-cfg"}}
	_, f = s.find(o)
	if note := strings.Join(f.Notes, "\n"); !contains(note, `though their names fit "import-*-cfg", are not meant`) {
		t.Error(note)
	}
}

func contains(text, part string) bool { return strings.Contains(text, part) }

func has(list []string, one string) bool { return slices.Contains(list, one) }

func without(list []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == one })
}

// contents are what is in the objects, without what the API server gives them.
func (s *space) contents() map[string]any {
	s.Helper()
	var list struct{ Items []map[string]any }
	s.check(json.Unmarshal([]byte(s.Kubectl(s, "get", "configmaps,secrets,networkpolicies,jobs", "-n", s.ns, "-o", "json")), &list))
	all := map[string]any{}
	for _, o := range list.Items {
		meta := o["metadata"].(map[string]any)
		all[fmt.Sprint(o["kind"], "/", meta["name"])] = map[string]any{
			"labels": meta["labels"], "annotations": bareAnnotations(meta["annotations"]), "data": o["data"], "type": o["type"], "spec": bareSpec(o),
		}
	}
	return all
}

// bareAnnotations are those without the one that a Job has once it was put back.
func bareAnnotations(annotations any) any {
	if of, ok := annotations.(map[string]any); ok {
		if delete(of, clean.RestoredAnnotation); len(of) > 0 {
			return of
		}
	}
	return nil
}

// bareSpec is a spec without what a Job has of its own.
func bareSpec(o map[string]any) any {
	spec, ok := o["spec"].(map[string]any)
	if !ok || o["kind"] != "Job" {
		return o["spec"]
	}
	delete(spec, "selector")
	delete(spec, "suspend")
	labels := spec["template"].(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any)
	for _, key := range []string{"controller-uid", "batch.kubernetes.io/controller-uid"} {
		delete(labels, key)
	}
	return spec
}

// helm installs a chart with these objects as release web.
func (s *space) helm(dir, objects string) {
	s.Helper()
	s.check(os.MkdirAll(filepath.Join(dir, "templates"), 0o700))
	s.check(os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte("apiVersion: v2\nname: web\nversion: 0.1.0\n"), 0o600))
	s.check(os.WriteFile(filepath.Join(dir, "templates", "all.yaml"), []byte(objects), 0o600))
	status, err := s.Status(s.Context())
	s.check(err)
	cmd := exec.Command(status.Kubernetes, "helm", "install", "web", dir, "--namespace", s.ns, "--kubeconfig", s.Kubeconfig())
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("helm: %v\n%s", err, out)
	}
}

// holders are all the ways in which a ConfigMap or a Secret may be in use.
func (s *space) holders() map[string]func(name string) {
	template := func(change ...func(*corev1.PodSpec)) corev1.PodTemplateSpec {
		spec := podSpec(change...)
		spec.RestartPolicy = corev1.RestartPolicyAlways
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: spec}
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	pod := func(change func(*corev1.PodSpec, string)) func(string) {
		return func(name string) { s.check(s.pod("pod-"+name, nil, func(p *corev1.PodSpec) { change(p, name) })) }
	}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	none := int32(0)
	volume := func(p *corev1.PodSpec, source corev1.VolumeSource) {
		p.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
	}
	return map[string]func(name string){
		"volume-secret": pod(func(p *corev1.PodSpec, name string) {
			volume(p, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}})
		}),
		"volume":   pod(func(p *corev1.PodSpec, name string) { mounting(name)(p) }),
		"argument": pod(func(p *corev1.PodSpec, name string) { p.Containers[0].Args = []string{"--configmap=" + name} }),
		"shell-line": pod(func(p *corev1.PodSpec, name string) {
			p.Containers[0].Command = []string{"sh", "-c", `kubectl get cm "` + name + `"; echo done`}
		}),
		"list-of-names": pod(func(p *corev1.PodSpec, name string) {
			p.Containers[0].Env = []corev1.EnvVar{{Name: "RELOAD", Value: "one," + name + ".default.svc:80"}}
		}),
		"projected": pod(func(p *corev1.PodSpec, name string) {
			volume(p, corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref(name)}}}}})
		}),
		"csi": pod(func(p *corev1.PodSpec, name string) {
			r := ref(name)
			volume(p, corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "example.org", NodePublishSecretRef: &r}})
		}),
		"env-from": pod(func(p *corev1.PodSpec, name string) {
			p.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref(name)}}}
		}),
		"env-of-init": pod(func(p *corev1.PodSpec, name string) {
			p.InitContainers = []corev1.Container{{Name: "i", Image: "none", Env: []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: "k"}}}}}}
		}),
		"pull": pod(func(p *corev1.PodSpec, name string) { p.ImagePullSecrets = []corev1.LocalObjectReference{ref(name)} }),
		"service-account": func(name string) {
			_, err := s.Client().CoreV1().ServiceAccounts(s.ns).Create(s.Context(), &corev1.ServiceAccount{
				ObjectMeta: metav1.ObjectMeta{Name: "account"}, ImagePullSecrets: []corev1.LocalObjectReference{ref(name)}}, metav1.CreateOptions{})
			s.check(err)
		},
		"tls": func(name string) {
			path := networkingv1.PathTypePrefix
			_, err := s.Client().NetworkingV1().Ingresses(s.ns).Create(s.Context(), &networkingv1.Ingress{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"nginx.ingress.kubernetes.io/auth-secret": s.ns + "/" + nameOf("basic-auth")}},
				Spec: networkingv1.IngressSpec{TLS: []networkingv1.IngressTLS{{SecretName: name}}, Rules: []networkingv1.IngressRule{{Host: "example.org",
					IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &path,
						Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "x", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}},
			}, metav1.CreateOptions{})
			s.check(err)
		},
		"basic-auth": func(string) {}, // by the annotation above
		"deployment": func(name string) {
			_, err := s.Client().AppsV1().Deployments(s.ns).Create(s.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"},
				Spec: appsv1.DeploymentSpec{Replicas: &none, Selector: selector, Template: template(mounting(name))}}, metav1.CreateOptions{})
			s.check(err)
		},
		"stateful-set": func(name string) {
			_, err := s.Client().AppsV1().StatefulSets(s.ns).Create(s.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s"},
				Spec: appsv1.StatefulSetSpec{Replicas: &none, Selector: selector, Template: template(mounting(name))}}, metav1.CreateOptions{})
			s.check(err)
		},
		"daemon-set": func(name string) {
			_, err := s.Client().AppsV1().DaemonSets(s.ns).Create(s.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "ds"},
				Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template(mounting(name))}}, metav1.CreateOptions{})
			s.check(err)
		},
		"cron-job": func(name string) {
			suspended := true
			_, err := s.Client().BatchV1().CronJobs(s.ns).Create(s.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "cj"},
				Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: &suspended, JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
					Template: corev1.PodTemplateSpec{Spec: podSpec(mounting(name))}}}}}, metav1.CreateOptions{})
			s.check(err)
		},
		"job": func(name string) {
			_, err := s.Client().BatchV1().Jobs(s.ns).Create(s.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"},
				Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: podSpec(mounting(name))}}}, metav1.CreateOptions{})
			s.check(err)
		},
		"role": func(name string) {
			s.Kubectl(s, "create", "role", "reads", "-n", s.ns, "--verb=get", "--resource=secrets", "--resource-name="+name)
		},
	}
}

// keyOfRelease is the key of what a release has made.
func keyOfRelease(namespace, release string) bulkhead.Key {
	return bulkhead.Key{Kind: "configmaps", Namespace: namespace, Family: "*", Origin: "release/" + release}
}

// nameOf is a name of family config-*: what stands before the hash is no part of it.
func nameOf(use string) string { return "config-" + hash(use) }

func hash(use string) string {
	sum := uint32(2166136261)
	for _, b := range []byte(use) {
		sum = (sum ^ uint32(b)) * 16777619
	}
	return fmt.Sprintf("%08xc1f%02x", sum, byte(len(use)))
}

const configFamily = "config-*"

func TestWhatIsInUseStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	holders := s.holders()
	var stays []string
	for use, hold := range holders {
		name := nameOf(use)
		s.configMap(name)
		s.secret(name)
		hold(name)
		stays = append(stays, "configmaps/"+name, "secrets/"+name)
	}
	s.configMap(nameOf("nobody"))
	s.secret(nameOf("nobody"))
	s.configMap("other-" + hash("x"))
	o := s.options()
	o.Family = configFamily
	_, f := s.find(o)
	if diff := cmp.Diff([]string{"configmaps/" + nameOf("nobody"), "secrets/" + nameOf("nobody")}, names(f.Leftovers)); diff != "" {
		t.Errorf("left over -want +got:\n%s\nwhat is what: %v", diff, holders)
	}
	slices.Sort(stays)
	if diff := cmp.Diff(stays, names(f.Spared)); diff != "" {
		t.Errorf("spared -want +got:\n%s", diff)
	}
	o.Kind = "secrets"
	sum, _, err := s.remove(o)
	if err != nil || sum.Total() != 1 || sum.Deleted["secrets"] != 1 {
		t.Errorf("%+v %v", sum, err)
	}
	want := all(stays, []string{"configmaps/" + nameOf("nobody"), "configmaps/other-" + hash("x"), "jobs/j"})
	if diff := cmp.Diff(want, s.there()); diff != "" {
		t.Errorf("there -want +got:\n%s", diff)
	}
}

func TestWhatIsOwnedYoungOrMarkedStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	owner := s.configMap("owner")
	young := s.options()
	young.Family, young.Now = configFamily, nil
	s.configMap(nameOf("owned"), func(c *corev1.ConfigMap) {
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID}}
	})
	s.configMap(nameOf("kept"), func(c *corev1.ConfigMap) { c.Annotations = map[string]string{clean.KeepAnnotation: "please"} })
	s.configMap(nameOf("final"), func(c *corev1.ConfigMap) { c.Finalizers = []string{"example.org/x"} })
	s.configMap(nameOf("free"))
	s.secret(nameOf("token"), func(o *corev1.Secret) {
		o.Type, o.Annotations = corev1.SecretTypeServiceAccountToken, map[string]string{corev1.ServiceAccountNameKey: "default"}
	})
	defer s.Kubectl(t, "patch", "configmap", "-n", s.ns, nameOf("final"), "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	o := s.options()
	o.Family = configFamily
	_, f := s.find(o)
	if diff := cmp.Diff([]string{"configmaps/" + nameOf("free")}, names(f.Leftovers)); diff != "" {
		t.Errorf("left over -want +got:\n%s", diff)
	}
	why := reasons(f.Spared)
	for name, part := range map[string]string{"owned": "it goes with its owner", "kept": "its annotation", "final": "it has a finalizer"} {
		if !contains(why["configmaps/"+nameOf(name)], part) {
			t.Errorf("%s: %q", name, why["configmaps/"+nameOf(name)])
		}
	}
	if _, f = s.find(young); len(f.Leftovers) > 0 || !contains(reasons(f.Spared)["configmaps/"+nameOf("free")], "the grace is 1h0m0s") {
		t.Errorf("young: %+v", f)
	}
	o.Family = "kube-root-ca.crt"
	if _, f = s.find(o); len(f.Leftovers) > 0 || len(f.Spared) != 1 {
		t.Errorf("what the cluster keeps: %+v", f)
	}
	o.Family, o.Namespace = "extension-apiserver-authentication", "kube-system"
	if _, f = s.find(o); len(f.Leftovers) > 0 || len(f.Spared) != 1 || !contains(f.Spared[0].Why, "Kubernetes' own") {
		t.Errorf("what is Kubernetes' own: %+v", f)
	}
}

func TestAPolicyThatSelectsAnythingStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	none := int32(0)
	s.check(s.pod("p", map[string]string{"app": "web", "tier": "1"}))
	_, err := s.Client().AppsV1().StatefulSets(s.ns).Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}}, Spec: func() corev1.PodSpec {
			spec := podSpec()
			spec.RestartPolicy = corev1.RestartPolicyAlways
			return spec
		}()},
	}}, metav1.CreateOptions{})
	s.check(err)
	suspended := true
	_, err = s.Client().BatchV1().CronJobs(s.ns).Create(t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly"},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: &suspended, JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "batch"}}, Spec: podSpec()}}}}}, metav1.CreateOptions{})
	s.check(err)
	expression := func(key string, op metav1.LabelSelectorOperator, values ...string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: op, Values: values}}}
	}
	in, notIn, exists, lacks := metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist
	stay, go1 := map[string]metav1.LabelSelector{
		"a pod":                           selecting("app", "web"),
		"a pod by two labels":             selecting("app", "web", "tier", "1"),
		"a pod by one of many":            expression("app", in, "x", "web"),
		"a pod by a key":                  expression("tier", exists),
		"a template":                      selecting("app", "db"),
		"a pod that a template will make": selecting("app", "db", "statefulset.kubernetes.io/pod-name", "db-0"),
		"that by its name only":           selecting("statefulset.kubernetes.io/pod-name", "db-7"),
		"a cron job's pod":                selecting("app", "batch"),
		"the pods of one of a cron job":   selecting("batch.kubernetes.io/job-name", "nightly-29301234"),
		"every pod":                       {},
		"every pod but some":              expression("app", notIn, "web"),
		"every pod that has not a label":  expression("app", lacks),
	}, map[string]metav1.LabelSelector{
		"nothing":                         selecting("app", "none"),
		"nothing of two":                  selecting("app", "web", "tier", "2"),
		"nothing of many":                 expression("app", in, "x", "y"),
		"nothing by a key":                expression("none", exists),
		"the pod of another stateful set": selecting("app", "db", "statefulset.kubernetes.io/pod-name", "other-0"),
		"the pods of a job that is gone":  selecting("batch.kubernetes.io/job-name", "weekly-29301234"),
	}
	var want []string
	what := map[string]string{}
	for name, selector := range stay {
		s.policy(nameOf(name), selector)
		what["networkpolicies/"+nameOf(name)] = name
	}
	for name, selector := range go1 {
		s.policy(nameOf(name), selector)
		what["networkpolicies/"+nameOf(name)] = name
		want = append(want, "networkpolicies/"+nameOf(name))
	}
	slices.Sort(want)
	o := s.options()
	o.Family = configFamily
	_, f := s.find(o)
	if diff := cmp.Diff(want, names(f.Leftovers)); diff != "" {
		t.Errorf("left over -want +got:\n%s\n%v", diff, what)
	}
}

// What has finished may be looked at by people, and its Job be run again from it.
func TestWhatAFinishedPodMountsStaysUnlessItIsMeant(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.configMap(nameOf("finished"))
	s.check(s.pod("p", map[string]string{"app": "a"}, mounting(nameOf("finished"))))
	s.policy(nameOf("policy"), selecting("app", "a"))
	pod, err := s.Client().CoreV1().Pods(s.ns).Get(t.Context(), "p", metav1.GetOptions{})
	s.check(err)
	pod.Status.Phase, pod.ResourceVersion = corev1.PodSucceeded, "" // whatever else is said of it
	_, err = s.Client().CoreV1().Pods(s.ns).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	s.check(err)
	o := s.options()
	o.Family = configFamily
	if _, f := s.find(o); len(f.Leftovers) > 0 || len(f.Spared) != 2 || !contains(f.Spared[0].Why+f.Spared[1].Why, "(finished) names it") {
		t.Errorf("left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
	o.Finished = true
	if _, f := s.find(o); len(f.Leftovers) != 2 {
		t.Errorf("with finished ones: left over %v, spared %+v", names(f.Leftovers), f.Spared)
	}
}

// What it owns would go with it.
func TestWhatOwnsSomethingStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	owner := s.configMap(nameOf("owner"))
	s.configMap(nameOf("same-name")) // of another kind and uid than the owner that is named
	_, err := s.Client().CoreV1().ServiceAccounts(s.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "owned",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}}}, metav1.CreateOptions{})
	s.check(err)
	o := s.options()
	o.Family = configFamily
	_, f := s.find(o)
	if diff := cmp.Diff([]string{"configmaps/" + nameOf("same-name")}, names(f.Leftovers)); diff != "" || len(f.Spared) != 1 || !contains(f.Spared[0].Why, "is owned by it") {
		t.Errorf("spared %+v, left over -want +got:\n%s", f.Spared, diff)
	}
}

func TestOnlyOneFamilyGoes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, name := range []string{"config-main", "config-canary", "config", "config-" + hash("a") + "-x", "x-config-" + hash("b")} {
		s.configMap(name)
	}
	s.configMap(nameOf("one"))
	for i := range 70 {
		s.configMap("user-" + word(i) + "-config")
	}
	o := s.options()
	o.Family = configFamily
	_, f := s.find(o)
	if diff := cmp.Diff([]string{"configmaps/" + nameOf("one")}, names(f.Leftovers)); diff != "" || len(f.Notes) != 1 || !contains(f.Notes[0], `"config-canary", "config-main"`) {
		t.Errorf("notes %q, left over -want +got:\n%s", f.Notes, diff)
	}
	// Many words at one place are one family for a census.
	o.Family = "user-*-config"
	if _, f = s.find(o); len(f.Leftovers) != 70 {
		t.Errorf("left over %v", names(f.Leftovers))
	}
	// A finding's families are exact.
	o.Family, o.Members = "", []bulkhead.Key{{Kind: "configmaps", Namespace: s.ns, Family: configFamily}, {Kind: "configmaps", Namespace: "other", Family: "config"}}
	if _, f = s.find(o); len(f.Leftovers) != 1 {
		t.Errorf("of a finding: %v", names(f.Leftovers))
	}
	// They are of one client.
	o.Members = []bulkhead.Key{{Kind: "configmaps", Namespace: s.ns, Family: configFamily, Manager: "somebody-else"}}
	if _, f = s.find(o); len(f.Leftovers) > 0 {
		t.Errorf("of another client: %v", names(f.Leftovers))
	}
	// The name of one is that one.
	o.Family, o.Members = "config-main", nil
	if _, f = s.find(o); len(f.Leftovers) != 1 || f.Leftovers[0].Name != "config-main" {
		t.Errorf("of a name: %v", names(f.Leftovers))
	}
}

// word is one that may be a name.
func word(i int) string {
	syllables := strings.Fields("ba da fe ga le ma ni no ra sa")
	return syllables[i/10] + syllables[i%10] + "na"
}

// TestWhereNothingIsMeantItIsSaidWhatIsThere: a misspelt namespace or family is no
// all-clear.
func TestWhereNothingIsMeantItIsSaidWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for i := range 3 {
		s.policy(fmt.Sprintf("web-%d-config", i), selecting("app", "none"))
	}
	for i := range 6 {
		s.policy("settings-"+word(i), selecting("app", "none"))
	}
	o := s.options()
	o.Family, o.Kind = "web-*-confg", clean.Kinds()[0]
	_, f := s.find(o)
	want := []string{`9 networkpolicies.networking.k8s.io are there: "web-*-config" (3), "settings-babana" (1), "settings-badana" (1), "settings-bafena" (1), "settings-bagana" (1), and 2 families more; none is of the family "web-*-confg"`}
	if diff := cmp.Diff(want, f.Notes); diff != "" || len(f.Leftovers)+len(f.Spared) > 0 {
		t.Errorf("-want +got:\n%s", diff)
	}
	o.Family = "web-*-config"
	if _, f = s.find(o); len(f.Leftovers) != 3 || len(f.Notes) > 0 {
		t.Errorf("of a family that is there: %+v", f)
	}
	for _, o := range []clean.Options{{Release: "*"}, {Family: "web-*-config"}} {
		o.Config, o.Namespace = s.Config(), "no-such"
		c, err := clean.New(o)
		s.check(err)
		if f, err := c.Find(t.Context()); bulkhead.CodeOf(err) != bulkhead.CodeNotFound || !contains(err.Error(), `there is no namespace "no-such"`) {
			t.Errorf("in no namespace: %+v %v", f, err)
		}
	}
}
