package kube

import (
	"context"
	_ "embed" // the custom resource definition
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// CRD is the definition of ScriptClass, YAML.
//
//go:embed crd/bulkhead.dev_scriptclasses.yaml
var CRD []byte

var crdKind = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// Install makes the cluster know ScriptClass as this version does, and waits
// until it does. Who calls it must be allowed to define custom resources.
func Install(ctx context.Context, config *rest.Config) error {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(crdKind, meta.RESTScopeRoot)
	c, err := client.New(config, client.Options{Scheme: runtime.NewScheme(), Mapper: mapper})
	if err != nil {
		return err
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(CRD, &crd.Object); err != nil {
		return fmt.Errorf("read the definition: %w", err)
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(crd), client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("define ScriptClass: %w", err)
	}
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		now := &unstructured.Unstructured{}
		now.SetGroupVersionKind(crdKind)
		if err := c.Get(ctx, client.ObjectKeyFromObject(crd), now); err != nil {
			return false, err
		}
		return established(now), nil
	})
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Established" {
			return c["status"] == "True"
		}
	}
	return false
}

// Rules are all that the controller may do, in the namespaces of its classes.
//
// Nothing of it is about Secrets. Bound by a Role in each namespace instead of a
// ClusterRole they are enough for Options.Namespaces.
func Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"bulkhead.dev"}, Resources: []string{"scriptclasses"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"bulkhead.dev"}, Resources: []string{"scriptclasses/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch", "create", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch", "create", "patch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"},
			Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}},
	}
}

// ReviewRules are what the server may do to ask who its users are, and what they
// may. Besides, it reads ConfigMap extension-apiserver-authentication of kube-system,
// for which Kubernetes has the Role extension-apiserver-authentication-reader.
func ReviewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
		{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
	}
}

// OwnRules are what the server may do in its own namespace.
func OwnRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		// To apply is to patch, and to create what is not there: which RBAC cannot bind to a name.
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{TrustName}, Verbs: []string{"patch"}},
	}
}
