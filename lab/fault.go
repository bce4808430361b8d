package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Components that a test may kill. The names are those of Status.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Etcd              = "etcd"
	Kubelet           = "kubelet"
	Containerd        = "containerd"
	KubeProxy         = "kube-proxy"
)

// hard is for SIGKILL instead of SIGTERM.
var hard = url.Values{"hard": {"1"}}

// Each fault returns what ends it, which is done at the end of the test at the
// latest. Where it has ended, the lab is as well as before.

// Kill kills a component with SIGKILL, and returns what starts it again and waits
// until the API server, unless that is killed too, answers. Containers outlive their kubelet and their
// containerd.
func (l *Lab) Kill(t testing.TB, component string) (start func()) {
	t.Helper()
	l.order(t, "/stop/"+component, hard)
	return atEnd(t, func() { l.restart(t, component) })
}

// KillAPIServer kills the API server: components and pods go on with what they know.
func (l *Lab) KillAPIServer(t testing.TB) (start func()) { t.Helper(); return l.Kill(t, APIServer) }

// KillEtcd kills etcd: the API server lives, and can do nothing.
func (l *Lab) KillEtcd(t testing.TB) (start func()) { t.Helper(); return l.Kill(t, Etcd) }

// KillKubelet kills the kubelet: what runs on the node goes on, and nobody sees it.
func (l *Lab) KillKubelet(t testing.TB) (start func()) { t.Helper(); return l.Kill(t, Kubelet) }

func (l *Lab) restart(t testing.TB, component string, args ...string) {
	t.Helper()
	l.order(t, "/start/"+component, url.Values{"arg": args})
	l.Eventually(t, "the API server answers", func(ctx context.Context) bool {
		if s, err := l.Status(ctx); err == nil && s.stopped(APIServer) {
			return true // a test has killed it, too
		}
		return l.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
	})
}

// atEnd makes of undo what is done once: when it is called or when the test ends.
func atEnd(t testing.TB, undo func()) func() {
	var once sync.Once // sync.OnceFunc panics where undo fails by t.Fatal
	end := func() { once.Do(undo) }
	t.Cleanup(end)
	return end
}

// CutNode takes the link between the real node and the rest down: its kubelet and
// its pods reach nothing, and nothing reaches them.
func (l *Lab) CutNode(t testing.TB) (connect func()) {
	t.Helper()
	l.order(t, "/link/down", nil)
	return atEnd(t, func() { l.order(t, "/link/up", nil) })
}

const (
	fillPrefix = "/bulkhead-lab-fill/"
	fillEnd    = "/bulkhead-lab-fill0"
	fillRoom   = 16 << 20 // that is left when the quota is set, bytes
	fillValue  = 512 << 10
)

// FillEtcd gives etcd a quota a little above what it holds and fills it, until it
// takes no more writes ("mvcc: database space exceeded"): reads work, and
// deletes, all else fails.
func (l *Lab) FillEtcd(t testing.TB) (empty func()) {
	t.Helper()
	l.order(t, "/stop/"+Etcd, hard)
	info, err := os.Stat(filepath.Join(l.dir, "etcd", "member", "snap", "db"))
	if err != nil {
		t.Fatal("how large is etcd:", err)
	}
	l.restart(t, Etcd, fmt.Sprintf("--quota-backend-bytes=%d", info.Size()+fillRoom))
	undo := atEnd(t, func() { l.emptyEtcd(t) })
	value := bytes.Repeat([]byte("x"), fillValue)
	for i := 0; ; i++ {
		key := fillPrefix + strconv.Itoa(i)
		err := l.etcd(t.Context(), "/v3/kv/put", map[string][]byte{"key": []byte(key), "value": value}, nil)
		if err != nil && strings.Contains(err.Error(), "space exceeded") {
			return undo
		}
		if err != nil || i > 10*fillRoom/fillValue {
			t.Fatalf("fill etcd: after %d values: %v", i, err)
		}
	}
}

// emptyEtcd is what an operator does then, too: delete, compact, defragment,
// disarm. (https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota)
func (l *Lab) emptyEtcd(t testing.TB) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all := keyRange{Key: []byte(fillPrefix), RangeEnd: []byte(fillEnd)}
	var answer struct {
		keys

		Alarms []map[string]any `json:"alarms"` // each with its member
	}
	for _, step := range []struct {
		method string
		in     func() any
	}{
		{"/v3/kv/deleterange", func() any { return all }},
		{"/v3/kv/compaction", func() any {
			return map[string]any{"revision": strconv.FormatInt(answer.Header.Revision, 10), "physical": true}
		}},
		{"/v3/maintenance/defragment", func() any { return struct{}{} }},
		{"/v3/maintenance/alarm", func() any { return map[string]string{"action": "GET"} }},
		{"/v3/maintenance/alarm", func() any {
			alarm := map[string]any{"action": "DEACTIVATE"}
			for _, raised := range answer.Alarms {
				maps.Copy(alarm, raised)
			}
			return alarm
		}},
	} {
		err := l.etcd(ctx, step.method, step.in(), &answer)
		if err != nil && !strings.Contains(err.Error(), "has been compacted") { // by another FillEtcd
			t.Fatal("empty etcd:", err)
		}
	}
	l.order(t, "/stop/"+Etcd, hard)
	l.restart(t, Etcd)
}

// KillProcess kills the first process of a pod's container with SIGKILL, as the
// kernel does where memory runs out. The container name "" is the first one.
func (l *Lab) KillProcess(t testing.TB, namespace, pod, container string) {
	t.Helper()
	p, err := l.client.CoreV1().Pods(namespace).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal("kill a pod's process:", err)
	}
	i := slices.IndexFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return (container == "" || s.Name == container) && s.State.Running != nil
	})
	if i < 0 {
		t.Fatalf("kill a pod's process: container %q of pod %s does not run: %+v", container, pod, p.Status.ContainerStatuses)
	}
	_, id, _ := strings.Cut(p.Status.ContainerStatuses[i].ContainerID, "://")
	pid, err := firstProcess(id)
	if err == nil {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err != nil {
		t.Fatal("kill a pod's process:", err)
	}
}

// firstProcess finds the process of a container that is number 1 to itself.
func firstProcess(id string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		groups, err := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		if err != nil || !bytes.Contains(groups, []byte(id)) {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(numbers), "\t1") {
				return pid, nil
			}
		}
	}
	return 0, errors.New("no process has container " + id + " as its control group")
}
