package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/lab"
	"bulkhead.dev/bulkhead/rpc"
)

// binary is bulkhead as it is built for users.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bulkhead-cluster-")
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

// firstPort is below those that the kernel gives to connections, which could take
// the server's while it is being restarted.
const firstPort = 21_000

// bed is a server on this machine that runs scripts in the lab, as long as the test.
type bed struct {
	t      testing.TB
	lab    *lab.Lab
	ns     string
	image  string
	dir    string
	url    string
	listen string
	args   []string // of serve, beyond those that every server gets
	cmd    *exec.Cmd
	ended  chan error
	client *rpc.Client
}

// newBed starts a server and defines its class "scripts", which spec describes, as
// YAML that is indented by two.
func newBed(t testing.TB, spec string, args ...string) *bed {
	t.Helper()
	l := lab.Start(t)
	node := l.Node(t)
	if err := kube.Install(t.Context(), l.Config()); err != nil {
		t.Fatal(err)
	}
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, lab: l, image: lab.BusyboxImage, dir: t.TempDir(), args: args}
	t.Cleanup(b.last) // after the namespace is gone: agents say good-bye to a server that is there
	b.ns = l.Namespace(t)
	b.listen = freePort(t, st.HostIP)
	b.url = "https://" + b.listen
	b.start()
	b.apply(node, spec)
	return b
}

func freePort(t testing.TB, host string) string {
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

// class is the name of the bed's class.
func (b *bed) class() string { return b.ns + "/scripts" }

// apply defines the class, or changes it.
func (b *bed) apply(node, spec string) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "class.yaml")
	text := fmt.Sprintf(`apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata:
  name: scripts
  namespace: %s
spec:
  image: %s
  template:
    nodeSelector:
      kubernetes.io/hostname: %s
    container:
      imagePullPolicy: Never
      securityContext:
        runAsUser: 1000
%s`, b.ns, b.image, node, spec)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.lab.Kubectl(b.t, "apply", "-f", file)
	b.lab.Eventually(b.t, "the server knows the class", func(ctx context.Context) bool {
		classes, err := b.client.Classes(ctx)
		return err == nil && len(classes) == 1
	})
}

// start starts the server and waits until it is ready.
func (b *bed) start() {
	b.t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"serve", "--state", filepath.Join(b.dir, "state"), "--listen", b.listen, "--kubernetes", "--kubeconfig", b.lab.Kubeconfig(),
		"--namespace", b.ns, "--worker-image", lab.BulkheadImage, "--worker-image-pull-policy", "Never", "--worker-url", b.url,
		"--pods-per-second", "50",
	}, b.args...)
	b.cmd = exec.Command(binary, args...)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended, cmd := make(chan error, 1), b.cmd
	b.ended = ended
	go func() { ended <- cmd.Wait() }()
	b.lab.Eventually(b.t, "the server is ready", func(ctx context.Context) bool {
		select {
		case err := <-ended:
			ended <- err
			b.t.Fatalf("the server ended: %v", err)
		default:
		}
		return b.get(ctx, "/readyz") == nil
	})
	b.connect()
}

// last ends the server, and tells a test that failed what it said.
func (b *bed) last() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
	}
	if b.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(b.dir, "server.log"))
		b.t.Logf("the server said:\n%s", text[max(0, len(text)-8000):])
	}
}

// http is a client that trusts the server.
func (b *bed) http() *http.Client {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(b.dir, "state", "keys", "ca.crt"))
	if err == nil {
		roots.AppendCertsFromPEM(ca)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
}

func (b *bed) get(ctx context.Context, path string) error {
	client := b.http()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, nil)
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

func (b *bed) connect() {
	b.t.Helper()
	token, err := os.ReadFile(filepath.Join(b.dir, "state", "keys", "token"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.client = rpc.NewClient(rpc.ClientOptions{URL: b.url, HTTP: b.http(), Token: strings.TrimSpace(string(token)), Owner: "ann@here", Tries: 30})
}

// kill ends the server without a word.
func (b *bed) kill() {
	_ = b.cmd.Process.Kill()
	if err := <-b.ended; err == nil {
		b.t.Error("the server ended by itself")
	}
}

// end asks the server to end.
func (b *bed) end() {
	b.t.Helper()
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-b.ended; err != nil {
		b.t.Errorf("the server ended with %v", err)
	}
}

// submit submits a run of so many items, numbered from 1; 0 is a single script.
func (b *bed) submit(items int64, spec bulkhead.Spec) bulkhead.RunID {
	b.t.Helper()
	return b.submitOf(items, spec, func(i int64) string { return fmt.Sprint(i) })
}

// submitOf is submit with the items' values.
func (b *bed) submitOf(items int64, spec bulkhead.Spec, value func(int64) string) bulkhead.RunID {
	b.t.Helper()
	spec.Class = b.class()
	spec.Limit = max(spec.Limit, 1)
	r := &bulkhead.Run{Spec: spec}
	var next func() (bulkhead.Item, error)
	if items > 0 {
		r.Spec.Columns = []string{"1"}
		at := int64(0)
		next = func() (bulkhead.Item, error) {
			if at++; at > items {
				return bulkhead.Item{}, io.EOF
			}
			return bulkhead.Item{Index: at, Values: []string{value(at)}}, nil
		}
	}
	hash := func() string { return strings.Repeat("0", 64) }
	if err := b.client.Submit(b.t.Context(), r, next, hash); err != nil {
		b.t.Fatal("submit:", err)
	}
	return r.ID
}

// until waits until the run stands as ok wants it.
func (b *bed) until(id bulkhead.RunID, what string, ok func(*bulkhead.Run) bool) *bulkhead.Run {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var last bulkhead.Run
	enough := errors.New("enough")
	err := b.client.Watch(ctx, id, func(s rpc.Status) error {
		if last = s.Run; ok(&last) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) && !ok(&last) {
		b.t.Fatalf("run %d is not %s: %s %+v, %s: %v", id, what, last.Shown(), last.Counts, last.Reason, err)
	}
	return &last
}

// over waits until the run is finished.
func (b *bed) over(id bulkhead.RunID) *bulkhead.Run {
	b.t.Helper()
	return b.until(id, "finished", func(r *bulkhead.Run) bool { return r.State.Finished() })
}

// outputs is what each item of a run wrote.
func (b *bed) outputs(id bulkhead.RunID) map[int64]string {
	b.t.Helper()
	out := map[int64]string{}
	r, err := b.client.Run(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	var all []bulkhead.Attempt
	err = b.client.Items(b.t.Context(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		at := it.Attempt
		at.Item = it.Index
		all = append(all, at)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, at := range all {
		if at.N == 0 {
			continue
		}
		err := b.client.ReadOutput(b.t.Context(), id, at, false, func(c bulkhead.Chunk) error {
			out[at.Item] += string(c.Data)
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}
