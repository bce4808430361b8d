package install_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead.dev/bulkhead/lab"
)

// kubeconfig writes one whose contexts are users of the lab: token, plugin,
// broken and expired. What users need to be known by is in their own parts.
func (s *site) kubeconfig() string {
	s.Helper()
	config := s.Config()
	plugin := func(script string) string {
		path := s.file("plugin-"+fmt.Sprintf("%x", len(script)), "#!/bin/sh\n"+script)
		if err := os.Chmod(path, 0o700); err != nil {
			s.Fatal(err)
		}
		return "{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: " + path + "}}"
	}
	credential := `echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "'"%s"'"}}'` + "\n"
	token := s.file("token", s.Kubectl(s, "create", "token", "ann", "-n", s.ns))
	users := map[string]string{
		"token":   "{tokenFile: " + token + "}",
		"plugin":  plugin(fmt.Sprintf(credential, "$(cat "+token+")")),
		"broken":  plugin("echo 'no ticket today' >&2\nexit 3\n"),
		"expired": plugin(fmt.Sprintf(credential, "of yesterday")),
	}
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: token\nclusters:\n- {name: lab, cluster: {server: %q, certificate-authority: %q}}\ncontexts:\n",
		config.Host, config.CAFile)
	for name := range users {
		text += fmt.Sprintf("- {name: %s, context: {cluster: lab, user: %[1]s, namespace: %s}}\n", name, s.ns)
	}
	text += "users:\n"
	for name, user := range users {
		text += fmt.Sprintf("- {name: %s, user: %s}\n", name, user)
	}
	return s.file("kubeconfig", text)
}

// try runs bulkhead as one of its users, and is what it says and its exit code.
func (s *site) try(kubeconfig, user string, args ...string) (stdout, stderr string, code int) {
	s.Helper()
	cmd := s.command(kubeconfig, append([]string{"--kube-context", user}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // its exit code says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (s *site) command(kubeconfig string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(s.Context()), binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "XDG_CACHE_HOME="+s.dir)
	return cmd
}

// ephemeral does without a volume.
var ephemeral = []string{"--set", "storage.ephemeral=true"}

// lockedBuffer is what a process says, for who looks at it meanwhile.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// installed is a server in the lab, with a class and a user.
func installed(t testing.TB, values ...string) (s *site, kubeconfig string) {
	t.Helper()
	s = newSite(t)
	scripts := s.Namespace(t)
	s.Kubectl(t, "apply", "-f", s.manifests(values...))
	t.Cleanup(func() { s.say(s.helm, "kubectl", "delete", "--ignore-not-found", "-f", s.manifests(values...)) })
	s.ready("bulkhead")
	s.people(scripts)
	kubeconfig = s.kubeconfig()
	return s, kubeconfig
}

func TestAKubeconfigIsAllThatAUserNeeds(t *testing.T) {
	s, kubeconfig := installed(t, ephemeral...)
	for _, user := range []string{"token", "plugin"} {
		out, errs, code := s.try(kubeconfig, user, "run", "--class", "scripts", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
		if out != "out\n" || !strings.Contains(errs, "err\n") || code != 7 {
			t.Errorf("%s: %q, %q, %d", user, out, errs, code)
		}
		if out, _, _ := s.try(kubeconfig, user, "ls", "-o", "json"); !strings.Contains(out, "system:serviceaccount:"+s.ns+":ann") {
			t.Errorf("%s: the owner is not in\n%s", user, out)
		}
	}
	for user, want := range map[string]string{
		"broken":  "no ticket today\nbulkhead: the kubeconfig has a plugin for credentials, which failed: ",
		"expired": "bulkhead: the cluster does not accept the credentials of the kubeconfig\n",
		"nobody":  `context "nobody" does not exist`,
	} {
		if _, errs, code := s.try(kubeconfig, user, "ls"); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d, %s", user, code, errs)
		}
	}
	// kubectl finds it by its name.
	if err := os.Symlink(binary, filepath.Join(s.dir, "kubectl-bulkhead")); err != nil {
		t.Fatal(err)
	}
	plugin := s.command(kubeconfig)
	plugin.Path, plugin.Args = filepath.Join(s.dir, "kubectl-bulkhead"), []string{"kubectl-bulkhead", "run", "--class", "scripts", "--", "echo", "by kubectl"}
	var stderr bytes.Buffer
	plugin.Stderr = &stderr
	if out, err := plugin.Output(); err != nil || string(out) != "by kubectl\n" {
		t.Errorf("%q, %v\n%s", out, err, &stderr)
	}
}

func TestWhoFollowsByAPortForwardGoesOnWithTheNextServer(t *testing.T) {
	s, kubeconfig := installed(t) // on a volume, or there was nothing to go on with
	cmd := s.command(kubeconfig, "--kube-context", "token", "run", "--class", "scripts", "--", "sh", "-c", "for i in $(seq 12); do echo line $i; sleep 1; done")
	var out, errs lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.Eventually(t, "it has begun", func(context.Context) bool { return strings.Contains(out.String(), "line 2\n") })
	s.Kubectl(t, "delete", "pod", "-n", "bulkhead", "-l", "app.kubernetes.io/component=server", "--grace-period=1", "--wait=false")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, errs.String())
	}
	var want strings.Builder
	for i := range 12 {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	if out.String() != want.String() {
		t.Errorf("%q\n%s", out.String(), errs.String())
	}
}

// loop is a shell loop of calls, each a process of its own.
func (s *site) loop(kubeconfig string, calls int) []time.Duration {
	s.Helper()
	link := filepath.Join(s.dir, "mwscript-k8s")
	if err := os.Symlink(binary, link); err != nil && !os.IsExist(err) {
		s.Fatal(err)
	}
	var took []time.Duration
	for i := range calls {
		cmd := s.command(kubeconfig)
		cmd.Path, cmd.Args = link, []string{link, "--kube-context", "token", "--class", "scripts", "-f", "--comment", "T363966", "--", "echo", fmt.Sprint(i)}
		begin := time.Now()
		out, err := cmd.CombinedOutput()
		took = append(took, time.Since(begin))
		if err != nil || !strings.Contains(string(out), fmt.Sprint(i)) {
			s.Fatalf("call %d: %v\n%s", i, err, out)
		}
	}
	return took
}

// cost is what calls have cost the cluster.
func (s *site) cost(calls int, before, after lab.Counts) (requests float64, objects int) {
	d := after.Since(before)
	n := d.Requests.Of(func(r lab.Request) bool {
		return strings.HasSuffix(r.User, ":ann") || r.User == "system:serviceaccount:bulkhead:bulkhead"
	})
	for kind, more := range d.Objects {
		if !strings.HasPrefix(kind, "events") && kind != "leases" && kind != "pods" {
			objects += max(0, more)
		}
	}
	return float64(n) / float64(calls), objects
}

func TestAShellLoopOfCallsCostsTheClusterNothing(t *testing.T) {
	s, kubeconfig := installed(t, ephemeral...)
	s.loop(kubeconfig, 1) // the worker is there from then on
	before := s.Count(t)
	const calls = 30
	s.loop(kubeconfig, calls)
	requests, objects := s.cost(calls, before, s.Count(t))
	if requests > 5 || objects > 0 {
		t.Errorf("%.2f requests each, %d objects", requests, objects)
		for r, n := range s.Count(t).Since(before).Requests {
			t.Log(n, r)
		}
	}
	if out, _, _ := s.try(kubeconfig, "token", "ls"); strings.Count(out, "T363966") != calls+1 {
		t.Errorf("calls are rows:\n%s", out)
	}
}

// BenchmarkShellLoop is a loop of 300 calls, with a worker that is there.
func BenchmarkShellLoop(b *testing.B) {
	s, kubeconfig := installed(b, ephemeral...)
	s.loop(kubeconfig, 1)
	const calls = 300
	for b.Loop() {
		before := s.Count(b)
		took := s.loop(kubeconfig, calls)
		requests, objects := s.cost(calls, before, s.Count(b))
		slices.Sort(took)
		b.ReportMetric(float64(took[calls/2].Microseconds())/1000, "ms/call(median)")
		b.ReportMetric(float64(took[calls*95/100].Microseconds())/1000, "ms/call(p95)")
		b.ReportMetric(requests, "requests/call")
		b.ReportMetric(float64(objects), "objects")
	}
}
