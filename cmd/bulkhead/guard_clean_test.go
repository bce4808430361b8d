package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/clean"
)

func TestTheKindsThatAreCompletedAreThoseThatAreRemoved(t *testing.T) {
	if diff := cmp.Diff(clean.Kinds(), cleanKinds); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestWhoLooksAtAServerThatHangsCanLeave: the socket takes connections, and nobody
// answers.
func TestWhoLooksAtAServerThatHangsCanLeave(t *testing.T) {
	for name, args := range map[string][]string{
		"a clean-up":            {"clean", "-n", "x", "--release", "*"},
		"a clean-up in earnest": {"clean", "-n", "x", "--family", "a-*", "--yes"},
		"a quota":               {"quota", "-n", "x", "--kinds", "jobs"},
		"a quota in earnest":    {"quota", "-n", "x", "--kinds", "jobs", "--yes"},
		"the end of a quota":    {"quota", "-n", "x", "--remove"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "localhost:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dir := t.TempDir()
			config := filepath.Join(dir, "kubeconfig")
			text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
users: [{name: u, user: {token: secret}}], clusters: [{name: c, cluster: {server: "https://%s"}}]}`, l.Addr())
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				if c, err := l.Accept(); err == nil {
					cancel()
					<-t.Context().Done()
					c.Close()
				}
			}()
			var out, errs bytes.Buffer
			code := run(ctx, append([]string{"--state", dir, "guard"}, append(args, "--kubeconfig", config)...), strings.NewReader(""), &out, &errs)
			if code != exitInterrupted || !strings.HasPrefix(errs.String(), "bulkhead: interrupted; ") || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("exit %d, %q", code, errs.String())
			}
		})
	}
}
