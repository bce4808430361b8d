package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/store/history"
)

// What came in the last half hour is all there, wherever in a quarter of an hour one looks:
// who is told of fewer takes a growth for one that becomes slower.
func TestOneLookCountsAllThatWasCreatedLately(t *testing.T) {
	hour := time.Date(2026, 11, 25, 16, 0, 0, 0, time.UTC)
	for minute, want := range map[int]string{
		45: "16:00", 49: "16:00", 59: "16:00", 60: "16:15",
	} {
		now := hour.Add(time.Duration(minute) * time.Minute)
		c := bulkhead.Census{At: now, Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "configmaps", Namespace: "shop", Family: "import-*", Manager: "helm"}, Objects: 222,
			Born: []bulkhead.Birth{{At: hour.Add(15 * time.Minute), Objects: 26}, {At: hour.Add(30 * time.Minute), Objects: 196}}}}}
		var b bytes.Buffer
		if !young(&b, c, "nothing has grown for long enough to be told by one look") {
			t.Fatalf("at %s nothing is young", now)
		}
		page := "nothing has grown for long enough to be told by one look. Created since " + want + " UTC:\n" +
			"  222 of 222 configmaps in shop: import-*, by helm\n" +
			"Ask again in a quarter of an hour, or let bulkhead guard watch.\n"
		if diff := cmp.Diff(page, b.String()); diff != "" {
			t.Errorf("at %s (-want +got):\n%s", now, diff)
		}
	}
}

// That a guard has found nothing in its first minutes says nothing.
func TestAYoungGuardDoesNotSayThatNothingGrows(t *testing.T) {
	now := time.Now().UTC()
	many := bulkhead.Census{At: now, Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "configmaps", Namespace: "shop", Family: "import-*"}, Objects: 222,
		Born: []bulkhead.Birth{{At: now.Add(-time.Minute), Objects: 196}}}}}
	for name, c := range map[string]struct {
		age    time.Duration // 0: it is not known
		census bulkhead.Census
		says   string
	}{
		"a server's, where much came":    {7 * time.Minute, many, "the guard is 7m old, and believes in no growth yet. Created since "},
		"a server's, where nothing came": {7 * time.Minute, bulkhead.Census{At: now}, "the guard is 7m old, and believes in no growth yet\n"},
		"an older one":                   {31 * time.Minute, many, "nothing grows that would hurt in 30 days\n"},
		"one of an older server":         {0, many, "nothing grows that would hurt in 30 days\n"},
	} {
		n := answer{from: "the guard", looked: now, census: c.census}
		if c.age > 0 {
			n.began = now.Add(-c.age)
		}
		var b bytes.Buffer
		n.writeNothing(&b)
		if !strings.HasPrefix(b.String(), c.says) {
			t.Errorf("%s: %s", name, &b)
		}
	}
}

// Beside a guard in its first half hour the cluster is looked at, if that is possible.
func TestWhyBesideAYoungGuardLooksItself(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBECONFIG", filepath.Join(dir, "none"))
	t.Setenv("HOME", dir)
	h, err := history.Open(filepath.Join(dir, history.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	for ago := 7; ago >= 0; ago-- {
		look := bulkhead.Census{At: time.Now().Add(-time.Duration(ago) * time.Minute), Kinds: []bulkhead.KindStatus{{Kind: "pods", Objects: 3, Exact: true}},
			Tallies: []bulkhead.Tally{{Key: bulkhead.Key{Kind: "pods", Namespace: guard.All, Family: guard.All}, Objects: 3}}}
		if err := h.Append(t.Context(), look); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"--state", dir, "why"}, strings.NewReader(""), &out, &errs)
	want := "the guard of " + dir + " is 7m old, and believes in no growth yet"
	if code != 0 || out.String() != want+"\n" || !strings.Contains(errs.String(), want+"; looking at the cluster itself") {
		t.Errorf("exit %d\n%s\n%s", code, &out, &errs)
	}
}
