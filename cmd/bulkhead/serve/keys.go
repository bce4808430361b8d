package serve

import (
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
//	ca.crt, ca.key   who signs the server's certificate; callers need ca.crt
//	token            of users; those of agents are made of it
type keys struct {
	dir    string
	token  string
	ca     *x509.Certificate
	signer crypto.Signer
	names  []string // hosts and addresses that the server is called by

	mu   sync.Mutex
	cert *tls.Certificate
}

const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 30 * 24 * time.Hour // renewed when a third is left, without a restart
	skew     = time.Hour           // that clocks may differ
)

func openKeys(state string, names []string) (*keys, error) {
	k := &keys{dir: filepath.Join(state, "keys"), names: names}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of keys: %w", err)
	}
	random := func() ([]byte, error) { return []byte(rand.Text() + rand.Text()), nil }
	token, err := k.file("token", random)
	if err != nil {
		return nil, err
	}
	k.token = strings.TrimSpace(string(token))
	if err := k.openCA(); err != nil {
		return nil, err
	}
	return k, nil
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
	// A half-written key would be one that nobody else has.
	temp := k.path(name + ".tmp")
	if err := writeSynced(temp, text); err != nil {
		return nil, err
	}
	return text, os.Rename(temp, k.path(name))
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func (k *keys) openCA() error {
	text, err := k.file("ca.key", func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
	})
	if err != nil {
		return err
	}
	if k.signer, err = signerOf(text); err != nil {
		return fmt.Errorf("%s: %w", k.path("ca.key"), err)
	}
	text, err = k.file("ca.crt", func() ([]byte, error) {
		about := &x509.Certificate{
			Subject: pkix.Name{CommonName: "Bulkhead server"}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(caLife),
		}
		der, err := k.sign(about, about, k.signer.Public())
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
	})
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s is not a certificate", k.path("ca.crt"))
	}
	k.ca, err = x509.ParseCertificate(block.Bytes)
	return err
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

func (k *keys) sign(about, by *x509.Certificate, public any) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	about.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, about, by, public, k.signer)
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
	der, err := k.sign(about, k.ca, key.Public())
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
