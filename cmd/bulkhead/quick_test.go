package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// builds are what `make build` makes: the quick program, and the whole one that
// it carries.
var builds struct {
	sync.Once
	quick, whole string
	err          error
}

func build(t *testing.T) (quick, whole string) {
	t.Helper()
	builds.Do(func() {
		builds.quick = filepath.Join(buildDir, "bulkhead")
		builds.whole = builds.quick + ".whole"
		if out, err := exec.Command("make", "-C", filepath.Join("..", ".."), "build", "BIN="+builds.quick).CombinedOutput(); err != nil {
			builds.err = fmt.Errorf("make build: %w\n%s", err, out)
		}
	})
	if builds.err != nil {
		t.Fatal(builds.err)
	}
	return builds.quick, builds.whole
}

// say is all that a program says, and its exit code.
func say(t *testing.T, bin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Args = append([]string{"bulkhead"}, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "BULKHEAD_STATE=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // its exit code says it
	return fmt.Sprintf("%s\nexit code %d", &out, cmd.ProcessState.ExitCode())
}

func TestTheQuickProgramSaysWhatTheWholeOneSays(t *testing.T) {
	quick, whole := build(t)
	lines := [][]string{
		{"version"}, {"help", "serve"}, {"help", "class", "from"}, {"serv"}, {"class", "form"}, {"serve", "--lisen", "x"}, {"serve", "x"},
		{"serve", "--pods-per-second", "many"}, {"class", "from"}, {"__complete", "se"}, {"__complete", "class", "from", "-o", ""},
		{"__complete", "serve", "--worker-image-pull-policy", ""}, {"serve"}, {"--state", "/dev/null", "serve", "--classes", "no-such-file"},
		{"class", "from", "deployment/web", "--kubeconfig", "no-such-file"}, {"class", "from", "deployment/web", "-o", "xml"},
	}
	var walk func(path []string, c *cobra.Command)
	walk = func(path []string, c *cobra.Command) {
		lines = append(lines, append(slices.Clip(path), "--help"),
			append(append([]string{"__complete"}, path...), ""), append(append([]string{"__complete"}, path...), "--"))
		for _, sub := range c.Commands() {
			walk(append(slices.Clip(path), sub.Name()), sub)
		}
	}
	walk(nil, (&app{}).root())
	for _, line := range lines {
		if diff := cmp.Diff(say(t, whole, line...), say(t, quick, line...)); diff != "" {
			t.Errorf("bulkhead %s, whole (-) and quick (+):\n%s", strings.Join(line, " "), diff)
		}
	}
}

func TestTheQuickProgramLacksWhatMakesTheWholeOneSlow(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "quick", "-e", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, slow := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/prometheus/", "net/http/pprof"} {
			if strings.HasPrefix(pkg, slow) {
				t.Errorf("%s is in it", strings.TrimSpace(pkg))
			}
		}
	}
}

func TestTheQuickProgramServes(t *testing.T) {
	quick, _ := build(t)
	s := newSiteOf(t, quick)
	if out, err := s.user("class", "ls").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("\nc ")) {
		t.Errorf("class ls: %v\n%s", err, out)
	}
	if text := s.get("/readyz"); text != "ok\n" {
		t.Errorf("/readyz: %s", text)
	}
	const call = `bulkhead_rpc_calls_total{code="ok",procedure="RunService/ListClasses"} 1`
	if text := s.get("/metrics"); !strings.Contains(text, call) {
		t.Errorf("no %s in\n%s", call, text)
	}
	// The process is the one that was started, and bears its name.
	if name := read(t, fmt.Sprintf("/proc/%d/comm", s.server.Process.Pid)); string(name) != "bulkhead\n" {
		t.Errorf("the process is called %s", name)
	}
	s.signal(s.server, syscall.SIGTERM)
	s.ended(s.server, exitOK)
}

// get is what the server answers without authentication.
func (s *site) get(path string) string {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(s.t, filepath.Join(s.dir, "state", "keys", "ca.crt")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}
