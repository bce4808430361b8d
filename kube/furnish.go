package kube

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// refurnishAfter is how old the knowledge may be that a class's Secret is there,
// when pods are to be made. Secrets are not watched.
const refurnishAfter = 10 * time.Minute

// watchLag is how long a watch may take to show what was just written.
const watchLag = 5 * time.Second

// furnishing is what a class's Secret and policy were last made as.
type furnishing struct {
	content [sha256.Size]byte
	at      time.Time
	policy  types.UID // of the policy, as answered; "": there is to be none
	version int64     // its generation
}

// ownedName is the name of what a class has one of.
func ownedName(class string) string { return "bulkhead-" + class }

// furnish sees to it that the class has its Secret and its policy. It asks the
// API server only if either may be missing or other than it should be.
func (c *Controller) furnish(ctx context.Context, class *v1alpha1.ScriptClass, m *memory, now time.Time, forPods bool) error {
	secret := c.options.secret(class)
	policy := c.options.policy(class)
	text, err := json.Marshal([]any{secret, policy, class.Spec.NetworkPolicy.Existing, class.Spec.Template.Labels})
	if err != nil {
		return fmt.Errorf("hash the class: %w", err)
	}
	content := sha256.Sum256(text)
	there, err := c.policyThere(ctx, class)
	if err != nil {
		return err
	}
	same := m.furnished.content == content &&
		(m.furnished.policy == there.UID && m.furnished.version == there.Generation || now.Sub(m.furnished.at) < watchLag)
	if same && (!forPods || now.Sub(m.furnished.at) < refurnishAfter) {
		return nil
	}
	m.furnished = furnishing{}
	if err := c.checkExisting(ctx, class); err != nil {
		return err
	}
	if err := c.apply(ctx, secret, true); err != nil {
		return notMade("Secret", secret.Name, err)
	}
	done := furnishing{content: content, at: now}
	switch {
	case policy != nil:
		// Of one that is not seen, and so has no label of ours, nothing is taken.
		if err := c.apply(ctx, policy, there.UID != ""); err != nil {
			return notMade("NetworkPolicy", policy.Name, err)
		}
		done.policy, done.version = policy.UID, policy.Generation
	case there.UID != "":
		own := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: class.Namespace, Name: there.Name}}
		err := c.client.Delete(ctx, own, client.DisableReadYourWritesConsistency)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete NetworkPolicy %s: %w", there.Name, err)
		}
	}
	m.furnished = done
	return nil
}

// mountPatience is how long a pod may wait on its node for its first container
// before it is thought that somebody has removed the class's Secret.
const mountPatience = 10 * time.Second

// misses says that a pod may wait for a Secret that is not there any more, for
// which nobody has looked since the pod was made; wait is when that may become so.
func misses(p *corev1.Pod, furnished, now time.Time) (is bool, wait time.Duration) {
	begun := slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), func(s corev1.ContainerStatus) bool {
		return s.State.Waiting == nil || s.RestartCount > 0 || !slices.Contains(waits, s.State.Waiting.Reason)
	})
	made := p.CreationTimestamp.Add(time.Second) // times are whole seconds
	if begun || p.Status.Phase != corev1.PodPending || p.Spec.NodeName == "" || p.DeletionTimestamp != nil || made.Before(furnished) {
		return false, 0
	}
	wait = mountPatience - now.Sub(made)
	return wait <= 0, max(wait, 0)
}

// policyThere is what the cluster has of the class's own policy, as watched.
func (c *Controller) policyThere(ctx context.Context, class *v1alpha1.ScriptClass) (metav1.ObjectMeta, error) {
	var p networkingv1.NetworkPolicy
	err := c.client.Get(ctx, types.NamespacedName{Namespace: class.Namespace, Name: ownedName(class.Name)}, &p)
	return p.ObjectMeta, client.IgnoreNotFound(err)
}

// notMade says why something of a class was not made: it may be somebody else's.
func notMade(kind, name string, err error) error {
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) && strings.Contains(err.Error(), "immutable") {
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

// secretType sets the Secrets of classes apart. A type never changes, so the API
// server itself refuses to make one of them of a Secret that somebody else has made.
const secretType corev1.SecretType = "bulkhead.dev/worker" //nolint:gosec // a kind of Secret, and no secret

// secret is what the workers of a class need to talk to the server.
func (o *Options) secret(class *v1alpha1.ScriptClass) *corev1.Secret {
	access := o.Access(class.Namespace + "/" + class.Name)
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: class.Namespace, Name: ownedName(class.Name), Labels: ownLabels(class, nil),
			OwnerReferences: []metav1.OwnerReference{owner(class)}},
		Type: secretType,
		Data: map[string][]byte{tokenKey: access.Token, caKey: access.CA},
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
