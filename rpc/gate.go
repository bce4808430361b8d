package rpc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"bulkhead.dev/bulkhead"
)

// Caller is who makes a call.
type Caller struct {
	Name  string // for limits and logs
	Owner string // of the runs that it submits; "": whom the call names
	Agent bool   // an agent, which may not do what users do, and the other way round
	Class string // of an agent
}

// Authenticator says whose a token is. Its error is for a token that is nobody's.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Caller, error)
}

// Tokens are an Authenticator between parts that trust each other: one token for
// all users, and for the agents of each class one that is derived from it.
type Tokens struct{ User string }

var errToken = errors.New("no such token")

// Agent is the token of the agents of a class: its name and, behind the last dot,
// what only who knows the user token could have made.
func (t Tokens) Agent(class string) string {
	mac := hmac.New(sha256.New, []byte(t.User))
	mac.Write([]byte("agent of class " + class)) // a hash never fails
	return class + "." + hex.EncodeToString(mac.Sum(nil))
}

// Authenticate implements Authenticator.
func (t Tokens) Authenticate(_ context.Context, token string) (Caller, error) {
	if t.User != "" && equal(token, t.User) {
		return Caller{Name: "user"}, nil
	}
	if at := strings.LastIndexByte(token, '.'); at > 0 && t.User != "" && equal(token, t.Agent(token[:at])) {
		return Caller{Name: "agent of " + token[:at], Agent: true, Class: token[:at]}, nil
	}
	return Caller{}, errToken
}

// equal compares in a time that says nothing about where they differ.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

type callerKey struct{}

// CallerOf is who makes the call of a handler's context.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// maxCallers bounds for how many callers it is remembered what they did.
const maxCallers = 10_000

// gate lets calls in: of who may make them, not too many of them. It decides
// before anything of the message is read.
type gate struct {
	opts *Options

	mu       sync.Mutex
	limiters map[string]*rate.Limiter
	streams  map[string]int
	all      int // streams
}

func newGate(opts *Options) *gate {
	return &gate{opts: opts, limiters: map[string]*rate.Limiter{}, streams: map[string]int{}}
}

// user lets users in; it is connect.RequestGateFunc.
func (g *gate) user(ctx context.Context, spec connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
	ctx, err := g.known(ctx, h)
	if err == nil && CallerOf(ctx).Agent {
		err = refused(connect.CodePermissionDenied, "agents have one, users have another, which whoever runs the server has", "the token is that of an agent")
	}
	if err == nil && !g.limiter(CallerOf(ctx).Name).Allow() {
		err = tooMuch("more than %v calls a second", g.opts.Rate)
	}
	if err != nil {
		count(g.opts.Metrics, spec, err)
		return nil, err
	}
	return ctx, nil
}

// agent lets in whom the handler then asks for its class; it is
// connect.RequestGateFunc.
func (g *gate) agent(ctx context.Context, spec connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
	ctx, err := g.known(ctx, h)
	if err != nil {
		count(g.opts.Metrics, spec, err)
		return nil, err
	}
	return ctx, nil
}

func (g *gate) known(ctx context.Context, h http.Header) (context.Context, error) {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return ctx, refused(connect.CodeUnauthenticated, "give the file that has it: --token-file FILE, here or in `bulkhead context add`; without bulkhead, send the header Authorization: Bearer TOKEN",
			"the server wants a token")
	}
	who, err := g.opts.Auth.Authenticate(ctx, token)
	if err != nil {
		return ctx, refused(connect.CodeUnauthenticated, "whoever runs the server has the token; `bulkhead context add` stores it",
			"the server does not accept the token")
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

func tooMuch(format string, args ...any) error {
	return fault(connect.CodeResourceExhausted, &bulkhead.Error{Code: bulkhead.CodeInternal,
		Message: "the server has too much to do: " + fmt.Sprintf(format, args...), Hint: "try again in a moment"})
}

func (g *gate) limiter(name string) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.limiters[name]
	if l != nil {
		return l
	}
	if len(g.limiters) >= maxCallers {
		clear(g.limiters) // a burst for everybody is better than memory without bound
	}
	l = rate.NewLimiter(g.opts.Rate, g.opts.Burst)
	g.limiters[name] = l
	return l
}

// enter counts a stream in; what it returns counts it out.
func (g *gate) enter(name string) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.opts.Streams || g.streams[name] >= g.opts.StreamsEach {
		return nil, tooMuch("%d streams, %d of them yours", g.all, g.streams[name])
	}
	g.all++
	g.streams[name]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.streams[name]--; g.streams[name] == 0 {
			delete(g.streams, name)
		}
	}, nil
}

// counted bounds how many streams there are.
type counted struct{ gate *gate }

// WrapUnary is connect.Interceptor.
func (c counted) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler is connect.Interceptor.
func (c counted) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		leave, err := c.gate.enter(CallerOf(ctx).Name)
		if err != nil {
			return err
		}
		defer leave()
		return next(ctx, conn)
	}
}

// WrapStreamingClient is connect.Interceptor.
func (c counted) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
