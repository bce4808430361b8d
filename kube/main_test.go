package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgo "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
	"bulkhead.dev/bulkhead/lab"
)

// server is the server that a test plays: it decides what work there is, and
// which agents are connected.
type server struct {
	mu      sync.Mutex
	demand  map[string]bulkhead.Demand // by class and shape
	agents  map[string]kube.AgentStatus
	blocked map[string]string
	retired map[string]bool
	gone    []string
	changed chan string
}

func newServer() *server {
	return &server{demand: map[string]bulkhead.Demand{}, agents: map[string]kube.AgentStatus{}, blocked: map[string]string{},
		retired: map[string]bool{}, changed: make(chan string)}
}

func (s *server) Demand(class string) []bulkhead.Demand {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []bulkhead.Demand
	for _, d := range s.demand {
		if d.Class == class {
			all = append(all, d)
		}
	}
	return all
}

func (s *server) Changed() <-chan string { return s.changed }

func (s *server) Agents(class string) []kube.AgentStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []kube.AgentStatus
	for _, a := range s.agents {
		if len(a.Name) > len(class) && a.Name[:len(class)+1] == class+"-" {
			a.Leaving = a.Leaving || s.retired[a.Name]
			all = append(all, a)
		}
	}
	return all
}

func (s *server) Block(class, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked[class] = reason
}

func (s *server) Retire(agent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired[agent] = true
}

func (s *server) Gone(agent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, agent)
	delete(s.agents, agent)
}

// want says how many slots the runs of a class can use.
func (s *server) want(t *testing.T, class string, shape bulkhead.Shape, n int) {
	t.Helper()
	s.mu.Lock()
	s.demand[class+" "+shape.Key()] = bulkhead.Demand{Kind: bulkhead.Kind{Class: class, Shape: shape.Key()}, Pod: shape, Queued: int64(n), Slots: n}
	s.mu.Unlock()
	s.tell(t, class)
}

func (s *server) tell(t *testing.T, class string) {
	t.Helper()
	select {
	case s.changed <- class:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody asks what has changed")
	}
}

// connect connects an agent.
func (s *server) connect(t *testing.T, class, pod string, busy int) {
	t.Helper()
	s.mu.Lock()
	s.agents[pod] = kube.AgentStatus{Name: pod, Slots: 1, Busy: busy, Since: time.Now(), Connected: true}
	s.mu.Unlock()
	s.tell(t, class)
}

func (s *server) look(at func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at()
}

func (s *server) isGone(agent string) (is bool) {
	s.look(func() { is = slices.Contains(s.gone, agent) })
	return is
}

func (s *server) isRetired(agent string) (is bool) {
	s.look(func() { is = s.retired[agent] })
	return is
}

func (s *server) reason(class string) (reason string) {
	s.look(func() { reason = s.blocked[class] })
	return reason
}

const userAgent = "bulkhead-test"

// cluster is a lab that knows ScriptClass.
type cluster struct {
	*lab.Lab
	api client.Client
}

var installed sync.Once

func start(t *testing.T) *cluster {
	t.Helper()
	l := lab.Start(t)
	installed.Do(func() {
		if err := kube.Install(t.Context(), l.Config()); err != nil {
			t.Fatal(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgo.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	api, err := client.New(l.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{l, api}
}

// namespace is one where pods must keep the restricted profile, and where an
// account of the controller may do what Rules say and nothing else.
func (c *cluster) namespace(t *testing.T) string {
	t.Helper()
	ns := c.Namespace(t)
	ctx := t.Context()
	restricted := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	_, err := c.Client().CoreV1().Namespaces().Patch(ctx, ns, types.MergePatchType, restricted, metav1.PatchOptions{})
	if err == nil {
		_, err = c.Client().RbacV1().Roles(ns).Create(ctx, &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "bulkhead"}, Rules: kube.Rules(),
		}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = c.Client().RbacV1().RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "bulkhead"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "bulkhead"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "bulkhead"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// options are those of a controller for one namespace, with the rights it needs.
func options(config *rest.Config, ns string) kube.Options {
	config.UserAgent = userAgent + "/1"
	config.Impersonate.UserName = "system:serviceaccount:" + ns + ":bulkhead"
	return kube.Options{
		Config: config, Namespaces: []string{ns}, Server: "https://bulkhead.bulkhead.svc:8443", Image: lab.BulkheadImage,
		CA:            func() []byte { return []byte("CA") },
		PodsPerSecond: 50, PodsBurst: 50,
	}
}

// run runs a controller until the end of the test, or until stop.
func run(t *testing.T, s *server, o kube.Options) (c *kube.Controller, stop func()) {
	t.Helper()
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	before := goleak.IgnoreCurrent()
	c, err := kube.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("run:", err)
		}
		// Connections are the transport's, and the tests have some, too.
		if err := goleak.Find(before, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/lab.(*Proxy).copy"), goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/lab.(*Proxy).copy.func1"),
			goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/lab.(*Proxy).pass"), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop")); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// class is a class whose pods run on fake nodes.
func class(ns, name string, workers int) *v1alpha1.ScriptClass {
	return &v1alpha1.ScriptClass{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: v1alpha1.ScriptClassSpec{
			Image:    lab.BusyboxImage,
			Workers:  v1alpha1.Workers{Max: int32(workers)},
			Template: v1alpha1.PodTemplate{NodeSelector: map[string]string{lab.FakeNodeLabel: ""}},
		},
	}
}

func (c *cluster) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.api.Create(t.Context(), o, client.FieldValidation("Strict")); err != nil {
		t.Fatal(err)
	}
}

// change changes a class as the API server has it.
func (c *cluster) change(t *testing.T, ns, name string, how func(*v1alpha1.ScriptClass)) {
	t.Helper()
	class := c.get(t, ns, name)
	was := class.DeepCopy()
	how(class)
	if err := c.api.Patch(t.Context(), class, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) get(t *testing.T, ns, name string) *v1alpha1.ScriptClass {
	t.Helper()
	var class v1alpha1.ScriptClass
	if err := c.api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, &class); err != nil {
		t.Fatal(err)
	}
	return &class
}

// pods are those of a namespace, by name.
func (c *cluster) pods(t *testing.T, ns string) map[string]corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := c.api.List(t.Context(), &list, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	pods := map[string]corev1.Pod{}
	for _, p := range list.Items {
		pods[p.Name] = p
	}
	return pods
}

func (c *cluster) names(t *testing.T, ns string) []string {
	return slices.Sorted(maps.Keys(c.pods(t, ns)))
}

// become waits until the names of the pods are these.
func (c *cluster) become(t *testing.T, ns string, names ...string) {
	t.Helper()
	c.Eventually(t, fmt.Sprintf("the pods are %q", names), func(context.Context) bool {
		return slices.Equal(c.names(t, ns), names)
	})
}

// running waits until a pod runs.
func (c *cluster) running(t *testing.T, ns string, names ...string) {
	t.Helper()
	c.Eventually(t, fmt.Sprintf("pods %q run", names), func(context.Context) bool {
		pods := c.pods(t, ns)
		return !slices.ContainsFunc(names, func(n string) bool {
			p := pods[n]
			return p.Status.Phase != corev1.PodRunning
		})
	})
}
