package agents

import (
	"cmp"
	"slices"
	"time"
)

// Stage is how far a container at its limit is.
type Stage string

// The stages. A container that is squeezed has reached its limit and loses its page cache; it
// still works. One that thrashes reads its own binary again and again, and soon answers nobody.
const (
	Squeezed Stage = "squeezed"
	Thrashes Stage = "thrashes"
)

// Sign is a container that is about to die.
type Sign struct {
	Sample                        // the last one
	Stage           Stage         `json:"stage"`
	FaultsPerSecond float64       `json:"faultsPerSecond"` // major ones, lately
	CacheBefore     float64       `json:"cacheBefore"`     // bytes of page cache that it had
	Seen            time.Duration `json:"seen"`            // how long it has been at its limit, as far as the samples go
}

// Measured with a real felix 3.23.3 in a memory cgroup, limit 500 MiB, that was given
// policy after policy: at 2,354 its memory was at the limit, and its page cache shrank from
// 61 MiB; at 2,690 that was 28 MiB, and major faults went from 28 in all to 290 a second;
// at 2,866 it was not ready any more, and no kill came.
const (
	atLimit      = 0.97 // memory and page cache, of the limit
	manyFaults   = 10   // a second
	shrunk       = 0.85 // of the page cache it had
	littleCache  = 0.08 // of the limit
	lately       = 15 * time.Minute
	leastBetween = 20 * time.Second // between two samples that say something about a rate
)

// Signs are the containers that are about to die, the worst at the front. samples are
// of any containers, in any order, over the last hours.
func Signs(samples []Sample) []Sign {
	type key struct{ namespace, pod, container string }
	series := map[key][]Sample{}
	for _, s := range samples {
		k := key{s.Namespace, s.Pod, s.Container}
		series[k] = append(series[k], s)
	}
	var signs []Sign
	for _, s := range series {
		slices.SortStableFunc(s, func(a, b Sample) int { return a.At.Compare(b.At) })
		if sign, ok := signOf(s); ok {
			signs = append(signs, sign)
		}
	}
	slices.SortFunc(signs, func(a, b Sign) int {
		return cmp.Or(cmp.Compare(b.FaultsPerSecond, a.FaultsPerSecond), cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return signs
}

// Thrashing are those of the signs whose containers thrash already.
func Thrashing(samples []Sample) []Sign {
	return slices.DeleteFunc(Signs(samples), func(s Sign) bool { return s.Stage != Thrashes })
}

// signOf looks at the samples of one container, in the order of time.
func signOf(s []Sample) (Sign, bool) {
	s = s[restarted(s):]
	last := s[len(s)-1]
	if !full(last) {
		return Sign{}, false
	}
	sign := Sign{Sample: last, Stage: Squeezed}
	for _, before := range s {
		sign.CacheBefore = max(sign.CacheBefore, before.PageCache)
	}
	since := len(s) - 1
	for since > 0 && full(s[since-1]) {
		since--
	}
	sign.Seen = last.At.Sub(s[since].At)
	sign.FaultsPerSecond = faults(s)
	less := last.PageCache < shrunk*sign.CacheBefore
	if sign.FaultsPerSecond >= manyFaults && (less || last.PageCache < littleCache*last.Limit) {
		sign.Stage = Thrashes
		return sign, true
	}
	// A container that writes files is at its limit all its life, with a large cache:
	// only that it loses it tells.
	return sign, less
}

// full is whether a container has all the memory it may have.
func full(s Sample) bool {
	return s.Limit > 0 && max(s.WorkingSet, s.Memory+s.PageCache) >= atLimit*s.Limit
}

// restarted is the index of the first sample since the last restart.
func restarted(s []Sample) int {
	for i := len(s) - 1; i > 0; i-- {
		if s[i].Restarts > s[i-1].Restarts || s[i].MajorFaults < s[i-1].MajorFaults {
			return i
		}
	}
	return 0
}

// faults are the major page faults a second in the last quarter of an hour.
func faults(s []Sample) float64 {
	last := s[len(s)-1]
	for i := range s {
		if between := last.At.Sub(s[i].At); between <= lately && between >= leastBetween {
			recent := (last.MajorFaults - s[i].MajorFaults) / between.Seconds()
			// What began a minute ago is not thinned by the minutes before.
			for _, m := range s[i:] {
				if b := last.At.Sub(m.At); b >= leastBetween {
					recent = max(recent, (last.MajorFaults-m.MajorFaults)/b.Seconds())
				}
			}
			return recent
		}
	}
	return 0
}
