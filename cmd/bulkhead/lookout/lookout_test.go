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
