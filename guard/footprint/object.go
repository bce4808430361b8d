package footprint

import (
	"math"
	"math/bits"
	"regexp"
	"strings"

	"bulkhead.dev/bulkhead/guard/budget"
)

// object is a manifest as it was decoded. Whoever wrote it may have put anything
// anywhere, so that what is not of the right type is as if it were not there: the API
// server will refuse it anyway.
type object map[string]any

// at is a map within it, nil if there is none.
func (o object) at(path ...string) object {
	for _, name := range path {
		next, _ := o[name].(map[string]any)
		o = next
	}
	return o
}

func (o object) text(name string) string {
	text, _ := o[name].(string)
	return text
}

func (o object) list(name string) []any {
	list, _ := o[name].([]any)
	return list
}

func (o object) is(name string) bool {
	value, _ := o[name].(bool)
	return value
}

// most is more than any count that is not a mistake.
const most = 1 << 40

// number is a count, not negative.
func (o object) number(name string) (n int64, ok bool) {
	switch v := o[name].(type) {
	case int:
		n, ok = int64(v), true
	case int64:
		n, ok = v, true
	case float64:
		n, ok = int64(math.Min(math.Max(v, 0), most)), !math.IsNaN(v)
	}
	return min(max(n, 0), most), ok
}

func (o object) numberOr(name string, otherwise int64) int64 {
	if n, ok := o.number(name); ok {
		return n
	}
	return otherwise
}

var (
	kindName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)
	versionName = regexp.MustCompile(`^(?:([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,8})/)?v[0-9][a-z0-9]{0,20}$`)
	spaceName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// resourceOf is the resource of a kind, as the census names it. For kinds that are not
// built in the plural is made as the generators of custom resources make it.
func resourceOf(kind, version string) string {
	group, _, grouped := strings.Cut(version, "/")
	if !grouped {
		group = ""
	}
	singular := strings.ToLower(kind)
	if r, ok := budget.Resource(singular); ok {
		if _, g, _ := strings.Cut(r, "."); g == group {
			return r
		}
	}
	name := plural(singular)
	if group != "" {
		name += "." + group
	}
	r, _ := budget.Resource(name)
	return r
}

func plural(word string) string {
	switch last := word[len(word)-1]; {
	case strings.HasSuffix(word, "endpoints"):
		return word
	case last == 's' || last == 'x' || strings.HasSuffix(word, "ch") || strings.HasSuffix(word, "sh"):
		return word + "es"
	case last == 'y' && len(word) > 1 && !strings.ContainsRune("aeiou", rune(word[len(word)-2])):
		return word[:len(word)-1] + "ies"
	}
	return word + "s"
}

// inNoNamespace are the built-in kinds that are the cluster's.
var inNoNamespace = map[string]bool{
	"namespaces": true, "nodes": true, "persistentvolumes": true, budget.GlobalPolicies: true,
	"clusterroles.rbac.authorization.k8s.io": true, "clusterrolebindings.rbac.authorization.k8s.io": true,
	"customresourcedefinitions.apiextensions.k8s.io": true, "storageclasses.storage.k8s.io": true,
	"volumeattachments.storage.k8s.io": true, "priorityclasses.scheduling.k8s.io": true, "runtimeclasses.node.k8s.io": true,
	"ingressclasses.networking.k8s.io": true, "apiservices.apiregistration.k8s.io": true,
	"validatingwebhookconfigurations.admissionregistration.k8s.io": true,
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":   true,
}

// serverBytes is what an API server adds to an object: uid, creationTimestamp,
// resourceVersion, and an entry of managedFields without its fields.
const serverBytes = 300

// bytesOf is about how large an object is as the API's JSON: what was sent, what
// the server adds, and managedFields, which repeat the name of each field.
func bytesOf(o object) int64 {
	size, names := sizeOf(map[string]any(o), true)
	return plus(plus(size, names), serverBytes)
}

// sizeOf is the length of a value as JSON, and of the names of its fields in
// managedFields ("f:name":{}). Those within lists are left out: most lists are
// atomic.
func sizeOf(value any, named bool) (size, names int64) {
	switch v := value.(type) {
	case map[string]any:
		size = 2
		for key, value := range v {
			s, n := sizeOf(value, named)
			size = plus(size, plus(s, quoted(key)+2)) // with : and ,
			if named {
				names = plus(names, n+int64(len(key))+8)
			}
		}
	case map[any]any: // keys that are no text
		size = 2
		for _, value := range v {
			s, _ := sizeOf(value, false)
			size = plus(size, s+8)
		}
	case []any:
		size = 2
		for _, value := range v {
			s, _ := sizeOf(value, false)
			size = plus(size, s+1)
		}
	case string:
		size = quoted(v)
	case nil, bool:
		size = 4
	default:
		size = 8 // numbers, times
	}
	return size, names
}

// quoted is the length of a text as JSON.
func quoted(text string) int64 {
	n := int64(len(text)) + 2
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\' || c == '\n' || c == '\t' || c == '\r':
			n++
		case c < ' ':
			n += 5
		}
	}
	return n
}

// plus and times stay at the largest number instead of beginning again below 0.
// Neither is asked about negative ones.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}
