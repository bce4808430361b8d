package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/rpc"
)

// web is what of a server listens.
type web struct {
	server   *server
	api      *rpc.Server
	servers  []*http.Server
	stopping chan struct{} // closed when streams are to end
}

const (
	// drainTime is how long calls that are under way may take at the end.
	drainTime = 5 * time.Second
	// headerTime bounds a caller that begins a request and does not go on.
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	sweepEvery = time.Minute
)

// serveWeb listens, before the server is ready: so /livez and /readyz answer while
// it waits for the state folder.
func (s *server) serveWeb(listener net.Listener, fail chan<- error) *web {
	w := &web{server: s, stopping: make(chan struct{})}
	relay := rpc.NewRelay(rpc.RelayOptions{Stopping: w.stopping, Log: s.log})
	api := rpc.NewServer(rpc.Options{
		Store: promising{s.reader}, Engine: control{s}, Outputs: outputsOf{s}, Classes: classView{s}, Files: s.files,
		Auth: s.authenticator(), Authorizer: s.authorizer(), NoAdminLog: s.opts.Announce.AdminLog == "", Brakes: brakes{s}, Guard: s.guardView(), Agents: s.agents(relay), Relay: relay, Metrics: s.metrics.calls,
		Log: s.log, Stopping: w.stopping,
	})
	w.api = api
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok\n") })
	mux.HandleFunc("/readyz", s.readyz)
	mux.Handle("/metrics", promhttp.HandlerFor(s.metrics.all(), promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: headerTime}))
	mux.Handle("/", s.whenReady(api))
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.keys.certificate}
	if s.reviews != nil {
		config.ClientAuth = tls.RequestClientCert // the cluster says whose it is
	}
	server := &http.Server{
		Handler: mux, TLSConfig: config, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(connections{s.log}, "", 0),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 2500, SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	w.run(server, func() error { return server.ServeTLS(listener, "", "") }, fail)
	if s.opts.Pprof != "" {
		profiles := &http.Server{Addr: s.opts.Pprof, Handler: profiling(), ReadHeaderTimeout: headerTime}
		w.run(profiles, profiles.ListenAndServe, fail)
	}
	go w.sweep(api)
	return w
}

// connections takes what net/http says. Who trusts another certificate, or none, and
// tries again each second, is not to fill the log.
type connections struct{ log *slog.Logger }

func (c connections) Write(p []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.Contains(p, []byte("TLS handshake error")) {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, string(bytes.TrimSpace(p)))
	return len(p), nil
}

// sweep lets the API forget what nobody goes on with.
func (w *web) sweep(api *rpc.Server) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := api.Sweep(context.Background()); err != nil {
				w.server.log.Error("sweep", "error", err)
			}
		case <-w.stopping:
			return
		}
	}
}

func (w *web) run(server *http.Server, serve func() error, fail chan<- error) {
	w.servers = append(w.servers, server)
	go func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			fail <- err
		}
	}()
}

// drain ends what listens: calls that are under way get their answers, and streams
// end, to go on with the next server.
func (w *web) drain() {
	close(w.stopping)
	w.server.engine.HandOver()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	for _, s := range w.servers {
		_ = s.Shutdown(ctx)
	}
}

// end closes what is left, and returns when nobody uses the store any more.
func (w *web) end() {
	for _, s := range w.servers {
		_ = s.Close()
	}
	w.api.Close()
}

func (s *server) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if !s.isReady() {
		http.Error(w, "not yet the server of the state folder", http.StatusServiceUnavailable)
		return
	}
	if why := s.engine.Held(); why != "" {
		// It still answers, and brakes still work: more than another one could do.
		_, _ = io.WriteString(w, "ok, but nothing starts: "+why+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// whenReady sends callers away until this is the server of the state folder.
func (s *server) whenReady(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.isReady() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "not yet the server of the state folder", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func profiling() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// agents is the API for them.
func (s *server) agents(relay *rpc.Relay) *rpc.Agents {
	return &rpc.Agents{
		Leases: s.engine, Output: s.shelf, Relay: relay,
		Open: func(sha256 string) (io.ReadCloser, error) { return s.files.Open(sha256) },
		Echo: func(class string) bool { c, _ := s.classes.Class(class); return c.Echo },
	}
}

// control is the engine as the API for users needs it.
type control struct{ *server }

func (c control) Add(ctx context.Context, r *bulkhead.Run) error { return c.engine.Add(ctx, r) }

func (c control) Ask(ctx context.Context, q bulkhead.Request) error {
	if _, err := c.reader.Ask(ctx, q); err != nil {
		return err
	}
	return c.engine.Look(ctx)
}

func (c control) Pools() []bulkhead.PoolStatus { return c.engine.Pools() }

func (c control) Watch(id bulkhead.RunID, live int) (rpc.Status, <-chan struct{}, bool) {
	st, failures, changed, ok := c.engine.StatusOf(id, live)
	out := rpc.Status{Run: st.Run, Running: st.Live}
	for _, f := range failures {
		out.Failures = append(out.Failures, bulkhead.ItemStatus{Item: f.Item, State: f.State, Attempt: f.Attempt})
	}
	return out, changed, ok
}

// outputsOf is the output that the server keeps.
type outputsOf struct{ *server }

func attemptOf(at bulkhead.Attempt) output.Attempt {
	return output.Attempt{Item: at.Item, N: at.N, Ref: at.Output}
}

func (o outputsOf) Read(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, over func() bool, fn func(bulkhead.Chunk) error) error {
	if over == nil {
		return output.Read(o.outputDir(run), attemptOf(at), fn)
	}
	return output.Follow(ctx, o.outputDir(run), attemptOf(at), output.Following{Done: over}, fn)
}

func (o outputsOf) Tail(_ context.Context, run bulkhead.RunID, at bulkhead.Attempt, lines int) ([]byte, error) {
	return output.Tail(o.outputDir(run), attemptOf(at), lines)
}

func (o outputsOf) Follow(ctx context.Context, run bulkhead.RunID, from []bulkhead.Position, over func() bool, broken func(error),
	fn func(item int64, attempt int, c bulkhead.Chunk, behind bulkhead.Position) error,
) error {
	if over == nil {
		over = func() bool { return true }
	}
	return output.FollowFrom(ctx, o.outputDir(run), from, output.Following{Done: over, Broken: broken, Wide: o.wide}, fn)
}

func (o outputsOf) Remove(_ context.Context, run bulkhead.RunID) error {
	o.shelf.Settle(run) // or what is being sealed would come back
	return output.Remove(o.outputDir(run))
}
