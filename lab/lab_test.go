package lab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"bulkhead.dev/bulkhead/lab"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		os.Exit(ownLab(dir))
	}
	os.Exit(m.Run())
}

// pod is a pod of busybox on the real node.
func pod(name, script string) *corev1.Pod {
	zero := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: "node"}, RestartPolicy: corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{
				Name: "main", Image: lab.BusyboxImage, ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", script},
			}},
		},
	}
}

func create(t *testing.T, l *lab.Lab, ns string, p *corev1.Pod) {
	t.Helper()
	if _, err := l.Client().CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// waitPhase waits until a pod is in a phase.
func waitPhase(t *testing.T, l *lab.Lab, ns, name string, phase corev1.PodPhase) {
	t.Helper()
	l.Eventually(t, fmt.Sprintf("pod %s is %s", name, phase), func(ctx context.Context) bool {
		p, err := l.Client().CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == phase
	})
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "b"}}
}

func TestTheControlPlaneIsWhatItSaysItIs(t *testing.T) {
	l := lab.Start(t)
	version, err := l.Client().Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version.GitVersion, "v1.") || version.Major != "1" {
		t.Errorf("version %+v", version)
	}
	if out := l.Kubectl(t, "version"); !strings.Contains(out, "Server Version: "+version.GitVersion) ||
		!strings.Contains(out, "Client Version: "+version.GitVersion) {
		t.Errorf("kubectl version: %s", out)
	}
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Components {
		if !c.Ready || c.PID == 0 || c.Exit != "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestAStrangerMayNothing(t *testing.T) {
	l := lab.Start(t)
	config := l.Config()
	config.BearerToken = "0123456789abcdef"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a wrong token: %v", err)
	}
	for _, path := range []string{l.Kubeconfig(), l.Dir()} {
		info, err := os.Stat(path)
		if err != nil || info.Mode()&0o077 != 0 {
			t.Errorf("%s: mode %s, %v", path, info.Mode(), err)
		}
	}
}

func TestARealNodeRunsRealContainers(t *testing.T) {
	l := lab.Start(t)
	node := l.Node(t)
	ns := l.Namespace(t)
	create(t, l, ns, pod("hello", `echo "hello from $(hostname)"; nc -w 5 "$KUBERNETES_SERVICE_HOST" 443 </dev/null && echo reached; exec sleep 1000`))
	waitPhase(t, l, ns, "hello", corev1.PodRunning)
	l.Eventually(t, "its log can be read and the API server be reached by its service", func(context.Context) bool {
		out := l.Kubectl(t, "logs", "--namespace", ns, "hello")
		return strings.Contains(out, "hello from hello") && strings.Contains(out, "reached")
	})
	if out := l.Kubectl(t, "exec", "--namespace", ns, "hello", "--", "cat", "/etc/hostname"); strings.TrimSpace(out) != "hello" {
		t.Errorf("exec: %q", out)
	}
	p, err := l.Client().CoreV1().Pods(ns).Get(t.Context(), "hello", metav1.GetOptions{})
	if err != nil || p.Spec.NodeName != node || p.Status.PodIP == "" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestTheImageOfBulkheadRunsAsAnybodyWithoutAnythingElse(t *testing.T) {
	l := lab.Start(t)
	l.Node(t)
	ns := l.Namespace(t)
	p := pod("bulkhead", "")
	c := &p.Spec.Containers[0]
	c.Image, c.Command, c.Args = lab.BulkheadImage, nil, []string{"--version"}
	uid, yes, no := int64(12345), true, false
	c.SecurityContext = &corev1.SecurityContext{
		RunAsUser: &uid, RunAsNonRoot: &yes, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	create(t, l, ns, p)
	waitPhase(t, l, ns, "bulkhead", corev1.PodSucceeded)
	if out := l.Kubectl(t, "logs", "--namespace", ns, "bulkhead"); !strings.Contains(out, "bulkhead version") {
		t.Errorf("it said %q", out)
	}
}

func TestFakeNodesLetPodsBecomeReadyAndJobsFinish(t *testing.T) {
	l := lab.Start(t)
	l.FakeNodes(t, 200)
	ns := l.Namespace(t)
	n := int32(100)
	template := pod("", "").Spec
	template.NodeSelector = map[string]string{lab.FakeNodeLabel: ""}
	template.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("16")}
	mode := batchv1.IndexedCompletion
	_, err := l.Client().BatchV1().Jobs(ns).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: batchv1.JobSpec{Completions: &n, Parallelism: &n, CompletionMode: &mode,
			Template: corev1.PodTemplateSpec{Spec: template}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.Eventually(t, "the job is done", func(ctx context.Context) bool {
		job, err := l.Client().BatchV1().Jobs(ns).Get(ctx, "many", metav1.GetOptions{})
		return err == nil && job.Status.Succeeded == n
	})
	list, err := l.Client().CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]bool{}
	for _, p := range list.Items {
		if nodes[p.Spec.NodeName] = true; !strings.HasPrefix(p.Spec.NodeName, "fake-") {
			t.Errorf("pod %s was on node %q", p.Name, p.Spec.NodeName)
		}
	}
	if len(nodes) < 2 {
		t.Errorf("%d pods were on %v", len(list.Items), nodes)
	}
}

func TestACountSaysWhoAskedForWhatAndWhatIsThere(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	config := l.Config()
	config.UserAgent = "counted/1.0"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	before := l.Count(t)
	for i := range 5 {
		if _, err := client.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(fmt.Sprint("c-", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), "nobody", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	w, err := client.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	delta := l.Count(t).Since(before)

	got := lab.Requests{}
	for r, n := range delta.Requests {
		if r.Client == "counted" {
			got[r] = n
		}
	}
	request := func(verb string, code int) lab.Request {
		return lab.Request{User: "lab-admin", Client: "counted", Verb: verb, Resource: "configmaps", Code: code}
	}
	want := lab.Requests{request("create", 201): 5, request("get", 404): 1, request("watch", 200): 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("requests, -want +got:\n%s", d)
	}
	if delta.Objects["configmaps"] != 5 {
		t.Errorf("objects: %v", delta.Objects)
	}
	if delta.Served["POST configmaps"] != 5 {
		t.Errorf("served: %v", delta.Served)
	}
	if total := l.Count(t); total.EtcdBytes < 100_000 || total.EtcdInUse < 100_000 || total.EtcdInUse > total.EtcdBytes {
		t.Errorf("etcd has %d bytes, of which %d are in use", total.EtcdBytes, total.EtcdInUse)
	}
	if n := delta.Requests.Of(func(r lab.Request) bool { return r.Client == "counted" }); n != 7 {
		t.Errorf("%d requests", n)
	}
	if by := delta.Requests.By(func(r lab.Request) string { return r.Client + " " + r.Verb }); by["counted create"] != 5 {
		t.Errorf("by client and verb: %v", by)
	}
}

func TestRequestsAreCountedHoweverLongTheAuditLog(t *testing.T) {
	l := lab.Start(t)
	config := l.Config()
	config.NextProtos = []string{"http/1.1"} // which does not compress headers: that takes long
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	before := l.Requests(t)
	const times, size = 120, 950_000 // more than the API server puts into one file by default
	for range times {
		err := client.Discovery().RESTClient().Get().AbsPath("/version").Param("x", strings.Repeat("x", size)).Do(t.Context()).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := l.Requests(t)
	version := func(r lab.Request) bool { return r.User == "lab-admin" && r.Resource == "/version" }
	if n := now.Of(version) - before.Of(version); n != times {
		t.Errorf("%d requests, want %d", n, times)
	}
}

func TestObjectsAreThoseThatTheAPIServerLists(t *testing.T) {
	l := lab.Start(t)
	l.Namespace(t)
	got := l.Objects(t)
	ctx := t.Context()
	c := l.Client()
	nodes, err1 := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	services, err2 := c.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	roles, err3 := c.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"nodes": len(nodes.Items), "services": len(services.Items), "clusterroles": len(roles.Items)}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: %d, want %d: %v", name, got[name], n, got)
		}
	}
}

func TestAHelmReleaseIsWhatTheIncidentWasMadeOf(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	before := l.Count(t)
	names := l.HelmRelease(t, ns, 2)
	delta := l.Count(t).Since(before)
	for kind, n := range map[string]int{"jobs": 1, "networkpolicies": 1, "configmaps": 7, "secrets": 1} {
		if delta.Objects[kind] != n*len(names) {
			t.Errorf("%d %s of %d releases, want %d of each: %v", delta.Objects[kind], kind, len(names), n, delta.Objects)
		}
	}
	policy, err := l.Client().NetworkingV1().NetworkPolicies(ns).Get(t.Context(), "mediawiki-"+names[0], metav1.GetOptions{})
	if err != nil || len(policy.Spec.Egress) != 90 {
		t.Errorf("its policy: %v, %v", policy, err)
	}
	job, err := l.Client().BatchV1().Jobs(ns).Get(t.Context(), "mediawiki-"+names[0], metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if job.Labels["username"] != "ann" || job.Labels["script"] != "requeueTranscodes.php" || job.Annotations["comment"] != "T363966" ||
		*job.Spec.TTLSecondsAfterFinished != 7*24*3600 || job.ManagedFields[0].Manager != "helm" {
		t.Errorf("its job: %+v", job)
	}
	secret, err := l.Client().CoreV1().Secrets(ns).Get(t.Context(), "sh.helm.release.v1."+names[0]+".v1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if size := len(secret.Data["release"]); size < 35_000 || size > 50_000 {
		t.Errorf("Helm's record has %d bytes", size)
	}
	t.Logf("requests of helm per release: %d, of all: %d",
		delta.Requests.Of(func(r lab.Request) bool { return strings.HasPrefix(r.Client, "Helm") || r.Client == "helm" })/len(names), delta.Requests.Total()/len(names))
}

func TestASlowAPIServerIsSlowOnlyBehindTheProxy(t *testing.T) {
	l := lab.Start(t)
	p := l.Proxy(t)
	client, err := kubernetes.NewForConfig(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return time.Since(begin), err
	}
	if took, err := ask(); err != nil || took > 10*time.Second {
		t.Fatalf("%s, %v", took, err)
	}
	const delay = 300 * time.Millisecond
	p.Slow(delay)
	if took, err := ask(); err != nil || took < 2*delay {
		t.Errorf("a request took %s with a delay of %s each way, %v", took, delay, err)
	}
	p.Slow(0)
	p.Cut(true)
	if _, err := ask(); err == nil {
		t.Error("a request was answered over a connection that was cut")
	}
	if _, err := l.Client().CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("others were cut off too: %v", err)
	}
	p.Cut(false)
	if _, err := ask(); err != nil {
		t.Errorf("connected again: %v", err)
	}
}

var createOptions = metav1.CreateOptions{}

func TestTheWikisOfTheImageAreThose(t *testing.T) {
	l := lab.Start(t)
	l.Node(t)
	l.MediaWiki(t)
	ns := l.Namespace(t)
	for wiki, phase := range map[string]corev1.PodPhase{"w07": corev1.PodSucceeded, "w13": corev1.PodFailed} {
		p := pod(wiki, "")
		p.Spec.Containers[0].Image = lab.MediaWikiImage
		p.Spec.Containers[0].Command = []string{"php", "maintenance/showSiteStats.php", "--wiki=" + wiki}
		uid := int64(12345)
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &uid}
		create(t, l, ns, p)
		waitPhase(t, l, ns, wiki, phase)
	}
	for wiki, want := range map[string]string{"w07": "Total pages : 8", "w13": "database disk image is malformed"} {
		out := l.Kubectl(t, "logs", "--namespace", ns, wiki)
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("%s said\n%s", wiki, out)
		}
	}
}
