// Package agents measures the agents of a cluster that must hold what is in it: their
// memory and CPU, the limits of both, and the signs that they are about to die.
//
// An agent on each node that keeps every policy, ConfigMap or pod in memory is where a
// growth hurts first, long before etcd or the API server notice: on 2024-10-09 it was
// calico-node, with a limit of 500Mi (Wikitech, Incidents/2024-10-09 calico-codfw).
//
// Two sources tell: Prometheus, which has all of them already, and the kubelets,
// where there is no Prometheus: a few nodes, one after the other, as all nodes' agents
// hold the same.
//
// An agent at its limit need not be killed. The kernel takes away the pages of its own
// binary first, and it reads them again, all the time: it hangs, without any restart
// or out-of-memory kill that somebody could have an alert for. [Signs] sees that coming.
package agents

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// Sample is one container at one time.
type Sample struct {
	Agent       string    `json:"agent"` // as people call it: cert-manager
	Namespace   string    `json:"namespace"`
	Pod         string    `json:"pod"`
	Node        string    `json:"node,omitempty"`
	Container   string    `json:"container"`
	Version     string    `json:"version,omitempty"` // of its image; "": not known
	At          time.Time `json:"at"`
	Memory      float64   `json:"memory"`      // bytes that cannot be evicted (RSS)
	WorkingSet  float64   `json:"workingSet"`  // bytes
	Limit       float64   `json:"limit"`       // bytes; 0: none
	CPU         float64   `json:"cpu"`         // cores in use over the last minutes; 0: not known yet
	CPULimit    float64   `json:"cpuLimit"`    // cores; 0: none
	MajorFaults float64   `json:"majorFaults"` // since it started
	PageCache   float64   `json:"pageCache"`   // bytes
	// Restarts and Ready are as the cluster says, a few minutes old at most. Ready is true
	// when that is not known.
	Restarts int  `json:"restarts"`
	Ready    bool `json:"ready"`
}

// Source reads samples: one of each container, of some or all nodes. What could be
// read is returned also beside an error.
type Source interface {
	Read(ctx context.Context) ([]Sample, error)
}

// known are containers that keep in memory what is in the cluster, and what people call them.
var known = map[string]string{
	"antrea-agent":             "antrea-agent",
	"application-controller":   "argocd-application-controller",
	"aws-node":                 "aws-node",
	"calico-kube-controllers":  "calico-kube-controllers",
	"calico-node":              "calico-node",
	"calico-typha":             "calico-typha",
	"cert-manager-cainjector":  "cainjector",
	"cert-manager-controller":  "cert-manager",
	"cilium-agent":             "cilium-agent",
	"cilium-operator":          "cilium-operator",
	"coredns":                  "coredns",
	"helm-state-metrics":       "helm-state-metrics",
	"kube-proxy":               "kube-proxy",
	"kube-router":              "kube-router",
	"kube-state-metrics":       "kube-state-metrics",
	"kyverno":                  "kyverno",
	"metrics-server":           "metrics-server",
	"workflow-controller":      "argo-workflow-controller",
	"argo-workflow-controller": "argo-workflow-controller",
}

// Containers are the names of the containers that are measured when nothing else is said.
func Containers() []string { return slices.Sorted(maps.Keys(known)) }

// containersOr are those to measure, each once.
func containersOr(names []string) []string {
	if len(names) == 0 {
		return Containers()
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// agentOf is what people call a container.
func agentOf(container string) string { return cmp.Or(known[container], container) }

// versionOf is the tag of an image, without its digest.
func versionOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name := image[strings.LastIndexByte(image, '/')+1:]
	_, tag, _ := strings.Cut(name, ":")
	return tag
}

// Worst are the containers that are nearest to their limits: of each agent the
// fullest, and the busiest if that is another one.
func Worst(samples []Sample) []Sample {
	worst := Fullest(samples)
	for _, b := range Busiest(samples) {
		if !slices.Contains(worst, b) {
			worst = append(worst, b)
		}
	}
	return worst
}

// Fullest are the containers whose memory is nearest to its limit, one of each agent, in
// the order of agents: of those without a limit the largest.
func Fullest(samples []Sample) []Sample {
	return nearest(samples, func(s Sample) (uses, limit float64) { return s.WorkingSet, s.Limit })
}

// Busiest are those whose CPU is.
func Busiest(samples []Sample) []Sample {
	return nearest(samples, func(s Sample) (uses, limit float64) { return s.CPU, s.CPULimit })
}

func nearest(samples []Sample, of func(Sample) (uses, limit float64)) []Sample {
	nearer := func(a, b Sample) bool {
		usesA, limitA := of(a)
		usesB, limitB := of(b)
		if limitA > 0 && limitB > 0 {
			return usesA/limitA > usesB/limitB
		}
		if limitA > 0 || limitB > 0 {
			return limitA > 0
		}
		return usesA > usesB
	}
	nearest := map[string]Sample{}
	for _, s := range samples {
		if n, ok := nearest[s.Agent]; !ok || nearer(s, n) {
			nearest[s.Agent] = s
		}
	}
	return slices.SortedFunc(maps.Values(nearest), func(a, b Sample) int { return strings.Compare(a.Agent, b.Agent) })
}
