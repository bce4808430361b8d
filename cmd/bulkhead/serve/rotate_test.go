package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead.dev/bulkhead/rpc"
)

// trust is whom a caller trusts who reads ca.crt now.
func (k *keys) trust(t *testing.T) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(k.path("ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal("no certificate of the authority:", err)
	}
	return roots
}

// Six years, with a look every ninth day, as the server has one an hour; it is
// started again now and then.
func TestWhoHasReadWhomToTrustLatelyTrustsTheServerForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := keysIn(t, dir, "localhost")
		const look = 9 * 24 * time.Hour
		var readers []*x509.CertPool // of the last 27 days, the last one first
		signers := map[string]bool{}
		for n := range 6 * 365 / 9 {
			if n%17 == 16 {
				k = keysIn(t, dir, "localhost")
			} else if err := k.rotate(); err != nil {
				t.Fatal(err)
			}
			readers = append([]*x509.CertPool{k.trust(t)}, readers[:min(3, len(readers))]...)
			cert, err := k.certificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, ago := range []int{0, len(readers) - 1} {
				roots := readers[ago]
				if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots, CurrentTime: time.Now()}); err != nil {
					t.Fatalf("look %d: who read %d looks ago: %v", n, ago, err)
				}
			}
			signers[k.signer.cert.SerialNumber.String()] = true
			<-time.After(look)
		}
		if len(signers) != 4 && len(signers) != 5 {
			t.Errorf("%d authorities in six years", len(signers))
		}
	})
}

func TestAServerThatWasDownForYearsCanBeTrustedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		keysIn(t, dir, "localhost")
		<-time.After(authorityLife + time.Hour)
		k := keysIn(t, dir, "localhost")
		cert, err := k.certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: k.trust(t), CurrentTime: time.Now()}); err != nil {
			t.Error(err)
		}
	})
}

func TestARotationThatWasCutShortGoesOn(t *testing.T) {
	dir := t.TempDir()
	k := keysIn(t, dir)
	next, text, err := newAuthority()
	if err == nil {
		err = k.write("next.pem", text)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.next = &next
	was := k.signer.cert
	if err := k.succeed(); err != nil {
		t.Fatal(err)
	}
	if err := k.write("next.pem", text); err != nil { // as if it had not been removed any more
		t.Fatal(err)
	}
	again := keysIn(t, dir)
	if !again.signer.cert.Equal(next.cert) || again.next != nil || !again.former.Equal(was) {
		t.Errorf("signer %v, next %v, former %v", again.signer.cert.Subject, again.next, again.former)
	}
}

// Fifty who call again and again, as agents do, while certificates and the authority
// are replaced under them.
func TestCallersGoOnWhileCertificatesAreRotated(t *testing.T) {
	k := keysIn(t, t.TempDir(), "localhost", "127.0.0.1")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: k.certificate}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS() // which has a certificate of its own for who names no host
	url := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	defer server.Close()
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var calls [50]atomic.Int64
	for n := range calls {
		callers.Go(func() {
			defer stop() // or the others would be waited for
			callAgainAndAgain(ctx, t, k.path("ca.crt"), url, &calls[n])
		})
	}
	more := func() { // until everybody has made a whole call since
		var until [len(calls)]int64
		for n := range calls {
			until[n] = calls[n].Load() + 2
		}
		for n := range calls {
			for calls[n].Load() < until[n] && ctx.Err() == nil {
				<-time.After(time.Millisecond)
			}
		}
	}
	for range 3 {
		more()
		next, text, err := newAuthority()
		if err == nil {
			err = k.write("next.pem", text)
		}
		k.mu.Lock()
		k.next, k.cert = &next, nil
		k.mu.Unlock()
		if err == nil {
			err = k.rotate()
		}
		if err != nil {
			t.Error(err)
		}
		more() // the overlap: everybody has read ca.crt since
		k.mu.Lock()
		err = k.succeed()
		k.mu.Unlock()
		if err == nil {
			err = k.rotate()
		}
		if err != nil {
			t.Error(err)
		}
	}
	more()
	stop()
	callers.Wait()
}

func callAgainAndAgain(ctx context.Context, t *testing.T, ca, url string, calls *atomic.Int64) {
	client, base, _, err := rpc.Dial(rpc.DialOptions{URL: url, CAFile: ca})
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
		if err != nil {
			t.Error(err)
			return
		}
		res, err := client.Do(req)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		_ = res.Body.Close()
		client.(*http.Client).CloseIdleConnections() // so that the next call is a new handshake
		calls.Add(1)
	}
}
