package announce_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	"bulkhead.dev/bulkhead/announce"
	"bulkhead.dev/bulkhead/store/sqlite"
	"bulkhead.dev/bulkhead/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	six   = time.Date(2026, 11, 25, 6, 47, 12, 0, time.UTC)
	seven = time.Date(2026, 11, 25, 7, 50, 20, 0, time.UTC)
)

// counts are the metrics.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) Announced(to, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[to+" "+result]++
}

func (c *counts) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

// desk is an announcer with all that it needs.
type desk struct {
	t     *testing.T
	dir   string
	store *sqlite.Store
	log   strings.Builder // to be read after Close
	told  counts
	*announce.Announcer
}

func newDesk(t *testing.T, dir string, change func(*announce.Options)) *desk {
	t.Helper()
	store, err := sqlite.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	d := &desk{t: t, dir: dir, store: store}
	o := announce.Options{
		Journal: filepath.Join(dir, "announced"), Store: store, Log: slog.New(slog.NewTextHandler(&d.log, nil)), Metrics: &d.told,
		Window: time.Hour, Backoff: time.Millisecond, Now: func() time.Time { return six },
	}
	if change != nil {
		change(&o)
	}
	if d.Announcer, err = announce.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func (d *desk) sal() string {
	d.t.Helper()
	d.Close()
	text, err := os.ReadFile(filepath.Join(d.dir, "sal"))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

func inFile(dir string) func(*announce.Options) {
	return func(o *announce.Options) { o.AdminLog = filepath.Join(dir, "sal") }
}

// a batch, and how it ends.
func aRun(id bulkhead.RunID) *bulkhead.Run {
	return &bulkhead.Run{ID: id, State: bulkhead.RunRunning, Started: six.Add(-63 * time.Minute), Counts: bulkhead.Counts{Queued: 900, Running: 100},
		Spec: bulkhead.Spec{Owner: "ann@deploy", Name: "requeue", Comment: "T363966", Class: "wikis/mw", Columns: []string{"wiki"},
			Command: []string{"mwscript", "requeue.php", "--wiki={wiki}"}, Announce: true}}
}

func ended(r *bulkhead.Run) *bulkhead.Run {
	r.State, r.Counts = bulkhead.RunFailed, bulkhead.Counts{Succeeded: 997, Failed: 2, Lost: 1}
	return r
}

func TestLinesSayWhoWhatAndWhy(t *testing.T) {
	single := func(state bulkhead.RunState, code int) *bulkhead.Run {
		r := aRun(1)
		r.Spec.Columns, r.Spec.Name, r.Spec.Command = nil, "Version.php", []string{"Version.php", "--wiki", "en wiki"}
		r.State, r.ExitCode, r.Counts = state, code, bulkhead.Counts{Succeeded: 1}
		r.Started = six.Add(-1400 * time.Millisecond)
		return r
	}
	changed := func(r *bulkhead.Run, change func(*bulkhead.Run)) *bulkhead.Run {
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		tell func(*desk)
		want string
	}{
		"a batch starts": {func(d *desk) { d.Began(aRun(7), false) },
			"06:47 ann@deploy: started run 7: requeue (mwscript requeue.php '--wiki={wiki}'), 1000 items - T363966\n"},
		"and ends with failures": {func(d *desk) { d.Over(ended(aRun(7))) },
			"06:47 ann@deploy: failed run 7: requeue (mwscript requeue.php '--wiki={wiki}'), 997 of 1000 items succeeded, 2 failed, 1 lost, took 1h03m - T363966\n"},
		"it goes on, because items are retried": {func(d *desk) { d.Began(aRun(7), true) },
			"06:47 ann@deploy: goes on with run 7: requeue (mwscript requeue.php '--wiki={wiki}'), 1000 items - T363966\n"},
		"a single script ends well": {func(d *desk) { d.Over(single(bulkhead.RunSucceeded, 0)) },
			"06:47 ann@deploy: finished run 1: Version.php --wiki 'en wiki', took 1.4s - T363966\n"},
		"a single script fails": {func(d *desk) { d.Over(single(bulkhead.RunFailed, 3)) },
			"06:47 ann@deploy: failed run 1: Version.php --wiki 'en wiki', exit code 3, took 1.4s - T363966\n"},
		"cancelled before anything ran": {func(d *desk) {
			d.Over(changed(aRun(7), func(r *bulkhead.Run) {
				r.State, r.Reason, r.Started, r.Spec.Comment = bulkhead.RunCancelled, "cancelled by bob@web", time.Time{}, ""
				r.Counts = bulkhead.Counts{Cancelled: 1}
			}))
		}, "06:47 ann@deploy: cancelled run 7: requeue (mwscript requeue.php '--wiki={wiki}'), 0 of 1 item succeeded, 1 cancelled, nothing of it ran, cancelled by bob@web\n"},
		"the clock was set back while it ran": {func(d *desk) {
			d.Over(changed(single(bulkhead.RunSucceeded, 0), func(r *bulkhead.Run) { r.Started = seven }))
		}, "06:47 ann@deploy: finished run 1: Version.php --wiki 'en wiki' - T363966\n"},
		"what would forge a line does not": {func(d *desk) {
			d.Began(changed(aRun(7), func(r *bulkhead.Run) {
				r.Spec.Owner, r.Spec.Name = "ann@x\n06:48 root@db", "a\x1b[2Jb\u202eevil\u2028"
				r.Spec.Command, r.Spec.Comment = []string{"echo\r\nx"}, "why\x00\x85\x7f"
			}), false)
		}, "06:47 ann@x·06:48·root@db: started run 7: a·[2Jb·evil· ('echo··x'), 1000 items - why···\n"},
		"a megabyte of arguments": {func(d *desk) {
			d.Began(changed(aRun(7), func(r *bulkhead.Run) {
				r.Spec.Command, r.Spec.Comment = []string{"echo", strings.Repeat("é", 1<<20)}, strings.Repeat("y", 1000)
			}), false)
		}, "06:47 ann@deploy: started run 7: requeue (echo '" + strings.Repeat("é", 193) + "…), 1000 items - " + strings.Repeat("y", 119) + "…\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := newDesk(t, dir, inFile(dir))
			c.tell(d)
			if diff := cmp.Diff(c.want, d.sal()); diff != "" {
				t.Errorf("admin log (-want +got):\n%s", diff)
			}
			if strings.Count(d.log.String(), "\n") != 1 {
				t.Errorf("the log says %q", d.log.String())
			}
		})
	}
}

func TestALoopOfAlikeRunsIsThreeLines(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, dir, inFile(dir))
	for id := range bulkhead.RunID(100) {
		r := aRun(id + 1)
		d.Began(r, false)
		if r = ended(r); id != 41 && id != 0 {
			r.State = bulkhead.RunSucceeded
		}
		d.Over(r)
	}
	other := aRun(500)
	other.Spec.Comment = "another reason"
	d.Began(other, false)
	got := strings.Split(strings.TrimSpace(d.sal()), "\n")
	want := []string{"started run 1:", "failed run 1:", "started run 500:",
		"requeue and 99 more like it (runs 2 to 100): 99 started, 98 finished, 1 failed - T363966"}
	if len(got) != len(want) {
		t.Fatalf("%d lines:\n%s", len(got), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("line %d is %q, want %q", i, got[i], want[i])
		}
	}
	if n := strings.Count(d.log.String(), "msg=\"run"); n != 201 {
		t.Errorf("the log has %d lines", n)
	}
}

func TestOnlyRunsThatAskAreInTheAdminLogUnlessAllAre(t *testing.T) {
	for all, want := range map[bool]int{false: 1, true: 2} {
		dir := t.TempDir()
		d := newDesk(t, dir, func(o *announce.Options) { inFile(dir)(o); o.AdminLogAll = all })
		quiet := aRun(8)
		quiet.Spec.Announce, quiet.Spec.Name = false, "quiet"
		d.Began(quiet, false)
		d.Began(aRun(7), false)
		if got := d.sal(); strings.Count(got, "\n") != want {
			t.Errorf("all %t: %q", all, got)
		}
	}
}

// receiver is a webhook that answers as the test says.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []map[string]any
	auth []string
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var m map[string]any
		body, err := io.ReadAll(req.Body)
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil {
			t.Errorf("%v: %s", err, body)
		}
		r.mu.Lock()
		r.got, r.auth = append(r.got, m), append(r.auth, req.Header.Get("Authorization")+req.Header.Get("X-Key"))
		n := len(r.got)
		r.mu.Unlock()
		answer(n, w)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) hook(t *testing.T, token string) webhook.Webhook {
	t.Helper()
	dir := t.TempDir()
	w := webhook.Webhook{URL: r.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	if err := os.WriteFile(w.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.TokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (r *receiver) all() []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func TestTheWebhookGetsTheDocumentedFields(t *testing.T) {
	for token, auth := range map[string]string{"s3cret\n": "Bearer s3cret", "X-Key: abc def\n": "abc def"} {
		r := newReceiver(t, func(int, http.ResponseWriter) {})
		d := newDesk(t, t.TempDir(), func(o *announce.Options) { o.Webhook = r.hook(t, token) })
		d.Began(aRun(7), false)
		single := aRun(9)
		single.Spec.Columns, single.Spec.Name, single.State, single.ExitCode = nil, "one", bulkhead.RunFailed, 3
		d.Over(single)
		d.Close()
		got := r.all()
		if len(got) != 2 || r.auth[0] != auth {
			t.Fatalf("%v %v", got, r.auth)
		}
		want := map[string]any{
			"event": "start", "text": "ann@deploy: started run 7: requeue (mwscript requeue.php '--wiki={wiki}'), 1000 items - T363966",
			"time": "2026-11-25T06:47:12Z", "run": 7.0, "owner": "ann@deploy", "name": "requeue", "command": "mwscript requeue.php '--wiki={wiki}'",
			"comment": "T363966", "class": "wikis/mw", "items": 1000.0, "started": "2026-11-25T05:44:12Z", "state": "running", "reason": "",
			"counts":    map[string]any{"queued": 900.0, "running": 100.0, "succeeded": 0.0, "failed": 0.0, "lost": 0.0, "cancelled": 0.0},
			"exit_code": nil, "duration_seconds": nil,
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		if got[1]["event"] != "end" || got[1]["exit_code"] != 3.0 || got[1]["duration_seconds"] != 3780.0 || got[1]["state"] != "failed" {
			t.Errorf("%v", got[1])
		}
		if n := d.told.of("webhook sent"); n != 2 {
			t.Errorf("%d sent", n)
		}
	}
}

func TestAWebhookThatFailsIsTriedAgainAndOneThatRefusesIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(n int, w http.ResponseWriter)
		calls  int
		told   string
	}{
		"it fails twice":    {func(n int, w http.ResponseWriter) { w.WriteHeader(map[bool]int{true: 503, false: 204}[n < 3]) }, 3, "webhook sent"},
		"it is busy":        {func(n int, w http.ResponseWriter) { w.WriteHeader(map[bool]int{true: 429, false: 200}[n < 2]) }, 2, "webhook sent"},
		"it fails for good": {func(_ int, w http.ResponseWriter) { w.WriteHeader(500) }, 6, "webhook failed"},
		"it refuses":        {func(_ int, w http.ResponseWriter) { w.WriteHeader(403) }, 1, "webhook failed"},
		"it sends us elsewhere": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", "https://192.0.2.1/")
			w.WriteHeader(302)
		}, 1, "webhook failed"},
		"it breaks off": {func(n int, _ http.ResponseWriter) {
			if n < 2 {
				panic(http.ErrAbortHandler)
			}
		}, 2, "webhook sent"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, c.answer)
			d := newDesk(t, t.TempDir(), func(o *announce.Options) { o.Webhook = r.hook(t, "secret-token") })
			d.Began(aRun(7), false)
			until(t, func() bool { return d.told.of(c.told) == 1 })
			d.Close()
			if n := len(r.all()); n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
			if strings.Contains(d.log.String(), "secret-token") || strings.Contains(d.log.String(), r.URL) {
				t.Errorf("the log shows where or with what: %s", d.log.String())
			}
		})
	}
}

// until waits for what must come.
func until(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come")
		}
	}
}

func TestAWebhookThatHangsKeepsNobodyWaiting(t *testing.T) {
	release := make(chan struct{})
	r := newReceiver(t, func(int, http.ResponseWriter) { <-release })
	dir := t.TempDir()
	d := newDesk(t, dir, func(o *announce.Options) { o.Webhook = r.hook(t, "x"); inFile(dir)(o) })
	const many = 1000
	for id := range bulkhead.RunID(many) {
		one := aRun(id + 1)
		one.Spec.Name = fmt.Sprint("one", id) // alike no other
		d.Began(one, false)
	}
	until(t, func() bool {
		return d.told.of("log sent") == many && d.told.of("admin_log sent")+d.told.of("admin_log dropped") == many
	})
	// One is with the webhook, 256 wait, and the rest was dropped, and counted.
	until(t, func() bool { return d.told.of("webhook dropped") >= many-258 })
	d.Close() // it does not wait for the webhook either
	close(release)
	if n := strings.Count(d.log.String(), "announcements were dropped"); n == 0 || n > 2 {
		t.Errorf("that lines were dropped was told %d times", n)
	}
}

func TestABotGetsALinePerConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(conn)
			_ = conn.Close()
			lines <- string(text)
		}
	}()
	d := newDesk(t, t.TempDir(), func(o *announce.Options) { o.AdminLog = "tcp://" + l.Addr().String() })
	d.Began(aRun(7), false)
	d.Over(ended(aRun(7)))
	for _, want := range []string{"!log ann@deploy: started run 7:", "!log ann@deploy: failed run 7:"} {
		if got := <-lines; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, " - T363966\n") {
			t.Errorf("%q, want %q", got, want)
		}
	}
	d.Close()
	_ = l.Close()
	<-lines
}

func TestTheNextServerTellsTheEndsThatTheLastOneDidNot(t *testing.T) {
	dir := t.TempDir()
	clock := func(o *announce.Options) { o.Now = time.Now }
	d := newDesk(t, dir, clock)
	store := func(spec *bulkhead.Spec, change func(*bulkhead.Run)) *bulkhead.Run {
		t.Helper()
		r := &bulkhead.Run{Spec: *spec, Created: six}
		r.Spec.Limit = 1
		if err := d.store.Submit(t.Context(), r, nil, 1, ""); err != nil {
			t.Fatal(err)
		}
		change(r)
		if err := d.store.Commit(t.Context(), &bulkhead.Batch{Runs: []*bulkhead.Run{r}}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	named := func(name string) *bulkhead.Spec {
		s := aRun(1).Spec
		s.Name, s.Columns = name, nil
		return &s
	}
	running := func(r *bulkhead.Run) { r.Started = six }
	finished := func(r *bulkhead.Run) { r.Started, r.State, r.Finished = six, bulkhead.RunSucceeded, time.Now() }
	store(named("goes-on"), running)
	ends, both := store(named("ends"), running), store(named("both"), running)
	if err := d.CatchUp(t.Context()); err != nil { // nothing was announced here before: nothing is told of what runs
		t.Fatal(err)
	}
	local := named("local")
	local.Class = ""
	store(local, finished)
	d.Began(both, false)
	finished(both)
	d.Over(both)
	d.Close()
	if got := strings.Count(d.log.String(), "\n"); got != 2 {
		t.Errorf("%s", d.log.String())
	}
	// While nobody listens, one ends, one starts and one does both.
	finished(ends)
	if err := d.store.Commit(t.Context(), &bulkhead.Batch{Runs: []*bulkhead.Run{ends, both}}); err != nil {
		t.Fatal(err)
	}
	store(named("started-meanwhile"), running)
	store(named("meanwhile"), finished)

	for again := range 2 {
		next := newDesk(t, dir, clock)
		if err := next.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		next.Close()
		var got []string
		for line := range strings.Lines(next.log.String()) {
			msg := strings.SplitN(line, "msg=", 2)[1]
			name := strings.SplitN(msg, "name=", 2)[1]
			got = append(got, strings.SplitN(msg, "\"", 3)[1]+" "+strings.SplitN(name, " ", 2)[0])
		}
		want := []string{"run is over ends", "run is over meanwhile", "run starts started-meanwhile"}
		if again == 1 {
			want = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("server %d (-want +got):\n%s", again, diff)
		}
	}
}

func TestPlacesThatCannotBeAreRefused(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]announce.Options{
		"a webhook without a host":    {Webhook: webhook.Webhook{URL: "chat"}},
		"a webhook of another kind":   {Webhook: webhook.Webhook{URL: "ftp://x/"}},
		"a token in the clear":        {Webhook: webhook.Webhook{URL: "http://chat.example.org/", TokenFile: empty}},
		"a token that is none":        {Webhook: webhook.Webhook{URL: "https://chat.example.org/", TokenFile: empty}},
		"a CA that is none":           {Webhook: webhook.Webhook{URL: "https://chat.example.org/", CAFile: empty}},
		"a bot without a port":        {AdminLog: "tcp://logbot"},
		"an admin log in no folder":   {AdminLog: "/nonexistent/sal"},
		"a token file that is absent": {Webhook: webhook.Webhook{URL: "https://chat.example.org/", TokenFile: "/nonexistent"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := o.Check(); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
				t.Errorf("%v", err)
			}
		})
	}
}
