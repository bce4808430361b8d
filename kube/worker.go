package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// Worker says of what class and shape a pod is that has a worker's token; see
// Reviews.Pod. A pod that is not one of a class's workers, or not any more, is
// CodeDenied: what the cluster says of tokens is remembered, but pods are watched.
func (c *Controller) Worker(ctx context.Context, namespace, name, uid string) (bulkhead.Kind, error) {
	c.mu.Lock()
	cached, away := c.cached, c.away
	c.mu.Unlock()
	if cached == nil || away != nil {
		return bulkhead.Kind{}, &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "it is not known yet which worker pods there are", Err: away}
	}
	var p corev1.Pod
	err := cached.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &p)
	if client.IgnoreNotFound(err) != nil {
		return bulkhead.Kind{}, fmt.Errorf("look for the pod: %w", err)
	}
	class := p.Labels[labelClass]
	if err != nil || string(p.UID) != uid || !ofClass(&p, class) {
		return bulkhead.Kind{}, &bulkhead.Error{Code: bulkhead.CodeDenied,
			Message: fmt.Sprintf("pod %s/%s is not a worker, or is gone", namespace, name)}
	}
	return bulkhead.Kind{Class: namespace + "/" + class, Shape: shapeOf(&p)}, nil
}

// ofClass reports whether a pod is owned by the class that its label names.
func ofClass(p *corev1.Pod, class string) bool {
	for _, o := range p.OwnerReferences {
		if o.Kind == "ScriptClass" && o.APIVersion == v1alpha1.GroupVersion.String() && o.Name == class && class != "" {
			return true
		}
	}
	return false
}
