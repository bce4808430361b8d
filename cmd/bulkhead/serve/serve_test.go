package serve

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
)

func keysIn(t *testing.T, dir string, names ...string) *keys {
	t.Helper()
	k, err := openKeys(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysAreMadeOnceAndForNobodyElse(t *testing.T) {
	dir := t.TempDir()
	first, again := keysIn(t, dir), keysIn(t, dir)
	if first.token != again.token || len(first.token) < 40 || !first.signer.cert.Equal(again.signer.cert) {
		t.Error("the second start has other keys")
	}
	for _, name := range []string{"", "token", "authority.pem", "ca.crt"} {
		info, err := os.Stat(filepath.Join(dir, "keys", name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestAKeyThatIsDamagedIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	keysIn(t, dir)
	for _, name := range []string{"authority.pem"} {
		path := filepath.Join(dir, "keys", name)
		was, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte("not a key"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openKeys(dir, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheCertificateIsForTheServersNamesAndIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keysIn(t, t.TempDir(), "localhost", "10.1.2.3")
		roots := x509.NewCertPool()
		text, err := os.ReadFile(k.path("ca.crt"))
		if err != nil || !roots.AppendCertsFromPEM(text) {
			t.Fatal("no certificate of the authority:", err)
		}
		check := func() *tls.Certificate {
			t.Helper()
			cert, err := k.certificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range k.names {
				if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: time.Now()}); err != nil {
					t.Error(err)
				}
			}
			return cert
		}
		first := check()
		<-time.After(certLife / 2)
		if check() != first {
			t.Error("renewed too early")
		}
		<-time.After(certLife / 4)
		if check() == first {
			t.Error("not renewed")
		}
	})
}

func TestClassesOfAFile(t *testing.T) {
	const head = "apiVersion: bulkhead.dev/v1alpha1\nkind: ScriptClass\n"
	for name, c := range map[string]struct{ text, bad string }{
		"two classes":         {text: head + "metadata: {name: a}\nspec: {command: [php]}\n---\n" + head + "metadata: {name: b, namespace: ns}\n"},
		"a misspelt field":    {text: head + "metadata: {name: a}\nspec: {comand: [php]}\n", bad: "comand"},
		"another kind":        {text: "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", bad: "not a ScriptClass"},
		"no name":             {text: head + "spec: {}\n", bad: "metadata.name"},
		"the same name twice": {text: head + "metadata: {name: a}\n---\n" + head + "metadata: {name: a}\n", bad: "two classes a"},
		"no YAML":             {text: "{", bad: "document 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "classes.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readClasses([]string{path})
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || bulkhead.CodeOf(err) != bulkhead.CodeUsage {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"a", "ns/b"}, got.Names()); diff != "" {
				t.Error(diff)
			}
			if class, ok := got.Class("a"); !ok || !cmp.Equal(class.Command, []string{"php"}) {
				t.Errorf("%+v", class)
			}
		})
	}
}

// A change that was not taken yet is told once, however often it is added.
func TestChangesComeTogether(t *testing.T) {
	c := newChanges()
	for range 3 {
		c.add("a")
	}
	c.add("b")
	go c.pass(t.Context())
	got := map[string]bool{<-c.out: true, <-c.out: true}
	select {
	case class := <-c.out:
		t.Errorf("%s came again", class)
	default:
	}
	if !got["a"] || !got["b"] {
		t.Error(got)
	}
}

func TestCallersThatTrustAnotherCertificateDoNotFillTheLog(t *testing.T) {
	var said strings.Builder
	say := log.New(connections{slog.New(slog.NewTextHandler(&said, nil))}, "", 0)
	say.Print("http: TLS handshake error from 192.0.2.1:1: remote error: tls: bad certificate")
	if said.Len() > 0 {
		t.Errorf("it said %q", said.String())
	}
	say.Print("http: panic serving 192.0.2.1:1: oh")
	if !strings.Contains(said.String(), "panic serving") {
		t.Errorf("it said %q", said.String())
	}
}
