package guard

import (
	"fmt"
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

// advice is what to do now, the safest first: look, ask who makes it, hold what
// Bulkhead itself would start, if there is a server for that, stop it at the API, and only
// then take anything away.
func (a *analysis) advice(f bulkhead.Finding) []bulkhead.Advice {
	m := f.Members[0]
	scope := []string{"-n", m.Namespace}
	if m.Namespace == "" {
		scope = []string{"-A"}
	}
	command := func(words ...string) string { return shown(append(words, scope...)) }
	out := []bulkhead.Advice{{
		Text:    "look at the newest of them; this changes nothing",
		Command: command("kubectl", "get", named(m.Kind)) + " --sort-by=.metadata.creationTimestamp | tail",
	}, {Text: ask(f)}}
	if f.Namespace != "" && a.Runs {
		reason := fmt.Sprintf("%s grow by %.0f/h", short(m.Kind), m.PerHour)
		out = append(out, bulkhead.Advice{
			Text:    "hold what Bulkhead would start there; what runs goes on",
			Command: shown([]string{"bulkhead", "brake", "on", "--namespace", f.Namespace, "--reason", reason}),
		})
	}
	if f.Namespace != "" {
		out = append(out, bulkhead.Advice{
			Text:    "refuse more of them at the API; without --yes it says what that would be",
			Command: command("bulkhead", "guard", "quota", "--kinds", strings.Join(QuotaKinds(f), ",")),
		})
	}
	if what := leftovers(f); what != nil {
		out = append(out, bulkhead.Advice{
			Text:    "see what could be deleted; without --yes it only lists it",
			Command: command(append([]string{"bulkhead", "guard", "clean"}, what...)...),
		})
	}
	if detail := pinned(f.Reaches); detail != "" {
		out = append(out, bulkhead.Advice{Text: detail})
	}
	return out
}

// shown is a command as one that is safe to show and to copy: what is no name, and might
// move a cursor or begin a line, names nothing.
func shown(words []string) string {
	const longest = 400 // characters; a name has 253 at most
	for i, word := range words {
		words[i] = bulkhead.OneLine(word, longest)
	}
	return bulkhead.ShellLine(words)
}

// made are the kinds that controllers make out of others: to refuse them stops what was
// asked for, and not who asks. Deployments need more pods and replica sets than they have, to
// roll; a Service whose EndpointSlices are refused leads nowhere.
var made = []string{"pods", budget.ReplicaSets, budget.EndpointSlices, "endpoints", "controllerrevisions.apps"}

// QuotaKinds are what a quota may limit to end a growth, as people name them: the causes,
// and not what was made of them.
func QuotaKinds(f bulkhead.Finding) (kinds []string) {
	sliced := false
	for _, m := range sortedMembers(f.Members) {
		sliced = sliced || m.Kind == budget.EndpointSlices
		if !slices.Contains(made, m.Kind) {
			kinds = append(kinds, named(m.Kind))
		}
	}
	switch {
	case len(kinds) > 0:
		return kinds
	case sliced: // there are but these: what owns them
		return []string{named(budget.Services)}
	case len(f.Members) == 1:
		return []string{named(f.Members[0].Kind)}
	}
	return []string{named(budget.ReplicaSets)}
}

// named is how people name a kind on a command line: without the group, if it is one
// of Kubernetes itself.
func named(kind string) string {
	if singular[kind] != "" {
		return short(kind)
	}
	return kind
}

// leftovers are the flags of guard clean for a growth; nil if nothing fits: it takes
// whole Helm releases, or objects of some kinds that nothing uses.
func leftovers(f bulkhead.Finding) []string {
	for _, m := range f.Members {
		if release, ok := strings.CutPrefix(m.Origin, "release/"); ok {
			return []string{"--release", release}
		}
	}
	for _, m := range f.Members {
		if slices.Contains(first[2:], m.Kind) && m.Family != All {
			return []string{"--family", m.Family, "--kind", m.Kind}
		}
	}
	return nil
}

// ask says whom to ask to stop, and what that person would know it by.
func ask(f bulkhead.Finding) string {
	who := "find out who runs " + f.Client
	if f.Client == "" {
		who = "find out who makes them"
	}
	if len(f.Users) > 0 {
		who = "ask " + strings.Join(f.Users, ", ")
	}
	var what []string
	for _, key := range []string{"script", "comment"} {
		if v := fact(f, key); v != "" {
			what = append(what, key+" "+v)
		}
	}
	if len(what) > 0 {
		return fmt.Sprintf("%s to stop it (%s)", who, strings.Join(what, ", "))
	}
	return who + ", to stop it"
}

// fact is the most frequent value of a fact, whatever its key begins with.
func fact(f bulkhead.Finding, key string) string {
	for _, of := range f.Facts {
		if of.Key == key || strings.HasSuffix(of.Key, "/"+key) {
			return of.Value
		}
	}
	return ""
}
