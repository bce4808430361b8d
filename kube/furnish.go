package kube

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// fieldManager is the name under which the controller owns fields.
const fieldManager = "bulkhead"

// watchLag is how long a watch may take to show what was just written.
const watchLag = 5 * time.Second

// furnishing is what a class's ConfigMap and policy were last made as.
type furnishing struct {
	content [sha256.Size]byte
	at      time.Time
	config  types.UID // of the ConfigMap, as answered
	policy  types.UID // of the policy; "": there is to be none
	version int64     // its generation
}

// ownedName is the name of what a class has one of.
func ownedName(class string) string { return "bulkhead-" + class }

// furnish sees to it that the class has its ConfigMap and its policy. It asks the
// API server only if either may be missing or other than it should be.
func (c *Controller) furnish(ctx context.Context, class *v1alpha1.ScriptClass, m *memory, now time.Time) error {
	config := c.options.config(class)
	policy := c.options.policy(class)
	text, err := json.Marshal([]any{config, policy, class.Spec.NetworkPolicy.Existing, class.Spec.Template.Labels})
	if err != nil {
		return fmt.Errorf("hash the class: %w", err)
	}
	content := sha256.Sum256(text)
	there, err := c.there(ctx, class)
	if err != nil {
		return err
	}
	seen := m.furnished.policy == there.policy.UID && m.furnished.version == there.policy.Generation &&
		m.furnished.config == there.config.UID && maps.Equal(config.Data, there.config.Data)
	if m.furnished.content == content && (seen || now.Sub(m.furnished.at) < watchLag) {
		return nil
	}
	own := there.config.UID != "" || m.furnished.config != "" && now.Sub(m.furnished.at) < watchLag
	m.furnished = furnishing{}
	if err := c.checkExisting(ctx, class); err != nil {
		return err
	}
	// Of what is not seen, and so has no label of ours, nothing is taken. To apply
	// would add to somebody's ConfigMap, whose fields need not be the same.
	if own {
		err = c.apply(ctx, config, true)
	} else {
		err = c.client.Create(ctx, config, client.FieldOwner(fieldManager))
	}
	if err != nil {
		return notMade("ConfigMap", config.Name, err)
	}
	done := furnishing{content: content, at: now, config: config.UID}
	switch {
	case policy != nil:
		if err := c.apply(ctx, policy, there.policy.UID != ""); err != nil {
			return notMade("NetworkPolicy", policy.Name, err)
		}
		done.policy, done.version = policy.UID, policy.Generation
	case there.policy.UID != "":
		own := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: class.Namespace, Name: there.policy.Name}}
		err := c.client.Delete(ctx, own, client.DisableReadYourWritesConsistency)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete NetworkPolicy %s: %w", there.policy.Name, err)
		}
	}
	m.furnished = done
	return nil
}

// furniture is what the cluster has of what a class has one of, as watched.
type furniture struct {
	config corev1.ConfigMap
	policy networkingv1.NetworkPolicy
}

func (c *Controller) there(ctx context.Context, class *v1alpha1.ScriptClass) (f furniture, err error) {
	name := types.NamespacedName{Namespace: class.Namespace, Name: ownedName(class.Name)}
	for _, o := range []client.Object{&f.config, &f.policy} {
		if err := client.IgnoreNotFound(c.client.Get(ctx, name, o)); err != nil {
			return f, fmt.Errorf("read what the class has: %w", err)
		}
	}
	return f, nil
}

// notMade says why something of a class was not made: it may be somebody else's.
func notMade(kind, name string, err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("there is another %s %s, which is not of this class: %w", kind, name, err)
	}
	return fmt.Errorf("make %s %s: %w", kind, name, err)
}

// apply makes something be as it is given, by server-side apply, and reads back
// what it has become. By force it takes fields from others.
func (c *Controller) apply(ctx context.Context, object client.Object, force bool) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: fields}
	// To wait until a watch shows it would take a watch: of all Secrets.
	options := []client.ApplyOption{client.FieldOwner(fieldManager), client.DisableReadYourWritesConsistency}
	if force {
		options = append(options, client.ForceOwnership)
	}
	err = c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), options...)
	if err != nil {
		return err
	}
	object.SetUID(u.GetUID())
	object.SetGeneration(u.GetGeneration())
	return nil
}

// errPolicy is a policy that a class names and that does not hold its pods. Pods
// are not started without: they would be open where somebody thinks they are not.
type errPolicy string

func (e errPolicy) Error() string { return string(e) }

// checkExisting checks the policy that a class names instead of having its own.
func (c *Controller) checkExisting(ctx context.Context, class *v1alpha1.ScriptClass) error {
	name := class.Spec.NetworkPolicy.Existing
	if name == "" {
		return nil
	}
	var p networkingv1.NetworkPolicy
	err := c.reader.Get(ctx, types.NamespacedName{Namespace: class.Namespace, Name: name}, &p)
	if apierrors.IsNotFound(err) {
		return errPolicy(fmt.Sprintf("networkPolicy.existing: namespace %s has no NetworkPolicy %q", class.Namespace, name))
	}
	if err != nil {
		return fmt.Errorf("read NetworkPolicy %s: %w", name, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil {
		return errPolicy(fmt.Sprintf("networkPolicy.existing: the selector of NetworkPolicy %q cannot be read: %v", name, err))
	}
	if !selector.Matches(labels.Set(ownLabels(class, class.Spec.Template.Labels))) {
		return errPolicy(fmt.Sprintf("networkPolicy.existing: NetworkPolicy %q does not select the pods of the class: give them the labels it wants in template.labels (%s)",
			name, selector))
	}
	return nil
}

// config is what the workers of a class need to trust the server.
func (o *Options) config(class *v1alpha1.ScriptClass) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: class.Namespace, Name: ownedName(class.Name), Labels: ownLabels(class, nil),
			OwnerReferences: []metav1.OwnerReference{owner(class)}},
		Data: map[string]string{caKey: string(o.CA())},
	}
}

// policy is the one policy of a class; nil if it is to have none.
func (o *Options) policy(class *v1alpha1.ScriptClass) *networkingv1.NetworkPolicy {
	spec := &class.Spec.NetworkPolicy
	if spec.Existing != "" || spec.None {
		return nil
	}
	p := &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: class.Namespace, Name: ownedName(class.Name), Labels: ownLabels(class, nil),
			OwnerReferences: []metav1.OwnerReference{owner(class)}},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{labelClass: class.Name}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     spec.Ingress,
			Egress:      []networkingv1.NetworkPolicyEgressRule{{}}, // everything
		},
	}
	if spec.Egress != nil {
		p.Spec.Egress = append([]networkingv1.NetworkPolicyEgressRule{egressToDNS()}, o.ServerEgress...)
		p.Spec.Egress = append(p.Spec.Egress, spec.Egress...)
	}
	return p
}

func egressToDNS() networkingv1.NetworkPolicyEgressRule {
	var rule networkingv1.NetworkPolicyEgressRule
	for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
		port := intstr.FromInt32(53)
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
	}
	return rule
}

// egressTo lets pods reach the port of the server, anywhere: a policy knows no
// names, and the addresses behind one change.
func egressTo(server *url.URL) networkingv1.NetworkPolicyEgressRule {
	port := intstr.FromInt32(443)
	if n, err := strconv.ParseUint(server.Port(), 10, 16); err == nil {
		port = intstr.FromInt32(int32(n))
	}
	tcp := corev1.ProtocolTCP
	return networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}}}
}
