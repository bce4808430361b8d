package webhook_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/webhook"
)

// file is one with a text.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook.url")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAURLFromAFileIsReadForEachPost(t *testing.T) {
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths = append(paths, r.URL.Path) }))
	defer server.Close()
	path := file(t, server.URL+"/first\n")
	p, err := webhook.New(webhook.Webhook{URLFile: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Post(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(server.URL+"/second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Post(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(paths, " "); got != "/first /second" {
		t.Errorf("posted to %s", got)
	}
	// While the file is being replaced it may be gone: another try may find it.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := p.Post(t.Context(), []byte("{}")); err == nil || webhook.IsRefused(err) {
		t.Errorf("without its file: %v", err)
	}
}

func TestNoErrorShowsAURLFromAFile(t *testing.T) {
	for name, text := range map[string]string{
		"no scheme":         "chat.example.org/s3cret",
		"another scheme":    "ftp://chat.example.org/s3cret",
		"no URL at all":     "https://chat.example.org/s3cret\x7f",
		"it would be heard": "http://chat.example.org/s3cret",
		"nothing":           "",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := webhook.New(webhook.Webhook{URLFile: file(t, text)})
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage || strings.Contains(err.Error(), "s3cret") {
				t.Error(err)
			}
		})
	}
	// Nobody listens there.
	p, err := webhook.New(webhook.Webhook{URLFile: file(t, "http://127.0.0.1:1/s3cret")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Post(t.Context(), nil); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}
