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
