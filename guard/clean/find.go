package clean

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"

	"bulkhead.dev/bulkhead"
)

// Found is what is left over, and what stays though it was meant.
type Found struct {
	Leftovers []Object
	Spared    []Object
	// Releases is how many Helm releases the leftovers are of.
	Releases int
	// Notes say what could not be looked at.
	Notes []string

	batches []batch
	scans   map[string]*scan // by namespace
}

// batch is what is removed at once: a few objects of one namespace, or a release.
type batch struct {
	namespace string
	release   *release // nil: objects of none
	items     []*item
}

// batchSize is how many objects are looked at and removed at once. A release may
// have more.
const batchSize = 10

// Find looks for what is left over. It changes nothing.
func (c *Cleaner) Find(ctx context.Context) (*Found, error) {
	if err := c.discover(ctx); err != nil {
		return nil, err
	}
	f := &Found{scans: map[string]*scan{}}
	releases, err := c.releases(ctx)
	if err != nil {
		return nil, err
	}
	singles, err := c.singles(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		s := f.scan(r.namespace, c.opts.Finished)
		for _, i := range r.items {
			s.add(i)
		}
	}
	for _, i := range singles {
		f.scan(i.meta.namespace, c.opts.Finished).add(i)
	}
	for _, namespace := range slices.Sorted(maps.Keys(f.scans)) {
		if err := c.look(ctx, f.scans[namespace], true); err != nil {
			return nil, err
		}
	}
	f.sort(releases, singles)
	if len(f.Leftovers) == 0 && len(f.Spared) == 0 {
		if err := c.namespaceThere(ctx); err != nil {
			return nil, err
		}
	}
	f.Notes = c.notes
	return f, nil
}

// namespaceThere refuses a namespace that is not there. The API server lists nothing in
// it, as in an empty one, and whoever has misspelt it would take that for good news.
func (c *Cleaner) namespaceThere(ctx context.Context) error {
	if c.choice.only == "" {
		return nil
	}
	err := c.try(ctx, "get namespace", func() error {
		_, err := c.client.CoreV1().Namespaces().Get(ctx, c.choice.only, metav1.GetOptions{})
		return err
	})
	switch {
	case apierrors.IsNotFound(err):
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no namespace %s", bulkhead.Quote(c.choice.only)), Hint: "kubectl get namespaces lists them"}
	case apierrors.IsForbidden(err): // who may only see what is in it
		return nil
	}
	return err
}

func (f *Found) scan(namespace string, finished bool) *scan {
	if f.scans[namespace] == nil {
		f.scans[namespace] = newScan(namespace, finished)
	}
	return f.scans[namespace]
}

// sort says of each what becomes of it.
func (f *Found) sort(releases []*release, singles []*item) {
	for _, r := range releases {
		if r.spared != "" {
			i := r.records[len(r.records)-1]
			f.Spared = append(f.Spared, i.object())
			continue
		}
		f.Releases++
		f.add(batch{namespace: r.namespace, release: r, items: r.all()})
	}
	slices.SortStableFunc(singles, func(a, b *item) int {
		if n := strings.Compare(a.meta.namespace, b.meta.namespace); n != 0 {
			return n
		}
		return a.kind.rank() - b.kind.rank()
	})
	var b batch
	for _, i := range singles {
		if i.spared != "" {
			f.Spared = append(f.Spared, i.object())
			continue
		}
		if b.namespace != i.meta.namespace || len(b.items) == batchSize {
			f.add(b)
			b = batch{namespace: i.meta.namespace}
		}
		b.items = append(b.items, i)
	}
	f.add(b)
}

func (f *Found) add(b batch) {
	if len(b.items) == 0 {
		return
	}
	f.batches = append(f.batches, b)
	for _, i := range b.items {
		f.Leftovers = append(f.Leftovers, i.object())
	}
}

// releases are the releases that are meant, with their objects, each judged.
func (c *Cleaner) releases(ctx context.Context) ([]*release, error) {
	if len(c.choice.release) == 0 {
		return nil, nil
	}
	all, err := c.findReleases(ctx)
	if err != nil {
		return nil, err
	}
	// Each kind of each namespace is listed once.
	wanted := map[string]map[kind]map[string]*release{}
	for _, r := range all {
		for _, ref := range r.refs {
			if wanted[r.namespace] == nil {
				wanted[r.namespace] = map[kind]map[string]*release{}
			}
			if wanted[r.namespace][ref.kind] == nil {
				wanted[r.namespace][ref.kind] = map[string]*release{}
			}
			if other := wanted[r.namespace][ref.kind][ref.name]; other != nil && other != r {
				r.spare("%s %s is of release %s, too", ref.kind.one(), bulkhead.Quote(ref.name), bulkhead.Quote(other.name))
				other.spare("%s %s is of release %s, too", ref.kind.one(), bulkhead.Quote(ref.name), bulkhead.Quote(r.name))
			}
			wanted[r.namespace][ref.kind][ref.name] = r
		}
	}
	for namespace, kinds := range wanted {
		for k, names := range kinds {
			if err := c.findOf(ctx, namespace, k, names); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range all {
		r.judge(c)
	}
	return all, nil
}

// findOf finds the objects of releases of one kind in a namespace.
func (c *Cleaner) findOf(ctx context.Context, namespace string, k kind, names map[string]*release) error {
	var err error
	switch k {
	case jobs, pods, policies: // it matters what is in them
		err = c.list(ctx, k, namespace, metav1.ListOptions{}, func(o *unstructured.Unstructured) {
			if r := names[o.GetName()]; r != nil {
				c.takeOf(r, k, metaObject(o), o)
			}
		})
	default:
		err = c.listMeta(ctx, k, namespace, metav1.ListOptions{}, func(o *metav1.PartialObjectMetadata) {
			if r := names[o.Name]; r != nil {
				c.takeOf(r, k, &o.ObjectMeta, nil)
			}
		})
	}
	if err != nil {
		return c.refused("list", k, namespace, err)
	}
	return nil
}

// takeOf takes in an object of a release.
func (c *Cleaner) takeOf(r *release, k kind, o *metav1.ObjectMeta, content *unstructured.Unstructured) {
	if slices.ContainsFunc(r.items, func(i *item) bool { return i.meta.uid == o.UID }) {
		return // a list that began anew
	}
	i := &item{kind: k, meta: metaOf(o), release: r}
	r.items = append(r.items, i)
	if why := c.keeps(i, o); why != "" {
		i.spare("%s", why)
	}
	if why := ofRelease(r, o); why != "" {
		i.spare("%s", why)
	}
	switch k {
	case jobs:
		at, ok := finishedAt(content)
		if !ok {
			i.spare("it has not finished")
		}
		if at.After(r.over) {
			r.over = at
		}
	case pods:
		if !finishedPod(content) {
			i.spare("it has not finished")
		}
	case policies:
		i.setSelector(content)
	}
}

// ofRelease says why an object under a name of a release's manifest is not the release's.
func ofRelease(r *release, o *metav1.ObjectMeta) string {
	if o.Annotations[hookAnnotation] != "" {
		return ""
	}
	if o.Labels[managedByLabel] != managedByHelm || o.Annotations[releaseNameAnnotation] != r.name || o.Annotations[releaseNamespaceAnnotation] != r.namespace {
		return "it does not say that it is of this release"
	}
	return ""
}

// keeps says why an object stays, by its metadata; "": it does not.
func (c *Cleaner) keeps(i *item, o *metav1.ObjectMeta) string {
	_, keep := o.Annotations[KeepAnnotation]
	age := c.opts.Now().Sub(o.CreationTimestamp.Time)
	switch {
	case keep:
		return "its annotation " + KeepAnnotation + " says so"
	case o.Annotations[policyAnnotation] == "keep":
		return "its annotation " + policyAnnotation + " says so"
	case o.DeletionTimestamp != nil:
		return "it is being deleted"
	case len(o.Finalizers) > 0:
		return "it has a finalizer: " + bulkhead.Quote(o.Finalizers[0])
	case len(o.OwnerReferences) > 0:
		owner := o.OwnerReferences[0]
		return fmt.Sprintf("it goes with its owner, %s %s", strings.ToLower(owner.Kind), bulkhead.Quote(owner.Name))
	case age < c.opts.Grace:
		return fmt.Sprintf("it is %s old, and the grace is %s", max(age, 0).Truncate(time.Second), c.opts.Grace)
	case i.kind == configMaps && o.Name == "kube-root-ca.crt":
		return "the cluster keeps it in each namespace"
	}
	return ""
}

// own are Kubernetes' namespaces, whose components read what nothing mentions.
var own = []string{metav1.NamespaceSystem, metav1.NamespacePublic, "kube-node-lease"}

// named are the Secrets that are looked at: those of other types are read by programs
// without being named anywhere.
const named = "type!=kubernetes.io/service-account-token,type!=bootstrap.kubernetes.io/token,type!=helm.sh/release.v1"

// singles are the objects that are meant by themselves.
func (c *Cleaner) singles(ctx context.Context) ([]*item, error) {
	var all []*item
	var none []string
	for _, k := range c.choice.kinds {
		there, near := newInhabitants(), crowd[*item]{}
		take := func(o *metav1.ObjectMeta, content *unstructured.Unstructured) {
			match, of := c.choice.has(k, o)
			if !there.add(string(o.UID), of) || match == other {
				return
			}
			if i := c.single(k, o, content); match == alike {
				near[of] = append(near[of], i)
			} else {
				all = append(all, i)
			}
		}
		var err error
		switch k {
		case policies:
			err = c.list(ctx, k, c.choice.only, metav1.ListOptions{}, func(o *unstructured.Unstructured) { take(metaObject(o), o) })
		default:
			o := metav1.ListOptions{}
			if k == secrets {
				o.FieldSelector = named
			}
			err = c.listMeta(ctx, k, c.choice.only, o, func(o *metav1.PartialObjectMetadata) { take(&o.ObjectMeta, nil) })
		}
		if err != nil {
			return nil, c.refused("list", k, c.choice.only, err)
		}
		more, note := near.all(k.kind(), c.choice.pattern(k), c.choice.alike)
		if all = append(all, more...); note != "" {
			c.note("%s", note)
		} else if c.choice.family != "" {
			none = append(none, there.without(k.kind(), c.choice.family))
		}
	}
	if len(all) == 0 {
		for _, note := range none {
			c.note("%s", note)
		}
	}
	return all, c.spareReleased(ctx, all)
}

func (c *Cleaner) single(k kind, o *metav1.ObjectMeta, content *unstructured.Unstructured) *item {
	i := &item{kind: k, meta: metaOf(o), why: "nothing names it", ofRelease: o.Annotations[releaseNameAnnotation]}
	if k == policies {
		i.why = "it selects nothing"
		i.setSelector(content)
	}
	if why := c.keeps(i, o); why != "" {
		i.spare("%s", why)
	}
	if slices.Contains(own, o.Namespace) {
		i.spare("its namespace is Kubernetes' own")
	}
	return i
}

// spareReleased spares what is of a Helm release that is there: it goes with it.
func (c *Cleaner) spareReleased(ctx context.Context, all []*item) error {
	there := map[string]bool{}
	namespaces := map[string]bool{}
	for _, i := range all {
		if i.ofRelease != "" {
			namespaces[i.meta.namespace] = true
		}
	}
	for namespace := range namespaces {
		for _, k := range []kind{secrets, configMaps} {
			err := c.listMeta(ctx, k, namespace, metav1.ListOptions{LabelSelector: recordSelector}, func(o *metav1.PartialObjectMetadata) {
				if name, _, ok := recordName(o.Name); ok {
					there[namespace+"/"+name] = true
				}
			})
			if err != nil {
				return c.refused("list", k, namespace, err)
			}
		}
	}
	for _, i := range all {
		if i.ofRelease != "" && there[i.meta.namespace+"/"+i.ofRelease] {
			i.spare("it is of Helm release %s, which is there: a release is removed as a whole, see --release", bulkhead.Quote(i.ofRelease))
		}
	}
	return nil
}

// setSelector says what a policy selects. One that selects pods by what they have not
// got, or all of them, is for pods that are not there yet.
func (i *item) setSelector(o *unstructured.Unstructured) {
	i.selector = labels.Nothing()
	selector, err := selectorOf(o)
	if err != nil {
		i.spare("its selector cannot be read: %v", err)
		return
	}
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals, selection.Exists:
			i.selector = selector
			return
		}
	}
	i.spare("it selects every pod that there may be")
}

func selectorOf(o *unstructured.Unstructured) (labels.Selector, error) {
	found, _, err := unstructured.NestedMap(o.Object, "spec", "podSelector")
	if err != nil {
		return nil, err
	}
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found, &selector); err != nil {
		return nil, err
	}
	return metav1.LabelSelectorAsSelector(&selector)
}

// metaObject is what an object says of itself.
func metaObject(o *unstructured.Unstructured) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{
		Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		CreationTimestamp: o.GetCreationTimestamp(), DeletionTimestamp: o.GetDeletionTimestamp(), Labels: o.GetLabels(),
		Annotations: o.GetAnnotations(), OwnerReferences: o.GetOwnerReferences(), Finalizers: o.GetFinalizers(), ManagedFields: o.GetManagedFields(),
	}
}
