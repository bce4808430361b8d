package agents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// KubeletOptions say how the kubelets are asked. The zero value is right for most clusters.
type KubeletOptions struct {
	// Containers are the names of the containers to measure; none: Containers().
	Containers []string
	// Nodes are how many nodes are asked at each look; 0: 4. Half of them stay the same for
	// as long as they are there, so that their agents can be followed; the others are drawn anew
	// each time, until those that are on few nodes (Typha, kube-controllers) are found,
	// whose nodes then stay, too.
	Nodes int
	// Now is the time of the samples; nil: time.Now.
	Now func() time.Time
	// Rand draws nodes; nil: math/rand/v2's own.
	Rand *rand.Rand
}

// What the kubelets are asked costs the API server one request per node and look, which
// it passes on, and two more now and then. Measured on the lab (Kubernetes 1.37): an answer
// had 1 to 2 kB for each container; /metrics/cadvisor of the same node was 30 times as long.
const (
	defaultNodes = 4
	maxSummary   = 4 << 20  // of one node's numbers
	maxPods      = 16 << 20 // of one node's pods; what is kept of them is a line each
	maxNodes     = 64 << 20 // of all nodes' names; 5,000 nodes have 15 MB of metadata
	refresh      = 10 * time.Minute
	nodesRefresh = time.Hour
)

// kubelets asks the kubelets through the API server.
type kubelets struct {
	client  *http.Client
	base    *url.URL
	options KubeletOptions
	wanted  map[string]bool

	mu    sync.Mutex // held during a look: there is one at a time
	nodes []string
	next  time.Time // when nodes are listed again
	fixed []string  // nodes that are asked each time
	pods  map[string]nodePods
	used  usage
}

// nodePods is what the API server says of the agents on one node.
type nodePods struct {
	until      time.Time
	containers map[string]podContainer // by namespace/pod/container
}

type podContainer struct {
	limit    float64
	cpuLimit float64
	restarts int
	ready    bool
	version  string
}

// Kubelets reads from the kubelets, through the API server. It needs the permission to
// get nodes/proxy, and to list nodes and pods. With nodes/proxy one may do more than read
// numbers, so Prometheus is to be preferred where there is one.
func Kubelets(config *rest.Config, options KubeletOptions) (Source, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	if options.Nodes <= 0 {
		options.Nodes = defaultNodes
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Rand == nil {
		options.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	wanted := map[string]bool{}
	for _, c := range containersOr(options.Containers) {
		wanted[c] = true
	}
	return &kubelets{client: client, base: base, options: options, wanted: wanted, pods: map[string]nodePods{}, used: usage{}}, nil
}

// Read implements Source. Nodes are asked one after the other. A node that does not
// answer is left out, with an error that names it.
func (k *kubelets) Read(ctx context.Context) ([]Sample, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.options.Now()
	if err := k.list(ctx, now); err != nil {
		return nil, err
	}
	k.used.forget(now)
	var samples []Sample
	var failed error
	for _, node := range k.choose() {
		read, err := k.node(ctx, node, now)
		if ctx.Err() != nil {
			return samples, fmt.Errorf("ask the kubelets: %w", ctx.Err())
		}
		if err != nil {
			// The first is enough: of a hundred nodes without permission each says the same.
			failed = cmp.Or(failed, fmt.Errorf("measure node %s: %w", plain(node), err))
			k.fixed = slices.DeleteFunc(k.fixed, func(fixed string) bool { return fixed == node })
			continue
		}
		samples = append(samples, read...)
		k.follow(node, read)
	}
	return samples, failed
}

// list brings the names of the nodes up to date, now and then.
func (k *kubelets) list(ctx context.Context, now time.Time) error {
	if len(k.nodes) > 0 && now.Before(k.next) {
		return nil
	}
	var names []string
	// From the API server's own memory, and of each only its metadata.
	u := k.base.JoinPath("api/v1/nodes")
	u.RawQuery = "resourceVersion=0"
	err := k.get(ctx, u, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", maxNodes, func(d *json.Decoder) error {
		return items(d, func() error {
			var node struct {
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			err := d.Decode(&node)
			names = append(names, node.Metadata.Name)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	k.nodes = names
	k.next = now.Add(k.jitter(nodesRefresh))
	gone := func(node string) bool { return !slices.Contains(names, node) }
	k.fixed = slices.DeleteFunc(k.fixed, gone)
	for node := range k.pods {
		if gone(node) {
			delete(k.pods, node)
		}
	}
	return nil
}

// jitter is a time, a quarter more or less: guards that started together drift apart.
func (k *kubelets) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(k.options.Rand.Int64N(int64(d/2)))
}

// choose are the nodes to ask at this look.
func (k *kubelets) choose() []string {
	stay := (k.options.Nodes + 1) / 2
	for len(k.fixed) < min(stay, len(k.nodes)) {
		if node := k.draw(); !slices.Contains(k.fixed, node) {
			k.fixed = append(k.fixed, node)
		}
	}
	// Those that were found later stay as far as there is room, the last draw being free.
	chosen := slices.Clone(k.fixed[:min(len(k.fixed), max(stay, k.options.Nodes-1))])
	for len(chosen) < min(k.options.Nodes, len(k.nodes)) {
		if node := k.draw(); !slices.Contains(chosen, node) {
			chosen = append(chosen, node)
		}
	}
	return chosen
}

func (k *kubelets) draw() string { return k.nodes[k.options.Rand.IntN(len(k.nodes))] }

// follow keeps a node at which an agent was found that those that stay do not have.
func (k *kubelets) follow(node string, read []Sample) {
	if slices.Contains(k.fixed, node) || len(k.fixed) >= k.options.Nodes-1 {
		return
	}
	for _, s := range read {
		found := slices.ContainsFunc(k.fixed, func(fixed string) bool {
			for name := range k.pods[fixed].containers {
				if containerIn(name) == s.Container {
					return true
				}
			}
			return false
		})
		if !found {
			k.fixed = append(k.fixed, node)
			return
		}
	}
}

// node measures the agents of one node.
func (k *kubelets) node(ctx context.Context, node string, now time.Time) ([]Sample, error) {
	var samples []Sample
	u := k.base.JoinPath("api/v1/nodes", url.PathEscape(node), "proxy/stats/summary")
	u.RawQuery = "only_cpu_and_memory=true"
	err := k.get(ctx, u, "application/json", maxSummary, func(d *json.Decoder) error {
		return summary(d, func(s Sample, cpu used) {
			if k.wanted[s.Container] {
				s.Agent, s.Node, s.At, s.Ready = agentOf(s.Container), node, now, true
				cpu.seen = now
				s.CPU = k.used.cores(nameOf(s), cpu)
				samples = append(samples, s)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if err := k.describe(ctx, node, now, samples); err != nil {
		return nil, err
	}
	return samples, nil
}

// describe adds to samples what their pods say, which is asked for again after some
// minutes, or when there is a pod that is not known.
func (k *kubelets) describe(ctx context.Context, node string, now time.Time, samples []Sample) error {
	known := k.pods[node]
	missing := slices.ContainsFunc(samples, func(s Sample) bool { _, ok := known.containers[nameOf(s)]; return !ok })
	if len(samples) > 0 && (missing || now.After(known.until)) {
		containers, err := k.describePods(ctx, node)
		if err != nil {
			return fmt.Errorf("list its pods: %w", err)
		}
		known = nodePods{now.Add(k.jitter(refresh)), containers}
		if len(k.pods) >= 16*k.options.Nodes {
			clear(k.pods) // nodes that are drawn at random would add up
		}
		k.pods[node] = known
	}
	for i := range samples {
		if c, ok := known.containers[nameOf(samples[i])]; ok {
			s := &samples[i]
			s.Limit, s.CPULimit = cmp.Or(c.limit, s.Limit), c.cpuLimit
			s.Restarts, s.Ready, s.Version = c.restarts, c.ready, c.version
		}
	}
	return nil
}

// get asks the API server.
func (k *kubelets) get(ctx context.Context, u *url.URL, accept string, most int64, read func(*json.Decoder) error) error {
	err := get(ctx, k.client, u.String(), accept, most, "the API server", read)
	if refused, ok := errors.AsType[*bulkhead.Error](err); ok && refused.Code == bulkhead.CodeDenied {
		refused.Hint = "grant get on nodes/proxy and list on nodes and pods, or measure agents by Prometheus"
	}
	return err
}

// nameOf is how a container is known on its node.
func nameOf(s Sample) string { return s.Namespace + "/" + s.Pod + "/" + s.Container }

func containerIn(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
