package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// Store keeps runs. What it has confirmed is durable.
type Store interface {
	Reader
	Acceptor
	// Delete removes a run and all its rows.
	Delete(ctx context.Context, run bulkhead.RunID) error
}

// Reader is the store as questions need it.
type Reader interface {
	Run(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error)
	// Recent returns the runs of a query, newest first.
	Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error)
	// Unfinished returns the runs that are not over, those that accept included.
	Unfinished(ctx context.Context) ([]*bulkhead.Run, error)
	// Items reads in pages and calls fn between them: a slow fn keeps nobody from
	// the store.
	Items(ctx context.Context, r *bulkhead.Run, q bulkhead.ItemQuery, fn func(bulkhead.ItemStatus) error) error
	Attempts(ctx context.Context, run bulkhead.RunID, item int64) ([]bulkhead.Attempt, error)
}

// Acceptor is the store as new runs need it.
type Acceptor interface {
	// ByKey returns the run that was submitted with a key, nil if there is none.
	ByKey(ctx context.Context, key string) (*bulkhead.Run, error)
	Create(ctx context.Context, r *bulkhead.Run) error
	Append(ctx context.Context, run bulkhead.RunID, items []bulkhead.Item) error
	Accept(ctx context.Context, r *bulkhead.Run, rest []bulkhead.Item, total int64, hash string) error
	Submit(ctx context.Context, r *bulkhead.Run, items []bulkhead.Item, total int64, hash string) error
	Accepted(ctx context.Context, run bulkhead.RunID, fn func(bulkhead.Item)) error
}

// Engine is what runs the runs.
type Engine interface {
	// Add takes over a run that was accepted, and r with it. A run that it has already is no error.
	Add(ctx context.Context, r *bulkhead.Run) error
	// Ask carries out a request, durably. Of a finished run items can be retried.
	Ask(ctx context.Context, q bulkhead.Request) error
	// Pools are the pools that are in use or waited for: full ones first, then those
	// for which most waits. What it returns is not the caller's to change.
	Pools() []bulkhead.PoolStatus
	// Watch says how a run stands, with up to live of the items that have run
	// longest; changed is closed when it stands otherwise. It reports false for a run
	// that the engine does not have: then the store has the last word.
	Watch(run bulkhead.RunID, live int) (s Status, changed <-chan struct{}, ok bool)
}

// Outputs is what scripts wrote.
type Outputs interface {
	// Read calls fn for every chunk of an attempt, in order of arrival. With an over
	// it goes on as more arrives: over is asked before each look whether nothing will
	// come any more.
	Read(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, over func() bool, fn func(bulkhead.Chunk) error) error
	// Tail returns the last lines of an attempt, both streams in one.
	Tail(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, lines int) ([]byte, error)
	// Follow calls fn for every chunk of a run behind the positions, until over; see
	// output.FollowFrom. What cannot be read broken is told.
	Follow(ctx context.Context, run bulkhead.RunID, from []bulkhead.Position, over func() bool, broken func(error),
		fn func(item int64, attempt int, c bulkhead.Chunk, behind bulkhead.Position) error) error
	// Remove removes all of a run.
	Remove(ctx context.Context, run bulkhead.RunID) error
}

// Classes are what runs may be of.
type Classes interface {
	// Known says why the classes are not known yet; nil once they are.
	Known() error
	Class(name string) (bulkhead.Class, bool)
	Names() []string
	Statuses() []bulkhead.ClassStatus
}

// Files keeps what is put beside attempts; see package files.
type Files interface {
	// Stat says how much of a file there is, from its first byte on, and whether that
	// is all of it.
	Stat(sha256 string) (have int64, complete bool, err error)
	// Put adds a piece, and says the same. A piece that does not begin where there is
	// something missing changes nothing.
	Put(sha256 string, size, offset int64, data []byte) (have int64, complete bool, err error)
}

// Options of a Server. Store, Engine, Outputs, Classes, Files and Auth are
// required.
type Options struct {
	Store   Store
	Engine  Engine
	Outputs Outputs
	Classes Classes
	Files   Files
	// Auth says who makes a call.
	Auth Authenticator
	// NoAdminLog: nobody reads what runs announce, so that none may ask for it.
	NoAdminLog bool
	// Authorizer says what they may do. Default: everything.
	Authorizer Authorizer
	// Brakes is served, too; nil: there are no brakes.
	Brakes Brakes
	// Guard is served, too; nil: there is no guard, and callers are told so.
	Guard Guard
	// Agents is served, too; nil: there are no agents.
	Agents bulkheadv1connect.AgentServiceHandler
	// Relay is that of Agents. Default: one to which no agent comes.
	Relay *Relay
	// Metrics counts calls. Default: nobody counts.
	Metrics Metrics
	// Log is told of what went wrong here, and not of what callers got wrong. Default: slog.Default.
	Log *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Stopping is closed when the server is about to stop: streams end, so that their
	// readers go on with the next one. Default: never.
	Stopping <-chan struct{}
	// Streams is how many streams there may be at once, StreamsEach how many of one
	// caller. Default: 2000 and 500.
	Streams, StreamsEach int
	// Rate is how many calls one caller may make per second, Burst how many at once.
	// Agents are not counted: what they may do is bounded by their leases. Default:
	// 200 and 400.
	Rate  rate.Limit
	Burst int
	// Unread is how many bytes there may be of one caller's requests that have not come
	// as a whole yet. Default: 64 MiB.
	Unread int64
	// Stall is how long a reader may take nothing before its stream is cut off; it
	// can go on where it was. Default: a minute.
	Stall time.Duration
	// Pause is how long a reader of many items' output may take nothing before what is
	// open for it is closed; it is opened again when there is room. Default: a second.
	Pause time.Duration
	// KeepAlive is how often a stream without news sends something. Default: the
	// constant of that name.
	KeepAlive time.Duration
	// Poll is how often it is looked for what nothing tells of. Default: 250 ms.
	Poll time.Duration
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = uncounted{}
	}
	if o.Relay == nil {
		o.Relay = NewRelay(RelayOptions{Stopping: o.Stopping, Log: o.Log})
	}
	o.Streams, o.StreamsEach = orNumber(o.Streams, 2000), orNumber(o.StreamsEach, 500)
	o.Rate, o.Burst = orNumber(o.Rate, 200), orNumber(o.Burst, 400)
	o.Unread = orNumber(o.Unread, maxUnreadEach)
	o.Stall, o.Pause = or(o.Stall, time.Minute), or(o.Pause, time.Second)
	o.KeepAlive, o.Poll = or(o.KeepAlive, KeepAlive), or(o.Poll, 250*time.Millisecond)
}

func orNumber[N int | int64 | rate.Limit](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

// Server serves the API: an http.Handler for all paths of its services. It
// implements RunServiceHandler, BrakeServiceHandler and GuardServiceHandler.
type Server struct {
	opts    Options
	handler http.Handler
	gate    *gate
	bodies  bodies
	locks   locks // of runs that are being changed

	serving sync.RWMutex // read while a call is under way
	closed  bool

	creating  sync.Mutex // a key is looked for and taken in one step
	mu        sync.Mutex
	accepting map[bulkhead.RunID]*accepting
}

// NewServer returns a server. Call Sweep from time to time.
func NewServer(opts Options) *Server {
	opts.defaults()
	s := &Server{opts: opts, gate: newGate(&opts), bodies: bodies{most: maxUnread, each: opts.Unread, of: map[string]int64{}}, accepting: map[bulkhead.RunID]*accepting{}}
	mux := http.NewServeMux()
	mux.Handle(bulkheadv1connect.NewRunServiceHandler(s, s.handlerOptions(maxRequest, s.gate.user, counted{s.gate})...))
	if opts.Brakes != nil {
		mux.Handle(bulkheadv1connect.NewBrakeServiceHandler(s, s.handlerOptions(maxRequest, s.gate.user, counted{s.gate})...))
	}
	mux.Handle(bulkheadv1connect.NewGuardServiceHandler(s, s.handlerOptions(maxRequest, s.gate.user, counted{s.gate})...))
	if opts.Agents != nil {
		mux.Handle(bulkheadv1connect.NewAgentServiceHandler(opts.Agents, s.handlerOptions(maxAgentRequest, s.gate.agent)...))
	}
	s.handler = mux
	return s
}

// handlerOptions are those of one service; what comes first sees the caller first.
func (s *Server) handlerOptions(size int, gate connect.RequestGateFunc, more ...connect.Interceptor) []connect.HandlerOption {
	interceptors := append([]connect.Interceptor{watched{s.opts.Metrics}}, more...)
	return []connect.HandlerOption{
		connect.WithCodec(strictJSON("json")), connect.WithCodec(strictJSON("json; charset=utf-8")),
		connect.WithReadMaxBytes(size), connect.WithConditionalHandlerOptions(compressing), connect.WithRequestGate(gate),
		connect.WithInterceptors(append(interceptors, faults{s.opts.Log})...), connect.WithRecover(s.recovered),
	}
}

// compressing leaves what scripts write as it is: gzip takes 20 ms of CPU for a
// megabyte of it, more than all else on its way together.
func compressing(spec connect.Spec) []connect.HandlerOption {
	from := compressFrom
	switch spec.Procedure {
	case bulkheadv1connect.RunServiceReadOutputProcedure, bulkheadv1connect.RunServiceFollowOutputProcedure:
		from = math.MaxInt
	}
	return []connect.HandlerOption{connect.WithCompressMinBytes(from)}
}

// recovered makes an error of a panic: one call has failed, not the server.
func (s *Server) recovered(ctx context.Context, spec connect.Spec, _ http.Header, what any) error {
	return s.bug(ctx, fmt.Sprintf("%s: %v", spec.Procedure, what))
}

// bug tells of a panic, to the log and to the caller.
func (s *Server) bug(ctx context.Context, what any) error {
	s.opts.Log.ErrorContext(ctx, "panic", "panic", what, "stack", string(debug.Stack()))
	return fault(connect.CodeInternal, &bulkhead.Error{Code: bulkhead.CodeInternal, Message: "the server has met a bug of its own",
		Hint: "its log says more; please report it"})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serving.RLock()
	defer s.serving.RUnlock()
	if s.closed {
		http.Error(w, "the server is being stopped", http.StatusServiceUnavailable)
		return
	}
	r, end := s.bodies.counting(r)
	defer end()
	s.handler.ServeHTTP(&stallWriter{ResponseWriter: w, control: http.NewResponseController(w), stall: s.opts.Stall}, withCertificates(r))
}

// Close waits until no call is under way, and lets none begin: afterwards nobody
// uses the store and the rest any more. Close the connections before, or it waits
// for those who follow something; an http.Server does not wait for their handlers.
func (s *Server) Close() {
	s.serving.Lock()
	defer s.serving.Unlock()
	s.closed = true
}

// stallWriter gives up on a reader that takes nothing for too long.
type stallWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

// Unwrap is for http.ResponseController.
func (w *stallWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *stallWriter) Write(p []byte) (int, error) {
	defer w.deadline()()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *stallWriter) Flush() {
	defer w.deadline()()
	_ = w.control.Flush() // the next write has the same error
}

// deadline begins a write; what it returns ends it. A response writer that knows
// no deadlines has none.
func (w *stallWriter) deadline() (end func()) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	return func() { _ = w.control.SetWriteDeadline(time.Time{}) }
}

// faults makes what handlers return what callers understand.
type faults struct{ log *slog.Logger }

func (f faults) of(ctx context.Context, spec connect.Spec, err error) error {
	if err == nil {
		return nil
	}
	err = Fault(err)
	if connect.CodeOf(err) == connect.CodeInternal {
		f.log.ErrorContext(ctx, "call failed", "procedure", spec.Procedure, "error", err)
	}
	return err
}

// WrapUnary is connect.Interceptor.
func (f faults) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		return res, f.of(ctx, req.Spec(), err)
	}
}

// WrapStreamingHandler is connect.Interceptor.
func (f faults) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return f.of(ctx, conn.Spec(), next(ctx, conn))
	}
}

// WrapStreamingClient is connect.Interceptor.
func (f faults) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// stopping is what a stream ends with when the server stops.
func stopping() error {
	return fault(connect.CodeUnavailable, &bulkhead.Error{Code: bulkhead.CodeInternal, Message: "the server is being stopped",
		Hint: "try again in a moment"})
}

// locks are locks by run.
type locks struct {
	mu   sync.Mutex
	runs map[bulkhead.RunID]*lock
}

type lock struct {
	held chan struct{} // has room for whoever holds it
	n    int           // who holds it or waits for it
}

// lock waits for the lock of a run. What it returns gives it back.
func (l *locks) lock(ctx context.Context, run bulkhead.RunID) (unlock func(), err error) {
	l.mu.Lock()
	if l.runs == nil {
		l.runs = map[bulkhead.RunID]*lock{}
	}
	k := l.runs[run]
	if k == nil {
		k = &lock{held: make(chan struct{}, 1)}
		l.runs[run] = k
	}
	k.n++
	l.mu.Unlock()
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; l.leave(run, k) }, nil
	case <-ctx.Done():
		l.leave(run, k)
		return nil, fmt.Errorf("wait for run %d: %w", run, context.Cause(ctx))
	}
}

func (l *locks) leave(run bulkhead.RunID, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.n--; k.n == 0 {
		delete(l.runs, run)
	}
}
