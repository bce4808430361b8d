package agents_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/agents"
)

// felix is a real felix 3.23.3 under a limit of 500 MiB, with more and more policies of 90
// rules: seconds, policies, memory and page cache in MiB, major faults. It was not ready
// from 2,866 policies on, and never killed.
var felix = []struct{ at, policies, memory, cache, faults float64 }{
	{1.7, 8, 200.3, 61.3, 23}, {40.7, 789, 279.7, 61.1, 27}, {79.6, 1566, 359.6, 60.9, 28}, {110.8, 2190, 419.9, 60.7, 28},
	{118.6, 2346, 437.8, 60.4, 28}, {126.4, 2503, 454.2, 44.2, 28}, {134.2, 2659, 468.6, 29.6, 34}, {142.1, 2816, 472.0, 26.4, 2314},
	{150.0, 2975, 472.0, 26.1, 4557}, {157.9, 3132, 472.1, 26.1, 6827}, {189.6, 3767, 472.3, 25.9, 16673},
}

const mebi = 1 << 20

// samples are those of felix so far. Its policies came 145 times as fast as the
// incident's; its faults are those of a minute or more at that pace all the same.
func samples(until int) []agents.Sample {
	var s []agents.Sample
	for _, f := range felix[:until] {
		s = append(s, agents.Sample{
			Agent: "calico-node", Namespace: "kube-system", Pod: "calico-node-abcde", Container: "calico-node",
			At: noon.Add(time.Duration(f.at * 10 * float64(time.Second))), Memory: f.memory * mebi, WorkingSet: (f.memory + f.cache*0.8) * mebi,
			PageCache: f.cache * mebi, Limit: 500 * mebi, MajorFaults: f.faults * 10, Ready: true,
		})
	}
	return s
}

func TestAContainerThatDiesWithoutAKillIsSeen(t *testing.T) {
	stages := map[float64]agents.Stage{}
	for i := range felix {
		for _, sign := range agents.Signs(samples(i + 1)) {
			stages[felix[i].policies] = sign.Stage
		}
	}
	// Two and a half hours of the incident lie between 2,354 policies, where its memory is
	// at the limit, and 2,866, where it is not ready any more.
	want := map[float64]agents.Stage{
		2503: agents.Squeezed, 2659: agents.Squeezed,
		2816: agents.Thrashes, 2975: agents.Thrashes, 3132: agents.Thrashes, 3767: agents.Thrashes,
	}
	if diff := cmp.Diff(want, stages); diff != "" {
		t.Error(diff)
	}
	thrashing := agents.Thrashing(samples(9))
	if len(thrashing) != 1 || thrashing[0].FaultsPerSecond < 250 || thrashing[0].Seen < 4*time.Minute {
		t.Errorf("it is seen as %+v", thrashing)
	}
}

func TestWhatLooksLikeDyingAndIsNot(t *testing.T) {
	change := func(s []agents.Sample, change func(i int, s *agents.Sample)) []agents.Sample {
		for i := range s {
			change(i, &s[i])
		}
		return s
	}
	for name, s := range map[string][]agents.Sample{
		"none":            nil,
		"one without any": {{}},
		"no limit":        change(samples(9), func(_ int, s *agents.Sample) { s.Limit = 0 }),
		"a large limit":   change(samples(9), func(_ int, s *agents.Sample) { s.Limit = 1 << 30 }),
		"a full page cache that stays": change(samples(9), func(i int, s *agents.Sample) {
			s.Memory, s.PageCache, s.WorkingSet, s.MajorFaults = 100*mebi, 399*mebi, 200*mebi, float64(i)
		}),
		"faults at its start, with room": change(samples(9), func(_ int, s *agents.Sample) { s.Memory, s.WorkingSet = 100*mebi, 150*mebi }),
		"just restarted": change(samples(9), func(i int, s *agents.Sample) {
			if i == 8 {
				s.Restarts, s.MajorFaults, s.Memory, s.WorkingSet = 1, 20, 100*mebi, 120*mebi
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if signs := agents.Signs(s); len(signs) > 0 {
				t.Errorf("it is seen as %+v", signs)
			}
		})
	}
}

func TestTheWorstIsAtTheFront(t *testing.T) {
	calm := samples(7)
	for i := range calm {
		calm[i].Pod = "calico-node-a"
	}
	signs := agents.Signs(append(calm, samples(9)...))
	if len(signs) != 2 || signs[0].Stage != agents.Thrashes || signs[1].Pod != "calico-node-a" {
		t.Errorf("they are %+v", signs)
	}
}
