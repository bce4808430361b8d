package rpc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
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
	// User is who the cluster says that it is; nil: whoever has the server's own
	// token, who may do everything.
	User *bulkhead.User
	// Kind is what an agent is a worker of.
	bulkhead.Kind
	// Worker is the only name that an agent may have; "": any. With one, its shape is
	// Kind's, too.
	Worker string
}

// Credentials are what a caller shows. The handshake has proven that it has the key
// of its certificate, and nothing else was looked at.
type Credentials struct {
	Token        string
	Certificates []*x509.Certificate // its own first
}

// Authenticator says who somebody is, as a user or as an agent: what is good for
// the one is not for the other. An error is a bulkhead.Error, CodeDenied for what is
// nobody's.
type Authenticator interface {
	User(context.Context, Credentials) (Caller, error)
	Agent(context.Context, Credentials) (Caller, error)
}

// Tokens are an Authenticator between parts that trust each other: one token for
// all users, and for the agents of each class one that is derived from it.
type Tokens struct {
	Secret string // the token of users
}

// OfClass is the token of the agents of a class: its name and, behind the last dot,
// what only who knows the user token could have made.
func (t Tokens) OfClass(class string) string {
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write([]byte("agent of class " + class)) // a hash never fails
	return class + "." + hex.EncodeToString(mac.Sum(nil))
}

// User implements Authenticator.
func (t Tokens) User(_ context.Context, c Credentials) (Caller, error) {
	if t.Is(c.Token) {
		return Caller{Name: "user"}, nil
	}
	if _, ok := t.class(c.Token); ok {
		return Caller{}, denied("agents have one, users have another, which whoever runs the server has", "the token is that of an agent")
	}
	return Caller{}, denied("whoever runs the server has the token; `bulkhead context add` stores it", "the server does not accept the token")
}

// Is reports whether a token is that of users.
func (t Tokens) Is(token string) bool { return t.Secret != "" && equal(token, t.Secret) }

// Agent implements Authenticator.
func (t Tokens) Agent(_ context.Context, c Credentials) (Caller, error) {
	class, ok := t.class(c.Token)
	if !ok {
		return Caller{}, denied("`bulkhead token CLASS` prints it on the server's host", "the token is not that of an agent")
	}
	return Caller{Name: "agent of " + class, Kind: bulkhead.Kind{Class: class}}, nil
}

// class is the class whose agents have a token.
func (t Tokens) class(token string) (string, bool) {
	at := strings.LastIndexByte(token, '.')
	if at <= 0 || t.Secret == "" || !equal(token, t.OfClass(token[:at])) {
		return "", false
	}
	return token[:at], true
}

func denied(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// equal compares in a time that says nothing about where they differ.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

type callerKey struct{}

type certificatesKey struct{}

// withCertificates lets the gate see what came with the connection.
func withCertificates(r *http.Request) *http.Request {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), certificatesKey{}, r.TLS.PeerCertificates))
}

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
	ctx, err := g.known(ctx, h, g.opts.Auth.User)
	if err == nil && !g.limiter(CallerOf(ctx).Name).Allow() {
		err = tooMuch("more than %v calls a second", g.opts.Rate)
	}
	if err != nil {
		count(g.opts.Metrics, spec, err)
		return nil, err
	}
	countBody(ctx, spec, CallerOf(ctx).Name)
	return ctx, nil
}

// agent lets in whom the handler then asks for its class; it is
// connect.RequestGateFunc.
func (g *gate) agent(ctx context.Context, spec connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
	ctx, err := g.known(ctx, h, g.opts.Auth.Agent)
	if err != nil {
		count(g.opts.Metrics, spec, err)
		return nil, err
	}
	// Where a class has one token its agents are many callers of one name.
	countBody(ctx, spec, CallerOf(ctx).Worker)
	return ctx, nil
}

func (g *gate) known(ctx context.Context, h http.Header, who func(context.Context, Credentials) (Caller, error)) (context.Context, error) {
	var c Credentials
	c.Certificates, _ = ctx.Value(certificatesKey{}).([]*x509.Certificate)
	if scheme, token, _ := strings.Cut(h.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		c.Token = token
	}
	if c.Token == "" && len(c.Certificates) == 0 {
		return ctx, unauthenticated(denied("give the file that has it: --token-file FILE, here or in `bulkhead context add`; without bulkhead, send the header Authorization: Bearer TOKEN",
			"the server wants a token"))
	}
	caller, err := who(ctx, c)
	if err != nil {
		return ctx, unauthenticated(err)
	}
	return context.WithValue(ctx, callerKey{}, caller), nil
}

// unauthenticated is an error of an Authenticator on the wire.
func unauthenticated(err error) error {
	if bulkhead.CodeOf(err) == bulkhead.CodeDenied {
		return fault(connect.CodeUnauthenticated, err)
	}
	return Fault(err)
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
