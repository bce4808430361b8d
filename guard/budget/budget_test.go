package budget_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

func TestABudgetIsWrittenAsKubectlNamesKinds(t *testing.T) {
	b := func(kind, namespace, unit string, limit float64) bulkhead.Budget {
		return bulkhead.Budget{Kind: kind, Namespace: namespace, Unit: unit, Limit: limit, Source: budget.Configured}
	}
	for text, want := range map[string]bulkhead.Budget{
		"networkpolicies=1000":                   b(budget.NetworkPolicies, "", "objects", 1000),
		"netpol=1000":                            b(budget.NetworkPolicies, "", "objects", 1000),
		"NetworkPolicy=1000":                     b(budget.NetworkPolicies, "", "objects", 1000),
		"networkpolicies.networking.k8s.io=1000": b(budget.NetworkPolicies, "", "objects", 1000),
		"networkpolicies.rules=100k":             b(budget.NetworkPolicies, "", "rules", 100_000),
		"netpol.rules@web=90":                    b(budget.NetworkPolicies, "web", "rules", 90),
		"networkpolicies.projectcalico.org=5":    b(budget.CalicoPolicies, "", "objects", 5),
		"gnp.rules=5":                            b(budget.GlobalPolicies, "", "rules", 5),
		"configmaps@mw-script=500":               b("configmaps", "mw-script", "objects", 500),
		"cm.objects@mw-script=500":               b("configmaps", "mw-script", "objects", 500),
		"po@each=3000":                           b("pods", "each", "objects", 3000),
		"svc=0":                                  b("services", "", "objects", 0),
		"jobs=1.5k":                              b("jobs.batch", "", "objects", 1500),
		"foos.example.com=7":                     b("foos.example.com", "", "objects", 7),
		"secrets.bytes=100Ki":                    b("secrets", "", "bytes", 100<<10),
		"secrets.bytes=64Mi":                     b("secrets", "", "bytes", 64<<20),
		"bytes=2Gi":                              b("all", "", "bytes", 2<<30),
		"objects=9":                              b("all", "", "objects", 9),
		"each=9":                                 b("each", "", "objects", 9),
	} {
		got, err := budget.Parse(text)
		want.Name, _, _ = strings.Cut(text, "=")
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
	}
}

func TestAMistakeNamesTheValueAndTheFix(t *testing.T) {
	for text, want := range map[string]string{
		"":                           `budget "": it has no = | write KIND=LIMIT, for example networkpolicies=1000 or configmaps@mw-script=500`,
		"pods":                       `budget "pods": it has no = | write KIND=LIMIT, for example networkpolicies=1000 or configmaps@mw-script=500`,
		"=5":                         `budget "=5": it names no kind | write KIND=LIMIT, for example networkpolicies=1000`,
		"networkpolices=5":           `budget "networkpolices=5": there is no kind "networkpolices" | did you mean networkpolicies? a kind as kubectl names it, a custom resource with its group: foos.example.com`,
		"configmaps.bites=5":         `budget "configmaps.bites=5": there is no unit "bites" | KIND, KIND.bytes or, of network policies, KIND.rules`,
		"each.byte=5":                `budget "each.byte=5": there is no unit "byte" | KIND, KIND.bytes or, of network policies, KIND.rules`,
		"foos=5":                     `budget "foos=5": there is no kind "foos" | a kind as kubectl names it, a custom resource with its group: foos.example.com`,
		"pods.rules=5":               `budget "pods.rules=5": "pods" has no rules, network policies have | networkpolicies.rules=100000`,
		"pods=many":                  `budget "pods=many": its limit "many" is not understood | a number, for example 1000, 100k or 2Gi`,
		"pods=-1":                    `budget "pods=-1": its limit "-1" is not understood | a number, for example 1000, 100k or 2Gi`,
		"pods=":                      `budget "pods=": its limit "" is not understood | a number, for example 1000, 100k or 2Gi`,
		"pods@=1":                    `budget "pods@=1": "" is not a namespace | the name of a namespace, or each`,
		"pods@A_B=1":                 `budget "pods@A_B=1": "A_B" is not a namespace | the name of a namespace, or each`,
		"pods@a@b=1":                 `budget "pods@a@b=1": "a@b" is not a namespace | the name of a namespace, or each`,
		"\x1b[2J.example.com=1":      `budget "\x1b[2J.example.com=1": there is no kind "\x1b[2J.example.com" | a kind as kubectl names it, a custom resource with its group: foos.example.com`,
		"pods=99999999999999999999G": `budget "pods=99999999999999999999G": its limit "99999999999999999999G" is not understood | a number, for example 1000, 100k or 2Gi`,
	} {
		_, err := budget.Parse(text)
		if got := said(err); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// said is an error as people read it.
func said(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("%v | %s", err, bulkhead.HintOf(err))
}

func TestTheMostSpecialBudgetCountsAndOfThoseTheLast(t *testing.T) {
	all := budget.Defaults()
	for _, text := range []string{"pods@busy=5000", "netpol=1000", "netpol=500", "cm@each=70"} {
		b, err := budget.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, c := range []struct {
		kind, namespace, unit string
		want                  float64 // -1: there is none
	}{
		{"pods", "", "objects", 150_000},
		{"pods", "quiet", "objects", 3000},
		{"pods", "busy", "objects", 5000},
		{budget.NetworkPolicies, "", "objects", 500},
		{budget.NetworkPolicies, "", "rules", 200_000},
		{budget.NetworkPolicies, "busy", "objects", -1},
		{"configmaps", "busy", "objects", 70},
		{"configmaps", "", "objects", 12_000},
		{"foos.example.com", "", "objects", 150_000},
		{"foos.example.com", "", "bytes", -1},
		{"all", "", "bytes", 2 << 30},
		{"all", "", "objects", -1},
		{"", "", "objects", 150_000},
	} {
		got, ok := budget.For(all, c.kind, c.namespace, c.unit)
		if !ok {
			got.Limit = -1
		}
		if got.Limit != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestEachDefaultSaysWhereItIsFromAndCanBeWritten(t *testing.T) {
	for _, b := range budget.Defaults() {
		if b.Name == "" || len(b.Source) < 20 || strings.ContainsAny(b.Source, "\n\t") || b.Limit <= 0 {
			t.Errorf("%+v", b)
		}
		text := b.Kind + "." + b.Unit
		if b.Namespace != "" {
			text += "@" + b.Namespace
		}
		if b.Kind == budget.All {
			text = b.Unit
		}
		got, err := budget.Parse(fmt.Sprintf("%s=%.0f", text, b.Limit))
		got.Name, got.Source = b.Name, b.Source
		if d := cmp.Diff(b, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
	}
}

func TestAFileSaysWhatTheCommandLineSays(t *testing.T) {
	got, err := budget.ReadFile(strings.NewReader(`# of the network team
budgets:
  netpol: 1000
  cm@mw-script: 500
  networkpolicies.rules: {limit: 100k, source: T123}
  bytes: 2Gi
`), "budgets.yaml")
	want := []bulkhead.Budget{
		{Name: "netpol", Kind: budget.NetworkPolicies, Unit: "objects", Limit: 1000, Source: "configured"},
		{Name: "cm@mw-script", Kind: "configmaps", Namespace: "mw-script", Unit: "objects", Limit: 500, Source: "configured"},
		{Name: "networkpolicies.rules", Kind: budget.NetworkPolicies, Unit: "rules", Limit: 100_000, Source: "T123"},
		{Name: "bytes", Kind: "all", Unit: "bytes", Limit: 2 << 30, Source: "configured"},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestAMistakeInAFileNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "f:1: it is empty | write budgets: and below it KIND: LIMIT",
		"[]":                            "f:1: it is not a map | write budgets: and below it KIND: LIMIT",
		"budget: {}":                    `f:1: field "budget" is not known | the one field is budgets`,
		"budgets:\n  - pods=1":          "f:2: it is not a map | write budgets: and below it KIND: LIMIT",
		"budgets:\n  pod: x":            `f:2: budget "pod=x": its limit "x" is not understood | a number, for example 1000, 100k or 2Gi`,
		"budgets:\n  pod: 1\n  pod: 2":  `f:3: "pod" is given twice | keep one of them`,
		"budgets:\n  pod: {limt: 1}":    `f:2: field "limt" is not known | known are limit and source`,
		"budgets:\n  pod: {source: a}":  `f:2: budget "pod" has no limit | write KIND: LIMIT or KIND: {limit: N, source: TEXT}`,
		"budgets:\n  pod: {limit: [1]}": `f:2: "limit" takes one value | `,
		"a: [":                          "f: yaml: line 1: did not find expected node content | it must be YAML",
	} {
		_, err := budget.ReadFile(strings.NewReader(text), "f")
		if got := said(err); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
	if _, err := budget.ReadFile(strings.NewReader(strings.Repeat("#", 2<<20)), "f"); err == nil {
		t.Error("a file of 2 MiB is read")
	}
}

func TestNoTextIsMoreThanAnErrorForPeople(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`(netpol|pods|each|bytes)(\.rules)?(@[a-z]*)?=[0-9.]*[kMi]*`)).Draw(t, "text")
		b, err := budget.Parse(text)
		if err == nil {
			if b.Kind == "" || b.Unit == "" || b.Limit < 0 {
				t.Fatalf("%q is %+v", text, b)
			}
			return
		}
		if _, ok := errors.AsType[*bulkhead.Error](err); !ok || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func FuzzReadFile(f *testing.F) {
	f.Add("budgets:\n  pods: 3\n  netpol.rules: {limit: 1k, source: x}\n")
	f.Add("budgets: &a\n  pods: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := budget.ReadFile(strings.NewReader(text), "f")
		if err != nil && bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Error(err)
		}
	})
}
