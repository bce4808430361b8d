package audit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/audit/policy"

	"bulkhead.dev/bulkhead/guard/audit"
)

// event is a line of an audit log.
func event(change func(map[string]any)) string {
	e := map[string]any{
		"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "0b9e6c1c-6b0f-4b3e-8f36-3f1c3a1d7c55",
		"stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/mw-script/configmaps?fieldManager=kubectl-create", "verb": "create",
		"user":      map[string]any{"username": "ann", "groups": []string{"system:authenticated"}},
		"sourceIPs": []string{"10.0.0.7"}, "userAgent": "kubectl/v1.31.0 (linux/amd64) kubernetes/9edcffc",
		"objectRef":      map[string]any{"resource": "configmaps", "namespace": "mw-script", "name": "mail-x7f2k9qa", "apiVersion": "v1"},
		"responseStatus": map[string]any{"metadata": map[string]any{}, "code": 201}, "requestReceivedTimestamp": "2024-10-09T03:30:00.123456Z",
		"stageTimestamp": "2024-10-09T03:30:00.223456Z", "annotations": map[string]any{"authorization.k8s.io/decision": "allow"},
	}
	change(e)
	text, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func set(path string, value any) func(map[string]any) {
	return func(e map[string]any) {
		keys := strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			if e[key] == nil {
				e[key] = map[string]any{}
			}
			e, _ = e[key].(map[string]any)
		}
		if value == nil {
			delete(e, keys[len(keys)-1])
			return
		}
		e[keys[len(keys)-1]] = value
	}
}

// before is a line that is cut.
func before(line, what string) string {
	begin, _, _ := strings.Cut(line, what)
	return begin
}

func TestOnlyWhatMadeAnObjectCounts(t *testing.T) {
	asked := time.Date(2024, 10, 9, 3, 30, 0, 123456000, time.UTC)
	ann := audit.Creation{Kind: "configmaps", Namespace: "mw-script", Name: "mail-x7f2k9qa", User: "ann", Client: "kubectl/v1.31.0", At: asked}
	with := func(change func(*audit.Creation)) audit.Creation {
		c := ann
		change(&c)
		return c
	}
	all := func(changes ...func(map[string]any)) string {
		return event(func(e map[string]any) {
			for _, change := range changes {
				change(e)
			}
		})
	}
	// In the order in which API servers write.
	const written = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"0b9e","stage":"ResponseComplete",` +
		`"requestURI":"/api/v1/namespaces/mw-script/configmaps","verb":"create","user":{"username":"ann"},"userAgent":"kubectl/v1.31.0 (linux/amd64)",` +
		`"objectRef":{"resource":"configmaps","namespace":"mw-script","name":"mail-x7f2k9qa","apiVersion":"v1"},` +
		`"responseStatus":{"metadata":{},"code":201},"requestReceivedTimestamp":"2024-10-09T03:30:00.123456Z"}`
	cases := map[string]struct {
		line   string
		want   audit.Creation
		result audit.Result
	}{
		"a creation at level Metadata":        {line: all(), want: ann, result: audit.Made},
		"the impersonated user counts":        {line: all(set("impersonatedUser.username", "bob")), want: with(func(c *audit.Creation) { c.User = "bob" }), result: audit.Made},
		"the kind has its group":              {line: all(set("objectRef.resource", "jobs"), set("objectRef.apiGroup", "batch")), want: with(func(c *audit.Creation) { c.Kind = "jobs.batch" }), result: audit.Made},
		"a made-up name that is not logged":   {line: all(set("objectRef.name", nil)), want: with(func(c *audit.Creation) { c.Name = "" }), result: audit.Made},
		"a made-up name in the answer":        {line: all(set("objectRef.name", nil), set("responseObject.metadata.name", "a-b7xq2"), set("responseObject.metadata.generateName", "a-")), want: with(func(c *audit.Creation) { c.Name, c.GenerateName = "a-b7xq2", "a-" }), result: audit.Made},
		"what names are made up from":         {line: all(set("objectRef.name", nil), set("requestObject.metadata.generateName", "a-")), want: with(func(c *audit.Creation) { c.Name, c.GenerateName = "", "a-" }), result: audit.Made},
		"an apply that made it":               {line: all(set("verb", "patch")), want: ann, result: audit.Made},
		"an apply that changed it":            {line: all(set("verb", "patch"), set("responseStatus.code", 200)), result: audit.Other},
		"a conflict":                          {line: all(set("responseStatus.code", 409), set("responseStatus.status", "Failure"), set("responseStatus.reason", "AlreadyExists")), result: audit.Other},
		"what was forbidden":                  {line: all(set("responseStatus.code", 403)), result: audit.Other},
		"no answer":                           {line: all(set("responseStatus", nil)), result: audit.Other},
		"a request that has just come":        {line: all(set("stage", "RequestReceived"), set("responseStatus", nil)), result: audit.Other},
		"a panic":                             {line: all(set("stage", "Panic"), set("responseStatus.code", 500)), result: audit.Other},
		"a dry run":                           {line: all(set("requestURI", "/api/v1/namespaces/mw-script/configmaps?dryRun=All&fieldManager=x")), result: audit.Other},
		"a dry run that is written otherwise": {line: all(set("requestURI", "/api/v1/namespaces/mw-script/configmaps?a=%26&dryRun=%41ll")), result: audit.Other},
		"a name of dryRun":                    {line: all(set("requestURI", "/api/v1/namespaces/dryRun/configmaps?fieldManager=dryRun")), want: ann, result: audit.Made},
		"a list":                              {line: all(set("verb", "list"), set("responseStatus.code", 200)), result: audit.Other},
		"a deletion of many":                  {line: all(set("verb", "deletecollection"), set("responseStatus.code", 200)), result: audit.Other},
		"an eviction":                         {line: all(set("objectRef.resource", "pods"), set("objectRef.subresource", "eviction")), result: audit.Other},
		"a binding":                           {line: all(set("objectRef.resource", "pods"), set("objectRef.subresource", "binding")), result: audit.Other},
		"a token":                             {line: all(set("objectRef.resource", "serviceaccounts"), set("objectRef.subresource", "token")), result: audit.Other},
		"an exec":                             {line: all(set("objectRef.resource", "pods"), set("objectRef.subresource", "exec"), set("responseStatus.code", 101)), result: audit.Other},
		"a question of rights":                {line: all(set("objectRef.resource", "subjectaccessreviews"), set("objectRef.apiGroup", "authorization.k8s.io")), result: audit.Other},
		"an event":                            {line: all(set("objectRef.resource", "events"), set("objectRef.apiGroup", "events.k8s.io")), result: audit.Other},
		"no object":                           {line: all(set("objectRef", nil), set("requestURI", "/healthz")), result: audit.Other},
		"a namespace that was applied": {line: all(set("verb", "patch"), set("objectRef.resource", "namespaces"), set("objectRef.namespace", "a"), set("objectRef.name", "a")),
			want: with(func(c *audit.Creation) { c.Kind, c.Namespace, c.Name = "namespaces", "", "a" }), result: audit.Made},
		"a user agent that says nothing": {line: all(set("userAgent", nil)), want: with(func(c *audit.Creation) { c.Client = "" }), result: audit.Made},
		"a name that is escaped":         {line: strings.Replace(all(), `"ann"`, `"\u0061nn\n\"create\""`, 1), want: with(func(c *audit.Creation) { c.User = "ann\n\"create\"" }), result: audit.Made},
		"with white space":               {line: strings.NewReplacer(`":`, `" : `, `,"`, ` , "`).Replace(all()), want: ann, result: audit.Made},
		"as kubectl logs has it":         {line: "[pod/kube-apiserver-cp1/kube-apiserver] " + all(), want: ann, result: audit.Made},
		"as journalctl has it":           {line: "Oct 09 03:30:00 cp1 kube-apiserver[812]: " + all(), want: ann, result: audit.Made},
		"cut where the object begins":    {line: before(written, `,"requestReceived`), want: with(func(c *audit.Creation) { c.At = time.Time{} }), result: audit.Made},
		"cut before it says what became": {line: before(written, `"objectRef"`), result: audit.Other},
		"another log":                    {line: `I1009 03:30:00.000000       1 trace.go:236] Trace[1]: "Create" url:/api/v1/namespaces`, result: audit.Invalid},
		"JSON of something else":         {line: `{"level":"info","msg":"create ResponseComplete"}`, result: audit.Invalid},
		"text that looks like an event":  {line: `{audit.k8s.io/ "create" ResponseComplete`, result: audit.Invalid},
		"nothing":                        {line: ``, result: audit.Invalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, result := audit.Parse([]byte(c.line))
			if diff := cmp.Diff(c.want, got); diff != "" || result != c.result {
				t.Errorf("%s, want %s (-want +got):\n%s\n%s", result, c.result, diff, c.line)
			}
		})
	}
}

func TestThePolicyOfTheDocumentationIsOne(t *testing.T) {
	text, err := os.ReadFile("../../docs/guard.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```text\napiVersion: audit.k8s.io/v1\n")
	body, _, _ := strings.Cut(rest, "```")
	p, err := policy.LoadPolicyFromBytes([]byte("apiVersion: audit.k8s.io/v1\n" + body))
	if err != nil || len(p.Rules) != 3 {
		t.Errorf("%v: %+v", err, p)
	}
}

// Each line of the file, most of which an API server of Kubernetes 1.37 wrote, is followed by
// what it is.
func TestLinesThatAPIServersWrote(t *testing.T) {
	text, err := os.ReadFile("testdata/lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	written, n := "", 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		want, is := strings.CutPrefix(line, "= ")
		if !is {
			written = line
			continue
		}
		n++
		c, result := audit.Parse([]byte(written))
		got := string(result)
		if result == audit.Made {
			got += fmt.Sprintf(" %s %s/%s by %s with %s", c.Kind, c.Namespace, c.Name, c.User, c.Client)
		}
		if got != want {
			t.Errorf("it is %q, want %q\n%s", got, want, written)
		}
	}
	if n < 10 {
		t.Errorf("there are %d lines only", n)
	}
}
