// Package webhook posts JSON to an address that somebody gave: one request at a time,
// with a secret from a file, and without the address in any error, because a part of
// it may be a secret too. What is posted, when, and how often it is tried is the
// business of who posts.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// Webhook is where it is posted.
type Webhook struct {
	URL string // "": nowhere, unless URLFile says where
	// URLFile holds the URL, where that is a secret, as those of chats are: an argument
	// is in the list of processes. It is read for each request, so that it can be replaced.
	URLFile string
	// TokenFile holds a token, sent as "Authorization: Bearer TOKEN", or a whole header
	// "NAME: VALUE". It is read for each request, so that it can be replaced.
	TokenFile string
	// CAFile holds the certificates that may have signed that of the receiver.
	// Default: those that the system trusts.
	CAFile string
}

// Given reports whether it says where to post.
func (w *Webhook) Given() bool { return w.URL != "" || w.URLFile != "" }

// Timeout is how long a receiver may take for the handshake, and for its answer.
const Timeout = 10 * time.Second

// Poster posts. Its methods may be called from any goroutine.
type Poster struct {
	webhook Webhook
	client  *http.Client
}

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// New checks the webhook. What is wrong with it is CodeUsage.
func New(w Webhook) (*Poster, error) {
	if _, err := w.address(); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.CAFile != "" {
		text, err := os.ReadFile(w.CAFile)
		config.RootCAs = x509.NewCertPool()
		if err != nil || !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, usage("it is a file in PEM", "the webhook's CA %s has no certificate: %v", w.CAFile, err)
		}
	}
	p := &Poster{webhook: w, client: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConns: 1,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: Timeout, ResponseHeaderTimeout: Timeout},
		// A token is for whom it was given to, and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if w.TokenFile != "" {
		if _, _, err := p.header(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// address is where to post. Errors do not show one that is from a file.
func (w *Webhook) address() (string, error) {
	address, shown := w.URL, bulkhead.Quote(w.URL)
	if w.URLFile != "" {
		text, err := os.ReadFile(w.URLFile)
		if err != nil {
			return "", usage("", "the webhook's URL: %v", err)
		}
		address, shown = strings.TrimSpace(string(text)), "in "+bulkhead.Quote(w.URLFile)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", usage("for example https://chat.example.org/hooks/abc", "the webhook's URL %s is not one of http or https", shown)
	}
	switch heard := u.Scheme == "http" && !loopback(u.Hostname()); {
	case heard && w.TokenFile != "":
		return "", usage("use https", "the webhook's token would travel in the clear to %s", u.Host)
	case heard && w.URLFile != "":
		return "", usage("use https, or give the URL itself if it is no secret", "the webhook's URL, a secret, would travel in the clear to %s", u.Host)
	}
	return address, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var (
	headerName  = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	headerValue = regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`)
)

// header is what the token's file says.
func (p *Poster) header() (name, value string, err error) {
	text, err := os.ReadFile(p.webhook.TokenFile)
	if err != nil {
		return "", "", usage("", "the webhook's token: %v", err)
	}
	line := strings.TrimSpace(string(text))
	name, value, whole := strings.Cut(line, ":")
	if value = strings.TrimSpace(value); !whole && line != "" {
		name, value = "Authorization", "Bearer "+line
	}
	if !headerName.MatchString(name) || !headerValue.MatchString(value) {
		return "", "", usage("it holds a token, or a header NAME: VALUE", "the webhook's token file %s is neither", p.webhook.TokenFile)
	}
	return name, value, nil
}

// refused is an error that another try would bring again.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// IsRefused reports whether the receiver does not want what was posted, so that
// another try would bring the same.
func IsRefused(err error) bool {
	_, is := errors.AsType[refused](err)
	return is
}

// Post posts a body, JSON, and returns nil when the receiver has taken it. Errors do
// not show the URL.
func (p *Poster) Post(ctx context.Context, body []byte) error {
	address, err := p.webhook.address()
	if err != nil {
		return err // of a file that is being replaced
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return refused{bare(err)}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bulkhead")
	if p.webhook.TokenFile != "" {
		name, value, err := p.header()
		if err != nil {
			return err
		}
		req.Header.Set(name, value)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("post to the webhook: %w", bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	const most = 64 << 10 // of an answer that nobody reads
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, most))
	switch code := res.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 5 || code == http.StatusRequestTimeout || code == http.StatusTooManyRequests:
		return fmt.Errorf("the webhook says %s", res.Status)
	default:
		return refused{fmt.Errorf("the webhook says %s", res.Status)}
	}
}

// bare is an error of a request without its URL.
func bare(err error) error {
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // what http.Client returns, as it is
		return e.Err
	}
	return err
}

// Close lets go of connections.
func (p *Poster) Close() { p.client.CloseIdleConnections() }
