// Package v1alpha1 is the ScriptClass, the only thing that Bulkhead adds to a
// cluster's API: what an operator defines once for many runs. Nothing is ever
// made for a run or an item.
//
// +kubebuilder:object:generate=true
// +groupName=bulkhead.dev
package v1alpha1

//go:generate go tool -modfile=../../../tools/go.mod controller-gen object paths=.
//go:generate go tool -modfile=../../../tools/go.mod controller-gen crd:maxDescLen=200 paths=. output:crd:dir=../../crd

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of everything in this package.
var GroupVersion = schema.GroupVersion{Group: "bulkhead.dev", Version: "v1alpha1"}

// AddToScheme makes the types of this package known.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &ScriptClass{}, &ScriptClassList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
