package guard_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// watch is a guard that looks at a world once a minute.
type watch struct {
	t     *testing.T
	world *world
	now   time.Time
	guard *guard.Guard
}

func newWatch(t *testing.T, w *world, at time.Time, history guard.History) *watch {
	o := &watch{t: t, world: w, now: at}
	o.guard = guard.New(guard.Options{
		Snapshot: func() bulkhead.Census { return w.census(o.now) },
		History:  history, Now: func() time.Time { return o.now },
	})
	return o
}

// minutes looks so many times, and stops when done says so.
func (o *watch) minutes(n int, done func([]bulkhead.Finding) bool) bool {
	o.t.Helper()
	for range n {
		o.now = o.now.Add(time.Minute)
		if err := o.guard.Step(o.t.Context()); err != nil {
			o.t.Fatalf("%s: %v", o.now, err)
		}
		if done != nil && done(o.guard.Findings()) {
			return true
		}
	}
	return false
}

func (o *watch) text() string {
	var b bytes.Buffer
	if err := guard.Text(&b, o.guard.Findings(), o.now, 0); err != nil {
		o.t.Fatal(err)
	}
	return b.String()
}

func some(f []bulkhead.Finding) bool { return len(f) > 0 }

func TestTheIncidentIsFoundWithinAQuarterOfAnHour(t *testing.T) {
	for seed := range uint64(3) {
		w := &world{seed: seed, perHour: 224, loop: start.Add(8 * time.Hour)}
		o := newWatch(t, w, start, nil)
		if o.minutes(8*60, some) {
			t.Fatalf("seed %d: found before it began, at %s:\n%s", seed, o.now, o.text())
		}
		if !o.minutes(15, some) {
			t.Fatalf("seed %d: not found after 15 minutes", seed)
		}
		t.Logf("seed %d: found after %s", seed, o.now.Sub(w.loop))
		o.minutes(15, nil)
		findings := o.guard.Findings()
		if len(findings) != 1 {
			t.Fatalf("seed %d: %d findings\n%s", seed, len(findings), o.text())
		}
		checkIncident(t, findings[0], w.loop)
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, o.text())
		}
	}
}

func checkIncident(t *testing.T, f bulkhead.Finding, since time.Time) {
	t.Helper()
	ratios := map[string]float64{}
	for _, m := range f.Members {
		ratios[m.Kind] = m.Ratio
	}
	want := map[string]float64{"jobs.batch": 1, "pods": 1, "networkpolicies.networking.k8s.io": 1, "configmaps": 7, "secrets": 1}
	if diff := cmp.Diff(want, ratios); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
	if f.Namespace != "mw-script" || f.Client != "helm" {
		t.Errorf("namespace %q, client %q", f.Namespace, f.Client)
	}
	if diff := cmp.Diff([]string{"ann"}, f.Users); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	facts := map[string]string{}
	for _, of := range f.Facts {
		facts[of.Key] = of.Value
	}
	if diff := cmp.Diff(map[string]string{"username": "ann", "script": "requeueTranscodes.php", "comment": "T363966"}, facts); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if off := f.Since.Sub(since).Abs(); off > 5*time.Minute {
		t.Errorf("it began %s from %s", off, since)
	}
	if f.PerHour < 200 || f.PerHour > 250 {
		t.Errorf("%.0f an hour", f.PerHour)
	}
}

func TestAHealthyWeekHasNoFinding(t *testing.T) {
	for seed := range uint64(1) {
		o := newWatch(t, &world{seed: seed + 100}, start, nil)
		if o.minutes(7*24*60, some) {
			t.Fatalf("seed %d: at %s:\n%s", seed, o.now, o.text())
		}
	}
}

func TestAPageFitsATerminal(t *testing.T) {
	o := newWatch(t, &world{quiet: true, perHour: 224, loop: start.Add(time.Minute)}, start, nil)
	o.minutes(8*60, nil)
	text := o.text()
	t.Log("\n" + text)
	if lines := strings.Count(text, "\n"); lines > 24 {
		t.Errorf("%d lines", lines)
	}
}

// births are when objects that are made evenly from a time on were created, as a
// census tells it: a quarter of an hour is a step.
func births(from, now time.Time, objects int64) (out []bulkhead.Birth) {
	made := int64(0)
	for at := from.Truncate(15 * time.Minute); at.Before(now); at = at.Add(15 * time.Minute) {
		end := at.Add(15 * time.Minute)
		if end.After(now) {
			end = now
		}
		n := int64(float64(objects)*end.Sub(from).Hours()/now.Sub(from).Hours()) - made
		out, made = append(out, bulkhead.Birth{At: at, Objects: n}), made+n
	}
	return out
}

func TestOneLookIsEnoughAtTheTimeOfTheFirstPage(t *testing.T) {
	w := &world{perHour: 224, loop: start}
	now := time.Date(2024, 10, 9, 5, 1, 36, 0, time.UTC)
	c := w.census(now)
	for i := range c.Tallies {
		t := &c.Tallies[i]
		from := now.Add(-40 * time.Minute) // what has an owner or a time to live is young
		if t.Namespace == "mw-script" {
			from = w.loop
		} else if t.Keeps.Nothing > 0 {
			from = now.Add(-6 * 24 * time.Hour)
		}
		t.Born = births(from, now, t.Objects)
	}
	findings := guard.Analyze(guard.Input{Now: now, Census: c})
	var b bytes.Buffer
	if err := guard.Text(&b, findings, now, 0); err != nil {
		t.Fatal(err)
	}
	if len(findings) != 1 {
		t.Fatalf("%d findings:\n%s", len(findings), &b)
	}
	f := findings[0]
	f.Members = slices.DeleteFunc(f.Members, func(m bulkhead.Member) bool { return m.Kind == "pods" })
	t.Logf("\n%s", &b)
	if f.Severity != bulkhead.Critical || f.Since.Sub(w.loop).Abs() > time.Hour {
		t.Errorf("%s since %s", f.Severity, f.Since)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if page := "$ bulkhead why\n" + b.String() + "```"; !strings.Contains(string(readme), page) {
		t.Errorf("the README has another page than this:\n%s", page)
	}
}
