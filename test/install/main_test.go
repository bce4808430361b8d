package install_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead/lab"
)

// binary is bulkhead as it is built for users.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bulkhead-install-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "bulkhead")
		if out, err := exec.Command("make", "-C", "../..", "build", "BIN="+binary).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build bulkhead: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// inLab are the values that an installation in the lab needs: its image, which is
// in no registry.
var inLab = []string{"--set", "image.tag=lab", "--set", "image.pullPolicy=Never"}

// site is a cluster and what its people have on their disk.
type site struct {
	testing.TB
	*lab.Lab
	dir  string
	helm string // the binary that has it
	ns   string // of the classes
}

// newSite is a cluster with a node and a namespace for classes, in which pods are
// held to the restricted profile, as the server's own are.
func newSite(t testing.TB) *site {
	t.Helper()
	l := lab.Start(t)
	l.Node(t)
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &site{TB: t, Lab: l, dir: t.TempDir(), helm: st.Kubernetes}
}

// restrict holds a namespace to the restricted profile.
func (s *site) restrict(namespace string) {
	s.Helper()
	s.Kubectl(s, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
}

// file writes a file, and is its path.
func (s *site) file(name, text string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// say runs a program and is what it says to standard output.
func (s *site) say(program string, args ...string) string {
	s.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(s.Context()), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.Kubeconfig(), "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

// manifests are what bulkhead install prints, in a file.
func (s *site) manifests(args ...string) string {
	s.Helper()
	return s.file("manifests.yaml", s.say(binary, append(append([]string{"install"}, inLab...), args...)...))
}

// ready waits until the server in a namespace is.
func (s *site) ready(namespace string) {
	s.Helper()
	defer func() {
		if s.Failed() {
			s.Log(s.Kubectl(s, "get", "events,pods", "-n", namespace))
		}
	}()
	s.Kubectl(s, "rollout", "status", "deployment/bulkhead", "-n", namespace, "--timeout=2m")
}

// people makes a namespace with a class, and a user who may use it, whose kubeconfig
// is in a file.
func (s *site) people(namespace string) {
	s.Helper()
	s.ns = namespace
	s.restrict(namespace)
	s.Kubectl(s, "apply", "-f", s.file("class.yaml", `apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata: {name: scripts, namespace: `+namespace+`}
spec:
  image: `+lab.BusyboxImage+`
  template:
    container: {imagePullPolicy: Never, securityContext: {runAsUser: 1000}}
  workers: {max: 2, slots: 2, idleTimeout: 10m}
`))
	s.Kubectl(s, "create", "serviceaccount", "ann", "-n", namespace)
	s.Kubectl(s, "create", "rolebinding", "ann", "--clusterrole=bulkhead-user", "--serviceaccount="+namespace+":ann", "-n", namespace)
	token := s.Kubectl(s, "create", "token", "ann", "-n", namespace)
	s.file("token", token)
	s.file("ann.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: ann, user: {token: %q}}]
contexts: [{name: ann, context: {cluster: lab, user: ann}}]
`, s.Config().Host, s.Config().CAFile, strings.TrimSpace(token)))
}

// leave removes the class, waits until its workers are gone, and the user. While
// the definition of ScriptClass is younger than half a minute, the cluster may not
// know that what a class owns goes with it, and without the definition never does.
func (s *site) leave() {
	s.Helper()
	s.Kubectl(s, "delete", "scriptclass/scripts", "serviceaccount/ann", "rolebinding/ann", "-n", s.ns)
	s.Eventually(s, "the workers are gone", func(context.Context) bool {
		return s.Kubectl(s, "get", "pods,networkpolicies,configmaps", "-l", "bulkhead.dev/class", "-n", s.ns, "-o", "name") == ""
	})
}

// door is the way to the server in a namespace that a kubeconfig leads to.
type door struct {
	*site
	namespace string
}

func (s *site) open(namespace string) *door { return &door{s, namespace} }

// bulkhead is what a command says, as the user.
func (d *door) bulkhead(args ...string) string {
	d.Helper()
	where := []string{"--kubeconfig", filepath.Join(d.dir, "ann.kubeconfig"), "--kube-context", "ann", "--server-namespace", d.namespace}
	return d.say(binary, append(where, args...)...)
}

// objects names all that the cluster holds, of all kinds that can be listed. Events
// say what happened, and go by themselves.
func (s *site) objects() map[string]bool {
	s.Helper()
	found, err := s.all(context.WithoutCancel(s.Context()))
	if err != nil {
		s.Fatal("list all objects:", err)
	}
	return found
}

func (s *site) all(ctx context.Context) (map[string]bool, error) {
	config := s.Config()
	config.WarningHandler = rest.NoWarnings{} // of kinds that are old
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := disco.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Name == "events" || r.Name == "componentstatuses" {
				continue
			}
			items, err := client.Resource(version.WithResource(r.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
			for _, o := range items.Items {
				found[r.Name+"."+version.Group+" "+o.Namespace+"/"+o.Name] = true
			}
		}
	}
	return found, nil
}

// leaves waits until the cluster holds what it did before, and what is left on
// purpose.
func (s *site) leaves(before map[string]bool, also ...string) {
	s.Helper()
	want := map[string]bool{}
	for name := range before {
		want[name] = true
	}
	for _, name := range also {
		want[name] = true
	}
	var diff string
	defer func() {
		if diff != "" {
			s.Errorf("objects before (-) and after (+):\n%s", diff)
		}
	}()
	s.Eventually(s, "nothing is left", func(ctx context.Context) bool {
		now, err := s.all(ctx) // a kind that is just going cannot be listed
		if err == nil {
			diff = cmp.Diff(want, now)
		}
		return err == nil && diff == ""
	})
}
