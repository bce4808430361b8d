package agents_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead/guard/agents"
)

// readings are what a source reads, one after the other.
type readings [][]agents.Sample

func (r *readings) Read(context.Context) ([]agents.Sample, error) {
	if len(*r) == 0 {
		return nil, errors.New("nobody answers")
	}
	now := (*r)[0]
	*r = (*r)[1:]
	return now, nil
}

func TestAWatchSeesAContainerThatThrashes(t *testing.T) {
	start := time.Date(2024, 10, 9, 3, 0, 0, 0, time.UTC)
	var source readings
	for minute := range 30 {
		s := agents.Sample{Agent: "calico-node", Namespace: "kube-system", Pod: "calico-node-x", Node: "n1", Container: "calico-node",
			At: start.Add(time.Duration(minute) * time.Minute), Limit: 500 << 20, Ready: true}
		s.PageCache = max(20<<20, 60<<20-float64(minute*(2<<20)))
		s.Memory = min(400<<20+float64(minute*(5<<20)), s.Limit-s.PageCache)
		s.WorkingSet = s.Memory + s.PageCache
		if minute > 20 {
			s.MajorFaults = float64(minute-20) * 60 * 290
		}
		source = append(source, []agents.Sample{s})
	}
	w := agents.Watch{Source: &source}
	var last []agents.Sign
	for len(source) > 0 {
		fullest, signs, err := w.Look(t.Context())
		if err != nil || len(fullest) != 1 {
			t.Fatal(fullest, err)
		}
		if len(signs) > 0 && len(last) == 0 && signs[0].Stage != agents.Squeezed {
			t.Errorf("at first %s", signs[0])
		}
		last = signs
	}
	if len(last) != 1 || last[0].Stage != agents.Thrashes || !strings.Contains(last[0].String(), "on n1 it is at its limit and reads its own program") {
		t.Errorf("%v", last)
	}
	if _, signs, err := w.Look(t.Context()); err == nil || len(signs) != 1 {
		t.Errorf("%v, %v: what is known is not forgotten when nobody answers", signs, err)
	}
}
