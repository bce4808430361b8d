// Package agents measures the agents of a cluster that must hold what is in it: their
// memory, the limit of it, and the signs that they are about to die.
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
	CPU         float64   `json:"cpu"`         // cores in use
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

// Fullest are the containers that are nearest to their limits, one of each agent, in
// the order of agents: of those without a limit the largest.
func Fullest(samples []Sample) []Sample {
	fullest := map[string]Sample{}
	for _, s := range samples {
		if f, ok := fullest[s.Agent]; !ok || fuller(s, f) {
			fullest[s.Agent] = s
		}
	}
	return slices.SortedFunc(maps.Values(fullest), func(a, b Sample) int { return strings.Compare(a.Agent, b.Agent) })
}

func fuller(a, b Sample) bool {
	if a.Limit > 0 && b.Limit > 0 {
		return a.WorkingSet/a.Limit > b.WorkingSet/b.Limit
	}
	if a.Limit > 0 || b.Limit > 0 {
		return a.Limit > 0
	}
	return a.WorkingSet > b.WorkingSet
}
