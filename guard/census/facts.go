package census

import (
	"cmp"
	"slices"
	"strings"
	"unique"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

// DefaultFacts are the labels and annotations that say who or what made an object.
// One without a domain stands for those with any, too: example.org/username. The class is
// that of Bulkhead whose script made it.
var DefaultFacts = []string{"username", "user", "owner", "created-by", "requested-by", "script", "command", "comment", "task", "reason",
	"team", "meta.helm.sh/release-name", bulkhead.ClassKey}

const (
	maxValue = 128 // bytes of a fact's value that are kept
	topTold  = 4   // values of a key that are told
	// topKept is how many are counted. A value that more than one in nine of the
	// objects have is among them, whatever else there is (Misra and Gries, Finding
	// repeated elements, 1982).
	topKept = 8
	// maxFacts bounds the values of all families together.
	maxFacts = 60_000
)

// factKeys tells which labels and annotations are facts.
type factKeys map[string]bool

func newFactKeys(keys []string) factKeys {
	if keys == nil {
		keys = DefaultFacts
	}
	set := factKeys{}
	for _, k := range keys {
		set[k] = true
	}
	return set
}

// of calls tell with what the labels and annotations of an object say.
func (k factKeys) of(o family.Object, tell func(key, value string)) {
	for _, from := range [...]map[string]string{o.Labels, o.Annotations} {
		for label, value := range from {
			key := label
			if !k[key] {
				key = label[strings.LastIndexByte(label, '/')+1:]
			}
			if value != "" && k[key] && (label != "owner" || value != "helm") { // Helm marks its records so
				tell(key, family.Clean(value, maxValue))
			}
		}
	}
}

// fact is a value and how many objects have it, at least.
type fact struct {
	key, value unique.Handle[string]
	objects    int64
}

// facts are those of a family, in no order.
type facts []fact

// add counts a value. It says by how much more is kept now.
func (f *facts) add(key, value string, room bool) int {
	k, v := unique.Make(key), unique.Make(value)
	kept := 0
	for i := range *f {
		if (*f)[i].key != k {
			continue
		}
		if (*f)[i].value == v {
			(*f)[i].objects++
			return 0
		}
		kept++
	}
	if kept < topKept {
		if !room {
			return 0
		}
		*f = append(*f, fact{k, v, 1})
		return 1
	}
	// One of each value of this key, and the new one, cancel each other out.
	before := len(*f)
	for i := range *f {
		if (*f)[i].key == k {
			(*f)[i].objects--
		}
	}
	*f = slices.DeleteFunc(*f, func(one fact) bool { return one.objects <= 0 })
	return len(*f) - before
}

// remove takes back what an object said. It says by how much more is kept now.
func (f *facts) remove(key, value string) int {
	k, v := unique.Make(key), unique.Make(value)
	for i, one := range *f {
		if one.key != k || one.value != v {
			continue
		}
		if (*f)[i].objects--; one.objects <= 1 {
			*f = slices.Delete(*f, i, i+1)
			return -1
		}
		return 0
	}
	return 0
}

// merge adds those of another family, as far as there is room.
func (f *facts) merge(other facts) {
	for _, one := range other {
		i := slices.IndexFunc(*f, func(have fact) bool { return have.key == one.key && have.value == one.value })
		if i >= 0 {
			(*f)[i].objects += one.objects
			continue
		}
		same := 0
		for _, have := range *f {
			if have.key == one.key {
				same++
			}
		}
		if same < topKept {
			*f = append(*f, one)
		}
	}
}

// tell gives the most frequent values of each key, those that at least one in twenty
// of the family's objects have.
func (f facts) tell(objects int64) []bulkhead.Fact {
	var told []bulkhead.Fact
	for _, one := range f {
		if 20*one.objects >= objects {
			told = append(told, bulkhead.Fact{Key: one.key.Value(), Value: one.value.Value(), Objects: one.objects})
		}
	}
	slices.SortFunc(told, func(a, b bulkhead.Fact) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(b.Objects, a.Objects), cmp.Compare(a.Value, b.Value))
	})
	ranks := map[string]int{}
	return slices.DeleteFunc(told, func(one bulkhead.Fact) bool {
		ranks[one.Key]++
		return ranks[one.Key] > topTold
	})
}
