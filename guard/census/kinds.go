package census

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"bulkhead.dev/bulkhead"
)

// BuiltIn are the kinds of Kubernetes itself that multiply, owners before what they
// own. Those that Bulkhead is not told about otherwise are counted, and beside them all
// custom resources.
var BuiltIn = []string{
	"customresourcedefinitions.apiextensions.k8s.io",
	"cronjobs.batch", "deployments.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch", "replicasets.apps", "pods",
	"networkpolicies.networking.k8s.io", "configmaps", "secrets", "services", "endpointslices.discovery.k8s.io",
	"leases.coordination.k8s.io", "persistentvolumeclaims", "serviceaccounts", "rolebindings.rbac.authorization.k8s.io",
}

const (
	events      = "events"
	definitions = "customresourcedefinitions.apiextensions.k8s.io"
	leases      = "leases.coordination.k8s.io"
	calico      = "crd.projectcalico.org"
	calicoAPI   = "projectcalico.org" // the same objects, by an API server of Calico's
	// maxCustom is how many kinds of custom resources are watched. A cluster with more
	// has them counted by the API server.
	maxCustom = 300
)

// builtInGroups are the API groups that are not of custom resources.
var builtInGroups = map[string]bool{
	"": true, "apps": true, "batch": true, "autoscaling": true, "policy": true, "extensions": true,
	"admissionregistration.k8s.io": true, "apiextensions.k8s.io": true, "apiregistration.k8s.io": true,
	"authentication.k8s.io": true, "authorization.k8s.io": true, "certificates.k8s.io": true, "coordination.k8s.io": true,
	"discovery.k8s.io": true, "events.k8s.io": true, "flowcontrol.apiserver.k8s.io": true, "internal.apiserver.k8s.io": true,
	"networking.k8s.io": true, "node.k8s.io": true, "rbac.authorization.k8s.io": true, "resource.k8s.io": true,
	"scheduling.k8s.io": true, "storage.k8s.io": true, "storagemigration.k8s.io": true,
}

// kind is one that the API has.
type kind struct {
	schema.GroupVersionResource

	name       string // pods, jobs.batch
	namespaced bool
	policy     bool // its rules are counted
}

// switches say which kinds are counted.
type switches map[string]bool

// readSwitches reads -KIND and +KIND; a kind without either is meant to be on, and
// "-*" switches off all that is not on.
func readSwitches(kinds []string) (switches, error) {
	s := switches{}
	for _, k := range kinds {
		name := strings.TrimLeft(k, "+-")
		if name == "" || len(k)-len(name) > 1 {
			return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("kind %q: not the name of a resource", k),
				Hint: `write -events to leave a kind out and +foos.example.org to count one, as "kubectl api-resources -o name" has them`}
		}
		s[strings.ToLower(name)] = k[0] != '-'
	}
	return s, nil
}

// on says whether a kind is counted, which is counted by default or not.
func (s switches) on(name string, byDefault bool) bool {
	if on, said := s[name]; said {
		return on
	}
	if on, said := s["*"]; said {
		return on
	}
	return byDefault
}

// offer is what an API has to count.
type offer struct {
	kinds  []kind
	failed map[string]bool // groups of which it does not know at the moment
	over   []string        // too many
	absent []string        // switched on or off, and no kind of it
}

// kindsOf asks the API which kinds it has, and picks those to count.
func kindsOf(ctx context.Context, client discovery.DiscoveryInterfaceWithContext, s switches) (offer, error) {
	lists, err := client.ServerPreferredResourcesWithContext(ctx)
	o := offer{failed: map[string]bool{}}
	if partly, ok := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err); ok {
		for gv := range partly.Groups {
			o.failed[gv.Group] = true
		}
	} else if err != nil {
		return o, fmt.Errorf("ask which kinds there are: %w", err)
	}
	all := map[string]kind{}
	for _, list := range lists {
		for _, r := range list.APIResources {
			if k, ok := kindOf(list.GroupVersion, r); ok {
				all[k.name] = k
			}
		}
	}
	o.kinds, o.over = pick(all, s)
	for _, name := range slices.Sorted(maps.Keys(s)) {
		_, group, _ := strings.Cut(name, ".")
		if _, ok := all[name]; !ok && name != "*" && !o.failed[group] {
			o.absent = append(o.absent, name)
		}
	}
	return o, nil
}

func kindOf(groupVersion string, r metav1.APIResource) (kind, bool) {
	gv, err := schema.ParseGroupVersion(groupVersion)
	if err != nil || strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "watch") {
		return kind{}, false
	}
	k := kind{GroupVersionResource: gv.WithResource(r.Name), name: r.Name, namespaced: r.Namespaced}
	if gv.Group != "" {
		k.name += "." + gv.Group
	}
	switch gv.Group {
	case "networking.k8s.io":
		k.policy = r.Name == "networkpolicies"
	case calico, calicoAPI:
		k.policy = r.Name == "networkpolicies" || r.Name == "globalnetworkpolicies"
	}
	return k, true
}

// pick chooses from all kinds: the built-in ones in their order, then custom ones by
// name. over are those that are too many.
func pick(all map[string]kind, s switches) (found []kind, over []string) {
	hasCalico := slices.ContainsFunc(slices.Collect(maps.Values(all)), func(k kind) bool { return k.Group == calico })
	for _, name := range BuiltIn {
		if k, ok := all[name]; ok && s.on(name, true) {
			found = append(found, k)
		}
	}
	custom := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		k := all[name]
		byDefault := !builtInGroups[k.Group] && (k.Group != calicoAPI || !hasCalico)
		if slices.Contains(BuiltIn, name) || name == events || name == "events.events.k8s.io" || !s.on(name, byDefault) {
			continue
		}
		if custom++; custom > maxCustom && !s[name] {
			over = append(over, name)
			continue
		}
		found = append(found, k)
	}
	return found, over
}
