package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodePackages are what a real node needs, by Debian's names.
var NodePackages = []string{"containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "iproute2", "util-linux", "busybox-static"}

// nodePrograms are what is looked for of them.
var nodePrograms = []string{"containerd", "ctr", "runc", "/usr/lib/cni/bridge", "iptables", "conntrack", "ip", "nsenter", "unshare", "/bin/busybox"}

// NodeMissing says in one line why a real node cannot run here; "" if it can.
func NodeMissing() string {
	if os.Getuid() != 0 {
		return "a real node needs root"
	}
	var missing []string
	for _, program := range nodePrograms {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Sprintf("a real node needs %s: apt-get install %s", strings.Join(missing, ", "), strings.Join(NodePackages, " "))
	}
	return ""
}

var nodeOnce struct {
	sync.Once
	err error
}

// Node gives a test the lab's real node: a kubelet that starts real containers
// from the images of this package. The first one to ask starts it, in seconds.
// Where that is not possible the test is skipped.
func (l *Lab) Node(t testing.TB) string {
	t.Helper()
	if why := NodeMissing(); why != "" {
		t.Skip(why) //nolint:forbidigo // a machine without root can still run the other tests; CI fails on it
	}
	nodeOnce.Do(func() {
		nodeOnce.err = l.StartNode(context.WithoutCancel(t.Context()))
	})
	if nodeOnce.err != nil {
		t.Fatal("start the node:", nodeOnce.err)
	}
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Node
}

// StartNode adds the real node and returns when pods can run on it.
func (l *Lab) StartNode(ctx context.Context) error {
	if err := l.buildImages(ctx); err != nil {
		return fmt.Errorf("build images: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := l.ask(ctx, http.MethodPost, "/node", nil, nil); err != nil {
		return err
	}
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if !poll(ctx, func() bool { return l.nodeReady(ctx, s.Node) }) {
		return fmt.Errorf("node %s is not ready; its kubelet's log is %s", s.Node, filepath.Join(l.dir, LogFolder, "kubelet.log"))
	}
	if err := l.makeVolumes(ctx, s.Node); err != nil {
		return fmt.Errorf("make volumes: %w", err)
	}
	return nil
}

func (l *Lab) nodeReady(ctx context.Context, name string) bool {
	node, err := l.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady {
			return false // the controller takes it away after the node is ready
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
