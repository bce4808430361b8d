package footprint

import (
	"slices"

	"bulkhead.dev/bulkhead/guard/budget"
)

// Watch is who must hold every object of a kind, wherever it is needed.
type Watch struct {
	Kind    string   `json:"kind"`
	OnNodes []string `json:"on_each_node"`
	Central []string `json:"central"` // a few copies in the cluster
	// Copies is how many agents of nodes hold each; null: the number of nodes is not known.
	Copies *int64 `json:"copies"`
}

// holds is which agents hold all objects of a kind in memory. What holds all kinds (the
// API server's watch cache, the metadata in kube-controller-manager's garbage
// collector) is left out. Sources: the informers that each of them starts.
var holds = []Watch{
	// calico/felix: every Felix stores and indexes every policy, and programs those that
	// select a pod of its node; Typha hands them on. Cilium's agent has the same informer.
	{Kind: budget.NetworkPolicies, OnNodes: []string{"calico-node, cilium-agent or whatever enforces them"}, Central: []string{"typha"}},
	{Kind: budget.CalicoPolicies, OnNodes: []string{"calico-node"}, Central: []string{"typha"}},
	{Kind: budget.GlobalPolicies, OnNodes: []string{"calico-node"}, Central: []string{"typha"}},
	// kubernetes/cmd/kube-proxy: config.NewServiceConfig and NewEndpointSliceConfig.
	{Kind: budget.Services, OnNodes: []string{"kube-proxy"}, Central: []string{"coredns", "kube-controller-manager"}},
	{Kind: budget.EndpointSlices, OnNodes: []string{"kube-proxy"}, Central: []string{"coredns", "kube-controller-manager"}},
	// A kubelet watches its own pods, and the ConfigMaps and Secrets that they mount, one by one.
	{Kind: budget.Pods, OnNodes: []string{"calico-node"}, Central: []string{"kube-scheduler", "kube-controller-manager", "kube-state-metrics"}},
	{Kind: budget.Secrets, Central: []string{"cert-manager", "ingress controllers", "kube-state-metrics"}},
	{Kind: budget.ConfigMaps, Central: []string{"cert-manager-cainjector", "kube-state-metrics"}},
	{Kind: budget.Jobs, Central: []string{"kube-controller-manager", "kube-state-metrics"}},
	{Kind: "namespaces", OnNodes: []string{"calico-node"}, Central: []string{"kube-controller-manager"}},
	{Kind: "serviceaccounts", OnNodes: []string{"calico-node"}, Central: []string{"kube-controller-manager"}},
}

// watchers are those of the kinds in a plan that agents on nodes hold, and of the others
// that somebody does.
func watchers(rows []Row, nodes int64) []Watch {
	out := []Watch{}
	for _, h := range holds {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Kind == h.Kind && r.Unit == budget.Objects }) {
			continue
		}
		if h.OnNodes == nil {
			h.OnNodes = []string{}
		}
		if nodes > 0 {
			n := times(nodes, int64(len(h.OnNodes)))
			h.Copies = &n
		}
		out = append(out, h)
	}
	return out
}

// Agent is what the policies of a plan add to the memory of an agent, at their peak.
type Agent struct {
	Name  string `json:"name"`
	Each  int64  `json:"each"`  // bytes that one invocation adds
	Bytes *int64 `json:"bytes"` // at the peak; null: it grows without end
	Nodes *int64 `json:"nodes"` // on so many nodes; null: not known, or not on nodes
}

// costs are measured: real Felix and Typha against a real API server, policies of 1 and
// of 90 egress rules, each one CIDR and one port, none of which selects a pod of the
// node (Go 1.18 and 1.25, one machine, single runs). Felix 3.23.3 in a memory cgroup
// had 60 MiB + 106.5 kB a policy of 90 rules, and 5 kB one of a single rule; 3.31.7
// after a start at 2,000 policies 16 kB and 3 kB; a starting Typha 3.23.3 reaches 100 MiB + 187 kB.
var costs = []struct {
	agent          string
	onNodes        bool
	policy, perOne int64 // bytes for a policy, and for a rule
}{
	{"calico-node 3.23", true, 3_900, 1_140},
	{"calico-node 3.31", true, 2_900, 145},
	{"a starting typha 3.23", false, 8_000, 1_990},
}

func agents(rows []Row, nodes int64) []Agent {
	var policies, rules, peakPolicies, peakRules int64
	ends := true
	for _, r := range rows {
		if !budget.HasRules(r.Kind) {
			continue
		}
		each, peak := &policies, &peakPolicies
		if r.Unit == budget.Rules {
			each, peak = &rules, &peakRules
		}
		*each = plus(*each, r.Each)
		if ends = ends && r.Peak != nil; ends {
			*peak = plus(*peak, *r.Peak)
		}
	}
	out := []Agent{}
	for _, c := range costs {
		if policies == 0 {
			break
		}
		a := Agent{Name: c.agent, Each: plus(times(policies, c.policy), times(rules, c.perOne))}
		if ends {
			n := plus(times(peakPolicies, c.policy), times(peakRules, c.perOne))
			a.Bytes = &n
		}
		if c.onNodes && nodes > 0 {
			a.Nodes = &nodes
		}
		out = append(out, a)
	}
	return out
}
