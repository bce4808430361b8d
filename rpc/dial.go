package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
)

// DialOptions say where a server is and how it and its caller know each other.
type DialOptions struct {
	// URL of the server: https://HOST[:PORT][/PATH], or http:// to this machine.
	URL string
	// CAFile holds the certificates, in PEM, that may have signed the server's. It
	// is read again with every connection, because they are rotated, too. Empty:
	// those that the system trusts.
	CAFile string
	// TokenFile holds the bearer token, which is sent with every call. It is read
	// again once a minute and after the server has refused a call, because
	// tokens are rotated. Empty: no token.
	TokenFile string
	// UserAgent is the caller's program and version, for the server's log.
	UserAgent string
	// Proxy chooses a proxy for a request, as in http.Transport. Nil: none.
	Proxy func(*http.Request) (*url.URL, error)
}

const (
	connectTime = 10 * time.Second // to connect, and to agree on keys
	// A connection on which nothing came for this long is asked whether it is
	// still there, because calls wait for minutes and a server that has vanished
	// says nothing.
	quietTime = 10 * time.Second
	pingTime  = 5 * time.Second
	idleTime  = 90 * time.Second // that an unused connection is kept
	tokenTime = time.Minute      // that a token is used without reading it again
	maxToken  = 64 << 10         // bytes
	// frameSize is the largest frame that a server may send: one that has much to send
	// spends less on each megabyte of it. It is a message of output, about.
	frameSize = 256 << 10
	// maxMessage bounds what a server can make its caller hold, in bytes.
	maxMessage = 64 << 20
)

// Dial readies calls to a server: what it returns are the arguments of a
// generated New…Client. It connects with the first call. Errors are the
// caller's own: a URL, certificates or a token that cannot be used.
//
//	client, url, opts, err := rpc.Dial(rpc.DialOptions{…})
//	agents := bulkheadv1connect.NewAgentServiceClient(client, url, opts...)
func Dial(opts DialOptions) (connect.HTTPClient, string, []connect.ClientOption, error) {
	base, err := checkURL(opts.URL)
	if err != nil {
		return nil, "", nil, err
	}
	roots, err := readRoots(opts.CAFile)
	if err != nil {
		return nil, "", nil, err
	}
	transport := &http.Transport{
		Proxy:               opts.Proxy,
		DialContext:         (&net.Dialer{Timeout: connectTime, KeepAlive: quietTime}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		TLSHandshakeTimeout: connectTime,
		IdleConnTimeout:     idleTime,
		MaxIdleConnsPerHost: 64, // for http://, where every call has a connection of its own
		ForceAttemptHTTP2:   true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: quietTime, PingTimeout: pingTime, WriteByteTimeout: quietTime,
			MaxReadFrameSize: frameSize},
	}
	caller := &caller{next: transport, agent: opts.UserAgent}
	if opts.CAFile != "" {
		transport.DialTLSContext = (&dialer{transport, opts.CAFile}).dial
	}
	if opts.TokenFile != "" {
		caller.token = &token{path: opts.TokenFile}
		if _, err := caller.token.get(); err != nil {
			return nil, "", nil, err
		}
	}
	client := &http.Client{
		Transport: caller,
		// A token is for the server that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, base, []connect.ClientOption{connect.WithReadMaxBytes(maxMessage)}, nil
}

func checkURL(text string) (string, error) {
	const hint = "https://HOST:PORT, or http://localhost:PORT for a server on this machine"
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		return "", usage(nil, hint, "server %s is not a URL that can be called", bulkhead.Quote(text))
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return "", usage(nil, hint, "server %s has more than host, port and path", bulkhead.Quote(u.Redacted()))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "", usage(nil, "use https://", "server %s would be called without encryption, which is for this machine only", bulkhead.Quote(text))
	}
	return u.String(), nil
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// readRoots returns nil, the system's own, for no file.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usage(err, "", "certificates of the server cannot be read")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, usage(nil, "it should hold PEM blocks that begin with -----BEGIN CERTIFICATE-----",
			"file %s holds no certificates", bulkhead.Quote(path))
	}
	return pool, nil
}

// dialer connects to a server whose certificate the file vouches for as it is now.
// Connections by way of a proxy are the transport's own, with what the file held
// at first.
type dialer struct {
	transport *http.Transport
	path      string
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	config := d.transport.TLSClientConfig.Clone()
	if roots, err := readRoots(d.path); err == nil { // or it is being replaced
		config.RootCAs = roots
	}
	config.NextProtos = []string{"h2", "http/1.1"}
	var err error
	if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
		return nil, err
	}
	raw, err := d.transport.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// caller says with every request who calls.
type caller struct {
	next  http.RoundTripper
	token *token // nil: none
	agent string
}

// RoundTrip implements http.RoundTripper.
func (c *caller) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if c.token != nil {
		text, err := c.token.get()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+text)
	}
	res, err := c.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized && c.token != nil {
		c.token.forget()
	}
	return res, err
}

// CloseIdleConnections lets http.Client pass it on.
func (c *caller) CloseIdleConnections() {
	if t, ok := c.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// token is a bearer token in a file.
type token struct {
	path string

	mu   sync.Mutex
	text string
	read time.Time // zero: read it before it is used again
}

// get returns the token. While the file cannot be read, the last one is as good
// as any: the server knows whether it still is.
func (t *token) get() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.read.IsZero() && time.Since(t.read) < tokenTime {
		return t.text, nil
	}
	text, err := readToken(t.path)
	if err != nil && t.text == "" {
		return "", err
	}
	if err == nil {
		t.text = text
	}
	t.read = time.Now()
	return t.text, nil
}

func (t *token) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read = time.Time{}
}

func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", usage(err, "", "the token cannot be read")
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || len(text) > maxToken || bytes.ContainsFunc(text, notPrintable) {
		return "", usage(nil, "it should hold one line: the token", "file %s does not hold a token", bulkhead.Quote(path))
	}
	return string(text), nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

func usage(cause error, hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint, Err: cause}
}
