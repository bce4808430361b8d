package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead/lab"
)

// read asks the API server for something that it has to ask etcd for.
func read(t *testing.T, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := l.Client().CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
	return err
}

func write(t *testing.T, l *lab.Lab, ns, name string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := l.Client().CoreV1().ConfigMaps(ns).Create(ctx, configMap(name), metav1.CreateOptions{})
	return err
}

func TestWithoutItsAPIServerOrEtcdAClusterDoesNotAnswerAndThenItDoes(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	if err := write(t, l, ns, "before"); err != nil {
		t.Fatal(err)
	}
	for name, kill := range map[string]func(testing.TB) func(){"API server": l.KillAPIServer, "etcd": l.KillEtcd} {
		start := kill(t)
		if err := read(t, l); err == nil {
			t.Errorf("without its %s it answers", name)
		}
		start()
		if err := read(t, l); err != nil {
			t.Errorf("with its %s again: %v", name, err)
		}
		if _, err := l.Client().CoreV1().ConfigMaps(ns).Get(t.Context(), "before", metav1.GetOptions{}); err != nil {
			t.Errorf("what was there is gone with the %s: %v", name, err)
		}
	}
}

func TestAFaultEndsWithItsTest(t *testing.T) {
	l := lab.Start(t)
	t.Run("a test that forgets", func(t *testing.T) {
		l.Kill(t, lab.Scheduler)
		s, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Components {
			if c.Name == lab.Scheduler && c.PID != 0 {
				t.Errorf("%+v", c)
			}
		}
	})
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Components {
		if !c.Ready {
			t.Errorf("%+v", c)
		}
	}
}

func TestFaultsOnTopOfOneAnotherAllEnd(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	t.Run("a test that forgets", func(t *testing.T) {
		l.FillEtcd(t)
		l.FillEtcd(t)
		l.KillAPIServer(t)
		l.KillEtcd(t)
		l.KillEtcd(t)
	})
	if err := write(t, l, ns, "after"); err != nil {
		t.Error(err)
	}
}

func TestAFullEtcdTakesNoWritesUntilItIsEmptied(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	empty := l.FillEtcd(t)
	if err := write(t, l, ns, "full"); err == nil || !strings.Contains(err.Error(), "space exceeded") {
		t.Errorf("a write into a full etcd: %v", err)
	}
	if err := read(t, l); err != nil {
		t.Errorf("a read: %v", err)
	}
	empty()
	if err := write(t, l, ns, "emptied"); err != nil {
		t.Errorf("a write into an emptied etcd: %v", err)
	}
}

func TestContainersOutliveTheirKubelet(t *testing.T) {
	l := lab.Start(t)
	l.Node(t)
	ns := l.Namespace(t)
	create(t, l, ns, pod("worker", "until [ -e /tmp/go ]; do sleep 0.1; done"))
	waitPhase(t, l, ns, "worker", corev1.PodRunning)
	start := l.KillKubelet(t)
	create(t, l, ns, pod("late", "true"))
	start()
	waitPhase(t, l, ns, "late", corev1.PodSucceeded)
	l.Kubectl(t, "exec", "--namespace", ns, "worker", "--", "touch", "/tmp/go")
	waitPhase(t, l, ns, "worker", corev1.PodSucceeded)
}

func TestANodeThatIsCutOffSeesNothingNewUntilItIsConnected(t *testing.T) {
	l := lab.Start(t)
	l.Node(t)
	ns := l.Namespace(t)
	connect := l.CutNode(t)
	create(t, l, ns, pod("waits", "true"))
	l.Eventually(t, "it is scheduled", func(ctx context.Context) bool {
		p, err := l.Client().CoreV1().Pods(ns).Get(ctx, "waits", metav1.GetOptions{})
		return err == nil && p.Spec.NodeName != ""
	})
	if p, err := l.Client().CoreV1().Pods(ns).Get(t.Context(), "waits", metav1.GetOptions{}); err != nil || p.Status.StartTime != nil {
		t.Errorf("a kubelet that is cut off has seen it: %+v, %v", p.Status, err)
	}
	connect()
	waitPhase(t, l, ns, "waits", corev1.PodSucceeded)
}

func TestAKilledProcessIsSeenAsKilled(t *testing.T) {
	l := lab.Start(t)
	l.Node(t)
	ns := l.Namespace(t)
	create(t, l, ns, pod("victim", "exec sleep 1000"))
	waitPhase(t, l, ns, "victim", corev1.PodRunning)
	l.KillProcess(t, ns, "victim", "")
	waitPhase(t, l, ns, "victim", corev1.PodFailed)
	p, err := l.Client().CoreV1().Pods(ns).Get(t.Context(), "victim", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if end := p.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 137 {
		t.Errorf("%+v", end)
	}
}
