package budget

import (
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
)

// Kinds as the census has them: the resource, with its group if it has one.
const (
	Pods            = "pods"
	ConfigMaps      = "configmaps"
	Secrets         = "secrets"
	Services        = "services"
	Events          = "events"
	NetworkPolicies = "networkpolicies.networking.k8s.io"
	Jobs            = "jobs.batch"
	CronJobs        = "cronjobs.batch"
	Deployments     = "deployments.apps"
	ReplicaSets     = "replicasets.apps"
	EndpointSlices  = "endpointslices.discovery.k8s.io"
	// CalicoPolicies are Calico's own, as they are stored; GlobalPolicies those of them that
	// have no namespace.
	CalicoPolicies = "networkpolicies.crd.projectcalico.org"
	GlobalPolicies = "globalnetworkpolicies.crd.projectcalico.org"
)

// HasRules reports whether a kind has rules that agents pay for.
func HasRules(kind string) bool {
	switch kind {
	case NetworkPolicies, CalicoPolicies, GlobalPolicies:
		return true
	}
	return false
}

// resources are the built-in ones: resource, kind in the singular, short name.
// `kubectl api-resources` prints them.
var resources = []struct{ resource, singular, short string }{
	{ConfigMaps, "configmap", "cm"},
	{"controllerrevisions.apps", "controllerrevision", ""},
	{CronJobs, "cronjob", "cj"},
	{"customresourcedefinitions.apiextensions.k8s.io", "customresourcedefinition", "crd"},
	{"daemonsets.apps", "daemonset", "ds"},
	{Deployments, "deployment", "deploy"},
	{"endpoints", "endpoints", "ep"},
	{EndpointSlices, "endpointslice", ""},
	{Events, "event", "ev"},
	{"horizontalpodautoscalers.autoscaling", "horizontalpodautoscaler", "hpa"},
	{"ingresses.networking.k8s.io", "ingress", "ing"},
	{Jobs, "job", ""},
	{"leases.coordination.k8s.io", "lease", ""},
	{"limitranges", "limitrange", "limits"},
	{"namespaces", "namespace", "ns"},
	{NetworkPolicies, "networkpolicy", "netpol"},
	{"nodes", "node", "no"},
	{"persistentvolumeclaims", "persistentvolumeclaim", "pvc"},
	{"persistentvolumes", "persistentvolume", "pv"},
	{"poddisruptionbudgets.policy", "poddisruptionbudget", "pdb"},
	{Pods, "pod", "po"},
	{ReplicaSets, "replicaset", "rs"},
	{"replicationcontrollers", "replicationcontroller", "rc"},
	{"resourcequotas", "resourcequota", "quota"},
	{"clusterrolebindings.rbac.authorization.k8s.io", "clusterrolebinding", ""},
	{"clusterroles.rbac.authorization.k8s.io", "clusterrole", ""},
	{"rolebindings.rbac.authorization.k8s.io", "rolebinding", ""},
	{"roles.rbac.authorization.k8s.io", "role", ""},
	{Secrets, "secret", ""},
	{"serviceaccounts", "serviceaccount", "sa"},
	{Services, "service", "svc"},
	{"statefulsets.apps", "statefulset", "sts"},
	{"volumeattachments.storage.k8s.io", "volumeattachment", ""},
	{CalicoPolicies, "networkpolicy.crd.projectcalico.org", "caliconetworkpolicies"},
	{GlobalPolicies, "globalnetworkpolicy.crd.projectcalico.org", "gnp"},
}

var byName = func() map[string]string {
	m := map[string]string{}
	for _, r := range resources {
		plural, _, _ := strings.Cut(r.resource, ".")
		for _, name := range []string{r.resource, r.singular, r.short, plural} {
			if _, taken := m[name]; !taken && name != "" {
				m[name] = r.resource
			}
		}
	}
	// What users write is of this group, what is stored of another.
	for _, name := range []string{"networkpolicies", "globalnetworkpolicies"} {
		m[name+".projectcalico.org"] = name + ".crd.projectcalico.org"
	}
	return m
}()

// Resource returns the resource that a name means for kubectl: netpol, NetworkPolicy
// and networkpolicies are networkpolicies.networking.k8s.io. What is not built in is
// returned as it is, and not known.
func Resource(name string) (resource string, known bool) {
	if r, ok := byName[strings.ToLower(name)]; ok {
		return r, true
	}
	return name, false
}

// Short is what people call a kind: the resource without the group of a built-in one.
func Short(kind string) string {
	plural, _, _ := strings.Cut(kind, ".")
	if byName[plural] == kind {
		return plural
	}
	return kind
}

// names are those that Nearest may suggest.
func names() []string {
	var all []string
	for _, r := range resources {
		all = append(all, Short(r.resource))
	}
	slices.Sort(all)
	return all
}

// Near is a built-in kind that a misspelt name is like; "": none is.
func Near(name string) string { return bulkhead.Nearest(name, names()) }
