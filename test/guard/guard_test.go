package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"bulkhead.dev/bulkhead"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// speed is how much faster the guards' time runs, and within how long of it the growth
// is to be found.
const (
	speed  = 32
	within = 15 * time.Minute
)

func TestTheLoopOfTheIncidentIsFoundAndHoldsRunsUntilItEnds(t *testing.T) {
	hook := newHook(t)
	hurry := []string{"--guard", "--guard-every", "2s", "--guard-speed", fmt.Sprint(speed), "--guard-events", "--guard-webhook", hook.url,
		"--guard-budget", "networkpolicies=300"}
	b := testbed.New(t, hurry...)
	b.Patience = 2 * time.Minute
	b.Define(testbed.RealNode, "  workers: {max: 1, slots: 1, idleTimeout: 60s}\n")
	background(t, b)
	second := newSecond(t, b)
	b.Lab.Eventually(t, "the guard has counted everything", func(ctx context.Context) bool {
		census, _, err := b.Client.Census(ctx, "", 0)
		return err == nil && len(census.Kinds) > 10 && !slices.ContainsFunc(census.Kinds, func(k bulkhead.KindStatus) bool {
			return strings.HasPrefix(k.Reason, "not counted yet")
		})
	})
	_, began, err := b.Client.Findings(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}

	f, looked, n := growUntilFound(t, b)
	t.Logf("found after %s of its time and %d releases: %s", looked.Sub(began).Round(time.Minute), n, f.Title)
	if took := looked.Sub(began); took > within {
		t.Errorf("it took %s to find it", took)
	}
	check(t, b, f)

	// The API server is away while it goes on; afterwards nothing was missed.
	restart := b.Lab.KillAPIServer(t)
	id := b.Submit(2, bulkhead.Spec{Command: []string{"/bin/echo"}})
	held := b.Until(id, "held", func(r *bulkhead.Run) bool { return r.Held && strings.Contains(r.Reason, f.Title) })
	if held.Counts.Running+held.Counts.Succeeded > 0 {
		t.Errorf("held, and yet %+v", held.Counts)
	}
	restart()
	b.Lab.HelmRelease(t, b.Namespace, 1)
	exact(t, b)

	if r := b.Over(id); r.State != bulkhead.RunSucceeded {
		t.Errorf("after the end of the growth the run is %s: %s", r.State, r.Reason)
	}
	told(t, b, hook, second, f.ID)
}

// background is a cluster in which something goes on.
func background(t *testing.T, b *testbed.Bed) {
	t.Helper()
	b.Apply(fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: web, image: %[2]s, imagePullPolicy: Never, command: [sleep, "1000"]}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick, namespace: %[1]s}
spec:
  schedule: "* * * * *"
  successfulJobsHistoryLimit: 1
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: tick, image: %[2]s, imagePullPolicy: Never, command: ["true"]}]}
`, b.Namespace, b.Image))
}

// growUntilFound installs releases until the guard has found it, and says so as a
// critical finding.
func growUntilFound(t *testing.T, b *testbed.Bed) (f bulkhead.Finding, looked time.Time, n int) {
	t.Helper()
	for n = 1; n <= 200; n++ {
		b.Lab.HelmRelease(t, b.Namespace, 1)
		findings, looked, err := b.Client.Findings(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			if f.Namespace == b.Namespace && f.Severity == bulkhead.Critical && len(f.Members) >= 4 {
				return f, looked, n
			}
		}
	}
	findings, looked, _ := b.Client.Findings(t.Context(), "")
	t.Fatalf("after %d releases at %s there are %+v", n, looked, findings)
	panic("not reached")
}

// check looks that a finding says what it is, who made it and why.
func check(t *testing.T, b *testbed.Bed, f bulkhead.Finding) {
	t.Helper()
	got := map[string]float64{}
	for _, m := range f.Members {
		got[m.Kind] += m.Ratio
		if m.Namespace != b.Namespace || m.Rules > 0 != (m.Kind == "networkpolicies.networking.k8s.io") {
			t.Errorf("a member is %+v", m)
		}
	}
	for kind, ratio := range got {
		got[kind] = float64(int(ratio*2+0.5)) / 2 // the last release is not whole yet
	}
	want := map[string]float64{"jobs.batch": 1, "networkpolicies.networking.k8s.io": 1, "configmaps": 7, "secrets": 1}
	for kind := range got {
		if _, named := want[kind]; !named && kind == "pods" {
			delete(got, kind) // those of the Jobs stay as long as they do
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what grows in step (-want +got):\n%s", diff)
	}
	if !strings.Contains(f.Client, "helm") {
		t.Errorf("it was made by %q", f.Client)
	}
	facts := map[string]string{}
	for _, fact := range f.Facts {
		facts[fact.Key] = fact.Value
	}
	if facts["username"] != "ann" || facts["comment"] != "T363966" || facts["script"] != "requeueTranscodes.php" {
		t.Errorf("who and why: %v", f.Facts)
	}
}

// exact compares what the guard counts with what there is.
func exact(t *testing.T, b *testbed.Bed) {
	t.Helper()
	client, err := metadata.NewForConfig(b.Lab.Config())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]schema.GroupVersionResource{
		"jobs.batch": {Group: "batch", Version: "v1", Resource: "jobs"}, "configmaps": {Version: "v1", Resource: "configmaps"},
		"networkpolicies.networking.k8s.io": {Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
		"secrets":                           {Version: "v1", Resource: "secrets"},
	}
	var want, got map[string]int64
	b.Lab.Eventually(t, "the counts are exact after the API server was away", func(ctx context.Context) bool {
		want, got = map[string]int64{}, map[string]int64{}
		for kind, resource := range kinds {
			list, err := client.Resource(resource).Namespace(b.Namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false
			}
			want[kind] = int64(len(list.Items))
		}
		census, _, err := b.Client.Census(ctx, b.Namespace, 0)
		for _, tally := range census.Tallies {
			if _, counted := kinds[tally.Kind]; counted {
				got[tally.Kind] += tally.Objects
			}
		}
		return err == nil && cmp.Equal(want, got)
	})
	t.Logf("%v", got)
}

// told looks that two guards have told of one growth once, and of its end.
func told(t *testing.T, b *testbed.Bed, h *hook, s *second, id string) {
	t.Helper()
	b.Lab.Eventually(t, "the webhook was told of the end", func(context.Context) bool { return h.count("resolved "+id) == 1 })
	if n := h.count("firing critical " + id); n != 1 {
		t.Errorf("the webhook was told of a critical finding %d times", n)
	}
	b.Lab.Eventually(t, "the second guard says that it has ended", func(context.Context) bool { return s.said("ended", id) })
	if !s.said("opened", id) {
		t.Error("the second guard has another name for it, or has not found it")
	}
	list, err := b.Lab.Client().EventsV1().Events(b.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, e := range list.Items {
		if e.ReportingController == "bulkhead" {
			ours = append(ours, e.Name+" "+e.Reason+" "+e.Regarding.Kind+" "+e.Regarding.Name)
			t.Logf("%s %s %+v: %s", e.Type, e.Reason, e.Series, e.Note)
		}
	}
	if len(ours) != 1 || !strings.HasSuffix(ours[0], " GrowthEnded Namespace "+b.Namespace) {
		t.Errorf("Events: %v", ours)
	}
}

// hook is a webhook that notes what it is told.
type hook struct {
	url string

	mu  sync.Mutex
	got []string
}

func newHook(t *testing.T) *hook {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{url: "http://" + listener.Addr().String()}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return h
}

func (h *hook) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var m struct {
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	text, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(text, &m) // then there is nothing in it
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range m.Alerts {
		line := a.Status + " " + a.Labels["finding"]
		if a.Status == "firing" {
			line = a.Status + " " + a.Labels["severity"] + " " + a.Labels["finding"]
		}
		h.got = append(h.got, line)
	}
}

func (h *hook) count(line string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, got := range h.got {
		if got == line {
			n++
		}
	}
	return n
}

// second is another guard of the same cluster, alone.
type second struct {
	mu   sync.Mutex
	says map[string]bool
}

func newSecond(t *testing.T, b *testbed.Bed) *second {
	t.Helper()
	s := &second{says: map[string]bool{}}
	cmd := exec.Command(testbed.Binary, "guard", "--state", filepath.Join(b.Dir, "second"), "--kubeconfig", b.Lab.Kubeconfig(),
		"--every", "2s", "--speed", fmt.Sprint(speed), "--events", "--budget", "networkpolicies=300", "-o", "json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var c struct {
				Event   string
				Finding bulkhead.Finding
			}
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Errorf("%s: %v", lines.Bytes(), err)
			}
			s.mu.Lock()
			s.says[c.Event+" "+c.Finding.ID] = true
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("Ctrl-C ends the guard with %v", err)
		}
	})
	return s
}

func (s *second) said(event, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.says[event+" "+id]
}
