package tell_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/tell"
	"bulkhead.dev/bulkhead/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// began is when the growth of these tests began; the clock starts an hour later.
var began = time.Date(2026, 11, 24, 21, 4, 0, 0, time.UTC)

// clock is one that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: began.Add(time.Hour)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// growth is a finding of the shape of Wikimedia's incident of 2024-10-09.
func growth(id string, severity bulkhead.Severity) bulkhead.Finding {
	key := func(kind, family string) bulkhead.Key {
		return bulkhead.Key{Kind: kind, Namespace: "mw-script", Family: family, Origin: "release/*", Manager: "helm"}
	}
	return bulkhead.Finding{
		ID: id, Severity: severity, Title: "Helm releases multiply in mw-script: 224 an hour", Namespace: "mw-script", Since: began,
		Members: []bulkhead.Member{
			{Key: key("networkpolicies.networking.k8s.io", "mediawiki-*"), Objects: 224, Rules: 20160, PerHour: 224, Ratio: 1, Example: "mediawiki-r8x2k9qa"},
			{Key: key("configmaps", "mediawiki-*"), Objects: 1568, PerHour: 1568, Ratio: 7, Example: "mediawiki-r8x2k9qa-mail-config"},
		},
		PerHour: 224, Client: "helm", Users: []string{"ann"},
		Facts: []bulkhead.Fact{{Key: "comment", Value: "T363966", Objects: 224}},
		Reaches: []bulkhead.Reach{{Budget: bulkhead.Budget{Name: "calico-node memory", Unit: "bytes", Limit: 524288000, Source: "limit 500Mi"},
			Now: 410e6, In: 3*time.Hour + 50*time.Minute, Low: 3*time.Hour + 10*time.Minute, High: 4*time.Hour + 40*time.Minute,
			Detail: "restarting calico-node is safe up to 2,400 policies"}},
		Keeps:  "nothing removes them",
		Advice: []bulkhead.Advice{{Text: "ask ann to stop it"}, {Text: "stop it at the API", Command: "bulkhead guard quota --namespace mw-script"}},
	}
}

func over(f bulkhead.Finding, at time.Time) bulkhead.Finding {
	f.Ended = at
	return f
}

// receiver is a webhook.
type receiver struct {
	*httptest.Server
	got    chan tell.Message
	raw    chan []byte
	header chan string

	mu     sync.Mutex
	answer []int // codes of the next answers; then 200
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: make(chan tell.Message, 100), raw: make(chan []byte, 100), header: make(chan string, 100)}
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	code := http.StatusOK
	if len(r.answer) > 0 {
		code, r.answer = r.answer[0], r.answer[1:]
	}
	r.mu.Unlock()
	w.WriteHeader(code)
	if code != http.StatusOK {
		return
	}
	var m tell.Message
	if err := json.Unmarshal(body, &m); err != nil {
		panic(err)
	}
	r.raw <- body
	r.header <- req.Header.Get("Authorization")
	r.got <- m
}

func (r *receiver) hook(t *testing.T) webhook.Webhook {
	t.Helper()
	dir := t.TempDir()
	w := webhook.Webhook{URL: r.URL + "/hook", TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	for file, text := range map[string]string{w.TokenFile: "s3cret\n",
		w.CAFile: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}))} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (r *receiver) next(t *testing.T) tell.Message {
	t.Helper()
	select {
	case m := <-r.got:
		return m
	case <-time.After(time.Minute):
		t.Fatal("nothing was posted in a minute")
	}
	panic("not reached")
}

// short is a message as "STATUS ID …", for comparisons.
func short(m tell.Message) string {
	words := make([]string, 0, len(m.Alerts))
	for _, a := range m.Alerts {
		words = append(words, a.Status+" "+a.Labels["severity"]+" "+a.Labels["finding"])
	}
	return strings.Join(words, ", ")
}

// start runs a teller until the test ends, or what it returns is called.
func start(t *testing.T, o tell.Options) (*tell.Teller, func()) {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Backoff = time.Millisecond
	teller, err := tell.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- teller.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return teller, stop
}

func found(findings ...bulkhead.Finding) tell.Look { return tell.Look{Findings: findings} }

func TestAWebhookGetsWhatAlertmanagerWouldSend(t *testing.T) {
	r, c := newReceiver(t), newClock()
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now, Link: "https://bulkhead.example.org"})
	teller.Tell(found(growth("ab12", bulkhead.Critical)))
	got := r.next(t)
	labels := map[string]string{"alertname": "BulkheadGrowth", "finding": "ab12", "severity": "critical", "namespace": "mw-script",
		"kind": "networkpolicies.networking.k8s.io", "client": "helm"}
	annotations := map[string]string{
		"summary": "Helm releases multiply in mw-script: 224 an hour",
		"description": `since 2026-11-24 21:04 UTC: 224 an hour
1 × networkpolicies.networking.k8s.io mediawiki-*: 224 there, for example mediawiki-r8x2k9qa
7 × configmaps mediawiki-*: 1568 there, for example mediawiki-r8x2k9qa-mail-config
made by helm
as ann
comment: T363966 (224 objects)
calico-node memory: 391Mi of 500Mi (limit 500Mi), reached in 3 h 50 min (3 h 10 min to 4 h 40 min)
restarting calico-node is safe up to 2,400 policies
nothing removes them
it has gone on for 1 h 00 min`,
		"advice": "1. ask ann to stop it\n2. stop it at the API: bulkhead guard quota --namespace mw-script",
	}
	want := tell.Message{
		Version: "4", GroupKey: `{}:{alertname="BulkheadGrowth"}`, Status: "firing", Receiver: "bulkhead",
		GroupLabels: map[string]string{"alertname": "BulkheadGrowth"}, CommonLabels: labels, CommonAnnotations: annotations,
		ExternalURL: "https://bulkhead.example.org",
		Alerts: []tell.Alert{{Status: "firing", Labels: labels, Annotations: annotations, StartsAt: began, GeneratorURL: "https://bulkhead.example.org",
			Fingerprint: got.Alerts[0].Fingerprint}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(got.Alerts[0].Fingerprint) != 16 {
		t.Errorf("fingerprint %q", got.Alerts[0].Fingerprint)
	}
	if header := <-r.header; header != "Bearer s3cret" {
		t.Errorf("Authorization: %s", header)
	}
	if raw := string(<-r.raw); !strings.Contains(raw, `"endsAt":"0001-01-01T00:00:00Z"`) || !strings.Contains(raw, `"truncatedAlerts":0`) {
		t.Error(raw)
	}
}

func TestWhatIsToldOfAFinding(t *testing.T) {
	r, c := newReceiver(t), newClock()
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now})
	a, b := growth("a", bulkhead.Notice), growth("b", bulkhead.Critical)
	step := func(why, want string, move time.Duration, findings ...bulkhead.Finding) {
		t.Helper()
		c.Move(move)
		teller.Tell(found(findings...))
		if got := short(r.next(t)); got != want {
			t.Errorf("%s: %q instead of %q", why, got, want)
		}
	}
	step("a new one is told", "firing notice a", 0, a)
	// The look in between has nothing new: what comes next would show if it had told anything.
	teller.Tell(found(a))
	step("one more is told without the one that is known", "firing critical b", time.Minute, a, b)
	a.Severity = bulkhead.Warning
	step("one that becomes worse is told again", "firing warning a", time.Minute, a, b)
	step("after hours those that go on are told again", "firing critical b, firing warning a", 4*time.Hour, a, b)
	step("the end is told", "resolved critical b", time.Minute, a, over(b, c.Now()))
	end := c.Now()
	teller.Tell(found(a, over(b, end)))
	step("it grows again after its end", "firing critical b", time.Minute, a, b)
	d := growth("d", bulkhead.Notice)
	step("what is missing may come back", "firing notice d", time.Minute, a, d)
	step("what is missing for long has ended", "resolved critical b", 15*time.Minute, a, d)
	step("what has ended before anybody heard of it is not told", "resolved warning a", time.Minute, d, over(a, c.Now()), over(growth("c", bulkhead.Critical), c.Now()))
}

// What is over a budget need not grow, and nothing is said of what is not known.
func TestOfABudgetThatIsReachedOnlyWhatIsKnownIsTold(t *testing.T) {
	r := newReceiver(t)
	f := growth("f1", bulkhead.Warning)
	f.PerHour, f.Client, f.Users, f.Facts, f.Reaches, f.Keeps = 0, "", nil, nil, nil, ""
	f.Members = []bulkhead.Member{
		{Key: bulkhead.Key{Kind: "configmaps", Namespace: "shop", Family: "import-*-cfg"}, Objects: 107, Example: "import-7-cfg"},
		{Key: bulkhead.Key{Kind: "configmaps", Namespace: "/all", Family: "/all"}, Objects: 353},
	}
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: newClock().Now})
	teller.Tell(found(f))
	want := `since 2026-11-24 21:04 UTC, or longer
configmaps import-*-cfg in shop: 107 there, for example import-7-cfg
configmaps: 353 there
it has gone on for 1 h 00 min`
	if diff := cmp.Diff(want, r.next(t).Alerts[0].Annotations["description"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestARestartRepeatsNothingAndForgetsNoEnd(t *testing.T) {
	r, c, dir := newReceiver(t), newClock(), t.TempDir()
	hook := r.hook(t)
	again := func() (*tell.Teller, func()) {
		return start(t, tell.Options{Webhook: hook, Now: c.Now, State: dir})
	}
	a, b, d := growth("a", bulkhead.Critical), growth("b", bulkhead.Critical), growth("d", bulkhead.Critical)
	teller, stop := again()
	teller.Tell(found(a, b))
	if got := short(r.next(t)); got != "firing critical a, firing critical b" {
		t.Fatal(got)
	}
	stop()
	teller, stop = again()
	teller.Tell(found(a, over(b, c.Now())))
	if got := short(r.next(t)); got != "resolved critical b" {
		t.Errorf("after the restart: %s", got)
	}
	stop()
	teller, stop = again()
	teller.Tell(found(a, over(b, c.Now()), d))
	if got := short(r.next(t)); got != "firing critical d" {
		t.Errorf("after another restart: %s", got)
	}
	stop()
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
		t.Errorf("it leaves %v", files)
	}
}

func TestAReceiverThatFailsGetsWhatIsTrueWhenItIsBack(t *testing.T) {
	for name, code := range map[string]int{"it is overloaded": 503, "it is told to slow down": 429, "it refuses": 403} {
		t.Run(name, func(t *testing.T) {
			r, c := newReceiver(t), newClock()
			r.answer = []int{code, code, code}
			teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now})
			teller.Tell(found(growth("a", bulkhead.Critical)))
			if got := short(r.next(t)); got != "firing critical a" {
				t.Error(got)
			}
		})
	}
}

func TestAReceiverThatHangsKeepsNobodyWaiting(t *testing.T) {
	hang := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // or its end is not noticed
		select {
		case <-hang:
		case <-req.Context().Done():
		}
	}))
	defer hanging.Close()
	defer close(hang)
	c := newClock()
	teller, stop := start(t, tell.Options{Webhook: webhook.Webhook{URL: hanging.URL}, Now: c.Now})
	for i := range 1000 {
		teller.Tell(found(growth(fmt.Sprint(i), bulkhead.Critical)))
	}
	stop()
}

func TestTextsOfTheClusterAreHarmlessAndBounded(t *testing.T) {
	r, c := newReceiver(t), newClock()
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now})
	evil := "\x1b[2J\r\n\u202e" + strings.Repeat("x", 1<<20)
	f := growth("a", bulkhead.Critical)
	f.Title, f.Namespace, f.Client, f.Keeps, f.Severity = evil, evil, evil, evil, bulkhead.Severity(evil)
	f.Members[0].Kind, f.Members[0].Family, f.Members[0].Example = evil, evil, evil
	f.Reaches[0].Detail, f.Reaches[0].Budget.Name, f.Reaches[0].Budget.Source = evil, evil, evil
	for range 1000 {
		f.Members = append(f.Members, f.Members[0])
		f.Facts = append(f.Facts, bulkhead.Fact{Key: evil, Value: evil})
		f.Users = append(f.Users, evil)
		f.Advice = append(f.Advice, bulkhead.Advice{Text: evil, Command: evil})
		f.Reaches = append(f.Reaches, f.Reaches[0])
	}
	teller.Tell(found(f))
	m := r.next(t)
	if size := len(<-r.raw); size > 64<<10 {
		t.Errorf("a message of %d bytes", size)
	}
	for _, texts := range []map[string]string{m.Alerts[0].Labels, m.Alerts[0].Annotations} {
		for name, text := range texts {
			if strings.ContainsAny(text, "\x1b\r\u202e") {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
}

func TestACommandIsWholeOrNotThere(t *testing.T) {
	r, c := newReceiver(t), newClock()
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now})
	f := growth("a", bulkhead.Critical)
	quota := "bulkhead guard quota --kinds " + strings.Repeat("foos.example.org,", 40) + "jobs -n mw-script"
	f.Advice = []bulkhead.Advice{{Text: "look", Command: quota}, {Text: "stop it", Command: strings.Repeat(quota, 2)}, {Text: "ask ann"}}
	for range 6 {
		f.Advice = append(f.Advice, bulkhead.Advice{Text: "more", Command: quota})
	}
	teller.Tell(found(f))
	got := strings.Split(r.next(t).Alerts[0].Annotations["advice"], "\n")
	want := []string{"1. look: " + quota, "2. stop it (too long to show: bulkhead why -o json has the command)", "3. ask ann"}
	for i := range 4 {
		want = append(want, fmt.Sprintf("%d. more: %s", i+4, quota))
	}
	if diff := cmp.Diff(append(want, "2 more: bulkhead why"), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestManyFindingsAreOneMessageOfTheWorst(t *testing.T) {
	r, c := newReceiver(t), newClock()
	teller, _ := start(t, tell.Options{Webhook: r.hook(t), Now: c.Now})
	var all []bulkhead.Finding
	for i := range 1000 {
		severity := bulkhead.Notice
		if i%20 == 0 {
			severity = bulkhead.Critical
		}
		all = append(all, growth(fmt.Sprintf("%04d", i), severity))
	}
	teller.Tell(found(all...))
	m := r.next(t)
	if len(m.Alerts) != 100 || m.Alerts[0].Labels["severity"] != "critical" || m.Alerts[49].Labels["severity"] != "critical" {
		t.Errorf("%d alerts: %s", len(m.Alerts), short(m))
	}
}

func TestAWebhookThatCannotBeIsRefused(t *testing.T) {
	for name, w := range map[string]webhook.Webhook{
		"no host":            {URL: "chat"},
		"a token in clear":   {URL: "http://chat.example.org/", TokenFile: os.DevNull},
		"no such token file": {URL: "https://chat.example.org/", TokenFile: "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tell.New(tell.Options{Webhook: w}); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Error(err)
			}
		})
	}
}
