package serve

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
)

// Cluster is what a server needs to know of its cluster. Image and URL are required.
type Cluster struct {
	Kubeconfig    string   // default: the cluster that the server runs in, else as kubectl
	Namespaces    []string // those whose classes are served; none: all
	OwnNamespace  string   // where the server itself is; default: that of its pod, if it has one
	Image         string   // has this binary at /bulkhead
	PullPolicy    string   // of Image
	URL           string   // of the server, for worker pods; default: the Service's address, in a pod
	PodsPerSecond float64
}

// config is how to reach the cluster.
func (f *Cluster) config() (*rest.Config, error) {
	if f.Kubeconfig == "" {
		if config, err := rest.InClusterConfig(); err == nil {
			return config, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, usage("give one with --kubeconfig", "--kubernetes: no cluster: %v", err)
	}
	return config, nil
}

// complete fills in what a pod can know by itself.
func (f *Cluster) complete() {
	if f.OwnNamespace == "" {
		text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
		if err == nil {
			f.OwnNamespace = strings.TrimSpace(string(text))
		}
	}
	if host := serviceHost(); f.URL == "" && host != "" {
		f.URL = "https://" + net.JoinHostPort(host, cmp.Or(os.Getenv("BULKHEAD_SERVICE_PORT"), "8443"))
	}
}

// serviceHost is the address of the Service, as the kubelet tells pods that start
// after it. Workers that use it need no name server.
func serviceHost() string { return os.Getenv("BULKHEAD_SERVICE_HOST") }

// names are what a server in a cluster is called by.
func (f *Cluster) names() []string {
	var names []string
	if host := serviceHost(); host != "" {
		names = append(names, host)
	}
	if f.OwnNamespace != "" {
		names = append(names, kube.ServerName+"."+f.OwnNamespace+".svc")
	}
	if u, err := url.Parse(f.URL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	return names
}

// newController is what keeps the worker pods.
func (s *server) newController() (*kube.Controller, error) {
	f := s.opts.Cluster
	if f.Image == "" || f.URL == "" {
		return nil, usage("", "--kubernetes needs --worker-image and --worker-url")
	}
	config, err := f.config()
	if err != nil {
		return nil, err
	}
	s.cluster = config
	if s.reviews, err = kube.NewReviews(kube.ReviewOptions{Config: config, Asked: s.metrics.reviewed}); err != nil {
		return nil, err
	}
	ctrllog.SetLogger(logr.FromSlogHandler(s.log.Handler()))
	return kube.New(work{s}, kube.Options{
		Config: config, Namespaces: f.Namespaces, Server: f.URL, Image: f.Image, ImagePullPolicy: corev1.PullPolicy(f.PullPolicy),
		PodsPerSecond: f.PodsPerSecond, Log: s.log, CA: s.keys.authorities,
	})
}

// work is the server as the controller needs it.
type work struct{ *server }

func (w work) Demand(class string) []bulkhead.Demand { return w.engine.Demand(class) }
func (w work) Changed() <-chan string                { return w.changes.out }
func (w work) Block(class, reason string)            { w.engine.Block(class, reason) }
func (w work) Retire(agent string)                   { w.engine.Retire(agent) }
func (w work) Gone(agent string)                     { w.engine.Gone(agent) }

func (w work) Agents(class string) []kube.AgentStatus {
	var out []kube.AgentStatus
	for _, a := range w.engine.Agents(class) {
		out = append(out, kube.AgentStatus{Name: a.Name, Slots: a.Slots, Busy: a.Busy, Since: a.Since,
			Connected: connected(a), Leaving: a.Retired})
	}
	return out
}

// connected reports whether an agent was heard of lately. It is heard of every few
// seconds, and the engine remembers it for longer than it is there.
func connected(a bulkhead.AgentStatus) bool { return time.Since(a.Seen) < 45*time.Second }

// changes are the classes of which something has changed since somebody looked.
type changes struct {
	out chan string

	mu    sync.Mutex
	set   map[string]bool
	added chan struct{} // has room for one
}

func newChanges() *changes {
	return &changes{out: make(chan string), set: map[string]bool{}, added: make(chan struct{}, 1)}
}

func (c *changes) add(class string) {
	c.mu.Lock()
	c.set[class] = true
	c.mu.Unlock()
	select {
	case c.added <- struct{}{}:
	default:
	}
}

func (c *changes) take() (class string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for class = range c.set {
		delete(c.set, class)
		return class, true
	}
	return "", false
}

// pass gives what is added to whoever receives, until ctx ends.
func (c *changes) pass(ctx context.Context) {
	for {
		class, ok := c.take()
		if !ok {
			select {
			case <-c.added:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case c.out <- class:
		case <-ctx.Done():
			return
		}
	}
}

// startClasses lets the controller work, if there is one. That it cannot is told to
// fail: a server that keeps no workers should not look as if it did.
func (s *server) startClasses(ctx context.Context, fail chan<- error) {
	if s.controller == nil {
		return
	}
	go s.changes.pass(ctx)
	go s.reviews.Run(ctx)
	go func() {
		if err := s.controller.Run(ctx); err != nil && ctx.Err() == nil {
			fail <- fmt.Errorf("keep worker pods: %w", err)
		}
	}()
}
