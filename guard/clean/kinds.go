package clean

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kind is a kind of objects, as the API names it.
type kind struct{ group, version, resource string }

// What a release may consist of, and what is removed by itself: a policy, a ConfigMap
// and a Secret. A finished pod is that of a hook.
var (
	jobs            = kind{"batch", "v1", "jobs"}
	pods            = kind{"", "v1", "pods"}
	configMaps      = kind{"", "v1", "configmaps"}
	secrets         = kind{"", "v1", "secrets"}
	serviceAccounts = kind{"", "v1", "serviceaccounts"}
	policies        = kind{"networking.k8s.io", "v1", "networkpolicies"}
)

// removable are these kinds by their apiVersion and kind in a manifest, in the order in
// which a release is taken apart: what agents carry comes first.
var removable = []struct {
	apiVersion, name string
	kind             kind
}{
	{"networking.k8s.io/v1", "NetworkPolicy", policies},
	{"v1", "ConfigMap", configMaps},
	{"v1", "Secret", secrets},
	{"v1", "ServiceAccount", serviceAccounts},
	{"v1", "Pod", pods},
	{"batch/v1", "Job", jobs},
}

func kindOf(apiVersion, name string) (kind, bool) {
	for _, r := range removable {
		if r.apiVersion == apiVersion && r.name == name {
			return r.kind, true
		}
	}
	return kind{}, false
}

// rank is the place of a kind in removable.
func (k kind) rank() int {
	for i, r := range removable {
		if r.kind == k {
			return i
		}
	}
	return len(removable)
}

// kind is its name in a census: networkpolicies.networking.k8s.io.
func (k kind) kind() string {
	return schema.GroupResource{Group: k.group, Resource: k.resource}.String()
}

// one is what people call one of them.
func (k kind) one() string {
	for _, r := range removable {
		if r.kind == k {
			return r.name
		}
	}
	return k.kind()
}

func (k kind) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.resource}
}

// holderKind is a kind whose objects may mention or be what is left over.
type holderKind struct {
	kind

	// name is that of one of them: Deployment.
	name string
	// template is where its pods' labels are; nil: it makes no pods.
	template []string
	// cluster: they are in no namespace.
	cluster bool
	// needed: without it nothing can be said. Others are left out with a note.
	needed bool
}

// makers are the kinds that pods come from. All of them have to be looked at.
var makers = []holderKind{
	{kind: pods, name: "pod", template: []string{"metadata", "labels"}, needed: true},
	{kind: kind{"", "v1", "replicationcontrollers"}, name: "replication controller", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: kind{"", "v1", "podtemplates"}, name: "pod template", template: []string{"template", "metadata", "labels"}, needed: true},
	{kind: kind{"apps", "v1", "deployments"}, name: "deployment", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: kind{"apps", "v1", "statefulsets"}, name: "stateful set", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: kind{"apps", "v1", "daemonsets"}, name: "daemon set", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: kind{"apps", "v1", "replicasets"}, name: "replica set", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: jobs, name: "job", template: []string{"spec", "template", "metadata", "labels"}, needed: true},
	{kind: kind{"batch", "v1", "cronjobs"}, name: "cron job", template: []string{"spec", "jobTemplate", "spec", "template", "metadata", "labels"}, needed: true},
	{kind: serviceAccounts, name: "service account", needed: true},
	{kind: kind{"networking.k8s.io", "v1", "ingresses"}, name: "ingress", needed: true},
}

// unable are kinds of which there are many, and which cannot make anybody need
// a ConfigMap or a Secret. ConfigMaps, Secrets and policies are what is looked for.
var unable = []string{"events", "events.events.k8s.io", "leases.coordination.k8s.io", "endpoints", "endpointslices.discovery.k8s.io",
	configMaps.kind(), secrets.kind(), policies.kind(), "resourcequotas", "limitranges",
	"ipaddresses.networking.k8s.io", "localsubjectaccessreviews.authorization.k8s.io", "bindings"}

// holderKinds are the makers, and all other kinds in namespaces: an object of any of
// them may name a Secret.
func holderKinds(ctx context.Context, d discovery.DiscoveryInterface) (kinds []holderKind, notes []string, err error) {
	lists, err := discovery.ToDiscoveryInterfaceWithContext(d).ServerPreferredNamespacedResourcesWithContext(ctx)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx) // of an end, too, it would say that nobody answers
	}
	if failed, ok := discovery.GroupDiscoveryFailedErrorGroups(err); ok {
		for group := range failed {
			notes = append(notes, fmt.Sprintf("kinds of %s are not looked at: the API server that has them does not answer", group))
		}
		slices.Sort(notes)
	} else if err != nil {
		return nil, nil, err
	}
	kinds = append(slices.Clone(makers), holderKind{kind: kind{"", "v1", "persistentvolumes"}, name: "persistent volume", cluster: true})
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || gv.Group == "metrics.k8s.io" {
			continue
		}
		for _, r := range list.APIResources {
			k := kind{gv.Group, gv.Version, r.Name}
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") || slices.Contains(unable, k.kind()) || isMaker(k) {
				continue
			}
			kinds = append(kinds, holderKind{kind: k, name: strings.ToLower(r.Kind)})
		}
	}
	return kinds, notes, nil
}

func isMaker(k kind) bool {
	return slices.ContainsFunc(makers, func(h holderKind) bool { return h.group == k.group && h.resource == k.resource })
}
