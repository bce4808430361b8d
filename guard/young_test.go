package guard_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/store/history"
)

// A guard that has begun a while ago sees a loop that begins with it: 60 releases were
// made in one go, then one comes every 16 seconds.
func TestAYoungGuardFindsTheWholeGrowth(t *testing.T) {
	for _, c := range []struct {
		name     string
		restarts []int // minutes
		dip      int
	}{
		{name: "undisturbed"},
		{name: "restarted", restarts: []int{2, 17}},
		{name: "a release is gone for a minute", dip: 7},
		{name: "restarted, and a release is gone for a minute", restarts: []int{2, 17}, dip: 7},
	} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(c.name, ", ", seed), func(t *testing.T) {
				w := &world{seed: seed, quiet: true, perHour: 218, loop: start, before: 60, born: true, uneven: true}
				if c.dip > 0 {
					w.dip = start.Add(time.Duration(c.dip) * time.Minute)
					w.dipEnds = w.dip.Add(time.Minute)
				}
				young(t, w, c.restarts)
			})
		}
	}
}

// Births tell of what was before the first look, and what has an owner has none.
func TestAGuardThatBeginsInTheMiddleFindsTheWholeGrowth(t *testing.T) {
	w := &world{perHour: 224, loop: start.Add(-6 * time.Hour), quiet: true, born: true}
	o := newWatch(t, w, start, nil)
	for m := range 4 * 60 {
		o.minutes(1, nil)
		if findings := o.guard.Findings(); m >= 20 {
			if len(findings) != 1 {
				t.Fatalf("after %d minutes there are %d:\n%s", m, len(findings), o.text())
			}
			if checkIncident(t, findings[0], w.loop); t.Failed() {
				t.Fatalf("after %d minutes:\n%s", m, o.text())
			}
		}
	}
}

// Somebody cleans Jobs and puts them back all the time: they do not grow from step to
// step, but their pods do.
func TestWherePodsMultiplyTheirOwnersAreNamed(t *testing.T) {
	o := newWatch(t, nil, start, nil)
	o.guard = guard.New(guard.Options{Now: func() time.Time { return o.now }, Snapshot: func() bulkhead.Census {
		made := 60 + int64(3.7*o.now.Sub(start).Minutes())
		c := bulkhead.Census{At: o.now}
		family := func(kind, name, origin, manager string, n int64) {
			c.Tallies = append(c.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: "mw-script", Family: name, Origin: origin, Manager: manager}, Objects: n})
			c.Kinds = append(c.Kinds, bulkhead.KindStatus{Kind: kind, Objects: n, Exact: true})
		}
		family("pods", "mediawiki-*-*", "jobs.batch/mediawiki-*", "kube-controller-manager", made)
		if o.now.Minute()%4 < 2 {
			made -= 20
		}
		family("jobs.batch", "mediawiki-*", "release/mediawiki-*", "helm", made)
		family("secrets", "sh.helm.release.v1.*.v1", "release/mediawiki-*", "helm", made)
		return c
	}})
	if !o.minutes(20, some) {
		t.Fatal("not found")
	}
	o.minutes(60, func(findings []bulkhead.Finding) bool {
		if len(findings) != 1 || findings[0].Client != "helm" || len(findings[0].Members) != 3 {
			t.Fatalf("at %s:\n%s", o.now, o.text())
		}
		for _, a := range findings[0].Advice {
			if strings.Contains(a.Command, "guard quota") && !strings.Contains(a.Command, "--kinds jobs,secrets ") {
				t.Fatal(a.Command)
			}
		}
		return false
	})
}

func young(t *testing.T, w *world, restarts []int) {
	path := filepath.Join(t.TempDir(), history.Name)
	h := openHistory(t, path)
	o := newWatch(t, w, start.Add(-57*time.Second), h)
	var before bulkhead.Finding
	for m := range 60 {
		if slices.Contains(restarts, m) {
			_ = h.Close()
			h = openHistory(t, path)
			o = newWatch(t, w, o.now.Add(-57*time.Second), h)
		}
		o.minutes(1, nil)
		findings := o.guard.Findings()
		if m < 16 {
			continue
		}
		if len(findings) != 1 {
			t.Fatalf("after %d minutes there are %d:\n%s", m, len(findings), o.text())
		}
		f := findings[0]
		checkIncident(t, f, w.loop)
		if len(before.Members) > 0 {
			steady(t, before, f)
		}
		if t.Failed() {
			t.Fatalf("after %d minutes:\n%s", m, o.text())
		}
		before = f
	}
}

// steady checks that a forecast does not jump from look to look.
func steady(t *testing.T, before, after bulkhead.Finding) {
	t.Helper()
	for _, old := range before.Reaches {
		for _, r := range after.Reaches {
			if r.Budget.Name == old.Budget.Name && (r.In.Hours() > 1.25*old.In.Hours() || r.In.Hours() < 0.75*old.In.Hours()) {
				t.Errorf("%s in %s, before in %s", r.Budget.Name, guard.Duration(r.In), guard.Duration(old.In))
			}
			if rest := (r.Budget.Limit - r.Now) / after.PerHour; r.Budget.Unit == "objects" && r.Budget.Kind != "configmaps" && (r.In.Hours() < 0.8*rest || r.In.Hours() > 1.25*rest) {
				t.Errorf("%s in %s, at %.0f/h it is %.1f h", r.Budget.Name, guard.Duration(r.In), after.PerHour, rest)
			}
		}
	}
}
