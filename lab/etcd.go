package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What tests ask of etcd goes over its JSON gateway
// (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/): five calls are not
// worth its client and all that comes with it.

// etcd calls a method, with our client certificate.
func (l *Lab) etcd(ctx context.Context, method string, in, out any) error {
	client, url, err := l.etcdClient(ctx)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s: %s", method, resp.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (l *Lab) etcdClient(ctx context.Context) (*http.Client, string, error) {
	s, err := l.Status(ctx)
	if err != nil {
		return nil, "", err
	}
	pki := func(name string) string { return filepath.Join(l.dir, PKIFolder, name) }
	own, err := tls.LoadX509KeyPair(pki("etcd.crt"), pki("etcd.key"))
	if err != nil {
		return nil, "", err
	}
	ca, err := os.ReadFile(pki("ca.crt"))
	if err != nil {
		return nil, "", err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{own}, RootCAs: pool, MinVersion: tls.VersionTLS13,
	}}}, s.Etcd, nil
}

// keyRange is a request about the keys from Key up to RangeEnd.
type keyRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"`
	KeysOnly bool   `json:"keys_only,omitempty"`
	Limit    int64  `json:"limit,omitempty,string"`
	Revision int64  `json:"revision,omitempty,string"`
}

type keys struct {
	Header struct {
		Revision int64 `json:"revision,string"`
	} `json:"header"`
	KVs []struct {
		Key []byte `json:"key"`
	} `json:"kvs"`
	More bool `json:"more"`
}

// pageKeys bounds one answer: names have up to a few hundred bytes.
const pageKeys = 10_000

// registry is where the API server keeps its objects, and registryEnd the first
// key behind them.
const (
	registry    = "/registry/"
	registryEnd = "/registry0"
)

// objects counts the API server's objects by resource, at one revision.
func (l *Lab) objects(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	ask := keyRange{Key: []byte(registry), RangeEnd: []byte(registryEnd), KeysOnly: true, Limit: pageKeys}
	for {
		var page keys
		if err := l.etcd(ctx, "/v3/kv/range", ask, &page); err != nil {
			return nil, err
		}
		for _, kv := range page.KVs {
			counts[resourceOf(string(kv.Key))]++
		}
		if !page.More {
			return counts, nil
		}
		if len(page.KVs) == 0 {
			return nil, errors.New("etcd has more keys, but gives none")
		}
		ask.Revision = page.Header.Revision
		ask.Key = slices.Concat(page.KVs[len(page.KVs)-1].Key, []byte{0}) // the first one behind it
	}
}

// resourceOf is the resource of a key such as /registry/pods/default/web-0 or
// /registry/bulkhead.dev/scriptclasses/default/mediawiki. A few keep the names
// that they had in the first years of Kubernetes.
func resourceOf(key string) string {
	parts := strings.Split(strings.TrimPrefix(key, registry), "/")
	switch {
	case parts[0] == "minions":
		return "nodes"
	case parts[0] == "services" && len(parts) > 1 && parts[1] == "specs":
		return "services"
	case parts[0] == "services" && len(parts) > 1:
		return parts[1]
	case strings.Contains(parts[0], ".") && len(parts) > 1:
		return parts[1] + "." + parts[0]
	}
	return parts[0]
}
