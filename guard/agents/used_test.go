package agents_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead/guard/agents"
)

func TestCPUIsWhatWasUsedBetweenTwoLooks(t *testing.T) {
	type look struct{ at, started, used float64 } // seconds
	for name, c := range map[string]struct {
		looks []look
		want  []float64
	}{
		"the first look knows nothing":            {[]look{{60, 0, 500}}, []float64{0}},
		"half a core":                             {[]look{{60, 0, 500}, {120, 0, 530}, {180, 0, 560}}, []float64{0, 0.5, 0.5}},
		"a restart":                               {[]look{{60, 0, 500}, {120, 100, 30}, {180, 100, 60}}, []float64{0, 0, 0.5}},
		"a restart that has used more since":      {[]look{{60, 0, 5}, {120, 61, 50}, {180, 61, 80}}, []float64{0, 0, 0.5}},
		"a counter that begins anew":              {[]look{{60, 0, 500}, {120, 0, 6}, {180, 0, 36}}, []float64{0, 0, 0.5}},
		"a kubelet that has not measured anew":    {[]look{{60, 0, 500}, {60, 0, 500}, {65, 0, 540}, {120, 0, 530}}, []float64{0, 0, 0, 0.5}},
		"a clock that was set back":               {[]look{{3600, 0, 500}, {60, 0, 530}, {120, 0, 560}}, []float64{0, 0, 0.5}},
		"a clock that was set forward":            {[]look{{60, 0, 500}, {7200, 0, 530}, {7260, 0, 560}}, []float64{0, 0, 0.5}},
		"a node that was drawn again after hours": {[]look{{60, 0, 500}, {9000, 0, 5000}}, []float64{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var u agents.Usage
			var got []float64
			for _, l := range c.looks {
				got = append(got, u.Cores("a", noon.Add(seconds(l.at)), noon.Add(seconds(l.started)), l.used))
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// A container may start again at any time, and its kubelet may measure when it likes.
func TestNoRateIsBelowZeroOrMoreThanWasUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u agents.Usage
		most := rapid.Float64Range(0.01, 64).Draw(t, "most") // cores
		at, started, used := noon, noon, 0.0
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			step := rapid.Int64Range(0, 1200).Draw(t, "step")
			at = at.Add(seconds(float64(step)))
			used += most * float64(step) * rapid.Float64Range(0, 1).Draw(t, "busy")
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				started = at.Add(-seconds(float64(step) * rapid.Float64Range(0, 1).Draw(t, "ago")))
				used = most * at.Sub(started).Seconds()
			}
			if cores := u.Cores("a", at, started, used); cores < 0 || cores > most*1.000001 {
				t.Fatalf("%v cores of %v", cores, most)
			}
		}
	})
}

func TestContainersThatAreGoneAreForgotten(t *testing.T) {
	var u agents.Usage
	for i := range 1000 {
		u.Cores(fmt.Sprint(i), noon.Add(time.Duration(i)*time.Minute), noon, 1)
	}
	if u.Len() > 16 {
		t.Errorf("%d are remembered", u.Len())
	}
}
