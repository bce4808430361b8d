package guard

import (
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
)

// A growth that is seen as two is the worse of them, and the other is told beside it.
func TestWhatIsSeenAsTwoDoesNotHideTheWorse(t *testing.T) {
	finding := func(id string, s bulkhead.Severity, kinds ...string) bulkhead.Finding {
		f := bulkhead.Finding{ID: id, Severity: s, Namespace: "mw-script"}
		for _, kind := range kinds {
			f.Members = append(f.Members, bulkhead.Member{Key: bulkhead.Key{Kind: kind, Namespace: "mw-script", Family: "mediawiki-*"}})
		}
		return f
	}
	sees := func(string) bool { return false }
	at := time.Date(2024, 10, 9, 0, 0, 0, 0, time.UTC)
	g := New(Options{})
	for range 2 {
		at = at.Add(time.Minute)
		g.settle([]bulkhead.Finding{finding("one", bulkhead.Critical, "jobs.batch", "configmaps")}, at, sees)
	}
	for range 3 {
		at = at.Add(time.Minute)
		g.settle([]bulkhead.Finding{finding("one", bulkhead.Critical, "jobs.batch"), finding("two", bulkhead.Notice, "configmaps"),
			finding("one", bulkhead.Notice, "secrets")}, at, sees)
		if s := g.seen["one"]; s.finding.Severity != bulkhead.Critical || len(s.finding.Members) != 1 || s.finding.Members[0].Kind != "jobs.batch" {
			t.Errorf("%+v", s.finding)
		}
	}
	if s := g.seen["two"]; s == nil || s.looks != 3 || s.finding.Severity != bulkhead.Notice {
		t.Errorf("%+v", s)
	}
}

// What is less severe for some looks is not yet believed to be: whoever was told that it is
// critical is not told otherwise each few minutes.
func TestWhatIsLessSevereForMinutesStaysAsSevere(t *testing.T) {
	sees := func(string) bool { return false }
	at := time.Date(2024, 10, 9, 0, 0, 0, 0, time.UTC)
	g := New(Options{})
	look := func(s bulkhead.Severity, looks int) bulkhead.Severity {
		for range looks {
			at = at.Add(time.Minute)
			g.settle([]bulkhead.Finding{{ID: "one", Severity: s, Namespace: "a"}}, at, sees)
		}
		return g.seen["one"].finding.Severity
	}
	for i, c := range []struct {
		sees  bulkhead.Severity
		looks int
		want  bulkhead.Severity
	}{
		{bulkhead.Critical, 2, bulkhead.Critical}, {bulkhead.Warning, 8, bulkhead.Critical}, {bulkhead.Critical, 1, bulkhead.Critical},
		{bulkhead.Warning, 8, bulkhead.Critical}, {bulkhead.Warning, 3, bulkhead.Warning}, {bulkhead.Critical, 1, bulkhead.Critical},
	} {
		if got := look(c.sees, c.looks); got != c.want {
			t.Errorf("step %d: %s, want %s", i, got, c.want)
		}
	}
}
