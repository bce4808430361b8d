package census

import (
	"context"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead/guard/family"
)

// source is where the objects of a kind come from: of all of them, or of those in a
// namespace.
type source struct {
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
}

// clients are those that sources use. They share a connection.
type clients struct {
	metadata metadata.Interface
	typed    kubernetes.Interface
	dynamic  dynamic.Interface
}

func newClients(config *rest.Config) (clients, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return clients{}, err
	}
	var c clients
	if c.metadata, err = metadata.NewForConfigAndClient(config, http); err != nil {
		return clients{}, err
	}
	binary := rest.CopyConfig(config)
	binary.AcceptContentTypes, binary.ContentType = "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf"
	if c.typed, err = kubernetes.NewForConfigAndClient(binary, http); err != nil {
		return clients{}, err
	}
	c.dynamic, err = dynamic.NewForConfigAndClient(config, http)
	return c, err
}

// of is the source of a kind: metadata, but of policies all, for their rules.
func (c clients) of(k kind, namespace string) source {
	switch {
	case k.policy && k.Group == networkingv1.GroupName:
		api := c.typed.NetworkingV1().NetworkPolicies(namespace)
		return source{api.Watch, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }}
	case k.policy:
		api := c.dynamic.Resource(k.GroupVersionResource).Namespace(namespace)
		return source{api.Watch, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }}
	}
	api := c.metadata.Resource(k.GroupVersionResource).Namespace(namespace)
	return source{api.Watch, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }}
}

// read takes from an object what is counted.
func read(kind string, from runtime.Object) (*object, error) {
	meta, ok := from.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("read an object of %s: a %T has no metadata", kind, from)
	}
	o := &object{uid: meta.GetUID(), created: meta.GetCreationTimestamp().Time, rules: rulesOf(from)}
	o.Object = family.Object{
		Kind: kind, Namespace: meta.GetNamespace(), Name: meta.GetName(), GenerateName: meta.GetGenerateName(),
		Labels: meta.GetLabels(), Annotations: meta.GetAnnotations(), Manager: managerOf(meta.GetManagedFields()),
	}
	owners := meta.GetOwnerReferences()
	if i := slices.IndexFunc(owners, func(r metav1.OwnerReference) bool { return r.Controller != nil && *r.Controller }); i > 0 {
		owners[0], owners[i] = owners[i], owners[0]
	}
	for _, r := range owners {
		o.Owners = append(o.Owners, family.Owner{APIVersion: r.APIVersion, Kind: r.Kind, Name: r.Name, Controller: r.Controller != nil && *r.Controller})
	}
	if len(owners) > 0 {
		o.parent = owners[0].UID
	}
	return o, nil
}

// managerOf is the client that made an object: who wrote first of those that did not
// write a subresource.
func managerOf(fields []metav1.ManagedFieldsEntry) string {
	var first *metav1.ManagedFieldsEntry
	for i := range fields {
		f := &fields[i]
		if f.Subresource == "" && (first == nil || f.Time != nil && first.Time != nil && f.Time.Before(first.Time)) {
			first = f
		}
	}
	if first == nil {
		return ""
	}
	return first.Manager
}

// rulesOf counts the rules of a network policy as those count who must hold it: each
// of its peers with each of its ports. (Felix before 3.30 took about 1 kB for each.)
func rulesOf(o runtime.Object) uint32 {
	n := 0
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		for _, r := range o.Spec.Ingress {
			n += max(1, len(r.From)) * max(1, len(r.Ports))
		}
		for _, r := range o.Spec.Egress {
			n += max(1, len(r.To)) * max(1, len(r.Ports))
		}
	case *unstructured.Unstructured:
		n = calicoRules(o, "ingress", "source") + calicoRules(o, "egress", "destination")
	}
	return uint32(min(n, 1<<31))
}

// calicoRules counts those of a policy of Calico's: its rules name nets of the peers and
// ports of the destination.
func calicoRules(o *unstructured.Unstructured, direction, peer string) int {
	rules, _, err := unstructured.NestedFieldNoCopy(o.Object, "spec", direction)
	list, ok := rules.([]any)
	if err != nil || !ok {
		return 0
	}
	n := 0
	for _, r := range list {
		rule, ok := r.(map[string]any)
		if !ok {
			continue
		}
		n += max(1, length(rule, peer, "nets")) * max(1, length(rule, "destination", "ports"))
	}
	return n
}

func length(of map[string]any, path ...string) int {
	value, _, err := unstructured.NestedFieldNoCopy(of, path...)
	list, ok := value.([]any)
	if err != nil || !ok {
		return 0
	}
	return len(list)
}
