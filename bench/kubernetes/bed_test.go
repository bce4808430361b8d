package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/lab"
	"bulkhead.dev/bulkhead/rpc"
)

// bed is a server on this machine that runs scripts in the lab, as long as the
// benchmark.
type bed struct {
	*testing.B
	lab    *lab.Lab
	ns     string
	dir    string
	url    string
	cmd    *exec.Cmd
	client *rpc.Client
}

// podsPerSecond is how fast the servers of these benchmarks start pods.
const podsPerSecond = 50

func newBed(b *testing.B) *bed {
	b.Helper()
	l := lab.Start(b)
	l.Node(b) // the address that its pods reach this machine by
	if err := kube.Install(b.Context(), l.Config()); err != nil {
		b.Fatal(err)
	}
	st, err := l.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	d := &bed{B: b, lab: l, ns: l.Namespace(b), dir: b.TempDir()}
	d.start(freeAddr(b, st.HostIP))
	return d
}

func freeAddr(b *testing.B, host string) string {
	b.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (d *bed) start(addr string) {
	d.Helper()
	d.url = "https://" + addr
	log, err := os.Create(filepath.Join(d.dir, "server.log"))
	if err != nil {
		d.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(binary, "serve", "--state", filepath.Join(d.dir, "state"), "--listen", addr,
		"--kubernetes", "--kubeconfig", d.lab.Kubeconfig(), "--namespace", d.ns, "--worker-image", lab.BulkheadImage,
		"--worker-image-pull-policy", "Never", "--worker-url", d.url, "--pods-per-second", fmt.Sprint(podsPerSecond))
	if addr := os.Getenv("BENCH_PPROF"); addr != "" {
		d.cmd.Args = append(d.cmd.Args, "--pprof", addr)
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() {
		d.end()
		if d.Failed() {
			text, _ := os.ReadFile(log.Name())
			d.Logf("the server said:\n%s", text[max(0, len(text)-8000):])
		}
	})
	d.lab.Eventually(d, "the server answers", func(ctx context.Context) bool { return d.connect(ctx) == nil })
}

// end ends the server, if it has not ended.
func (d *bed) end() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

func (d *bed) key(name string) string { return filepath.Join(d.dir, "state", "keys", name) }

func (d *bed) connect(ctx context.Context) error {
	http, url, _, err := rpc.Dial(rpc.DialOptions{URL: d.url, CAFile: d.key("ca.crt"), TokenFile: d.key("token")})
	if err != nil {
		return err
	}
	d.client = rpc.NewClient(rpc.ClientOptions{URL: url, HTTP: http, Owner: "ann@here", Tries: 1})
	_, err = d.client.Runs(ctx, 1)
	return err
}

// class is the name of the bed's class.
func (d *bed) class() string { return d.ns + "/scripts" }

// define makes the class. Workers is YAML, as are node selectors.
func (d *bed) define(workers, selector string) {
	d.Helper()
	d.apply(fmt.Sprintf(`apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata: {name: scripts, namespace: %s}
spec:
  image: %s
  workers: %s
  template:
    nodeSelector: %s
    container:
      imagePullPolicy: Never
      securityContext: {runAsUser: 1000}
`, d.ns, lab.BusyboxImage, workers, selector))
	d.lab.Eventually(d, "the server knows the class", func(ctx context.Context) bool {
		classes, err := d.client.Classes(ctx)
		return err == nil && len(classes) > 0
	})
}

func (d *bed) apply(text string) {
	d.Helper()
	file := filepath.Join(d.TempDir(), "object.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	d.lab.Kubectl(d, "apply", "-f", file)
}

const realNode = `{kubernetes.io/hostname: node}`

// submit submits a run of so many numbered items.
func (d *bed) submit(items int64, limit int, command ...string) bulkhead.RunID {
	d.Helper()
	r := &bulkhead.Run{Spec: bulkhead.Spec{Class: d.class(), Command: command, Columns: []string{"1"}, Limit: limit}}
	at := int64(0)
	next := func() (bulkhead.Item, error) {
		if at++; at > items {
			return bulkhead.Item{}, io.EOF
		}
		return bulkhead.Item{Index: at, Values: []string{fmt.Sprint(at)}}, nil
	}
	if err := d.client.Submit(d.Context(), r, next, func() string { return strings.Repeat("0", 64) }); err != nil {
		d.Fatal("submit:", err)
	}
	return r.ID
}

// until follows a run until ok, at most ten minutes.
func (d *bed) until(id bulkhead.RunID, ok func(*bulkhead.Run) bool) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 10*time.Minute)
	defer cancel()
	var last bulkhead.Run
	enough := errors.New("enough")
	err := d.client.Watch(ctx, id, func(s rpc.Status) error {
		if last = s.Run; ok(&last) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		d.Fatalf("run %d: %s %+v %s: %v", id, last.Shown(), last.Counts, last.Reason, err)
	}
}

// over waits until all items of a run have succeeded.
func (d *bed) over(id bulkhead.RunID) {
	d.Helper()
	d.until(id, func(r *bulkhead.Run) bool {
		if r.State.Finished() && r.State != bulkhead.RunSucceeded {
			d.Fatalf("run %d: %s %+v", id, r.State, r.Counts)
		}
		return r.State.Finished()
	})
}

// ours are the requests of the server to the API server.
func ours(r lab.Request) bool { return r.Client == filepath.Base(binary) }

// peakMemory is the most memory that the server had resident, in MiB.
func (d *bed) peakMemory() float64 {
	d.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		d.Fatal("no VmHWM:", err)
	}
	return kib / 1024
}
