//go:build !quick

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// TestOneLookLearnsHowLongJobsStay: it asks for a few families of what was found, and for
// no others.
func TestOneLookLearnsHowLongJobsStay(t *testing.T) {
	asked := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		ttl := `, "ttlSecondsAfterFinished": 604800`
		if r.URL.Query().Get("fieldSelector") == "metadata.name=job-1" {
			ttl = "" // for good
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"apiVersion": "batch/v1", "kind": "JobList", "items": [{"metadata": {"name": "x"}, "spec": {"template": {}%s}}]}`, ttl)
	}))
	defer api.Close()
	jobs := func(namespace string, n int) (tallies []bulkhead.Tally) {
		for i := range n {
			tallies = append(tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: "jobs.batch", Namespace: namespace, Family: fmt.Sprintf("job-%d-*", i)},
				Objects: int64(1000 - i), Keeps: bulkhead.Keep{Nothing: 5}, Example: bulkhead.Example{Name: fmt.Sprintf("job-%d", i)}})
		}
		return tallies
	}
	found := func(kind, namespace string) bulkhead.Finding {
		return bulkhead.Finding{Namespace: namespace, Members: []bulkhead.Member{{Key: bulkhead.Key{Kind: kind, Namespace: namespace}}}}
	}
	config := &rest.Config{Host: api.URL}

	c := bulkhead.Census{Tallies: append(jobs("mw-script", 5), jobs("quiet", 5)...)}
	if learnLives(t.Context(), config, c, []bulkhead.Finding{found("configmaps", "quiet")}) || asked > 0 {
		t.Errorf("%d requests for what has no Jobs", asked)
	}
	if !learnLives(t.Context(), config, c, []bulkhead.Finding{found("jobs.batch", "mw-script")}) || asked != 3 {
		t.Errorf("%d requests", asked)
	}
	for i := range c.Tallies {
		want := bulkhead.Keep{Nothing: 5}
		if i == 0 || i == 2 {
			want = bulkhead.Keep{TTL: 7 * 24 * time.Hour}
		}
		if c.Tallies[i].Keeps != want {
			t.Errorf("%s: %+v", c.Tallies[i].Family, c.Tallies[i].Keeps)
		}
	}

	asked = 0
	var many []bulkhead.Finding
	c.Tallies = nil
	for i := range 50 {
		namespace := fmt.Sprint("n", i)
		c.Tallies = append(c.Tallies, jobs(namespace, 5)...)
		many = append(many, found("jobs.batch", namespace))
	}
	if learnLives(t.Context(), config, c, many); asked != livesOfAll {
		t.Errorf("%d requests for many findings", asked)
	}
}
