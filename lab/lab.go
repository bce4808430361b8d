// Package lab is a real Kubernetes on one machine, for tests and for trying
// Bulkhead out: etcd, API server, controllers and scheduler, on request a real
// kubelet that starts real containers, and on request hundreds of fake nodes.
//
//	l := lab.Start(t)            // a control plane, shared by the tests of a binary
//	node := l.Node(t)            // and a real node
//	ns := l.Namespace(t)         // of this test, gone at its end
//	before := l.Count(t)
//	… what is to be proved …
//	delta := l.Count(t).Since(before)
//
// A test binary that is done, or killed, leaves nothing behind, and nothing has
// to run for that. Everything of a lab lives in a process namespace whose
// process 1 ends with the lab's keeper, and the keeper ends with whoever asked
// for the lab. With process 1 the kernel ends every process of the namespace,
// with the last of them its mounts, its network, and so its links and rules.
// What namespaces do not hold are two things, a folder and control groups; the
// keeper removes them, or, if it was killed too, the next lab.
//
//	test or `lab up` ──pipe──► keeper ──pipe──► process 1 ──► etcd, kube-apiserver, …
//	                                               └─ network namespace: containerd, kubelet, pods
//
// Package lab/cmd is the other side: keeper, process 1 and the commands for
// people. `make lab-up` starts a lab to look around in.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Lab is a running lab.
type Lab struct {
	programs Programs
	dir      string
	http     *http.Client // to process 1
	config   *rest.Config
	client   kubernetes.Interface
	audit    audit
}

// Files of a lab, in its folder.
const (
	SocketFile     = "lab.sock"         // where process 1 takes requests
	KubeconfigFile = "admin.kubeconfig" // of an administrator
	LogFolder      = "logs"             // a file for each component
	AuditFile      = "audit.log"        // of the API server, in LogFolder
	PKIFolder      = "pki"
	ImageFolder    = "images" // OCI archives that a node imports when it starts
	VolumeFolder   = "volumes"
)

// Status is how a lab stands.
type Status struct {
	Dir         string      `json:"dir"`
	Kubeconfig  string      `json:"kubeconfig"`
	Server      string      `json:"server"`         // URL of the API server
	Etcd        string      `json:"etcd"`           // URL of etcd, which asks for a client certificate
	EtcdMetrics string      `json:"etcd_metrics"`   // URL
	Kubernetes  string      `json:"kubernetes"`     // path of the binary that all programs of the cluster are
	Node        string      `json:"node,omitempty"` // name of the real node, if there is one
	NodeIP      string      `json:"node_ip,omitempty"`
	HostIP      string      `json:"host_ip,omitempty"` // of this machine, as the node's pods see it
	Components  []Component `json:"components"`
}

// Component is one program of the lab.
type Component struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"` // in the lab's process namespace; 0: it does not run
	Ready   bool      `json:"ready"`
	Started time.Time `json:"started"`
	Took    float64   `json:"ready_after_seconds"` // until its health check passed
	Exit    string    `json:"exit,omitempty"`      // how it ended, if it did and nobody had asked it to
}

// stopped says that a component does not run.
func (s Status) stopped(component string) bool {
	return slices.ContainsFunc(s.Components, func(c Component) bool { return c.Name == component && c.PID == 0 })
}

// Options of Launch. The zero value is a lab in a temporary folder that ends
// with this process.
type Options struct {
	// Dir is the lab's folder; it must be empty or missing. Default: a temporary one.
	Dir string
	// Detached lets the lab live until somebody stops it.
	Detached bool
	// Log is told what is done that takes longer than a second. Default: nobody.
	Log io.Writer
}

// Open connects to the lab in a folder.
func Open(dir string) (*Lab, error) {
	l := &Lab{dir: dir}
	l.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, SocketFile))
		},
		DisableKeepAlives: true,
	}}
	var err error
	if l.config, err = clientcmd.BuildConfigFromFlags("", l.Kubeconfig()); err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	l.config.QPS, l.config.Burst = -1, -1 // it is for this server to say what is too much
	if l.client, err = kubernetes.NewForConfig(l.config); err != nil {
		return nil, err
	}
	return l, nil
}

// Dir is the lab's folder.
func (l *Lab) Dir() string { return l.dir }

// Kubeconfig is the path of an administrator's kubeconfig.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.dir, KubeconfigFile) }

// Config is the administrator's client configuration, without a client-side
// rate limit. It is the caller's to change.
func (l *Lab) Config() *rest.Config { return rest.CopyConfig(l.config) }

// Client is the administrator's client.
func (l *Lab) Client() kubernetes.Interface { return l.client }

// Status asks how the lab stands.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var s Status
	err := l.ask(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// ErrGone is what a lab's methods return when its process 1 does not answer.
var ErrGone = errors.New("the lab does not answer")

// ask sends a request to process 1.
func (l *Lab) ask(ctx context.Context, method, path string, query url.Values, into any) error {
	target := url.URL{Scheme: "http", Host: "lab", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return err
	}
	resp, err := l.http.Do(req)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("lab: %s", bytes.TrimSpace(body))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// Stop ends a lab and returns when its keeper has cleaned up, at most as long as
// ctx allows.
func (l *Lab) Stop(ctx context.Context) error {
	if err := l.ask(ctx, http.MethodPost, "/down", nil, nil); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(l.dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("folder %s is still there: %w", l.dir, ctx.Err())
		}
	}
}
