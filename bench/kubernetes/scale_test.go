package kubernetes_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/lab"
	"bulkhead.dev/bulkhead/rpc"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

const (
	fakeNodes = 200
	fakeNode  = `{bulkhead.dev/fake-node: ""}`
	podsBurst = 10 // that the server may start on top of its rate
)

// BenchmarkScaleUp wants 2,000 workers at once on 200 nodes. Nodes and containers
// are played; the pods are real objects, and the agent of each is a real one, in
// this process, that holds an item until the end.
func BenchmarkScaleUp(b *testing.B) {
	for b.Loop() {
		d := newBed(b)
		d.Lab.FakeNodes(b, scaled(fakeNodes, 10))
		d.scaleUp(scaled(2000, 50))
	}
}

func (d *bed) scaleUp(n int) {
	d.define(fmt.Sprintf("{max: %d, idleTimeout: 10m}", n), fakeNode)
	crowd := d.newCrowd()
	before, begin := d.Lab.Requests(d), time.Now()
	id := d.submit(int64(n), n, "/bin/true", "{}")
	d.Until(id, "working on all items", func(r *bulkhead.Run) bool { return r.Counts.Running == int64(n) })
	took := time.Since(begin)
	delta := lab.Counts{Requests: d.Lab.Requests(d)}.Since(lab.Counts{Requests: before})
	memory := d.peakMemory()
	most, first, last := crowd.rate()
	crowd.end()
	d.leave()

	mine := delta.Requests.Of(ours)
	fresh := delta.Requests.Of(func(r lab.Request) bool { return ours(r) && r.Fresh })
	d.Log(delta.Requests.By(func(r lab.Request) string { return r.Client + " " + r.Verb + " " + r.Resource }))
	what := fmt.Sprintf("%d workers on %d fake nodes: ", n, scaled(fakeNodes, 10))
	result.AtMost(what+"most pods made in a second", float64(most), podsPerSecond+podsBurst, "", fmt.Sprintf("pod start rate %d/s;", podsPerSecond))
	result.Note(what+"until all have an item", fmt.Sprintf("%.1f s", took.Seconds()),
		fmt.Sprintf("pods made within %.0f s, at the rate alone %d s", last.Sub(first).Seconds()+1, n/podsPerSecond))
	result.AtMost(what+"lists without a resource version", float64(fresh), 0, "", "")
	result.Note(what+"requests of the server for each", fmt.Sprintf("%.2f", float64(mine)/float64(n)), "")
	result.AtMost(what+"peak memory of the server", memory, 150, " MiB", "")
}

// crowd is an agent for each pod that runs, and when each pod was made.
type crowd struct {
	bed    *bed
	ctx    context.Context
	stop   context.CancelFunc
	dir    string // of their tokens
	agents sync.WaitGroup
	seeing sync.WaitGroup

	mu   sync.Mutex
	made map[types.UID]time.Time
	seen map[types.UID]bool
}

func (d *bed) newCrowd() *crowd {
	d.Helper()
	c := &crowd{bed: d, dir: d.TempDir(), made: map[types.UID]time.Time{}, seen: map[types.UID]bool{}}
	c.ctx, c.stop = context.WithCancel(d.Context())
	w, err := d.Lab.Client().CoreV1().Pods(d.Namespace).Watch(c.ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		d.Fatal(err)
	}
	c.seeing.Go(func() { c.see(w) })
	return c
}

func (c *crowd) see(w watch.Interface) {
	defer w.Stop()
	for event := range w.ResultChan() {
		if p, ok := event.Object.(*corev1.Pod); ok && event.Type != watch.Deleted {
			c.note(p)
		}
	}
}

// note starts the agent of a pod once its container would run.
func (c *crowd) note(p *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made[p.UID] = p.CreationTimestamp.Time
	if p.Status.Phase != corev1.PodRunning || c.seen[p.UID] {
		return
	}
	c.seen[p.UID] = true
	token, err := c.tokenOf(p)
	if err != nil {
		c.bed.Error(err)
		return
	}
	client, url, opts, err := rpc.Dial(rpc.DialOptions{URL: c.bed.URL, CAFile: c.bed.Key("ca.crt"), TokenFile: token})
	if err != nil {
		c.bed.Error(err)
		return
	}
	a := agent.New(agent.Options{
		Client: bulkheadv1connect.NewAgentServiceClient(client, url, opts...), Runner: waiter{}, API: rpc.APIVersion,
		Agent: bulkhead.Agent{Name: p.Namespace + "/" + p.Name, Kind: bulkhead.Kind{Class: c.bed.Class()}, Slots: 1},
	})
	c.agents.Go(func() { _ = a.Run(c.ctx) }) // at the end results may be left over
}

// tokenOf is a file with what the kubelet of a real node would get for a pod.
func (c *crowd) tokenOf(p *corev1.Pod) (string, error) {
	ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      []string{kube.Audience},
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	got, err := c.bed.Lab.Client().CoreV1().ServiceAccounts(p.Namespace).CreateToken(c.ctx, "default", ask, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.dir, p.Name)
	return file, os.WriteFile(file, []byte(got.Status.Token), 0o600)
}

// waiter runs attempts that go on until they are told to end.
type waiter struct{}

func (waiter) Run(ctx context.Context, _ agent.Job, _ agent.Sink) bulkhead.Result {
	begin := time.Now()
	<-ctx.Done()
	return bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel, Started: begin}
}

// rate is the most pods that were made in one second, and when the first and the
// last were.
func (c *crowd) rate() (most int, first, last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := map[time.Time]int{}
	for _, at := range c.made {
		in[at]++
		most = max(most, in[at])
	}
	seconds := slices.SortedFunc(maps.Keys(in), time.Time.Compare)
	return most, seconds[0], seconds[len(seconds)-1]
}

func (c *crowd) end() {
	c.stop()
	c.agents.Wait()
	c.seeing.Wait()
}

// leave ends the server and removes its pods, without the time that played nodes
// would take.
func (d *bed) leave() {
	d.Helper()
	d.End()
	now := int64(0)
	pods := d.Lab.Client().CoreV1().Pods(d.Namespace)
	if err := pods.DeleteCollection(d.Context(), metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}); err != nil {
		d.Fatal(err)
	}
}
