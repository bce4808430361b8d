package clean

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"

	"bulkhead.dev/bulkhead"
)

// item is a candidate: an object that is left over unless something holds it.
type item struct {
	kind     kind
	meta     objectMeta
	release  *release        // that it belongs to; nil: none
	selector labels.Selector // of a policy
	why      string          // it is left over
	spared   string          // why it stays; "": it does not
	gone     bool            // we have deleted it
	// ofRelease is the Helm release that it says to be of, where it is meant by itself.
	ofRelease string
	content   *unstructured.Unstructured // as it was written to the undo file
}

// objectMeta is what is kept of an object's metadata.
type objectMeta struct {
	namespace, name string
	uid             types.UID
	version         string
	created         metav1.Time
}

func metaOf(o *metav1.ObjectMeta) objectMeta {
	return objectMeta{o.Namespace, o.Name, o.UID, o.ResourceVersion, o.CreationTimestamp}
}

func (i *item) object() Object {
	o := Object{Kind: i.kind.kind(), Namespace: i.meta.namespace, Name: i.meta.name, UID: string(i.meta.uid), Created: i.meta.created.Time, Why: i.why}
	if i.release != nil {
		o.Release = i.release.name
		o.Why = i.release.why
	}
	if why := i.stays(); why != "" {
		o.Why = why
	}
	return o
}

// stays is why an item stays: with something of a release all of it does.
func (i *item) stays() string {
	if i.spared == "" && i.release != nil {
		return i.release.spared
	}
	return i.spared
}

// spare keeps an item, and with it its release. The first reason counts.
func (i *item) spare(format string, args ...any) {
	if i.stays() != "" {
		return
	}
	why := fmt.Sprintf(format, args...)
	if i.release != nil {
		what := i.kind.one() + " " + i.meta.name
		if _, revision, ok := recordName(i.meta.name); ok { // which has the release's name again
			what = fmt.Sprintf("Helm's record of revision %d", revision)
		}
		i.release.spared = what + ": " + why
		return
	}
	i.spared = why
}

// scan looks for what holds the candidates of one namespace. Candidates are found by
// what an object has in it, so that nothing has to be kept of objects but that they
// were seen.
//
// What has ever held a candidate holds it for good: an item that is spared stays so.
type scan struct {
	namespace string
	finished  bool               // what has finished holds nothing
	names     map[string][]*item // those that are held by being mentioned
	byLabel   map[string][]*item // policies by a label that they want: key=value
	others    []*item            // policies that want none that is the same for all
	seen      map[types.UID]string
	// begun are items that were deleted, and that something uses now.
	begun []*item
}

func newScan(namespace string, finished bool) *scan {
	return &scan{namespace: namespace, finished: finished, names: map[string][]*item{}, byLabel: map[string][]*item{}, seen: map[types.UID]string{}}
}

// add makes an item one that is looked for.
func (s *scan) add(i *item) {
	switch i.kind {
	case configMaps, secrets, serviceAccounts:
		s.names[i.meta.name] = append(s.names[i.meta.name], i)
	case policies:
		if pair, ok := wanted(i.selector); ok {
			s.byLabel[pair] = append(s.byLabel[pair], i)
		} else {
			s.others = append(s.others, i)
		}
	}
}

// drop ends that.
func (s *scan) drop(i *item) {
	without := func(m map[string][]*item, key string) {
		if m[key] = slices.DeleteFunc(m[key], func(has *item) bool { return has == i }); len(m[key]) == 0 {
			delete(m, key)
		}
	}
	if i.kind != policies {
		without(s.names, i.meta.name)
	} else if pair, ok := wanted(i.selector); ok {
		without(s.byLabel, pair)
	} else {
		s.others = slices.DeleteFunc(s.others, func(has *item) bool { return has == i })
	}
}

// wanted is a label that all have that a policy selects.
func wanted(selector labels.Selector) (pair string, ok bool) {
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		values := r.ValuesUnsorted()
		if len(values) == 1 && (r.Operator() == selection.In || r.Operator() == selection.Equals) && !isAdded(r.Key()) {
			return r.Key() + "=" + values[0], true
		}
	}
	return "", false
}

// holder is an object that may hold candidates.
type holder struct {
	kind holderKind
	o    *unstructured.Unstructured
	// finished: a Job or a pod that never runs again.
	finished bool
	job      string // that a pod belongs to
	labels   labels.Set
}

func newHolder(k holderKind, o *unstructured.Unstructured) *holder {
	h := &holder{kind: k, o: o}
	switch k.kind {
	case pods:
		h.finished = finishedPod(o)
		if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == "Job" && strings.HasPrefix(owner.APIVersion, "batch/") {
			h.job = owner.Name
		}
	case jobs:
		_, h.finished = finishedAt(o)
	}
	if k.template != nil {
		found, _, _ := unstructured.NestedStringMap(o.Object, k.template...)
		h.labels = labels.Set(found)
	}
	return h
}

func finishedPod(o *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	return phase == "Succeeded" || phase == "Failed"
}

func (h *holder) String() string {
	verb := ""
	if h.finished {
		verb = " (finished)"
	}
	return fmt.Sprintf("%s %s%s", h.kind.name, bulkhead.Quote(h.o.GetName()), verb)
}

// holds reports whether it may hold an item: not if it goes with it.
func (h *holder) holds(i *item, finished bool) bool {
	if finished && h.finished {
		return false
	}
	if i.release == nil {
		return true
	}
	if i.release.has(h.kind.kind, h.o.GetName()) {
		return false
	}
	return h.job == "" || !h.finished || !i.release.has(jobs, h.job)
}

// see takes in what an object holds.
func (s *scan) see(h *holder) {
	s.seen[h.o.GetUID()] = h.o.GetResourceVersion()
	if len(s.names) > 0 {
		s.mentions(h, h.o.Object, "", 0)
	}
	s.owns(h)
	if h.kind.template == nil {
		return
	}
	for _, i := range s.others {
		s.selects(h, i)
	}
	for key, value := range h.labels {
		for _, i := range s.byLabel[key+"="+value] {
			s.selects(h, i)
		}
	}
}

// deepest is how deep an object is looked into. The API server itself takes what is
// ten times as deep, but no kind of its own is deeper than this.
const deepest = 64

// mentions looks for the names of candidates in all fields of an object, so that no
// field is forgotten in which one may stand: volumes, environment, TLS, tokens, and
// those of kinds that nobody has thought of. A name that means something else keeps
// an object too many.
func (s *scan) mentions(h *holder, v any, in string, depth int) {
	switch v := v.(type) {
	case string:
		// NAMESPACE/NAME, in annotations; --configmap=NAME; NAME.NAMESPACE.svc; a,b
		for word := range strings.FieldsFuncSeq(v, noName) {
			s.word(h, word)
		}
	case []any:
		for _, element := range v {
			s.mentions(h, element, in, depth+1)
		}
	case map[string]any:
		for key, value := range v {
			if depth < deepest && !mentionsNothing(in, key, depth) {
				s.mentions(h, value, key, depth+1)
			}
		}
	}
}

// noName is whether a character stands in no name of an object.
func noName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.'
}

// word looks up a part of a string that may be a name.
func (s *scan) word(h *holder, word string) {
	bare := strings.Trim(word, "-.")
	first, _, _ := strings.Cut(bare, ".")
	for n, name := range []string{word, bare, first} {
		if n > 0 && name == word {
			continue
		}
		for _, i := range s.names[name] {
			s.hold(h, i, "names it")
		}
	}
}

// mentionsNothing reports whether a field is about the object itself, or about labels.
func mentionsNothing(in, key string, depth int) bool {
	switch key {
	case "status":
		return depth == 0
	case "name", "namespace", "uid", "generateName":
		return depth == 1 && in == "metadata"
	case "labels", "managedFields", "ownerReferences":
		return in == "metadata"
	}
	return key == "matchLabels"
}

// owns looks for candidates that own the object: it would go with them.
func (s *scan) owns(h *holder) {
	for _, owner := range h.o.GetOwnerReferences() {
		for _, i := range s.names[owner.Name] {
			if owner.UID == i.meta.uid {
				s.hold(h, i, "is owned by it")
			}
		}
	}
}

func (s *scan) selects(h *holder, i *item) {
	requirements, _ := i.selector.Requirements()
	for _, r := range requirements {
		if !r.Matches(h.labels) && !h.willHave(r) {
			return
		}
	}
	s.hold(h, i, "is selected by it")
}

func (s *scan) hold(h *holder, i *item, how string) {
	if h.o.GetUID() == i.meta.uid || !h.holds(i, s.finished) {
		return
	}
	if i.gone {
		if i.spared == "" {
			i.spared = fmt.Sprintf("%s %s since", h, how)
			s.begun = append(s.begun, i)
		}
		return
	}
	i.spare("%s %s", h, how)
}

// added are the labels that controllers give to pods beside those of the template.
var added = map[string]func(h *holder, value string) bool{
	"pod-template-hash":                  func(h *holder, _ string) bool { return h.kind.resource == "deployments" },
	"controller-revision-hash":           func(h *holder, _ string) bool { return isSet(h) },
	"pod-template-generation":            func(h *holder, _ string) bool { return h.kind.resource == "daemonsets" },
	"apps.kubernetes.io/pod-index":       func(h *holder, _ string) bool { return h.kind.resource == "statefulsets" },
	"statefulset.kubernetes.io/pod-name": func(h *holder, v string) bool { return h.kind.resource == "statefulsets" && h.begins(v) },
	"job-name":                           func(h *holder, v string) bool { return h.kind.resource == "cronjobs" && h.begins(v) },
	"batch.kubernetes.io/job-name":       func(h *holder, v string) bool { return h.kind.resource == "cronjobs" && h.begins(v) },
	"controller-uid":                     func(h *holder, _ string) bool { return h.kind.resource == "cronjobs" },
	"batch.kubernetes.io/controller-uid": func(h *holder, _ string) bool { return h.kind.resource == "cronjobs" },
	"batch.kubernetes.io/job-completion-index": func(h *holder, _ string) bool {
		return h.kind.resource == "cronjobs" || h.kind.resource == "jobs"
	},
}

func isAdded(key string) bool { return added[key] != nil }

func isSet(h *holder) bool {
	return h.kind.resource == "daemonsets" || h.kind.resource == "statefulsets"
}

func (h *holder) begins(value string) bool { return strings.HasPrefix(value, h.o.GetName()+"-") }

// willHave reports whether pods of a template may have a label that the template has
// not, as its controller adds it.
func (h *holder) willHave(r labels.Requirement) bool {
	adds := added[r.Key()]
	if adds == nil || h.labels.Has(r.Key()) {
		return false
	}
	switch r.Operator() {
	case selection.In, selection.Equals, selection.DoubleEquals:
		return slices.ContainsFunc(r.ValuesUnsorted(), func(v string) bool { return adds(h, v) })
	case selection.Exists:
		return adds(h, h.o.GetName()+"-")
	}
	return false
}

// page is how many objects are asked for at once: full ones, and metadata only.
const (
	page     = 100
	metaPage = 500
	// fewChanged is up to how many objects that have changed are read one by one.
	fewChanged = 20
)

// look lists the holders of the namespace. What it has seen before in the same state
// it does not read again. all: also kinds that make no pods; they change rarely.
func (c *Cleaner) look(ctx context.Context, s *scan, all bool) error {
	for _, k := range c.holders {
		if !k.needed && !all {
			continue
		}
		c.opts.At(StepScan, Object{Kind: k.kind.kind(), Namespace: s.namespace})
		err := c.lookAt(ctx, s, k)
		if err == nil {
			continue
		}
		without := apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
		if k.needed || !without {
			return c.refused("list", k.kind, s.namespace, err)
		}
		c.note("%s of namespace %s are not looked at (%s): what only they name is not seen", k.kind.kind(), s.namespace, apierrors.ReasonForError(err))
	}
	return nil
}

func (c *Cleaner) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.notes, text) {
		c.notes = append(c.notes, text)
	}
}

func (c *Cleaner) lookAt(ctx context.Context, s *scan, k holderKind) error {
	namespace := s.namespace
	if k.cluster {
		namespace = ""
	}
	if !s.knows(k) {
		return c.lookAtAll(ctx, s, k, namespace)
	}
	changed := map[string]bool{} // by name
	err := c.listMeta(ctx, k.kind, namespace, metav1.ListOptions{}, func(o *metav1.PartialObjectMetadata) {
		if s.seen[o.UID] != o.ResourceVersion && len(changed) <= fewChanged {
			changed[o.Name] = true
		}
	})
	if err != nil {
		return err
	}
	if len(changed) > fewChanged {
		return c.lookAtAll(ctx, s, k, namespace)
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		o, err := c.get(ctx, k.kind, namespace, name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		s.see(newHolder(k, o))
	}
	return nil
}

// knows reports whether the kind was listed before.
func (s *scan) knows(k holderKind) bool { _, ok := s.seen[types.UID(k.kind.kind())]; return ok }

func (c *Cleaner) lookAtAll(ctx context.Context, s *scan, k holderKind, namespace string) error {
	err := c.list(ctx, k.kind, namespace, metav1.ListOptions{}, func(o *unstructured.Unstructured) { s.see(newHolder(k, o)) })
	if err == nil {
		s.seen[types.UID(k.kind.kind())] = "" // no UID of an object is a name of a kind
	}
	return err
}
