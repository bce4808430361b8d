package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
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
		if !young(&b, c) {
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
