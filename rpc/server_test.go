package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// echo says the item on both streams; item 2 fails.
func echo(w *work) bulkhead.Result {
	w.say(bulkhead.Stdout, fmt.Sprintf("out of %s\n", w.Lease.Item.Values[0]))
	w.say(bulkhead.Stderr, fmt.Sprintf("err of %s\n", w.Lease.Item.Values[0]))
	if w.Lease.Item.Index == 2 {
		return bulkhead.Result{State: bulkhead.ItemFailed, ExitCode: 3}
	}
	return bulkhead.Result{}
}

func TestABatchGoesFromItsSubmissionToItsOutput(t *testing.T) {
	s := newSite(t, echo, nil)
	c := s.client(nil, nil)
	ctx := t.Context()
	r := s.submit(c, 3)
	if r.ID != 1 || r.Counts.Total() != 3 || r.Spec.Owner != "ann@host" || r.Hash != someHash {
		t.Fatalf("%+v", r)
	}
	// The class's command comes before the run's, and stands for itself.
	if d := cmp.Diff([]string{"run-in", "{", "echo", "{}"}, r.Spec.Command); d != "" {
		t.Error(d)
	}
	last := s.finish(c, r.ID)
	if got := last.Run.Counts; got.Succeeded != 2 || got.Failed != 1 || last.Run.State != bulkhead.RunFailed {
		t.Errorf("%+v", last.Run)
	}
	now, err := c.Run(ctx, r.ID)
	if err != nil || now.State != bulkhead.RunFailed {
		t.Fatal(now, err)
	}
	failed := bulkhead.ItemFailed
	var got []bulkhead.ItemStatus
	if err := c.Items(ctx, now, bulkhead.ItemQuery{State: &failed}, func(it bulkhead.ItemStatus) error { got = append(got, it); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Index != 2 || got[0].Attempt.ExitCode != 3 || got[0].Values[0] != "v2" {
		t.Fatalf("%+v", got)
	}
	attempts, err := c.Attempts(ctx, r.ID, 2)
	if d := cmp.Diff([]bulkhead.Attempt{got[0].Attempt}, attempts); d != "" || err != nil {
		t.Error(d, err)
	}
	if text, err := readAll(ctx, c, attempts[0], false); text != "1:out of v2\n2:err of v2\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if tail, err := c.TailOutput(ctx, r.ID, attempts[0], 1); string(tail) != "err of v2\n" || err != nil {
		t.Errorf("%q, %v", tail, err)
	}
	var all []string
	err = c.FollowOutput(ctx, r.ID, true, func(err error) { t.Error(err) }, func(item int64, n int, c bulkhead.Chunk) error {
		all = append(all, fmt.Sprintf("%d.%d %s", item, n, c.Data))
		return nil
	})
	want := []string{"1.1 err of v1\n", "1.1 out of v1\n", "2.1 err of v2\n", "2.1 out of v2\n", "3.1 err of v3\n", "3.1 out of v3\n"}
	if d := cmp.Diff(want, all, cmpopts.SortSlices(strings.Compare)); d != "" || err != nil {
		t.Error(d, err)
	}
	if err := c.Delete(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(ctx, r.ID); bulkhead.CodeOf(err) != bulkhead.CodeNotFound {
		t.Error(err)
	}
}

func readAll(ctx context.Context, c *rpc.Client, at bulkhead.Attempt, follow bool) (string, error) {
	var b strings.Builder
	err := c.ReadOutput(ctx, at.Run, at, follow, func(c bulkhead.Chunk) error {
		fmt.Fprintf(&b, "%d:%s", c.Stream, c.Data)
		return nil
	})
	return b.String(), err
}

func TestASingleScriptIsFollowedWhileItRuns(t *testing.T) {
	proceed := make(chan string)
	s := newSite(t, func(w *work) bulkhead.Result {
		for text := range proceed {
			w.say(bulkhead.Stdout, text)
		}
		return bulkhead.Result{State: bulkhead.ItemFailed, ExitCode: 7}
	}, nil)
	c := s.client(nil, nil)
	r := &bulkhead.Run{Spec: bulkhead.Spec{Class: "a", Command: []string{"x"}}}
	if err := c.Submit(t.Context(), r, nil, hash); err != nil {
		t.Fatal(err)
	}
	proceed <- "one "
	got := make(chan string)
	end := make(chan error)
	go func() {
		end <- c.ReadOutput(t.Context(), r.ID, bulkhead.Attempt{Item: 1, N: 1}, true, func(c bulkhead.Chunk) error {
			got <- string(c.Data)
			return nil
		})
	}()
	for _, text := range []string{"one ", "two ", "three"} {
		if now := <-got; now != text {
			t.Fatalf("%q, want %q", now, text)
		}
		switch text {
		case "one ":
			proceed <- "two "
		case "two ":
			proceed <- "three"
			close(proceed)
		}
	}
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	if st := s.finish(c, r.ID); st.Run.ExitCode != 7 || st.Run.Limit != 1 {
		t.Errorf("%+v", st.Run)
	}
}

func TestRunsAreListedInPages(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.client(nil, nil)
	for range 120 {
		s.submit(c, 1)
	}
	for limit, want := range map[int]int{0: 120, 1: 1, 70: 70, 500: 120} {
		runs, err := c.Runs(t.Context(), limit)
		if err != nil || len(runs) != want || runs[0].ID != 120 || runs[want-1].ID != bulkhead.RunID(121-want) {
			t.Error(limit, len(runs), err)
		}
	}
}

func TestWhatIsAskedOfARunIsDoneWhenTheAnswerComes(t *testing.T) {
	release := make(chan struct{})
	s := newSite(t, func(w *work) bulkhead.Result {
		select {
		case <-release:
		case <-w.Stop:
		}
		return bulkhead.Result{State: bulkhead.ItemCancelled, How: bulkhead.HowCancel}
	}, nil)
	c := s.client(nil, nil)
	r := s.submit(c, 10)
	ask := func(q bulkhead.Request) *bulkhead.Run {
		t.Helper()
		q.Run = r.ID
		now, err := c.Ask(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	if now := ask(bulkhead.Request{Kind: bulkhead.RequestPause}); now.State != bulkhead.RunPaused || now.Reason != "paused by ann@host" {
		t.Errorf("%+v", now)
	}
	if now := ask(bulkhead.Request{Kind: bulkhead.RequestResume}); now.State != bulkhead.RunRunning {
		t.Errorf("%+v", now)
	}
	if now := ask(bulkhead.Request{Kind: bulkhead.RequestLimit, Limit: 5000}); now.Limit != 20 {
		t.Errorf("limit %d, want that of the class", now.Limit)
	}
	ask(bulkhead.Request{Kind: bulkhead.RequestCancel})
	if st := s.finish(c, r.ID); st.Run.State != bulkhead.RunCancelled {
		t.Errorf("%+v", st.Run)
	}
	ask(bulkhead.Request{Kind: bulkhead.RequestCancel}) // again: it is so already
	close(release)
	if now := ask(bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: bulkhead.Selection{Cancelled: true}}); now.State.Finished() {
		t.Errorf("%+v", now)
	}
	s.finish(c, r.ID)
}

func TestErrorsComeBackAsTheHandlersHadThem(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.client(nil, nil)
	ctx := t.Context()
	r := s.submit(c, 2)
	submit := func(change func(*bulkhead.Spec)) error {
		sp := spec()
		change(&sp)
		return c.Submit(ctx, &bulkhead.Run{Spec: sp}, items(1, func(int64) string { return "x" }), hash)
	}
	ask := func(q bulkhead.Request) error {
		q.Run = r.ID
		_, err := c.Ask(ctx, q)
		return err
	}
	file := bulkhead.File{SHA256: someHash, Size: 1, Path: "a"}
	for name, k := range map[string]struct {
		err                 error
		code, message, hint string
	}{
		"no such run":                  {func() error { _, err := c.Run(ctx, 99); return err }(), "not_found", "there is no run 99", "bulkhead ls"},
		"watching no run":              {c.Watch(ctx, 99, nil), "not_found", "there is no run 99", "bulkhead ls"},
		"a class with a wrong letter":  {submit(func(s *bulkhead.Spec) { s.Class = "batsh" }), "not_found", `there is no class "batsh"`, "did you mean batch? there are a, batch"},
		"no class":                     {submit(func(s *bulkhead.Spec) { s.Class = "" }), "usage", "needs a class", "--class NAME; there are a, batch"},
		"a placeholder":                {submit(func(s *bulkhead.Spec) { s.Command = []string{"{wiki}"} }), "usage", "unknown placeholder {wiki}", "{1}"},
		"a limit":                      {submit(func(s *bulkhead.Spec) { s.Limit = 0 }), "usage", "limit 0 is not between 1 and 10000", ""},
		"retries":                      {submit(func(s *bulkhead.Spec) { s.Retries = -1 }), "usage", "retries -1 is not between 0 and 1000000", ""},
		"a pool":                       {submit(func(s *bulkhead.Spec) { s.Pools = []bulkhead.PoolUse{{Name: "a b", Slots: 1}} }), "usage", `pool "a b"`, ""},
		"env":                          {submit(func(s *bulkhead.Spec) { s.Env = []string{"=x"} }), "usage", `env "=x" has no name`, "NAME=VALUE"},
		"a relative dir":               {submit(func(s *bulkhead.Spec) { s.Dir = "x" }), "usage", `dir "x" is not an absolute path`, "/"},
		"a shape":                      {submit(func(s *bulkhead.Spec) { s.Shape.Image = "x" }), "usage", "does not let a run change", "another class"},
		"a missing file":               {submit(func(s *bulkhead.Spec) { s.Files = []bulkhead.File{file} }), "conflict", "not all of it", "PutFile"},
		"a file's path":                {submit(func(s *bulkhead.Spec) { s.Files = []bulkhead.File{{SHA256: someHash, Path: "../x"}} }), "usage", "leads out", "relative"},
		"a missing stdin":              {submit(func(s *bulkhead.Spec) { s.StdinFile = someHash }), "conflict", "standard input", "PutFile"},
		"a long spec":                  {submit(func(s *bulkhead.Spec) { s.Comment = strings.Repeat("x", 1<<20) }), "usage", "the spec has", "items"},
		"a priority":                   {submit(func(s *bulkhead.Spec) { s.Priority = 1 << 40 }), "usage", "priority 1099511627776 is not between", ""},
		"an item":                      {c.Submit(ctx, &bulkhead.Run{Spec: spec()}, items(1, func(int64) string { return strings.Repeat("x", 5<<20) }), hash), "usage", "item 1 has more than", "file"},
		"columns":                      {submit(func(s *bulkhead.Spec) { s.Columns, s.Command = []string{"1", "2"}, []string{"{1}"} }), "usage", "item 1 has 1 values for 2 columns", ""},
		"removing what runs":           {c.Delete(ctx, r.ID), "conflict", "run 1 is running", "bulkhead cancel 1 first"},
		"a limit of a run":             {ask(bulkhead.Request{Kind: bulkhead.RequestLimit}), "usage", "limit 0", "pause"},
		"a retry of nothing":           {ask(bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: bulkhead.Selection{Lost: true}}), "conflict", "no such items", ""},
		"a retry of what is not there": {ask(bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: bulkhead.Selection{Items: []int64{3}}}), "usage", "3 is not an item", ""},
		"a retry of what waits":        {ask(bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: bulkhead.Selection{Items: []int64{2}}}), "conflict", "item 2 of run 1 is queued", ""},
		"output of no attempt":         {c.ReadOutput(ctx, r.ID, bulkhead.Attempt{Item: 1, N: 1}, true, nil), "not_found", "item 1 of run 1 has no attempt 1", ""},
		"an attempt before the first":  {c.ReadOutput(ctx, r.ID, bulkhead.Attempt{Item: 1}, false, nil), "usage", "attempt 0", "from 1"},
		"following no run":             {c.FollowOutput(ctx, 99, true, nil, nil), "not_found", "there is no run 99", "ls"},
	} {
		if k.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if bulkhead.CodeOf(k.err) != k.code || !strings.Contains(k.err.Error(), k.message) || !strings.Contains(bulkhead.HintOf(k.err), k.hint) {
			t.Errorf("%s: %s, %v (%s)", name, bulkhead.CodeOf(k.err), k.err, bulkhead.HintOf(k.err))
		}
	}
	if runs, err := c.Runs(ctx, 0); len(runs) != 1 || err != nil {
		t.Errorf("what was refused left something behind: %d runs, %v", len(runs), err)
	}
}

// post makes a call as curl would.
func (s *site) post(procedure, token, body string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.web.URL+"/bulkhead.v1."+procedure, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.web.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	return res.StatusCode, got
}

func TestCurlCanSubmitAndLook(t *testing.T) {
	s := newSite(t, nil, nil)
	body := `{"key": "0123456789abcdef", "accept": true, "hash": "` + someHash + `",
		"spec": {"class": "batch", "command": ["true"], "columns": ["wiki"], "limit": 2},
		"items": [{"index": 1, "values": ["ZW53aWtp"]}]}`
	for range 2 { // the second is the same run
		code, got := s.post("RunService/CreateRun", userToken, body)
		run, _ := got["run"].(map[string]any)
		if code != 200 || run["id"] != "1" || run["state"] != "RUN_STATE_RUNNING" {
			t.Fatal(code, got)
		}
	}
	code, got := s.post("RunService/GetRun", userToken, `{"run": 1}`)
	run := got["run"].(map[string]any)
	spec := run["spec"].(map[string]any)
	if code != 200 || spec["grace"] != "10s" || spec["owner"] != "somebody" || spec["name"] != "true" {
		t.Fatal(code, got)
	}
	code, got = s.post("RunService/GetRun", userToken, `{"run": 2}`)
	if code != 404 || got["code"] != "not_found" || got["details"] == nil {
		t.Fatal(code, got)
	}
	if code, got = s.post("RunService/GetRun", userToken, `{"wrong": 2}`); code != 400 {
		t.Fatal(code, got)
	}
}

func TestStrangersAreTurnedAway(t *testing.T) {
	s := newSite(t, nil, nil)
	agents := rpc.Tokens{Secret: userToken}.OfClass("a")
	for name, k := range map[string]struct {
		token string
		code  int
	}{
		"no token":                 {"", 401},
		"another token":            {"a-token-for-users-0123456788", 401},
		"the token of an agent":    {agents, 401},
		"one that names a class":   {"a." + strings.Repeat("0", 64), 401},
		"one of another class":     {"batch" + strings.TrimPrefix(agents, "a"), 401},
		"the beginning of a token": {userToken[:5], 401},
	} {
		if code, got := s.post("RunService/GetRun", k.token, `{"run": 1}`); code != k.code {
			t.Errorf("%s: %d %v", name, code, got)
		}
	}
	if code, _ := s.post("RunService/GetRun", userToken, `{"run": 1}`); code != 404 {
		t.Error(code)
	}
}

func TestAServerThatCannotBeReachedIsToldWithWhatToDo(t *testing.T) {
	s := newSite(t, nil, nil)
	plain := httpServer(t)
	trusting := s.web.Client().Transport
	for name, k := range map[string]struct {
		change            func(*rpc.ClientOptions)
		code, message     string
		hint              string
		tries, away, back bool
	}{
		"nobody listens":                  {func(o *rpc.ClientOptions) { o.URL = "https://127.0.0.1:1" }, "internal", "cannot reach server https://127.0.0.1:1: connect: connection refused", "is it running", true, true, false},
		"a certificate of nobody we know": {func(o *rpc.ClientOptions) { o.HTTP = &http.Client{Transport: insecure()} }, "internal", "cannot trust server", "--ca", false, false, false},
		"no TLS":                          {func(o *rpc.ClientOptions) { o.URL = strings.Replace(plain, "http:", "https:", 1) }, "internal", "does not speak TLS", "port", false, false, false},
		"TLS, and we speak none":          {func(o *rpc.ClientOptions) { o.URL = strings.Replace(s.web.URL, "https:", "http:", 1) }, "internal", "400 Bad Request", "https", true, true, false},
		"another server":                  {func(o *rpc.ClientOptions) { o.URL = plain }, "internal", "does not know this call", "Bulkhead", false, false, false},
		"another token":                   {func(o *rpc.ClientOptions) { o.Token = "x" }, "denied", "does not accept the token", "context add", false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			away := 0
			c := s.client(nil, func(o *rpc.ClientOptions) {
				o.HTTP = &http.Client{Transport: trusting}
				o.Tries, o.Away = 3, func(error) { away++ }
				k.change(o)
			})
			_, err := c.Run(t.Context(), 1)
			if err == nil || bulkhead.CodeOf(err) != k.code || !strings.Contains(err.Error(), k.message) || !strings.Contains(bulkhead.HintOf(err), k.hint) {
				t.Errorf("%v (%s)", err, bulkhead.HintOf(err))
			}
			if k.away != (away == 1) || !k.away && away > 0 {
				t.Errorf("away was told %d times", away)
			}
		})
	}
}

func httpServer(t *testing.T) string {
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestARunThatNobodyGoesOnWithIsRemoved(t *testing.T) {
	clock := time.Now()
	s := newSite(t, nil, func(o *rpc.Options) { o.Now = func() time.Time { return clock } })
	create := func(key string) {
		t.Helper()
		body := `{"key": "` + key + `", "spec": {"class": "a", "command": ["x"], "columns": ["1"], "limit": 1}, "items": [{"index": 1, "values": ["eA=="]}]}`
		if code, got := s.post("RunService/CreateRun", userToken, body); code != 200 {
			t.Fatal(code, got)
		}
	}
	there := func() (n int) {
		t.Helper()
		if err := s.rpc.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		runs, err := s.store.Runs(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(runs)
	}
	create("0000000000000001")
	create("0000000000000002")
	clock = clock.Add(59 * time.Minute)
	if n := there(); n != 2 {
		t.Fatal(n)
	}
	if code, got := s.post("RunService/AppendItems", userToken, `{"run": 2, "items": [{"index": 2, "values": ["eA=="]}]}`); code != 200 || got["next"] != "3" {
		t.Fatal(code, got)
	}
	clock = clock.Add(2 * time.Minute)
	if n := there(); n != 1 {
		t.Fatal(n)
	}
	// After a restart its time begins anew.
	s.close()
	s.start()
	clock = clock.Add(59 * time.Minute)
	if n := there(); n != 1 {
		t.Fatal(n)
	}
	// And it goes on where it was.
	if code, got := s.post("RunService/AppendItems", userToken, `{"run": 2, "items": [{"index": 2, "values": ["eA=="]}, {"index": 3, "values": ["eA=="]}]}`); code != 200 || got["next"] != "4" {
		t.Fatal(code, got)
	}
	if code, got := s.post("RunService/AppendItems", userToken, `{"run": 2, "items": [{"index": 5, "values": ["eA=="]}]}`); code != 400 || got["code"] != "failed_precondition" {
		t.Fatal(code, got)
	}
	for range 2 {
		code, got := s.post("RunService/AcceptRun", userToken, `{"run": 2, "total": 3, "hash": "`+someHash+`"}`)
		if run, _ := got["run"].(map[string]any); code != 200 || run["state"] != "RUN_STATE_RUNNING" {
			t.Fatal(code, got)
		}
	}
	clock = clock.Add(2 * time.Hour)
	if n := there(); n != 1 {
		t.Fatal("an accepted run was removed")
	}
}

func TestRunsOfTheCommandLineAreLeftAlone(t *testing.T) {
	clock := time.Now()
	s := newSite(t, nil, func(o *rpc.Options) { o.Now = func() time.Time { return clock } })
	r := &bulkhead.Run{Spec: bulkhead.Spec{Command: []string{"x"}, Columns: []string{"1"}, Limit: 1}, Created: clock}
	if err := s.store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.rpc.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(2 * time.Hour)
	}
	c := s.client(nil, nil)
	if err := c.Delete(t.Context(), r.ID); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Error(err)
	}
	if _, err := c.Run(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
}

func TestClassesSayWhatWaitsForWhat(t *testing.T) {
	s := newSite(t, nil, nil)
	got, err := s.client(nil, nil).Classes(t.Context())
	if d := cmp.Diff(s.opts.Classes.(classes).Statuses(), got); d != "" || err != nil {
		t.Fatal(d, err)
	}
}

func TestAFileTravelsToTheServerOnce(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.client(nil, nil)
	path := t.TempDir() + "/conf.json"
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	write(t, path, string(content))
	for range 2 {
		f, err := c.PutFile(t.Context(), "a", path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != "conf.json" || f.Size != int64(len(content)) || f.Executable {
			t.Fatalf("%+v", f)
		}
		r, err := s.files.Open(f.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, content) {
			t.Fatal(len(got), err)
		}
		sp := spec()
		sp.Files, sp.StdinFile = []bulkhead.File{f}, f.SHA256
		run := &bulkhead.Run{Spec: sp}
		if err := c.Submit(t.Context(), run, items(1, func(int64) string { return "" }), hash); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, strings.Repeat("x", 9<<20))
	if _, err := c.PutFile(t.Context(), "a", path); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
	if _, err := c.PutFile(t.Context(), "a", path+".none"); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
}
