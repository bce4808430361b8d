// Package budget says how much of a kind a cluster can hold.
//
// There are three places to know it from: what the makers of Kubernetes, etcd and
// Calico publish, what clusters died of, and what an operator says. Defaults has the
// first two, each with its source, because a limit that nobody can look up is not
// believed at five in the morning; Parse and ReadFile read the third. A budget that
// is learned from an agent's memory is package forecast's.
//
// One notation serves command line and file:
//
//	networkpolicies=1000          objects of a kind, in the whole cluster
//	configmaps@mw-script=500      in one namespace
//	pods@each=3000                in each namespace
//	networkpolicies.rules=100000  another unit: rules or bytes
//	foos.example.com=1000         a custom resource, with its group
//	bytes=2Gi                     of everything, as the cluster's database has it
package budget

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"bulkhead.dev/bulkhead"
)

// What a budget counts.
const (
	Objects = "objects"
	Rules   = "rules" // of network policies: peers × ports
	Bytes   = "bytes"
)

const (
	// Each as a namespace is every one of them; as a kind, every one that has no budget of
	// its own.
	Each = "each"
	// All as a kind is all of them together.
	All = "all"
)

// Configured is the source of what an operator says without a source.
const Configured = "configured"

// For returns the budget of a kind in a namespace; "" is the whole cluster. Of
// several the most special one counts, and of those the last, so that what is
// appended takes the place of a default.
func For(budgets []bulkhead.Budget, kind, namespace, unit string) (found bulkhead.Budget, ok bool) {
	best := 0
	for _, b := range budgets {
		if fit := fits(b, kind, namespace, unit); fit > 0 && fit >= best {
			found, best, ok = b, fit, true
		}
	}
	return found, ok
}

// fits is how special a budget is that holds; 0 if it does not.
func fits(b bulkhead.Budget, kind, namespace, unit string) int {
	fit := 1
	switch {
	case b.Unit != unit:
		return 0
	case b.Kind == kind && kind != "":
		fit += 2
	case b.Kind != Each || kind == All:
		return 0
	}
	switch {
	case b.Namespace == namespace:
		return fit + 1
	case b.Namespace == Each && namespace != "":
		return fit
	}
	return 0
}

// Parse reads one budget.
func Parse(text string) (bulkhead.Budget, error) {
	what, limit, found := strings.Cut(text, "=")
	if !found {
		return bulkhead.Budget{}, bad(text, "write KIND=LIMIT, for example networkpolicies=1000 or configmaps@mw-script=500", "it has no =")
	}
	return parse(text, what, limit)
}

func parse(text, what, limit string) (b bulkhead.Budget, err error) {
	b = bulkhead.Budget{Name: what, Source: Configured}
	what, namespace, scoped := strings.Cut(what, "@")
	if scoped && !namespaceName.MatchString(namespace) {
		return b, bad(text, "the name of a namespace, or each", "%s is not a namespace", bulkhead.Quote(namespace))
	}
	b.Namespace = namespace
	if b.Kind, b.Unit, err = parseKind(text, what); err != nil {
		return b, err
	}
	if b.Unit == Rules && !HasRules(b.Kind) {
		return b, bad(text, "networkpolicies.rules=100000", "%s has no rules, network policies have", bulkhead.Quote(b.Kind))
	}
	b.Limit, err = parseLimit(text, limit)
	return b, err
}

// parseKind reads KIND or KIND.UNIT.
func parseKind(text, what string) (kind, unit string, err error) {
	unit = Objects
	for _, u := range []string{Objects, Rules, Bytes} {
		if what == u && u != Rules {
			return All, u, nil
		}
		if before, cut := strings.CutSuffix(what, "."+u); cut {
			what, unit = before, u
			break
		}
	}
	kind, known := Resource(what)
	switch {
	case what == "":
		return "", "", bad(text, "write KIND=LIMIT, for example networkpolicies=1000", "it names no kind")
	case known || what == Each:
		return kind, unit, nil
	case strings.Contains(what, ".") && customName.MatchString(what):
		return what, unit, nil
	}
	if before, last, cut := strings.Cut(what, "."); cut {
		if _, known := Resource(before); known || before == Each {
			return "", "", bad(text, "KIND, KIND.bytes or, of network policies, KIND.rules", "there is no unit %s", bulkhead.Quote(last))
		}
	}
	hint := "a kind as kubectl names it, a custom resource with its group: foos.example.com"
	if near := Near(what); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	return "", "", bad(text, hint, "there is no kind %s", bulkhead.Quote(what))
}

var (
	namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	// The group of a custom resource has a dot, or the API server refuses its definition.
	customName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){2,10}$`)
	number     = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,3})?)([kMGT]i?|Ki)?$`)
)

// parseLimit reads a number, with k, M, G, T for powers of 1000 and Ki, Mi, Gi, Ti
// for powers of 1024, as Kubernetes has them.
func parseLimit(text, limit string) (float64, error) {
	m := number.FindStringSubmatch(strings.TrimSpace(limit))
	if m == nil {
		return 0, bad(text, "a number, for example 1000, 100k or 2Gi", "its limit %s is not understood", bulkhead.Quote(limit))
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, bad(text, "", "its limit %s is not understood", bulkhead.Quote(limit))
	}
	if m[2] != "" {
		base := 1000.0
		if strings.HasSuffix(m[2], "i") {
			base = 1024
		}
		n *= math.Pow(base, float64(1+strings.Index("kMGT", strings.Replace(m[2][:1], "K", "k", 1))))
	}
	return n, nil
}

func bad(text, hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: hint,
		Message: fmt.Sprintf("budget %s: %s", bulkhead.Quote(text), fmt.Sprintf(format, args...))}
}
