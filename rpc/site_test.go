package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/files"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/rpc"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const userToken = "a-token-for-users-0123456789"

// site is a server with all that belongs to it, on loopback, over TLS and HTTP/2.
// Its only agent is a goroutine.
type site struct {
	t      *testing.T
	dir    string
	store  *sqlite.Store
	shelf  *output.Shelf
	engine *engine.Engine
	files  *files.Store
	rpc    *rpc.Server
	web    *httptest.Server
	now    func() time.Time
	script func(*work) bulkhead.Result
	opts   rpc.Options
	stop   func()
}

// work is an attempt that runs.
type work struct {
	bulkhead.Assignment
	site   *site
	gone   <-chan struct{} // closed when the server goes
	offset int64
}

// say writes output, which is kept when it returns.
func (w *work) say(s bulkhead.Stream, text string) {
	c := bulkhead.Chunk{Stream: s, At: time.Now().UTC(), Data: []byte(text)}
	have, known, err := w.site.shelf.Write(w.Lease.Token, w.offset, []bulkhead.Chunk{c})
	if err != nil || !known {
		w.site.t.Errorf("write output of item %d: known %t, %v", w.Lease.Item.Index, known, err)
	}
	w.offset = have
}

// newSite brings up a server whose agent runs script for every item; nil: there is
// no agent. What change changes of the options counts.
func newSite(t *testing.T, script func(*work) bulkhead.Result, change func(*rpc.Options)) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), script: script, now: time.Now}
	s.opts = rpc.Options{
		Classes: classes{{Name: "a", Command: []string{"run-in", "{"}, Limit: 20, Env: []string{"CLASS=a"}}, {Name: "batch"}},
		Auth:    rpc.Tokens{Secret: userToken}, Log: slog.New(slog.DiscardHandler), Poll: 5 * time.Millisecond, Rate: 1e6, Burst: 1e6,
	}
	if change != nil {
		change(&s.opts)
	}
	s.start()
	t.Cleanup(s.close)
	return s
}

func (s *site) start() {
	t := s.t
	t.Helper()
	var err error
	if s.store, err = sqlite.Open(context.Background(), s.dir); err != nil {
		t.Fatal(err)
	}
	if s.files, err = files.Open(files.Options{Dir: filepath.Join(s.dir, "files"), MaxFile: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	s.shelf = &output.Shelf{Dir: s.outputDir}
	s.engine = engine.New(engine.Options{Store: s.store, Remote: &engine.Remote{
		Output: s.shelf, Fetch: s.store.Run, Finished: s.shelf.Close,
	}})
	o := s.opts
	o.Store, o.Files = s.store, s.files
	if o.Engine == nil {
		o.Engine = engineOf{s.engine, s.store}
	}
	if o.Outputs == nil {
		o.Outputs = outputsOf{s}
	}
	o.Relay = rpc.NewRelay(rpc.RelayOptions{Stopping: o.Stopping, Log: o.Log})
	o.Agents = &rpc.Agents{
		Relay:  o.Relay,
		Leases: s.engine, Output: s.shelf, Open: func(sha256 string) (io.ReadCloser, error) { return s.files.Open(sha256) },
		Echo: func(class string) bool { return class == "a" },
		Wait: 20 * time.Millisecond, RenewWait: 20 * time.Millisecond,
	}
	s.rpc = rpc.NewServer(o)
	s.web = httptest.NewUnstartedServer(s.rpc)
	s.web.EnableHTTP2 = true
	s.web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.web.StartTLS()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.engine.Run(ctx) })
	runs, err := s.store.Unfinished(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if r.State != bulkhead.RunAccepting {
			if err := s.engine.Add(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.script != nil {
		wg.Go(func() { s.agent(ctx) })
	}
	s.stop = func() { stop(); wg.Wait() }
}

// close ends everything, as a kill would: nobody says good-bye.
func (s *site) close() {
	s.web.CloseClientConnections()
	s.web.Close()
	s.rpc.Close()
	s.stop()
	if err := errors.Join(s.shelf.CloseAll(), s.store.Close()); err != nil {
		s.t.Error(err)
	}
}

func (s *site) outputDir(id bulkhead.RunID) string {
	return filepath.Join(s.dir, "output", id.String())
}

// agentSlots is how many attempts run at once.
const agentSlots = 3

// agent runs the script until the context ends.
func (s *site) agent(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for slot := range agentSlots {
		wg.Go(func() {
			ask := bulkhead.Ask{Agent: bulkhead.Agent{Name: "pod", Process: 1, Kind: bulkhead.Kind{Class: "a"}, Slots: agentSlots}, Slot: slot}
			for {
				ask.Until = time.Now().Add(time.Minute)
				got, err := s.engine.Next(ctx, ask)
				if err != nil {
					return
				}
				if ask.Done = nil; got == nil {
					continue
				}
				result := s.script(&work{Assignment: *got, site: s, gone: ctx.Done()})
				if ctx.Err() != nil {
					return
				}
				result.Started, result.Duration = got.Lease.Since, time.Second
				if result.Output, _, err = s.shelf.End(got.Lease.Token, result.Output.Dropped); err != nil {
					s.t.Error(err)
				}
				ask.Done = &bulkhead.Done{Lease: got.Lease, Result: result}
			}
		})
	}
}

// client returns a client that goes through the proxy, if there is one.
func (s *site) client(through *proxy, change func(*rpc.ClientOptions)) *rpc.Client {
	transport := s.web.Client().Transport.(*http.Transport).Clone()
	if through != nil {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, through.address())
		}
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	o := rpc.ClientOptions{URL: s.web.URL, HTTP: &http.Client{Transport: transport}, Token: userToken, Owner: "ann@host",
		Backoff: time.Millisecond, Tries: 500}
	if change != nil {
		change(&o)
	}
	return rpc.NewClient(o)
}

// engineOf is the engine as the server needs it.
type engineOf struct {
	*engine.Engine
	store *sqlite.Store
}

func (e engineOf) Ask(ctx context.Context, q bulkhead.Request) error {
	if _, err := e.store.Ask(ctx, q); err != nil {
		return err
	}
	return e.Look(ctx)
}

func (e engineOf) Watch(run bulkhead.RunID, live int) (rpc.Status, <-chan struct{}, bool) {
	st, failures, changed, ok := e.StatusOf(run, live)
	status := rpc.Status{Run: st.Run, Running: st.Live}
	for _, f := range failures {
		status.Failures = append(status.Failures, bulkhead.ItemStatus{Item: f.Item, State: f.State, Attempt: f.Attempt})
	}
	return status, changed, ok
}

// outputsOf is the output as the server needs it.
type outputsOf struct{ site *site }

func of(at bulkhead.Attempt) output.Attempt {
	return output.Attempt{Item: at.Item, N: at.N, Ref: at.Output}
}

func (o outputsOf) Read(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, over func() bool, fn func(bulkhead.Chunk) error) error {
	if over == nil {
		return output.Read(o.site.outputDir(run), of(at), fn)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	return output.Follow(ctx, o.site.outputDir(run), of(at), output.Following{Poll: tick.C, Done: over}, fn)
}

func (o outputsOf) Tail(_ context.Context, run bulkhead.RunID, at bulkhead.Attempt, lines int) ([]byte, error) {
	return output.Tail(o.site.outputDir(run), of(at), lines)
}

func (o outputsOf) Follow(ctx context.Context, run bulkhead.RunID, from []bulkhead.Position, over func() bool, broken func(error),
	fn func(int64, int, bulkhead.Chunk, bulkhead.Position) error,
) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	return output.FollowFrom(ctx, o.site.outputDir(run), from, output.Following{Poll: tick.C, Done: over, Broken: broken}, fn)
}

func (o outputsOf) Remove(_ context.Context, run bulkhead.RunID) error {
	o.site.shelf.Settle(run)
	return output.Remove(o.site.outputDir(run))
}

// classes are the classes of a site.
type classes []bulkhead.Class

func (c classes) Class(name string) (bulkhead.Class, bool) {
	i := slices.IndexFunc(c, func(c bulkhead.Class) bool { return c.Name == name })
	if i < 0 {
		return bulkhead.Class{}, false
	}
	return c[i], true
}

func (c classes) Names() (out []string) {
	for _, class := range c {
		out = append(out, class.Name)
	}
	return out
}

func (classes) Known() error { return nil }

func (c classes) Statuses() (out []bulkhead.ClassStatus) {
	for _, class := range c {
		out = append(out, bulkhead.ClassStatus{Name: class.Name, Command: class.Command, Workers: 1, Slots: 3, Blocked: "no quota"})
	}
	return out
}

// proxy stands between a client and the server, and cuts each connection off
// after as many bytes as budget says; 0 is never.
type proxy struct {
	listener net.Listener
	to       string
	budget   func() int64
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
	cuts     int
}

func newProxy(t *testing.T, s *site, budget func() int64) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, to: s.web.Listener.Addr().String(), budget: budget, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// lead makes the proxy lead to where the server is now.
func (p *proxy) lead(s *site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = s.web.Listener.Addr().String()
}

func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		to := p.to
		p.mu.Unlock()
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		left := p.budget()
		l := &allowance{left: left, endless: left == 0}
		p.wg.Go(func() { p.pass(in, out, l) })
		p.wg.Go(func() { p.pass(out, in, l) })
	}
}

// allowance is how many bytes a connection may still carry.
type allowance struct {
	mu      sync.Mutex
	left    int64
	endless bool
}

func (a *allowance) take(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endless {
		return n
	}
	n = int(min(int64(n), a.left))
	a.left -= int64(n)
	return n
}

func (p *proxy) pass(from, to net.Conn, l *allowance) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []net.Conn{from, to} {
			c.Close()
			delete(p.conns, c)
		}
	}()
	buf := make([]byte, 1000)
	for {
		n, err := from.Read(buf)
		if m := l.take(n); m < n {
			_, _ = to.Write(buf[:m])
			p.mu.Lock()
			p.cuts++
			p.mu.Unlock()
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// items returns what Submit reads: n items of one value.
func items(n int64, value func(int64) string) func() (bulkhead.Item, error) {
	at := int64(0)
	return func() (bulkhead.Item, error) {
		if at++; at > n {
			return bulkhead.Item{}, io.EOF
		}
		return bulkhead.Item{Index: at, Values: []string{value(at)}}, nil
	}
}

const someHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func hash() string { return someHash }

// spec is a batch of class a.
func spec() bulkhead.Spec {
	return bulkhead.Spec{Class: "a", Command: []string{"echo", "{}"}, Columns: []string{"1"}, Limit: 10, MaxOutput: 1 << 20}
}

// submit submits a batch of n items.
func (s *site) submit(c *rpc.Client, n int64) *bulkhead.Run {
	s.t.Helper()
	r := &bulkhead.Run{Spec: spec()}
	if err := c.Submit(s.t.Context(), r, items(n, func(i int64) string { return fmt.Sprint("v", i) }), hash); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// finish waits until a run is finished.
func (s *site) finish(c *rpc.Client, id bulkhead.RunID) rpc.Status {
	s.t.Helper()
	var last rpc.Status
	if err := c.Watch(s.t.Context(), id, func(st rpc.Status) error { last = st; return nil }); err != nil {
		s.t.Fatal(err)
	}
	return last
}

// insecure is a client's transport that trusts nobody in particular.
func insecure() *http.Transport {
	return &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
