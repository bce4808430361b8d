package serve

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// keys are what a server proves with who it is, and by which it knows others. They
// are made when it first starts, in the folder keys of its state folder, and are
// readable by its user only:
//
//	authority.pem   who signs the server's certificate: its certificate and key
//	former.pem      the certificate of the authority before, until it ends
//	next.pem        the authority that comes next, which is trusted before it signs
//	ca.crt          the certificates of all of them: what callers need
//	token           of users; without a cluster those of agents are made of it
//
// Who has read ca.crt within authorityOverlap trusts the server at any time, unless it was
// down for so long that its authority has ended meanwhile.
type keys struct {
	dir   string
	token string
	names []string // hosts and addresses that the server is called by

	mu     sync.Mutex
	signer authority
	next   *authority // nil: none yet
	former *x509.Certificate
	cert   *tls.Certificate
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

const (
	authorityLife = 2 * 365 * 24 * time.Hour
	// The next authority is made when this is left of the life of the one that
	// signs, and signs after authorityOverlap.
	authorityRest    = 180 * 24 * time.Hour
	authorityOverlap = 30 * 24 * time.Hour
	certLife         = 30 * 24 * time.Hour // renewed when a third is left, without a restart
	skew             = time.Hour           // that clocks may differ
)

func openKeys(state string, names []string) (*keys, error) {
	k := &keys{dir: filepath.Join(state, "keys"), names: names}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of keys: %w", err)
	}
	token, err := k.file("token", func() ([]byte, error) { return []byte(rand.Text() + rand.Text()), nil })
	if err != nil {
		return nil, err
	}
	k.token = strings.TrimSpace(string(token))
	if err := k.openAuthorities(); err != nil {
		return nil, err
	}
	err = k.rotate()
	return k, err
}

// path is where one of the keys is.
func (k *keys) path(name string) string { return filepath.Join(k.dir, name) }

// file reads a key, and makes it first if it is not there.
func (k *keys) file(name string, create func() ([]byte, error)) ([]byte, error) {
	text, err := os.ReadFile(k.path(name))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if text, err = create(); err != nil {
		return nil, fmt.Errorf("make key %s: %w", name, err)
	}
	return text, k.write(name, text)
}

// write puts a key in its place, whole or not at all: a half-written one would be
// one that nobody else has.
func (k *keys) write(name string, text []byte) error {
	temp := k.path(name + ".tmp")
	if err := writeSynced(temp, text); err != nil {
		return err
	}
	return os.Rename(temp, k.path(name))
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func (k *keys) openAuthorities() error {
	text, err := k.file("authority.pem", func() ([]byte, error) { _, text, err := newAuthority(); return text, err })
	if err != nil {
		return err
	}
	if k.signer, err = parseAuthority(text); err != nil {
		return fmt.Errorf("%s: %w", k.path("authority.pem"), err)
	}
	if text, err = os.ReadFile(k.path("next.pem")); err == nil {
		next, err := parseAuthority(text)
		if err != nil {
			return fmt.Errorf("%s: %w", k.path("next.pem"), err)
		}
		// A rotation that was cut short has signer and next the same; it goes on.
		if !next.cert.Equal(k.signer.cert) {
			k.next = &next
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = os.ReadFile(k.path("former.pem")); err == nil {
		k.former, err = parseCertificate(text)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// newAuthority makes one, and the text of its file.
func newAuthority() (authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return authority{}, nil, err
	}
	now := time.Now()
	about := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Bulkhead server, " + now.UTC().Format(time.DateOnly)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
	}
	cert, err := sign(about, about, key.Public(), key)
	if err != nil {
		return authority{}, nil, err
	}
	parsed, err := x509.ParseCertificate(cert)
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	return authority{parsed, key}, text, err
}

func parseAuthority(text []byte) (authority, error) {
	cert, err := parseCertificate(text)
	if err != nil {
		return authority{}, err
	}
	_, rest := pem.Decode(text)
	key, err := signerOf(rest)
	if err != nil {
		return authority{}, err
	}
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || !public.Equal(cert.PublicKey) {
		return authority{}, errors.New("the key is not that of the certificate")
	}
	return authority{cert, key}, nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it does not begin with a certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func signerOf(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("not a key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key that cannot sign: %T", key)
	}
	return signer, nil
}

// rotate makes the next authority, and lets it sign, when it is time; and writes
// ca.crt. Each step leaves files that the next start goes on with.
func (k *keys) rotate() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := time.Until(k.signer.cert.NotAfter)
	if k.next == nil && left < authorityRest {
		next, text, err := newAuthority()
		if err != nil {
			return fmt.Errorf("make the next authority: %w", err)
		}
		if err := k.write("next.pem", text); err != nil {
			return err
		}
		k.next = &next
	}
	// Nobody can trust one that has ended, or is about to, because nobody was here to
	// rotate it: better one that has to be read first.
	ended := left < rotateEvery
	if k.next != nil && (ended || time.Since(k.next.cert.NotBefore) > authorityOverlap+skew) {
		if err := k.succeed(); err != nil {
			return err
		}
	}
	if k.former != nil && time.Now().After(k.former.NotAfter) {
		k.former = nil
		_ = os.Remove(k.path("former.pem")) // it is of no use, and no harm
	}
	text := k.bundle()
	if was, err := os.ReadFile(k.path("ca.crt")); err == nil && bytes.Equal(was, text) {
		return nil
	}
	return k.write("ca.crt", text)
}

// succeed lets the next authority sign.
func (k *keys) succeed() error {
	text, err := os.ReadFile(k.path("next.pem"))
	if err != nil {
		return err
	}
	if err := k.write("former.pem", encoded(k.signer.cert)); err != nil {
		return err
	}
	if err := k.write("authority.pem", text); err != nil {
		return err
	}
	k.former, k.signer, k.next, k.cert = k.signer.cert, *k.next, nil, nil
	return os.Remove(k.path("next.pem"))
}

// bundle is what callers need to trust the server.
func (k *keys) bundle() []byte {
	all := encoded(k.signer.cert)
	if k.next != nil {
		all = append(all, encoded(k.next.cert)...)
	}
	if k.former != nil {
		all = append(all, encoded(k.former)...)
	}
	return all
}

// authorities is the same for those who ask again and again.
func (k *keys) authorities() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bundle()
}

func encoded(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func sign(about, by *x509.Certificate, public any, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	about.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, about, by, public, key)
}

// certificate is the server's, as tls.Config.GetCertificate asks for it with every
// connection.
func (k *keys) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cert != nil && time.Until(k.cert.Leaf.NotAfter) > certLife/3 {
		return k.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	about := &x509.Certificate{
		Subject: pkix.Name{CommonName: "bulkhead"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-skew), NotAfter: time.Now().Add(certLife),
	}
	for _, name := range k.names {
		if ip := net.ParseIP(name); ip != nil {
			about.IPAddresses = append(about.IPAddresses, ip)
		} else {
			about.DNSNames = append(about.DNSNames, name)
		}
	}
	der, err := sign(about, k.signer.cert, key.Public(), k.signer.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	k.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return k.cert, nil
}
