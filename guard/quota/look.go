package quota

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"bulkhead.dev/bulkhead"
)

// looker looks at a namespace.
type looker struct {
	client    kubernetes.Interface
	meta      metadata.Interface
	namespace string
	now       time.Time
	notes     []string
}

func namespaceThere(ctx context.Context, client kubernetes.Interface, namespace string) error {
	_, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no namespace %s", bulkhead.Quote(namespace)), Hint: "kubectl get namespaces lists them"}
	case apierrors.IsForbidden(err): // who may only see what is in it
		return nil
	case err != nil:
		return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the cluster's API server cannot say what is there", Err: err, Hint: "does kubectl work?"}
	}
	return nil
}

// resolve finds kinds by any of their names.
func (l *looker) resolve(ctx context.Context, names []string) ([]schema.GroupVersionResource, error) {
	if len(names) == 0 {
		return nil, usage("for example --kinds jobs.batch,configmaps; `bulkhead why` says which grow", "it has to be said which kinds are limited")
	}
	lists, err := discovery.ToDiscoveryInterfaceWithContext(l.client.Discovery()).ServerPreferredNamespacedResourcesWithContext(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, partly := discovery.GroupDiscoveryFailedErrorGroups(err); err != nil && !partly {
		return nil, fmt.Errorf("ask for the cluster's kinds: %w", err)
	}
	known := map[string]schema.GroupVersionResource{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "create") || !slices.Contains(r.Verbs, "list") {
				continue
			}
			gvr := gv.WithResource(r.Name)
			known[gvr.GroupResource().String()] = gvr
			for _, name := range append(r.ShortNames, r.Name, r.SingularName) {
				if _, taken := known[name]; !taken { // the core group comes first
					known[name] = gvr
				}
			}
		}
	}
	var found []schema.GroupVersionResource
	for _, name := range names {
		gvr, ok := known[strings.ToLower(strings.TrimSpace(name))]
		if !ok {
			hint := "kubectl api-resources --namespaced lists them"
			if near := bulkhead.Nearest(name, slices.Sorted(maps.Keys(known))); near != "" {
				hint = fmt.Sprintf("did you mean %s? %s", near, hint)
			}
			return nil, usage(hint, "this cluster has no kind %s in namespaces", bulkhead.Quote(name))
		}
		if gvr.Resource == "events" {
			return nil, usage("they go by themselves after an hour", "a limit on events would hide what goes on")
		}
		if !slices.Contains(found, gvr) {
			found = append(found, gvr)
		}
	}
	return found, nil
}

// kind says what becomes of one kind.
func (l *looker) kind(ctx context.Context, gvr schema.GroupVersionResource, headroom Headroom) (Kind, error) {
	k := Kind{Kind: gvr.GroupResource().String()}
	var err error
	if k.Count, err = l.count(ctx, gvr); err != nil {
		return k, l.refused(gvr, err)
	}
	k.Limit = headroom.limit(k.Count)
	if k.Makers, err = l.makers(ctx, gvr); err != nil {
		return k, l.refused(gvr, err)
	}
	for _, c := range consequences[k.Kind] {
		n := int64(1)
		if c.of.Resource != "" {
			if n, err = l.count(ctx, c.of); err != nil {
				l.notes = append(l.notes, fmt.Sprintf("%s cannot be counted: %s", c.of.GroupResource(), apierrors.ReasonForError(err)))
				n = 1
			}
		}
		if n > 0 {
			k.Refuses = append(k.Refuses, c.text)
		}
	}
	return k, nil
}

func (l *looker) refused(gvr schema.GroupVersionResource, err error) error {
	if !apierrors.IsForbidden(err) {
		return fmt.Errorf("count %s: %w", gvr.GroupResource(), err)
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not list %s in namespace %s", gvr.GroupResource(), l.namespace), Err: err,
		Hint: "a limit has to begin at what is there; nothing was changed"}
}

// consequence is what a limit on a kind refuses that its makers do not show.
type consequence struct {
	of   schema.GroupVersionResource // said only if there are such objects; "": always
	text string
}

var consequences = map[string][]consequence{
	"pods": {
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "deployments cannot roll once the limit is reached: they start new pods before they end the old ones"},
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, "stateful sets and others that lose a pod get no new one while the limit is reached"},
		{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}, "jobs get no pods; they wait"},
	},
	"replicasets.apps": {
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "deployments cannot roll: each change makes a replica set"},
	},
	"controllerrevisions.apps": {
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, "stateful sets cannot roll: each change makes a revision"},
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, "daemon sets cannot roll: each change makes a revision"},
	},
	"jobs.batch": {
		{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}, "cron jobs miss their times: each makes a job"},
	},
	"secrets":    {{schema.GroupVersionResource{}, "helm install and helm upgrade of anything in the namespace: Helm keeps each revision in a secret"}},
	"configmaps": {{schema.GroupVersionResource{}, "deploys that give each version of their configuration a new name, as kustomize does"}},
	"networkpolicies.networking.k8s.io": {
		{schema.GroupVersionResource{}, "policies of new workloads: what is applied without Helm then runs without its policy"},
	},
	"persistentvolumeclaims": {{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, "stateful sets that grow: each new pod makes a claim"}},
	"endpointslices.discovery.k8s.io": {
		{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "new services, and large ones, get no endpoints: they do not work"},
	},
	"leases.coordination.k8s.io": {{schema.GroupVersionResource{}, "whoever elects a leader for the first time"}},
}

// metaPage is how many objects' metadata is asked for at once, and sample how many of
// them are looked at to say who makes them. The API lists by name, not by age.
const (
	metaPage = 500
	sample   = 20_000
)

// count counts without reading all: the API server says how many follow the first.
func (l *looker) count(ctx context.Context, gvr schema.GroupVersionResource) (int64, error) {
	list, err := l.meta.Resource(gvr).Namespace(l.namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	n := int64(len(list.Items))
	if list.Continue == "" {
		return n, nil
	}
	if list.RemainingItemCount != nil {
		return n + *list.RemainingItemCount, nil
	}
	n = 0
	_, err = l.each(ctx, gvr, 0, func(*metav1.PartialObjectMetadata) { n++ })
	return n, err
}

// each passes the metadata of up to most objects; 0: of all. more: there are others.
func (l *looker) each(ctx context.Context, gvr schema.GroupVersionResource, most int, pass func(*metav1.PartialObjectMetadata)) (more bool, err error) {
	o := metav1.ListOptions{Limit: metaPage}
	for n := 0; ; {
		list, err := l.meta.Resource(gvr).Namespace(l.namespace).List(ctx, o)
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			pass(&list.Items[i])
		}
		n += len(list.Items)
		if o.Continue = list.Continue; o.Continue == "" {
			return false, nil
		}
		if most > 0 && n >= most {
			return true, nil
		}
	}
}

// makersShown is how many makers of a kind are told of.
const makersShown = 10

// makers are who has created objects of a kind in the last day.
func (l *looker) makers(ctx context.Context, gvr schema.GroupVersionResource) ([]Maker, error) {
	type key struct{ client, owner string }
	by := map[key]*Maker{}
	more, err := l.each(ctx, gvr, sample, func(o *metav1.PartialObjectMetadata) {
		age := l.now.Sub(o.CreationTimestamp.Time)
		if age > 24*time.Hour {
			return
		}
		k := key{client: creator(o)}
		if owner := metav1.GetControllerOf(o); owner != nil {
			k.owner = owner.Kind
		}
		m := by[k]
		if m == nil {
			if len(by) >= metaPage { // managers are what clients call themselves
				return
			}
			m = &Maker{Client: k.client, Owner: k.owner}
			by[k] = m
		}
		m.LastDay++
		if age <= time.Hour {
			m.LastHour++
		}
		if o.CreationTimestamp.After(m.At) {
			m.At, m.Newest = o.CreationTimestamp.Time, o.Name
		}
	})
	if err != nil {
		return nil, err
	}
	if more {
		l.notes = append(l.notes, fmt.Sprintf("who makes %s is said of the first %d of them", gvr.GroupResource(), sample))
	}
	var all []Maker
	for _, m := range by {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b Maker) int {
		return cmp.Or(cmp.Compare(b.LastHour, a.LastHour), cmp.Compare(b.LastDay, a.LastDay), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Owner, b.Owner))
	})
	return all[:min(len(all), makersShown)], nil
}

// creator is the client that has written an object first.
func creator(o *metav1.PartialObjectMetadata) string {
	var first *metav1.ManagedFieldsEntry
	for i := range o.ManagedFields {
		m := &o.ManagedFields[i]
		if m.Subresource == "" && m.Time != nil && (first == nil || m.Time.Before(first.Time)) {
			first = m
		}
	}
	if first == nil {
		return "a client that gave no name"
	}
	return first.Manager
}

// lifts are the kinds that a quota limits, and that are not among these.
func lifts(q *corev1.ResourceQuota, kinds []Kind) (lifted []string) {
	for name := range q.Spec.Hard {
		kind := strings.TrimPrefix(string(name), "count/")
		if !slices.ContainsFunc(kinds, func(k Kind) bool { return k.Kind == kind }) {
			lifted = append(lifted, kind)
		}
	}
	slices.Sort(lifted)
	return lifted
}

// others finds quotas that limit the same kinds, and ours.
func (l *looker) others(ctx context.Context, p *Plan) error {
	list, err := l.client.CoreV1().ResourceQuotas(l.namespace).List(ctx, metav1.ListOptions{Limit: page})
	if apierrors.IsForbidden(err) {
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not list resourcequotas in namespace %s", l.namespace), Err: err}
	}
	if err != nil {
		return fmt.Errorf("list quotas: %w", err)
	}
	for i := range list.Items {
		q := &list.Items[i]
		if q.Name == Name {
			if q.Labels[ManagedByLabel] != ManagedBy {
				return foreign(l.namespace, nil)
			}
			if p.Replaces, err = Until(q); err != nil {
				l.notes = append(l.notes, err.Error())
			}
			p.Lifts = lifts(q, p.Kinds)
			continue
		}
		for name, hard := range q.Spec.Hard {
			kind := strings.TrimPrefix(string(name), "count/")
			if !slices.ContainsFunc(p.Kinds, func(k Kind) bool { return k.Kind == kind }) {
				continue
			}
			used := q.Status.Used[name]
			p.Others = append(p.Others, Other{Name: q.Name, Kind: kind, Used: used.String(), Hard: hard.String()})
		}
	}
	slices.SortFunc(p.Others, func(a, b Other) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Kind, b.Kind)) })
	return nil
}
