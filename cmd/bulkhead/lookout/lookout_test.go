package lookout

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/store/history"
)

func TestADamagedHistoryKeepsNobodyFromWatching(t *testing.T) {
	state, log := t.TempDir(), bytes.Buffer{}
	if err := os.WriteFile(filepath.Join(state, history.Name), bytes.Repeat([]byte("no database "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Config: &rest.Config{Host: "http://127.0.0.1:1"}, State: state, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if !l.Alone() || l.Close() != nil || !strings.Contains(log.String(), "in memory only") {
		t.Error(log.String())
	}
}

// A guard that begins again has read what was open; it is no news.
func TestWhatWasOpenBeforeARestartIsNotOpenedAgain(t *testing.T) {
	state := t.TempDir()
	growth := bulkhead.Finding{ID: "a", Severity: bulkhead.Warning, Since: time.Date(2024, 10, 8, 20, 21, 0, 0, time.UTC)}
	h, err := history.Open(filepath.Join(state, history.Name))
	if err != nil {
		t.Fatal(err)
	}
	over := growth
	over.ID, over.Ended = "over", over.Since.Add(time.Hour)
	if err := errors.Join(h.Keep(t.Context(), []bulkhead.Finding{growth, over}), h.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Config: &rest.Config{Host: "http://127.0.0.1:1"}, State: state, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.before = l.openBefore(t.Context())
	worse, other := growth, growth
	worse.Severity, other.ID = bulkhead.Critical, "b"
	over.Ended = time.Time{}
	for i, look := range []struct {
		open []bulkhead.Finding
		want string
	}{
		{[]bulkhead.Finding{growth, other, over}, "opened b, opened over, still open a"},
		{[]bulkhead.Finding{worse, other}, "changed a, ended over"},
		{nil, "ended a, ended b"},
		{[]bulkhead.Finding{growth}, "opened a"},
	} {
		var got []string
		for _, c := range l.compare(look.open, growth.Since.Add(time.Duration(i)*time.Minute)) {
			got = append(got, string(c.What)+" "+c.Finding.ID)
		}
		if strings.Join(got, ", ") != look.want {
			t.Errorf("look %d: %s instead of %s", i, strings.Join(got, ", "), look.want)
		}
	}
}

func TestAGuardWatchesWhenAllKindsAreListed(t *testing.T) {
	var log bytes.Buffer
	l := &Lookout{opts: Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	pods, jobs := bulkhead.KindStatus{Kind: "pods", Exact: true}, bulkhead.KindStatus{Kind: "jobs.batch", Reason: "not counted yet: the list goes on"}
	l.sayKinds([]bulkhead.KindStatus{pods, jobs})
	if log.Len() > 0 {
		t.Error(log.String())
	}
	jobs.Exact, jobs.Reason = true, ""
	for range 2 {
		l.sayKinds([]bulkhead.KindStatus{pods, jobs})
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, `msg=watching kinds="pods jobs.batch"`) {
		t.Error(said)
	}
}

func TestAgentsThatCannotBeMeasuredAreLogged(t *testing.T) {
	var log bytes.Buffer
	now, node := time.Date(2024, 10, 9, 0, 0, 0, 0, time.UTC), "a"
	var failure error
	l := &Lookout{opts: Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	l.guard = guard.New(guard.Options{
		Now: func() time.Time { return now },
		Snapshot: func() bulkhead.Census {
			return bulkhead.Census{At: now, Kinds: []bulkhead.KindStatus{{Kind: "pods", Exact: true}}}
		},
		Agents: func(context.Context) ([]guard.AgentSample, error) { return nil, failure },
	})
	for i := range 6 {
		now = now.Add(time.Minute)
		if failure = errors.New("node " + node + " does not answer"); i == 5 {
			failure = nil
		}
		node += "a"
		l.sayTrouble(l.guard.Step(t.Context()))
	}
	if said := log.String(); strings.Count(said, "agents were not measured: node a ") != 1 || strings.Count(said, "\n") != 2 {
		t.Error(said)
	}
}
