package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func TestAPlanSaysWhichBrakesARunWouldMeet(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("BULKHEAD_SERVER", "")
	t.Setenv("BULKHEAD_CONTEXT", "")
	st, err := sqlite.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, b := range []bulkhead.Brake{
		{Reason: "the cluster is full", Owner: "ann"},
		{Scope: bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "db"}, Reason: "a switch-over", Owner: "bea", Factor: 0.5},
		{Scope: bulkhead.Scope{Kind: bulkhead.ScopePool, Name: "other"}, Reason: "no", Owner: "cid"},
		{Scope: bulkhead.Scope{Kind: bulkhead.ScopeRun, Name: "1"}, Reason: "no", Owner: "cid"},
		{Reason: "no", Owner: "cid", Since: now.Add(-2 * time.Hour), Expires: now.Add(-time.Hour)},
	} {
		if b.Since.IsZero() {
			b.Since = now
		}
		if _, err := st.AddBrake(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(context.Background(), []string{"--state", dir, "run", "--plan", "--each", "a,b", "--pool", "db:{}=1", "--", "echo", "{}"}, strings.NewReader(""), &out, &errs)
	if code != exitOK {
		t.Fatalf("exit code %d\n%s", code, errs.String())
	}
	var waits []string
	for line := range strings.Lines(out.String()) {
		if why, ok := strings.CutPrefix(line, "waits for "); ok {
			waits = append(waits, strings.TrimSpace(why))
		}
	}
	if got := strings.Join(waits, "|"); len(waits) != 2 || !strings.Contains(got, "the cluster is full") || !strings.Contains(got, "a switch-over") {
		t.Errorf("it waits for %q", waits)
	}
}
