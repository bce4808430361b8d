package clean

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

// choice says which objects and which Helm releases are meant.
type choice struct {
	family  string // of objects, of any kind in kinds
	kinds   []kind
	members []bulkhead.Key // exact ones
	release []string       // families of releases
	only    string         // namespace; "": all
	alike   bool           // what is alike is meant, however few words there are
}

func choose(o *Options) (choice, error) {
	if err := o.check(); err != nil {
		return choice{}, err
	}
	c := choice{family: o.Family, only: o.Namespace, alike: o.Alike}
	if o.Release != "" {
		c.release = []string{o.Release}
	}
	for _, k := range []kind{policies, configMaps, secrets} {
		if o.Family != "" && (o.Kind == "" || o.Kind == k.kind()) {
			c.kinds = append(c.kinds, k)
		}
	}
	for _, m := range o.Members {
		if release, ok := strings.CutPrefix(m.Origin, releaseOrigin); ok {
			c.addRelease(release)
			continue
		}
		for _, k := range []kind{policies, configMaps, secrets} {
			if m.Kind == k.kind() {
				c.addMember(k, m)
			}
		}
	}
	if len(c.kinds) == 0 && len(c.release) == 0 {
		return choice{}, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the finding has no family of which something could be removed",
			Hint: "what it has goes with its owner: see what `bulkhead why` advises"}
	}
	return c, nil
}

// releaseOrigin begins the origin of what a Helm release has made.
const releaseOrigin = "release/"

func (c *choice) addRelease(release string) {
	if !slices.Contains(c.release, release) {
		c.release = append(c.release, release)
	}
}

func (c *choice) addMember(k kind, m bulkhead.Key) {
	c.members = append(c.members, m)
	if !slices.Contains(c.kinds, k) {
		c.kinds = append(c.kinds, k)
	}
}

// match is how far something is of a family.
type match int

const (
	other match = iota
	// alike has a word where the family has *. A census makes many such words one: where
	// there are few of them, each is a family of its own.
	alike
	same
)

// manyWords is how many words that stand at one place are families of their own: more
// are one, as for a census.
const manyWords = 64

// has says whether an object is meant, and of which family it is.
func (c *choice) has(k kind, o *metav1.ObjectMeta) (match, string) {
	key := keyOf(k, o)
	if c.family != "" {
		if o.Name == c.family {
			return same, key.Family
		}
		return compare(c.family, key.Family), key.Family
	}
	most := other
	for _, m := range c.members {
		if m.Kind == key.Kind && (m.Manager == "" || m.Manager == key.Manager) && inNamespace(m.Namespace, key.Namespace) {
			most = max(most, min(compare(m.Family, key.Family), compare(m.Origin, key.Origin)))
		}
	}
	return most, key.Family
}

// pattern are the families that are meant of a kind, for people.
func (c *choice) pattern(k kind) string {
	if c.family != "" {
		return c.family
	}
	var all []string
	for _, m := range c.members {
		if m.Kind == k.kind() && !slices.Contains(all, m.Family) {
			all = append(all, m.Family)
		}
	}
	return strings.Join(all, ", ")
}

// inNamespace reports whether an object of a namespace may be of a family that is in
// another, or in many.
func inNamespace(pattern, namespace string) bool {
	return pattern == "" || pattern == "*" || pattern == namespace || pattern == family.Name(namespace, family.Hints{})
}

// hasRelease says whether a Helm release is meant, and of which family it is.
func (c *choice) hasRelease(namespace, name string) (match, string) {
	of := familyOfRelease(namespace, name)
	most := other
	for _, r := range c.release {
		if r == name {
			return same, of
		}
		most = max(most, compare(r, of))
	}
	return most, of
}

// compare says how far a family is the one that a pattern names. What has nothing but *
// in it is alike to nothing: it would be to everything.
func compare(pattern, of string) match {
	if pattern == of {
		return same
	}
	if fits(strings.FieldsFunc(pattern, between), strings.FieldsFunc(of, between)) {
		return alike
	}
	return other
}

func between(r rune) bool { return r == '-' || r == '.' || r == '/' }

// fits reports whether words are those of a pattern, which may have * for any one.
func fits(pattern, words []string) bool {
	fixed := false
	for i, p := range pattern {
		if i >= len(words) || p != words[i] && p != "*" {
			return false
		}
		fixed = fixed || p != "*"
	}
	return fixed && len(pattern) == len(words)
}

// keyOf is the family of an object, as a census counts it.
func keyOf(k kind, o *metav1.ObjectMeta) bulkhead.Key {
	of := family.Object{Kind: k.kind(), Namespace: o.Namespace, Name: o.Name, GenerateName: o.GenerateName, Labels: o.Labels, Annotations: o.Annotations}
	for _, owner := range o.OwnerReferences {
		of.Owners = append(of.Owners, family.Owner{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name, Controller: owner.Controller != nil && *owner.Controller})
	}
	var first *metav1.ManagedFieldsEntry
	for i := range o.ManagedFields {
		f := &o.ManagedFields[i]
		if f.Subresource == "" && (first == nil || f.Time != nil && first.Time != nil && f.Time.Before(first.Time)) {
			first, of.Manager = f, f.Manager
		}
	}
	return family.Key(of)
}

// familyOfRelease is the family that a census gives to what a release has made.
func familyOfRelease(namespace, name string) string {
	key := family.Key(family.Object{
		Kind: configMaps.kind(), Namespace: namespace, Name: name,
		Labels:      map[string]string{managedByLabel: managedByHelm},
		Annotations: map[string]string{releaseNameAnnotation: name, releaseNamespaceAnnotation: namespace},
	})
	return strings.TrimPrefix(key.Origin, releaseOrigin)
}

// crowd are things of families that are alike, until it is known whether they are many.
type crowd[T any] map[string][]T

// all are the things, if they are meant or their families are many, or a note of why not.
func (c crowd[T]) all(what, pattern string, meant bool) (all []T, note string) {
	families := slices.Sorted(maps.Keys(c))
	if meant || len(families) > manyWords {
		for _, f := range families {
			all = append(all, c[f]...)
		}
		return all, ""
	}
	if len(families) == 0 {
		return nil, ""
	}
	shown := slices.Clone(families[:min(len(families), shownFamilies)])
	for i, f := range shown {
		shown[i] = bulkhead.Quote(f)
	}
	list := strings.Join(shown, ", ")
	if more := len(families) - len(shown); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return nil, fmt.Sprintf("%s that are of other families, though their names fit %s, are not meant: %s; if they are, --alike takes them in", what, bulkhead.Quote(pattern), list)
}

// shownFamilies is how many families are named to whoever meant others.
const shownFamilies = 5

// inhabitants are the families of what is there, of which a few are named when nothing
// of it is meant: most likely the pattern is not the one that was wanted.
type inhabitants struct {
	seen     map[string]bool
	families map[string]int
}

func newInhabitants() inhabitants { return inhabitants{map[string]bool{}, map[string]int{}} }

// add counts one, unless it was counted: a list may begin anew.
func (n inhabitants) add(id, of string) bool {
	if n.seen[id] {
		return false
	}
	n.seen[id] = true
	n.families[of]++
	return true
}

// without says that none of them is meant, and what there is instead.
func (n inhabitants) without(what, pattern string) string {
	if len(n.seen) == 0 {
		return "there are no " + what
	}
	families := slices.SortedFunc(maps.Keys(n.families), func(a, b string) int {
		return cmp.Or(cmp.Compare(n.families[b], n.families[a]), cmp.Compare(a, b))
	})
	var shown []string
	for _, f := range families[:min(len(families), shownFamilies)] {
		shown = append(shown, fmt.Sprintf("%s (%d)", bulkhead.Quote(f), n.families[f]))
	}
	if more := len(families) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d families more", more))
	}
	return fmt.Sprintf("%d %s are there: %s; none is of the family %s", len(n.seen), what, strings.Join(shown, ", "), bulkhead.Quote(pattern))
}
