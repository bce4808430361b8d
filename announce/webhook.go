package announce

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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

// Webhook is where lines are posted.
type Webhook struct {
	URL string // "": nowhere
	// TokenFile holds a token, sent as "Authorization: Bearer TOKEN", or a whole header
	// "NAME: VALUE". It is read for each line, so that it can be replaced.
	TokenFile string
	// CAFile holds the certificates that may have signed that of the receiver.
	// Default: those that the system trusts.
	CAFile string
}

// Message is what is posted, as JSON. Its field names are a contract: add, never
// rename. Times are RFC 3339.
type Message struct {
	Event    Kind            `json:"event"` // start, end, or more: of several runs that are alike
	Text     string          `json:"text"`  // the one line, which chat systems show
	Time     time.Time       `json:"time"`
	Run      bulkhead.RunID  `json:"run"` // of more: the first
	Owner    string          `json:"owner"`
	Name     string          `json:"name"`
	Command  string          `json:"command"` // cut
	Comment  string          `json:"comment"`
	Class    string          `json:"class"`
	Items    int64           `json:"items"`
	Started  *time.Time      `json:"started"`          // null: nothing of it ran
	State    string          `json:"state"`            // running, or what it ended as
	Reason   string          `json:"reason"`           // why it was cancelled or halted
	Counts   bulkhead.Counts `json:"counts"`           // items by state
	ExitCode *int            `json:"exit_code"`        // of a single script that has ended, else null
	Seconds  *float64        `json:"duration_seconds"` // of a run that has ended, else null
	More     *Gathered       `json:"more,omitempty"`   // of more: what they did
}

// Message is the line as it is posted.
func (l *Line) Message() Message {
	m := Message{
		Event: l.Kind, Text: l.Who() + ": " + l.Text(), Time: l.At.UTC(), Run: l.Run, Owner: l.Owner, Name: l.Name, Command: l.Command,
		Comment: l.Comment, Class: l.Class, Items: l.Counts.Total(), State: l.State.String(), Reason: l.Reason, Counts: l.Counts, More: l.Gathered,
	}
	if !l.Started.IsZero() {
		started := l.Started.UTC()
		m.Started = &started
	}
	if l.Kind != KindEnd {
		return m
	}
	if l.Single && l.State.Finished() {
		m.ExitCode = &l.ExitCode
	}
	if took, ok := l.took(); ok {
		seconds := took.Seconds()
		m.Seconds = &seconds
	}
	return m
}

// poster posts lines.
type poster struct {
	webhook Webhook
	client  *http.Client
}

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func newPoster(w Webhook) (*poster, error) {
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usage("for example https://chat.example.org/hooks/abc", "the webhook's URL %s is not one of http or https", bulkhead.Quote(w.URL))
	}
	if w.TokenFile != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, usage("use https", "the webhook's token would travel in the clear to %s", u.Host)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.CAFile != "" {
		text, err := os.ReadFile(w.CAFile)
		config.RootCAs = x509.NewCertPool()
		if err != nil || !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, usage("it is a file in PEM", "the webhook's CA %s has no certificate: %v", w.CAFile, err)
		}
	}
	p := &poster{webhook: w, client: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConns: 1,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: sendTime, ResponseHeaderTimeout: sendTime},
		// A token is for whom it was given to, and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if w.TokenFile != "" {
		_, _, err = p.header()
	}
	return p, err
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
func (p *poster) header() (name, value string, err error) {
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

func (p *poster) name() string     { return "webhook" }
func (p *poster) wants(*Line) bool { return true }

// send implements sender. Its errors do not show the URL, whose path may be a secret.
func (p *poster) send(ctx context.Context, line *Line) error {
	body, err := json.Marshal(line.Message())
	if err != nil {
		return refused{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.webhook.URL, bytes.NewReader(body))
	if err != nil {
		return refused{err}
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

func (p *poster) close() { p.client.CloseIdleConnections() }
