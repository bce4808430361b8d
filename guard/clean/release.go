package clean

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
)

// What Helm puts on the objects of a release and on its records of it
// (helm.sh/helm/v3, pkg/action/validate.go and pkg/storage/driver/secrets.go).
const (
	managedByLabel             = "app.kubernetes.io/managed-by"
	managedByHelm              = "Helm"
	releaseNameAnnotation      = "meta.helm.sh/release-name"
	releaseNamespaceAnnotation = "meta.helm.sh/release-namespace"
	policyAnnotation           = "helm.sh/resource-policy"
	hookAnnotation             = "helm.sh/hook"
	recordSelector             = "owner=helm"
	recordPrefix               = "sh.helm.release.v1."
)

// release is a Helm release that is meant.
type release struct {
	namespace, name string
	records         []*item // Helm's, oldest revision first
	items           []*item // its objects that are there
	refs            []ref   // of its manifest, until they are found
	deployed        time.Time
	over            time.Time // when the last of its Jobs had finished; zero: they are gone
	hasJob          bool
	why             string
	spared          string
	revision        int
	status          string
}

// ref is an object of a manifest.
type ref struct {
	kind kind
	name string
	hook bool
}

func (r *release) has(k kind, name string) bool {
	return slices.ContainsFunc(r.refs, func(has ref) bool { return has.kind == k && has.name == name })
}

func (r *release) spare(format string, args ...any) {
	if r.spared == "" {
		r.spared = fmt.Sprintf(format, args...)
	}
}

// all are the items in the order in which they go: the record of what is there last.
func (r *release) all() []*item {
	all := slices.Clone(r.items)
	slices.SortStableFunc(all, func(a, b *item) int { return a.kind.rank() - b.kind.rank() })
	return append(all, r.records...)
}

// findReleases are the releases that are meant, by Helm's records of them.
func (c *Cleaner) findReleases(ctx context.Context) ([]*release, error) {
	found := map[string]*release{}
	var all []*release
	there, near := newInhabitants(), crowd[*release]{}
	take := func(k kind, o *unstructured.Unstructured) {
		name, revision, ok := recordName(o.GetName())
		if !ok {
			return
		}
		match, of := c.choice.hasRelease(o.GetNamespace(), name)
		there.add(o.GetNamespace()+"/"+name, of)
		if match == other {
			return
		}
		r := found[o.GetNamespace()+"/"+name]
		if r == nil {
			r = &release{namespace: o.GetNamespace(), name: name}
			found[o.GetNamespace()+"/"+name] = r
			if match == alike {
				near[of] = append(near[of], r)
			} else {
				all = append(all, r)
			}
		}
		c.takeRecord(r, k, o, revision)
	}
	for _, k := range []kind{secrets, configMaps} { // Helm's storage drivers
		err := c.list(ctx, k, c.choice.only, metav1.ListOptions{LabelSelector: recordSelector}, func(o *unstructured.Unstructured) { take(k, o) })
		if err != nil {
			return nil, c.refused("list", k, c.choice.only, err)
		}
	}
	meant := strings.Join(c.choice.release, ", ")
	more, note := near.all("Helm releases", meant, c.choice.alike)
	if all = append(all, more...); len(all) == 0 && note == "" {
		note = there.without("Helm releases", meant)
	}
	if note != "" {
		c.note("%s", note)
	}
	return all, nil
}

// recordName takes sh.helm.release.v1.NAME.vREVISION apart.
func recordName(s string) (name string, revision int, ok bool) {
	rest, ok := strings.CutPrefix(s, recordPrefix)
	at := strings.LastIndex(rest, ".v")
	if !ok || at <= 0 {
		return "", 0, false
	}
	revision, err := strconv.Atoi(rest[at+2:])
	return rest[:at], revision, err == nil && revision > 0
}

// takeRecord adds a record. The one of the last revision says what the release is; what
// earlier ones had besides, Helm has removed.
func (c *Cleaner) takeRecord(r *release, k kind, o *unstructured.Unstructured, revision int) {
	if slices.ContainsFunc(r.records, func(i *item) bool { return i.meta.uid == o.GetUID() }) {
		return // a list that began anew
	}
	i := &item{kind: k, release: r, meta: metaOf(metaObject(o))}
	if revision < r.revision {
		r.records = slices.Insert(r.records, 0, i)
		return
	}
	r.records, r.revision = append(r.records, i), revision
	r.refs, r.hasJob, r.spared, r.status, r.deployed = nil, false, "", "", time.Time{}
	if err := r.read(k, o); err != nil {
		r.spare("Helm's record %s cannot be read: %v", bulkhead.Quote(o.GetName()), err)
	}
	if why := c.keeps(i, metaObject(o)); why != "" {
		i.spare("%s", why)
	}
}

// record is what is read of Helm's record (helm.sh/helm/v3, pkg/release/release.go).
type record struct {
	Name string `json:"name"`
	Info struct {
		LastDeployed time.Time `json:"last_deployed"`
		Deleted      time.Time `json:"deleted"` // zero: it was not uninstalled
		Status       string    `json:"status"`
	} `json:"info"`
	Manifest  string `json:"manifest"`
	Namespace string `json:"namespace"`
	Hooks     []struct {
		Manifest string `json:"manifest"`
	} `json:"hooks"`
}

// largest is how large a record may be, unpacked: etcd takes 1.5 MB packed, and what
// expands to more than this is not what Helm has written.
const largest = 32 << 20

// read takes in a record: JSON, packed and encoded once more inside a Secret.
func (r *release) read(k kind, o *unstructured.Unstructured) error {
	text, _, _ := unstructured.NestedString(o.Object, "data", "release")
	if k == secrets {
		inner, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		text = string(inner)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b, 0x08}) {
		packed, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		if raw, err = io.ReadAll(io.LimitReader(packed, largest+1)); err != nil {
			return err
		}
	}
	if len(raw) > largest {
		return fmt.Errorf("it is larger than %d bytes", largest)
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return err
	}
	if rec.Name != r.name || rec.Namespace != r.namespace {
		return fmt.Errorf("it is about %s", bulkhead.Quote(rec.Namespace+"/"+rec.Name))
	}
	r.deployed, r.status = rec.Info.LastDeployed, rec.Info.Status
	if rec.Info.Deleted.After(r.deployed) {
		r.deployed = rec.Info.Deleted // its grace begins then
	}
	if err := r.readManifest(rec.Manifest, false); err != nil {
		return err
	}
	for _, hook := range rec.Hooks {
		if err := r.readManifest(hook.Manifest, true); err != nil {
			return err
		}
	}
	return nil
}

// readManifest takes in the objects of a manifest.
func (r *release) readManifest(manifest string, hook bool) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest)))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var o struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal(text, &o); err != nil {
			return err
		}
		if o.Kind == "" {
			continue // a template that came to nothing
		}
		k, ok := kindOf(o.APIVersion, o.Kind)
		switch {
		case !ok:
			r.spare("it has a %s, and nothing says that that is over", bulkhead.Quote(o.Kind))
		case k == pods && !hook:
			r.spare("it has a pod of its own")
		case o.Namespace != "" && o.Namespace != r.namespace:
			r.spare("it has objects in namespace %s, too", bulkhead.Quote(o.Namespace))
		}
		// The end of a hook says that something was installed, not that it is over.
		r.hasJob = r.hasJob || k == jobs && !hook
		if ok && !r.has(k, o.Name) {
			r.refs = append(r.refs, ref{k, o.Name, hook})
		}
	}
}

// judge says whether a release is over, as far as its own objects and records say it.
func (r *release) judge(c *Cleaner) {
	now := c.opts.Now()
	switch r.status {
	case "deployed", "failed", "uninstalled":
	default:
		r.spare("Helm is at work on it (%s)", bulkhead.Quote(r.status))
	}
	over := r.over
	if over.IsZero() {
		over = r.deployed
	}
	switch {
	case !r.hasJob && r.status != "uninstalled":
		r.spare("it has no Job whose end would say that it is over")
	case over.IsZero():
		r.spare("it does not say when it was deployed")
	case now.Sub(over) < c.opts.Grace:
		r.spare("%s of %s have passed since its end", now.Sub(over).Truncate(time.Second), c.opts.Grace)
	}
	r.why = "its Job has finished"
	switch {
	case r.over.IsZero() && r.status == "failed":
		r.why = "Helm could not install it, and it has no Job"
	case r.over.IsZero():
		r.why = "its Job is gone"
	}
	if r.status == "uninstalled" && !r.hasJob {
		r.why = "it was uninstalled"
	}
}

// finishedAt is when a Job had finished, and whether it has. One that was put back after
// it had finished, and is as it was put back, has never run since: it ended then.
func finishedAt(o *unstructured.Unstructured) (at time.Time, ok bool) {
	suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
	// The API server counts each change of a spec: to resume a Job is the second.
	if o.GetAnnotations()[RestoredAnnotation] != "" && suspended && o.GetGeneration() == 1 {
		return o.GetCreationTimestamp().Time, true
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		kind, _ := condition["type"].(string)
		status, _ := condition["status"].(string)
		if (kind != "Complete" && kind != "Failed") || status != "True" {
			continue
		}
		text, _ := condition["lastTransitionTime"].(string)
		at, err := time.Parse(time.RFC3339, text)
		return at, err == nil
	}
	return time.Time{}, false
}

// unchanged reports whether Helm's records are those that were found.
func (c *Cleaner) unchanged(ctx context.Context, r *release) (bool, error) {
	found := map[types.UID]string{}
	for _, k := range []kind{secrets, configMaps} {
		selector := metav1.ListOptions{LabelSelector: recordSelector + ",name=" + r.name}
		err := c.listMeta(ctx, k, r.namespace, selector, func(o *metav1.PartialObjectMetadata) { found[o.UID] = o.ResourceVersion })
		if apierrors.IsBadRequest(err) { // a name that is no label is none that Helm gives
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	for _, i := range r.records {
		if found[i.meta.uid] != i.meta.version {
			return false, nil
		}
	}
	return len(found) == len(r.records), nil
}
