package rpc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

func TestURLsThatCannotBeCalledAreRefusedWithAHint(t *testing.T) {
	for name, url := range map[string]string{
		"without a scheme":               "localhost:8443",
		"of another protocol":            "ftp://localhost",
		"without a host":                 "https:///x",
		"with a password":                "https://a" + ":secret@localhost",
		"with a query":                   "https://localhost?x=1",
		"unencrypted to another machine": "http://bulkhead.example",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := rpc.Dial(rpc.DialOptions{URL: url})
			if err == nil || bulkhead.CodeOf(err) != bulkhead.CodeUsage || bulkhead.HintOf(err) == "" {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the message tells the password: %v", err)
			}
		})
	}
	for _, url := range []string{"http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1/prefix", "https://x.example"} {
		if _, _, _, err := rpc.Dial(rpc.DialOptions{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestARotatedTokenIsReadAgainOnceTheOldOneIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	write(t, path, "old\n")
	var got []string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Proto+" "+r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") != "Bearer new" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(dir, "ca.crt")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))

	client, base, _, err := rpc.Dial(rpc.DialOptions{URL: srv.URL, CAFile: ca, TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	call := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	write(t, path, "new\n")
	if a, b := call(), call(); a != http.StatusUnauthorized || b != http.StatusOK {
		t.Errorf("answers %d, %d; the server saw %q", a, b, got)
	}
	if !strings.HasPrefix(got[0], "HTTP/2.0 ") {
		t.Errorf("the server saw %q", got[0])
	}
	if c, ok := client.(*http.Client); ok {
		c.CloseIdleConnections()
	}
}

// selfSigned is a certificate for this machine, and its PEM.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestCertificatesThatAreRotatedAreReadAgain(t *testing.T) {
	first, firstPEM := selfSigned(t)
	second, secondPEM := selfSigned(t)
	current := &first
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Proto", r.Proto) }))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current, nil }}
	srv.StartTLS()
	defer srv.Close()
	srv.TLS.Certificates = nil // the test server's own goes first
	ca := filepath.Join(t.TempDir(), "ca.crt")
	write(t, ca, firstPEM)
	client, base, _, err := rpc.Dial(rpc.DialOptions{URL: srv.URL, CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	c, ok := client.(*http.Client)
	if !ok {
		t.Fatalf("%T", client)
	}
	call := func() error {
		c.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			return err
		}
		if proto := res.Header.Get("Proto"); proto != "HTTP/2.0" {
			t.Errorf("the server saw %s", proto)
		}
		return res.Body.Close()
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	current = &second
	if err := call(); err == nil {
		t.Error("a server was trusted that nobody vouches for")
	}
	write(t, ca, secondPEM)
	if err := call(); err != nil {
		t.Error("after the file has changed:", err)
	}
	write(t, ca, "half of")
	if err := call(); err == nil {
		t.Error("a server was trusted that nobody vouches for any more")
	}
	c.CloseIdleConnections()
}

func TestATokenIsNotCarriedToWhereARedirectPoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "secret")
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	client, base, _, err := rpc.Dial(rpc.DialOptions{URL: srv.URL, TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusTemporaryRedirect || asked {
		t.Errorf("status %d, the other server was asked: %v", res.StatusCode, asked)
	}
}

func TestWithoutUsableFilesNothingIsDialled(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, "two words\n")
	for name, opts := range map[string]rpc.DialOptions{
		"a token file that is missing":       {TokenFile: filepath.Join(dir, "none")},
		"a token file that holds something":  {TokenFile: bad},
		"a certificate file that is missing": {CAFile: filepath.Join(dir, "none")},
		"a certificate file without any":     {CAFile: bad},
	} {
		opts.URL = "https://localhost"
		if _, _, _, err := rpc.Dial(opts); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
