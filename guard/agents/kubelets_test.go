package agents_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/agents"
	"bulkhead.dev/bulkhead/lab"
)

// startAgent runs a container on the real node that is called as an agent is, with a
// file of 8 MiB in memory, and that now and then uses its CPU.
func startAgent(t *testing.T, l *lab.Lab, namespace, container string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: container},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{"kubernetes.io/hostname": l.Node(t)},
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: container, Image: "bulkhead.dev/lab/busybox:1", ImagePullPolicy: corev1.PullNever,
				Command:   []string{"sh", "-c", "dd if=/dev/zero of=/tmp/file bs=1M count=8; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1; done"},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi"), "cpu": resource.MustParse("500m")}},
			}},
		},
	}
	if _, err := l.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestRealKubeletsTellOfAgents(t *testing.T) {
	l := lab.Start(t)
	node := l.Node(t)
	l.FakeNodes(t, 5) // they have no kubelet that answers
	namespace := l.Namespace(t)
	startAgent(t, l, namespace, "calico-node")
	startAgent(t, l, namespace, "web")
	config := l.Config()
	asked := map[string]int{}
	config.Wrap(counted(asked))
	now := time.Now()
	source, err := agents.Kubelets(config, agents.KubeletOptions{
		Nodes: 3, Rand: rand.New(rand.NewPCG(1, 2)), Now: func() time.Time { now = now.Add(time.Minute); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	var sample agents.Sample
	looks := 0
	l.Eventually(t, "the agent is measured", func(ctx context.Context) bool {
		looks++
		// The fake nodes' kubelets do not answer: that is said, and the real one is read.
		read, err := source.Read(ctx)
		if err != nil && !strings.Contains(err.Error(), "measure node fake-") {
			t.Fatal(err)
		}
		for _, s := range read {
			if s.Namespace == namespace && s.Container != "calico-node" {
				t.Fatalf("%s is no agent", s.Container)
			}
			if s.Namespace == namespace && s.WorkingSet > 0 && s.CPU > 0 && s.Ready {
				sample = s
				return true
			}
		}
		return false
	})
	if sample.Agent != "calico-node" || sample.Node != node || sample.Version != "1" || sample.Limit != 64*mebi {
		t.Errorf("it is %+v", sample)
	}
	// busybox keeps 8 MiB of the file as page cache.
	if sample.PageCache < 7*mebi || sample.Memory <= 0 || sample.Memory > 8*mebi || sample.WorkingSet > sample.Limit {
		t.Errorf("its memory is %+v", sample)
	}
	if sample.CPULimit != 0.5 || sample.CPU > 2*sample.CPULimit {
		t.Errorf("its CPU is %+v", sample)
	}
	if asked["/api/v1/nodes"] > 1+looks/45 {
		t.Errorf("in %d looks nodes were listed %d times", looks, asked["/api/v1/nodes"])
	}
	if stats := asked["stats"]; stats > 3*looks {
		t.Errorf("in %d looks %d nodes were asked", looks, stats)
	}
}

func TestKubeletsThatMayNotBeAsked(t *testing.T) {
	l := lab.Start(t)
	l.FakeNodes(t, 1)
	config := l.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	source, err := agents.Kubelets(config, agents.KubeletOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = source.Read(t.Context())
	if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(bulkhead.HintOf(err), "nodes/proxy") {
		t.Errorf("it says %v, %q", err, bulkhead.HintOf(err))
	}
}
