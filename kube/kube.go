// Package kube is Bulkhead on Kubernetes: the ScriptClass, which an operator
// writes once for many runs, and its controller, which keeps as many worker pods
// as the runs of a class can use, between none and the class's max.
//
// Each reconciliation looks at one class as a whole and acts on what is, not on
// what happened:
//
//	snapshot (class, pods, agents, demand) → decide (pure, decide.go) → apply
//
// What is made for a class is one ConfigMap, one NetworkPolicy or none, and its
// pods; nothing is made for a run or an item, and no Event is written. Names of
// pods are NAME-SHAPE-ORDINAL, so that the API server refuses one that is there
// already. All of it is owned by the class: who deletes the class deletes
// everything: its pods get SIGTERM, the scripts in them their grace, and what they
// ran is reported as interrupted. Runs of a class that does not exist wait, with
// that reason, and go on when there is one of the name again.
//
// A pod that runs is never deleted by the controller. It ends by itself when it
// is idle, old or has run enough; one that is not wanted any more (its class has
// changed, or another shape needs the room) is told so by the server, finishes
// what it runs, and ends. A pod that has ended is deleted at once.
//
// While the API server is away, workers work on, and classes are still known.
//
// Who somebody is, and what he may do, the cluster says, too: reviews.go asks it for
// users, worker.go for the pods that the controller has made.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// Work is what the controller asks of the server. Classes are named
// NAMESPACE/NAME, agents NAMESPACE/POD.
type Work interface {
	// Demand is what the runs of a class can use now, by shape.
	Demand(class string) []bulkhead.Demand
	// Changed names classes whose demand or agents have changed. A class that was
	// not received yet need not be sent again.
	Changed() <-chan string
	// Agents are those of a class that are connected or hold a lease.
	Agents(class string) []AgentStatus
	// Block says why no worker comes, in one line, for every run that waits for
	// one; "" ends it.
	Block(class, reason string)
	// Retire lets an agent finish what it runs, and end.
	Retire(agent string)
	// Gone says that an agent has ended for good and nothing of it runs: what it
	// still holds is lost. Of a pod whose end nobody saw (its node is cut off) it is
	// not said, because a script may still run there: then leases expire.
	Gone(agent string)
}

// AgentStatus is how an agent stands.
type AgentStatus struct {
	Name      string // NAMESPACE/POD
	Slots     int
	Busy      int       // slots that have an item
	Since     time.Time // when it connected first
	Connected bool      // now; false: it only holds leases
	Leaving   bool      // it takes no more items
}

// Options of New. Those without a default must be set.
type Options struct {
	// Config is how to reach the API server.
	Config *rest.Config
	// Namespaces are those whose classes are served. Default: all.
	Namespaces []string
	// Server is the URL of the server, as pods reach it.
	Server string
	// Image has this binary at /bulkhead.
	Image string
	// ImagePullPolicy of Image. Default: that of Kubernetes.
	ImagePullPolicy corev1.PullPolicy
	// CA gives the certificates that may have signed the server's, PEM. It is asked
	// again and again.
	CA func() []byte
	// ServerEgress are the rules that let workers reach the server where a class
	// says what they may reach. Default: TCP to the port of Server, anywhere.
	ServerEgress []networkingv1.NetworkPolicyEgressRule
	// PodsPerSecond is how many pods are made, of all classes together. Default: 5.
	PodsPerSecond float64
	// PodsBurst is how many may be made at once after a pause. Default: 10.
	PodsBurst int
	// Changed is told of every class that has come, changed or gone. Default: nobody.
	Changed func(class string)
	// Log gets what nobody else is told. Default: nothing is logged.
	Log *slog.Logger
}

func (o *Options) complete() error {
	server, err := url.Parse(o.Server)
	switch {
	case o.Config == nil || o.Image == "" || o.CA == nil:
		return errors.New("kube: Config, Image and CA must be set")
	case err != nil || server.Host == "":
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("the server's URL %q names no host", o.Server),
			Hint: "write the URL by which pods reach it, for example https://bulkhead.bulkhead.svc:8443"}
	}
	if o.ServerEgress == nil {
		o.ServerEgress = []networkingv1.NetworkPolicyEgressRule{egressTo(server)}
	}
	if o.PodsPerSecond == 0 {
		o.PodsPerSecond = 5
	}
	if o.PodsBurst == 0 {
		o.PodsBurst = 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Controller keeps the worker pods of all classes, and knows the classes.
type Controller struct {
	options Options
	work    Work
	starts  *rate.Limiter // of pods
	client  client.Client // reads come from the cache; set by Run
	reader  client.Reader // asks the API server; set by Run
	began   time.Time     // set by Run

	mu       sync.Mutex
	cached   client.Reader // what is watched; nil: nothing yet
	classes  map[string]known
	memories map[types.NamespacedName]*memory
	ended    map[types.NamespacedName][]string // agents by class, see noteEnd
	away     error                             // why the classes are not known; nil: they are
}

// known is a class as it was last seen.
type known struct {
	class      bulkhead.Class
	generation int64
}

// New returns a controller that does nothing before Run.
func New(work Work, options Options) (*Controller, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	return &Controller{
		options: options, work: work, starts: rate.NewLimiter(rate.Limit(options.PodsPerSecond), options.PodsBurst),
		classes: map[string]known{}, memories: map[types.NamespacedName]*memory{}, ended: map[types.NamespacedName][]string{},
		away: errors.New("the Kubernetes API server has not answered yet"),
	}, nil
}

// Class returns a class, also while the API server is away. Before Synced
// returns nil, a class that is not found may exist.
func (c *Controller) Class(name string) (bulkhead.Class, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.classes[name]
	return k.class, ok
}

// Names are the names of all classes, sorted.
func (c *Controller) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.classes))
}

// Synced says why the classes are not known yet, or nil once they are. After
// that they stay known.
func (c *Controller) Synced() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

// learn takes in a class as the cluster has it now.
func (c *Controller) learn(class *v1alpha1.ScriptClass) {
	name := class.Namespace + "/" + class.Name
	if class.DeletionTimestamp != nil {
		c.forget(name)
		return
	}
	c.mu.Lock()
	was, ok := c.classes[name]
	c.classes[name] = known{ToClass(class), class.Generation}
	c.mu.Unlock()
	if !ok || was.generation != class.Generation {
		c.tell(name)
	}
}

// forget takes in that a class is gone.
func (c *Controller) forget(name string) {
	c.mu.Lock()
	_, ok := c.classes[name]
	delete(c.classes, name)
	c.mu.Unlock()
	if ok {
		c.tell(name)
	}
}

func (c *Controller) tell(name string) {
	if c.options.Changed != nil {
		c.options.Changed(name)
	}
}

// ToClass is a ScriptClass in the words of the rest of Bulkhead.
func ToClass(class *v1alpha1.ScriptClass) bulkhead.Class {
	spec := &class.Spec
	out := bulkhead.Class{
		Name: class.Namespace + "/" + class.Name, Command: spec.Command, Dir: spec.Dir, Limit: int(spec.Limit),
		Echo: spec.EchoOutput, Shapes: spec.Shapes.Max > 0, Objects: []bulkhead.ObjectCount{{Kind: "ConfigMap", Count: 1}},
	}
	if p := &spec.NetworkPolicy; p.Existing == "" && !p.None {
		out.Objects = append(out.Objects, bulkhead.ObjectCount{Kind: "NetworkPolicy", Count: 1})
	}
	if spec.Timeout != nil {
		out.Timeout = spec.Timeout.Duration
	}
	for _, p := range spec.Pools {
		out.Pools = append(out.Pools, bulkhead.PoolUse{Name: p.Name, Key: p.Key, Slots: int(p.Slots)})
	}
	return out
}

// Run serves the classes until ctx ends. It waits for an API server that is
// away, now and later.
func (c *Controller) Run(ctx context.Context) error {
	m, err := c.manager()
	if err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	c.began = time.Now()
	c.client, c.reader = m.GetClient(), m.GetAPIReader()
	c.mu.Lock()
	c.cached = m.GetCache()
	c.mu.Unlock()
	if err := m.Start(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run the controller: %w", err)
	}
	return nil
}
