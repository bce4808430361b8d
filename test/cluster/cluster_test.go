package cluster_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead"
)

const oneWorker = "  workers: {max: 1, slots: 1, idleTimeout: 60s}\n"

func TestAClusterEndsAsItBegan(t *testing.T) {
	b := newBed(t, "  workers: {max: 3, slots: 2, idleTimeout: 2s}\n")
	before := b.Lab.Objects(t)
	const items = 200
	id := b.Submit(items, bulkhead.Spec{Command: []string{"/bin/echo", "item {}"}, Limit: 6})
	if r := b.Over(id); r.State != bulkhead.RunSucceeded {
		t.Fatalf("%s %+v: %s", r.State, r.Counts, r.Reason)
	}
	out := b.Outputs(id)
	for i := int64(1); i <= items; i++ {
		if want := fmt.Sprintf("item %d\n", i); out[i] != want {
			t.Errorf("item %d wrote %q", i, out[i])
		}
	}
	var after map[string]int
	b.Lab.Eventually(t, "the workers are gone", func(context.Context) bool {
		after = b.Lab.Objects(t)
		return after["pods"] == before["pods"]
	})
	// The class's own are there from the first worker on.
	for kind, most := range map[string]int{"configmaps": 1, "networkpolicies": 1, "leases": 1 /* the node's own */} {
		if n := after[kind] - before[kind]; n > most {
			t.Errorf("%d %s more than before", n, kind)
		}
		delete(after, kind)
		delete(before, kind)
	}
	for kind := range maps.Keys(after) {
		if after[kind] > before[kind] && !strings.HasPrefix(kind, "events") {
			t.Errorf("%d %s, before %d", after[kind], kind, before[kind])
		}
	}
}
