package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

// TestWhySaysWhatAServerHasFoundToWhoMaySeeIt: in each of two namespaces there are more
// ConfigMaps than a budget says, and in all of the cluster more Services.
func TestWhySaysWhatAServerHasFoundToWhoMaySeeIt(t *testing.T) {
	b := bed{testbed.New(t, "--guard", "--guard-every", "1s", "--guard-budget", "configmaps@each=20", "--guard-budget", "services=1")}
	b.Define(testbed.RealNode, "")
	other := b.Lab.Namespace(t)
	for _, namespace := range []string{b.Namespace, other} {
		var objects strings.Builder
		for i := range 25 {
			fmt.Fprintf(&objects, "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: left-%d, namespace: %s}}\n", i, namespace)
		}
		b.Apply(objects.String())
	}
	b.Apply(fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: one-more, namespace: %s}
spec: {ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sees, namespace: %[1]s}
rules: [{apiGroups: [bulkhead.dev], resources: [findings], verbs: [list]}]
`, b.Namespace))
	b.Lab.Kubectl(t, "create", "rolebinding", "sees", "-n", b.Namespace, "--role=sees", "--serviceaccount="+b.Namespace+":some")
	one := ""
	b.Lab.Eventually(t, "all three are found", func(ctx context.Context) bool {
		findings, _, _, err := b.Client.Findings(ctx, "")
		for _, f := range findings {
			if f.Namespace == other {
				one = f.ID
			}
		}
		return err == nil && len(findings) >= 3
	})
	all, some, none := b.Key("token"), b.account("some"), b.account("none")
	here, there, everywhere := "in "+b.Namespace, "in "+other, "in the cluster"

	for name, c := range map[string]struct {
		token string
		args  []string
		code  int
		says  []string // on both outputs
		not   []string
	}{
		"all of the cluster":             {all, nil, 0, []string{"WARNING: ", "finding   ", "and, in full with --all:", everywhere, here, there, "s ago"}, []string{"counted once a minute"}},
		"all as pages":                   {all, []string{"--all"}, 0, []string{everywhere, here, there, "kubectl get services -A "}, []string{"in full with"}},
		"one kind":                       {all, []string{"services"}, 0, []string{everywhere}, []string{here, there}},
		"one finding":                    {all, []string{one}, 0, []string{there, "finding   " + one}, []string{here, everywhere}},
		"a finding that is not there":    {all, []string{"0123456789"}, 2, []string{`there is no finding "0123456789"`, "why --all"}, nil},
		"somebody else's finding":        {some, []string{one}, 2, []string{"there is no finding"}, []string{there}},
		"one namespace":                  {all, []string{"-n", other}, 0, []string{there, "kubectl get configmaps -n " + other}, []string{here, everywhere}},
		"a namespace of which is little": {all, []string{"-n", "kube-public"}, 0, []string{" old, and believes in no growth yet"}, nil},
		"a kind of which is nothing":     {all, []string{"cronjobs"}, 0, []string{" old, and believes in no growth yet", " looked at 0 objects of 1 kind "}, []string{"see above"}},
		"a kind that is not there":       {all, []string{"foos.example.org"}, 2, []string{`no "foos.example.org" were counted`, "--kinds +foos.example.org"}, nil},
		"one's own namespaces":           {some, nil, 0, []string{here}, []string{there, everywhere, other}},
		"one's own namespace":            {some, []string{"-n", b.Namespace, "configmaps"}, 0, []string{here}, nil},
		"somebody else's":                {some, []string{"-n", other}, 2, []string{"may not list findings", other}, []string{there, "left-"}},
		"nothing":                        {none, nil, 2, []string{"may not list findings"}, []string{here, there}},
	} {
		out, errs, code := b.why(c.token, c.args...)
		both := out + errs
		if code != c.code {
			t.Errorf("%s: exit %d\n%s", name, code, both)
		}
		for _, text := range c.says {
			if !strings.Contains(both, text) {
				t.Errorf("%s: it does not say %q:\n%s", name, text, both)
			}
		}
		for _, text := range c.not {
			if strings.Contains(both, text) {
				t.Errorf("%s: it says %q:\n%s", name, text, both)
			}
		}
		if c.code != 0 && out != "" {
			t.Errorf("%s: an answer beside an error:\n%s", name, out)
		}
	}
	b.sameInJSON(all, some, other)
}

// sameInJSON looks that programs are told the same.
func (b bed) sameInJSON(all, some, other string) {
	b.Helper()
	for _, c := range []struct {
		token string
		want  []string // namespaces
	}{{all, []string{"", b.Namespace, other}}, {some, []string{b.Namespace}}} {
		out, errs, code := b.why(c.token, "-o", "json")
		var said struct {
			From, Looked string
			Findings     []bulkhead.Finding
			Kinds        []bulkhead.KindStatus
		}
		if err := json.Unmarshal([]byte(out), &said); err != nil || code != 0 {
			b.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
		}
		var got []string
		for _, f := range said.Findings {
			got = append(got, f.Namespace)
			if !regexp.MustCompile(`^[0-9a-f]{10}$`).MatchString(f.ID) || f.Severity != bulkhead.Warning || len(f.Reaches) == 0 || len(f.Advice) == 0 {
				b.Errorf("%+v", f)
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if diff := cmp.Diff(c.want, got); diff != "" {
			b.Errorf("namespaces (-want +got):\n%s", diff)
		}
		if counts := len(said.Kinds) > 0; counts != (c.token == all) || said.From == "" || said.Looked == "" {
			b.Errorf("%d kinds from %q at %q", len(said.Kinds), said.From, said.Looked)
		}
	}
}

// account is a file with a token of a service account, which it makes.
func (b bed) account(name string) string {
	b.Helper()
	accounts := b.Lab.Client().CoreV1().ServiceAccounts(b.Namespace)
	if _, err := accounts.Create(b.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	got, err := accounts.CreateToken(b.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), name)
	if err := os.WriteFile(file, []byte(got.Status.Token), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

// why asks the server as its users do.
func (b bed) why(token string, args ...string) (out, errs string, code int) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), testbed.Binary, append([]string{"why", "--server", b.URL, "--ca", b.Key("ca.crt"), "--token-file", token}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=/dev/null", "XDG_CONFIG_HOME="+b.Dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return stdout.String(), stderr.String(), failed.ExitCode()
	}
	if err != nil {
		b.Fatal(err)
	}
	return stdout.String(), stderr.String(), 0
}
