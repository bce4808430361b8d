package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/clean"
)

func TestTheKindsThatAreCompletedAreThoseThatAreRemoved(t *testing.T) {
	if diff := cmp.Diff(clean.Kinds(), cleanKinds); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
