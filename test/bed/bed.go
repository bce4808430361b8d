// Package bed is what tests and benchmarks of the whole on a cluster begin with: a
// server as its users start it, on this machine, that runs scripts in pods of the
// lab, and a class of them. It lasts as long as the test.
//
// Everything fails the test rather than return an error.
package bed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/lab"
	"bulkhead.dev/bulkhead/rpc"
)

// Binary is bulkhead as it is built for users, once Main has built it.
var Binary string

// Main builds bulkhead and runs the tests of a package that lies two folders below
// the module's; it returns their exit code.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bulkhead-bed-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Binary = filepath.Join(dir, "bulkhead")
	if out, err := exec.Command("make", "-C", "../..", "build", "BIN="+Binary).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build bulkhead: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// firstPort is below those that the kernel gives to connections, which could take
// the server's while it is being restarted.
const firstPort = 21_000

// RealNode selects the lab's node that runs containers.
const RealNode = `{kubernetes.io/hostname: node}`

// Bed is a server and its class.
type Bed struct {
	testing.TB
	Lab       *lab.Lab
	Namespace string
	Image     string // of the class
	Dir       string // with the server's state folder and log
	Listen    string // address
	URL       string
	Client    *rpc.Client   // with all rights
	Patience  time.Duration // how long Until waits; New makes it a minute

	args   []string
	server *exec.Cmd
	ended  chan error
}

// New starts a server with these arguments beyond those that all get. Define makes
// its class.
func New(t testing.TB, args ...string) *Bed {
	t.Helper()
	l := lab.Start(t)
	l.Node(t) // the address that its pods reach this machine by
	if err := kube.Install(t.Context(), l.Config()); err != nil {
		t.Fatal(err)
	}
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &Bed{TB: t, Lab: l, Image: lab.BusyboxImage, Dir: t.TempDir(), Patience: time.Minute, args: args}
	t.Cleanup(b.last) // after the namespace is gone: agents say good-bye to a server that is there
	b.Namespace = l.Namespace(t)
	b.Listen = FreePort(t, st.HostIP)
	b.URL = "https://" + b.Listen
	b.Start()
	return b
}

// FreePort is an address of a host at which nobody listens.
func FreePort(t testing.TB, host string) string {
	t.Helper()
	for port := firstPort; port < firstPort+1000; port++ {
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// Class is the name of the bed's class.
func (b *Bed) Class() string { return b.Namespace + "/scripts" }

// Define makes the class, or changes it: selector, YAML, says which nodes its pods
// may be on, and spec, YAML that is indented by two, what else there is to say.
func (b *Bed) Define(selector, spec string) {
	b.Helper()
	b.Apply(fmt.Sprintf(`apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata: {name: scripts, namespace: %s}
spec:
  image: %s
  template:
    nodeSelector: %s
    container:
      imagePullPolicy: Never
      securityContext: {runAsUser: 1000}
%s`, b.Namespace, b.Image, selector, spec))
	b.Lab.Eventually(b, "the server knows the class", func(ctx context.Context) bool {
		classes, err := b.Client.Classes(ctx)
		return err == nil && len(classes) == 1
	})
}

// Apply makes or changes objects, which text describes.
func (b *Bed) Apply(text string) {
	b.Helper()
	file := filepath.Join(b.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Lab.Kubectl(b, "apply", "-f", file)
}

// State is the server's state folder.
func (b *Bed) State() string { return filepath.Join(b.Dir, "state") }

// Key is a file among the server's keys.
func (b *Bed) Key(name string) string { return filepath.Join(b.State(), "keys", name) }

// Start starts the server, again after Kill or End, and waits until it is ready.
func (b *Bed) Start() {
	b.Helper()
	log, err := os.OpenFile(filepath.Join(b.Dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"serve", "--state", b.State(), "--listen", b.Listen, "--kubernetes", "--kubeconfig", b.Lab.Kubeconfig(),
		"--namespace", b.Namespace, "--worker-image", lab.BulkheadImage, "--worker-image-pull-policy", "Never", "--worker-url", b.URL,
		"--pods-per-second", "50",
	}, b.args...)
	b.server = exec.Command(Binary, args...)
	b.server.Stdout, b.server.Stderr = log, log
	b.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.server.Start(); err != nil {
		b.Fatal(err)
	}
	ended, server := make(chan error, 1), b.server
	b.ended = ended
	go func() { ended <- server.Wait() }()
	b.Lab.Eventually(b, "the server is ready", func(ctx context.Context) bool {
		select {
		case err := <-ended:
			ended <- err
			b.Fatalf("the server ended: %v", err)
		default:
		}
		return b.Get(ctx, "/readyz") == nil
	})
	token, err := os.ReadFile(b.Key("token"))
	if err != nil {
		b.Fatal(err)
	}
	b.Client = rpc.NewClient(rpc.ClientOptions{URL: b.URL, HTTP: b.HTTP(), Token: strings.TrimSpace(string(token)), Owner: "ann@here", Tries: 30})
}

// last ends the server, and tells a test that failed what it said.
func (b *Bed) last() {
	if b.server != nil {
		_ = b.server.Process.Kill() // it may have ended
	}
	if b.Failed() {
		text, _ := os.ReadFile(filepath.Join(b.Dir, "server.log")) // it says what it can
		b.Logf("the server said:\n%s", text[max(0, len(text)-8000):])
	}
}

// Kill ends the server without a word.
func (b *Bed) Kill() {
	b.Helper()
	_ = b.server.Process.Kill() // it may have ended
	if err := <-b.ended; err == nil {
		b.Error("the server ended by itself")
	}
}

// End asks the server to end, and waits until it has.
func (b *Bed) End() {
	b.Helper()
	_ = b.server.Process.Signal(syscall.SIGTERM) // it may have ended
	if err := <-b.ended; err != nil {
		b.Errorf("the server ended with %v", err)
	}
}

// Pid is the server's.
func (b *Bed) Pid() int { return b.server.Process.Pid }

// HTTP is a client that trusts the server.
func (b *Bed) HTTP() *http.Client {
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(b.Key("ca.crt")); err == nil { // or nothing is trusted
		roots.AppendCertsFromPEM(ca)
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// Get asks the server for a path; an answer that is not 200 is an error.
func (b *Bed) Get(ctx context.Context, path string) error {
	client := b.HTTP()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.URL+path, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
