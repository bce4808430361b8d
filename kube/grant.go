package kube

import (
	"fmt"
	"regexp"
	"strings"

	"bulkhead.dev/bulkhead"
)

// roleOf is the smallest of the roles that the installation brings with a verb. What
// holds back the runs of everybody is for administrators.
func roleOf(verb, resource string) string {
	switch {
	case verb == "get" || verb == "list":
		return "bulkhead-viewer"
	case verb == "delete" || resource != "runs":
		return "bulkhead-admin"
	}
	return "bulkhead-user"
}

// lacking refuses a user a verb on the resources of a namespace, and says how somebody
// who may give it gives it.
func lacking(name, verb, resource, namespace string) error {
	e := &bulkhead.Error{Code: bulkhead.CodeDenied,
		Message: fmt.Sprintf("%s may not %s %s.bulkhead.dev in namespace %s", bulkhead.Quote(name), verb, resource, namespace)}
	kind, where := "rolebinding", " --namespace="+shellWord(namespace)
	if namespace == "" { // of a class that has none
		e.Message = fmt.Sprintf("%s may not %s %s.bulkhead.dev in all namespaces", bulkhead.Quote(name), verb, resource)
		kind, where = "clusterrolebinding", ""
	}
	role := roleOf(verb, resource)
	e.Hint = fmt.Sprintf("who administers it can allow it: kubectl create %s %s --clusterrole=%s %s%s",
		kind, bindingName(role, name), role, subject(name), where)
	return e
}

// subject names a user for kubectl create rolebinding.
func subject(name string) string {
	if account, ok := strings.CutPrefix(name, "system:serviceaccount:"); ok {
		return "--serviceaccount=" + shellWord(account)
	}
	return "--user=" + shellWord(name)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// bindingName is a name for the binding: one that can be told from others.
func bindingName(role, name string) string {
	const most = 63
	short := strings.TrimPrefix(strings.TrimPrefix(name, "system:"), "serviceaccount:")
	text := role + "-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(short), "-"), "-")
	return strings.TrimRight(text[:min(len(text), most)], "-")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)

// shellWord is a text as one word of a shell. What a terminal would not show stays
// out of a command that somebody may paste.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
