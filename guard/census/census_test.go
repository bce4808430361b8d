package census_test

import (
	"testing"

	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/lab"
)

func TestWhatACallOfTheToolLeavesIsOneFamilyOfEachKind(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	c, _ := run(t, l.Config(), census.Options{})
	eventuallyExact(t, l, c)
	l.HelmRelease(t, ns, 3)
	eventuallyExact(t, l, c)
	s := c.Snapshot()
	for _, x := range s.Tallies {
		if x.Namespace == ns {
			t.Logf("%+v", x)
		}
	}
	for _, k := range s.Kinds {
		t.Logf("%+v", k)
	}
	t.Log(c.Requests(), "requests")
}
