package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	"bulkhead.dev/bulkhead/lab"
	"bulkhead.dev/bulkhead/store/history"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

const (
	// speed is how much faster the guards' time runs.
	speed = 40
	// inTime is how many releases the loop of the incident had made in a quarter of an
	// hour, 224 in a whole one: by then it is to be found.
	inTime = 56
	// before is how long the guards have looked when it begins. One that has just
	// started knows of growth by the times of creation only, which are real.
	before = time.Hour
	budget = "networkpolicies=100"
)

func TestTheLoopOfTheIncidentIsFoundAndHoldsRunsUntilItEnds(t *testing.T) {
	hook := newHook(t)
	hurry := []string{"--guard", "--guard-every", "2s", "--guard-speed", fmt.Sprint(speed), "--guard-events", "--guard-webhook", hook.url,
		"--guard-budget", budget}
	b := bed{testbed.New(t, hurry...)}
	b.End()
	looked(t, b.State())
	b.Start()
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
	began := b.looked()
	f, n := growUntilFound(t, b)
	t.Logf("found after %s of its time and %d releases: %s", b.looked().Sub(began).Round(time.Minute), n, f.Title)
	if n > inTime {
		t.Errorf("it took %d releases to find it", n)
	}
	check(t, b, f)

	meant(t, b, f)

	// The API server is away while it goes on; afterwards nothing was missed.
	restart := b.Lab.KillAPIServer(t)
	id := b.Submit(2, bulkhead.Spec{Command: []string{"/bin/echo"}})
	held := b.Until(id, "held", func(r *bulkhead.Run) bool { return r.Held && strings.Contains(r.Reason, "multiply in ") })
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

// bed is a server with a guard.
type bed struct{ *testbed.Bed }

// looked is when the guard looked last, in its time.
func (b bed) looked() time.Time {
	b.Helper()
	_, at, _, err := b.Client.Findings(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	return at
}

func (b bed) findings() []bulkhead.Finding {
	b.Helper()
	findings, _, _, err := b.Client.Findings(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	return findings
}

// meant lets a run go on in spite of the finding, and then no more.
func meant(t *testing.T, b bed, f bulkhead.Finding) {
	t.Helper()
	id := b.Submit(1, bulkhead.Spec{Command: []string{"/bin/echo"}})
	b.Until(id, "held", func(r *bulkhead.Run) bool { return r.Held && strings.Contains(r.Reason, f.ID) })
	st, _, err := b.Client.SetBrake(t.Context(), bulkhead.Brake{Scope: bulkhead.FindingScope("", f.ID), Reason: "T123: meant"}, time.Hour)
	if err != nil || st.Runs == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if r := b.Over(id); r.State != bulkhead.RunSucceeded {
		t.Errorf("exempt, and the run is %s: %s", r.State, r.Reason)
	}
	told := slices.ContainsFunc(b.findings(), func(o bulkhead.Finding) bool {
		return o.ID == f.ID && o.Exempt != nil && o.Exempt.Reason == "T123: meant"
	})
	all, err := b.Client.Brakes(t.Context())
	if err != nil || !told || len(all.Exemptions) != 1 || !slices.ContainsFunc(all.Rulings, func(r bulkhead.RulingStatus) bool { return r.Finding == f.ID && all.Exempt(&r) }) {
		t.Errorf("told: %t; %+v, %v", told, all, err)
	}
	if _, err := b.Client.LiftBrake(t.Context(), st.ID); err != nil {
		t.Error(err)
	}
}

// looked makes the history of a guard that has looked at an empty cluster.
func looked(t *testing.T, state string) {
	t.Helper()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(state, history.Name)) // of the server that has ended
	h, err := history.Open(filepath.Join(state, history.Name))
	if err != nil {
		t.Fatal(err)
	}
	for at := time.Now().Add(-before); at.Before(time.Now().Add(-time.Minute)); at = at.Add(time.Minute) {
		if err := h.Append(t.Context(), bulkhead.Census{At: at, Kinds: []bulkhead.KindStatus{{Kind: "pods", Exact: true}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

// background is a cluster in which something goes on.
func background(t *testing.T, b bed) {
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
func growUntilFound(t *testing.T, b bed) (f bulkhead.Finding, n int) {
	t.Helper()
	for n = 1; n <= 2*inTime; n++ {
		b.Lab.HelmRelease(t, b.Namespace, 1)
		for _, f := range b.findings() {
			if f.Namespace == b.Namespace && f.Severity == bulkhead.Critical && len(f.Members) >= 4 {
				return f, n
			}
		}
	}
	t.Fatalf("after %d releases there are %+v", n, b.findings())
	return f, n
}

// check looks that a finding says what it is, who made it and why.
func check(t *testing.T, b bed, f bulkhead.Finding) {
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
func exact(t *testing.T, b bed) {
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
func told(t *testing.T, b bed, h *hook, s *second, id string) {
	t.Helper()
	b.Lab.Eventually(t, "the webhook was told of the end", func(context.Context) bool { return h.count("resolved "+id) == 1 })
	if n := h.count("firing critical " + id); n != 1 {
		t.Errorf("the webhook was told of a critical finding %d times", n)
	}
	b.Lab.Eventually(t, "the second guard says that it has ended", func(context.Context) bool { return s.said("ended", id) })
	if !s.said("opened", id) {
		t.Error("the second guard has another name for it, or has not found it")
	}
	// It reads the audit log: whose kubeconfig Helm had is known, beside whom labels name.
	if got := s.madeBy(); !slices.ContainsFunc(got, func(user string) bool { return strings.HasPrefix(user, "lab-admin (") }) ||
		!slices.Contains(got, "ann (by label)") {
		t.Errorf("the second guard says that it was made by %q", got)
	}
	// Each finding is one Event, whoever has found it and however often it was told.
	found := s.opened()
	for _, line := range h.lines() {
		words := strings.Fields(line)
		found[words[len(words)-1]] = true
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
	if len(ours) == 0 || len(ours) > len(found) || !slices.ContainsFunc(ours, func(e string) bool { return strings.HasSuffix(e, " GrowthEnded Namespace "+b.Namespace) }) {
		t.Errorf("findings %v have the Events %v", found, ours)
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

func (h *hook) lines() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// second is another guard of the same cluster, alone.
type second struct {
	mu    sync.Mutex
	says  map[string]bool
	users map[string]bool // of what it has found
}

func newSecond(t *testing.T, b bed) *second {
	t.Helper()
	s := &second{says: map[string]bool{}, users: map[string]bool{}}
	state := filepath.Join(b.Dir, "second")
	looked(t, state)
	cmd := exec.Command(testbed.Binary, "guard", "--state", state, "--kubeconfig", b.Lab.Kubeconfig(),
		"--every", "2s", "--speed", fmt.Sprint(speed), "--events", "--budget", budget, "-o", "json",
		"--audit-log", filepath.Join(b.Lab.Dir(), lab.LogFolder, lab.AuditFile))
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
			for _, user := range c.Finding.Users {
				s.users[user] = true
			}
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

// opened are the findings that it had.
func (s *second) opened() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	for line := range s.says {
		if id, is := strings.CutPrefix(line, "opened "); is {
			out[id] = true
		}
	}
	return out
}

// madeBy are the users whom it has named.
func (s *second) madeBy() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.users))
}

func (s *second) said(event, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.says[event+" "+id]
}
