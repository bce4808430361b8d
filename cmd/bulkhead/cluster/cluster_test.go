package cluster_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
)

// apiServer has one ConfigMap.
func apiServer(t *testing.T, trusted string) (server *httptest.Server, ca string) {
	t.Helper()
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": %q}}`, trusted)
	}))
	t.Cleanup(server.Close)
	return server, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func kubeconfig(t *testing.T, host, ca string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	authority := ""
	if ca != "" {
		authority = ", certificate-authority-data: " + base64.StdEncoding.EncodeToString([]byte(ca))
	}
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
users: [{name: u, user: {token: secret}}], clusters: [{name: c, cluster: {server: %q%s}}]}`, host, authority)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentialsAreShownToNobodyUnknown(t *testing.T) {
	empty, ca := apiServer(t, "")
	file := filepath.Join(t.TempDir(), "none.crt")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host, ca string
		options  cluster.Options
		says     string
	}{
		"a server that has not published its certificates": {empty.URL, ca, cluster.Options{}, "has no certificate yet"},
		"the same at a URL":                  {empty.URL, ca, cluster.Options{URL: "https://localhost:1"}, "has no certificate yet"},
		"a file without certificates":        {empty.URL, ca, cluster.Options{CAFile: file}, "holds no certificates"},
		"a URL without encryption":           {empty.URL, ca, cluster.Options{URL: "http://bulkhead.example.org"}, "without encryption"},
		"an API server without encryption":   {"http://api.example.org", "", cluster.Options{}, "no https:// address"},
		"one that is named without a scheme": {"api.example.org:80", "", cluster.Options{}, "no https:// address"},
	} {
		c.options.Kubeconfig = kubeconfig(t, c.host, c.ca)
		_, err := cluster.Dial(t.Context(), c.options)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole, ca := apiServer(t, ca)
	if _, err := cluster.Dial(t.Context(), cluster.Options{Kubeconfig: kubeconfig(t, whole.URL, ca)}); err != nil {
		t.Error(err)
	}
}
