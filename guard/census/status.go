package census

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

// errNotYet stands for a stream whose first list goes on.
var errNotYet = errors.New("not counted yet")

// notYet is the reason of a kind that is being listed, or waits for its turn.
const notYet = "not counted yet: the list goes on"

// maxReason bounds what is told of an error: it may quote what others wrote.
const maxReason = 300

// status says how the count of a kind that is watched stands.
func (c *Census) status(name string) bulkhead.KindStatus {
	w := c.watched[name]
	n, complete := c.counts.objectsOf(name)
	s := bulkhead.KindStatus{Kind: name, Objects: n, Exact: complete, Bytes: max(0, c.server[name].bytes)}
	for _, one := range w.streams {
		if err := w.errs[one]; err != nil {
			s.Exact, s.Reason = false, reason(w.kind, one.table, err)
			break
		}
	}
	if s.Exact && c.counts.rest[name] {
		s.Reason = fmt.Sprintf("more than %d families: what came later is one, *", maxFamilies)
	}
	return s
}

// reason says in one line why a kind is not counted, and what to do.
func reason(k kind, t *table, err error) string {
	where := "in the cluster"
	if t.namespace != "" {
		where = "in namespace " + t.namespace
	}
	switch {
	case errors.Is(err, errNotYet):
		return notYet
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("not permitted: grant the verbs list and watch on %s of API group %q %s; tried again within 10 minutes", k.Resource, k.Group, where)
	case apierrors.IsUnauthorized(err):
		return "not permitted: the API server does not know who asks; see the credentials of the kubeconfig"
	}
	return "not seen for now, tried again: " + family.Clean(err.Error(), maxReason)
}

// addServers adds what only the API server itself counts: kinds that are not watched,
// or may not be.
func (c *Census) addServers(s *bulkhead.Census) {
	known := map[string]int{}
	for i, k := range s.Kinds {
		known[k.Kind] = i
	}
	for _, name := range slices.Sorted(maps.Keys(c.server)) {
		m := c.server[name]
		i, watched := known[name]
		switch {
		case m.objects < 0 || m.objects == 0 && !watched && name != events || !watched && !c.switches.on(name, true) || watched && !c.denied(name):
			continue
		case watched:
			s.Kinds[i].Objects = m.objects
		default:
			s.Kinds = append(s.Kinds, bulkhead.KindStatus{Kind: name, Objects: m.objects, Bytes: max(0, m.bytes), Reason: m.how})
		}
		s.Tallies = append(s.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: name, Family: "*"}, Objects: m.objects})
	}
	for _, name := range c.over {
		if _, counted := c.server[name]; !counted {
			s.Kinds = append(s.Kinds, bulkhead.KindStatus{Kind: name,
				Reason: fmt.Sprintf("not counted: more than %d kinds of custom resources; +%s switches it on", maxCustom, name)})
		}
	}
	if c.trouble != "" && c.options.MetricsOnly {
		s.Kinds = append(s.Kinds, bulkhead.KindStatus{Kind: "*", Reason: c.trouble})
	}
	slices.SortFunc(s.Kinds, func(a, b bulkhead.KindStatus) int { return strings.Compare(a.Kind, b.Kind) })
	slices.SortStableFunc(s.Tallies, func(a, b bulkhead.Tally) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace))
	})
}

// denied says that no object of a kind was ever seen, since it is not permitted.
func (c *Census) denied(name string) bool {
	w := c.watched[name]
	if w == nil {
		return false // its turn is to come
	}
	n, _ := c.counts.objectsOf(name)
	for _, err := range w.errs {
		if apierrors.IsForbidden(err) && n == 0 {
			return true
		}
	}
	return false
}
