//go:build !quick

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/clean"
	"bulkhead.dev/bulkhead/guard/quota"
	"bulkhead.dev/bulkhead/store/history"
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

// TestAListThatCannotBeWrittenIsNoSuccess: nobody has seen it, and with --yes it would
// go at once.
func TestAListThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	a := &app{stdout: full, stderr: &messages{w: io.Discard}}
	one := []clean.Object{{Kind: "configmaps", Name: "a"}}
	for name, print := range map[string]func() error{
		"what is left over":     func() error { return a.printFound(&clean.Found{Leftovers: one}, time.Now()) },
		"what stays":            func() error { return a.printFound(&clean.Found{Spared: one}, time.Now()) },
		"that nothing is there": func() error { return a.printFound(&clean.Found{}, time.Now()) },
		"what was deleted":      func() error { return a.printSummary(&clean.Summary{}, "undo") },
		"what was put back":     func() error { return a.printRestored(&guardCleanFlags{}, &clean.Restored{}) },
		"what is limited":       func() error { return a.printQuota(&quota.Plan{}) },
	} {
		if err := print(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKindsThatANewQuotaNoLongerLimitsAreNamed(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &messages{w: io.Discard}}
	p := &quota.Plan{Kinds: []quota.Kind{{Kind: "jobs.batch"}}, Replaces: time.Now(), Lifts: []string{"configmaps", "x\x1b[2J"}}
	if err := a.printQuota(p); err != nil {
		t.Fatal(err)
	}
	if want := "No longer limited: configmaps, x·[2J. To keep them limited name them, too: --kinds jobs.batch,configmaps,x·[2J\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("%q", out.String())
	}
}

func TestAGuardOfThisStateFolderIsSeen(t *testing.T) {
	dir := t.TempDir()
	if guarded(dir) {
		t.Error("in an empty folder")
	}
	h, err := history.Open(filepath.Join(dir, history.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if guarded(dir) != h.Writes() {
		t.Errorf("seen: %v, writes: %v", guarded(dir), h.Writes())
	}
}
