package guard

import (
	"fmt"
	"strings"

	"bulkhead.dev/bulkhead"
)

// advice is what to do now, the safest first: look, ask who makes it, hold what
// Bulkhead itself would start, stop it at the API, and only then take anything away.
func advice(f bulkhead.Finding) []bulkhead.Advice {
	m := f.Members[0]
	inNamespace := []string{"-A"}
	if m.Namespace != "" {
		inNamespace = []string{"-n", m.Namespace}
	}
	command := func(words ...string) string { return bulkhead.ShellLine(words) }
	out := []bulkhead.Advice{{
		Text:    "look at the newest of them; this changes nothing",
		Command: command(append(append([]string{"kubectl", "get", m.Kind}, inNamespace...), "--sort-by=.metadata.creationTimestamp")...) + " | tail",
	}, {Text: ask(f)}}
	if f.Namespace != "" {
		reason := fmt.Sprintf("%s grow by %.0f/h", short(m.Kind), m.PerHour)
		out = append(out, bulkhead.Advice{
			Text:    "hold what Bulkhead would start there; what runs goes on",
			Command: command("bulkhead", "brake", "on", "--namespace", f.Namespace, "--reason", reason),
		}, bulkhead.Advice{
			Text:    "refuse more of them at the API: whoever makes them gets an error (asks first)",
			Command: command("bulkhead", "guard", "quota", "--namespace", f.Namespace),
		}, bulkhead.Advice{
			Text:    "see which leftovers could go; nothing is deleted without --yes",
			Command: command("bulkhead", "guard", "clean", "--namespace", f.Namespace, "--family", m.Family),
		})
	}
	for _, r := range f.Reaches {
		if r.Budget.Kind == "" && r.Detail != "" {
			out = append(out, bulkhead.Advice{Text: "before restarting an agent: " + r.Detail})
			break
		}
	}
	return out
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
