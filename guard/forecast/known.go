package forecast

import "strings"

// MiB is a mebibyte, and kB a thousand bytes, as the figures here are given.
const (
	MiB = 1 << 20
	kB  = 1000
)

// Rules is how [Cost.Of] names the rules of network policies: peers × ports, as a
// census counts them.
const Rules = "rules of networkpolicies"

// Policies is how it names the policies.
const Policies = "networkpolicies"

// A felix of Calico 3.23.3, measured with Calico's calculation graph and with a real
// felix in a memory cgroup, for policies of 90 egress rules: its resident memory is
// 60 MiB + 106.5 kB a policy, of which 31 MiB + 102 kB are anonymous. A rule costs 1.18 kB
// in it; 1.24 kB in the calculation graph after a start, and 1.37 kB after many changes.
const (
	felixBase    = 60 * MiB
	felixPerRule = 106.5 * kB / 90
	felixError   = 0.15
	// felixPages are those of its binary and what else is read from files. When the
	// limit leaves less, they are evicted and read again, all the time: it hangs.
	felixPages = 28 * MiB
)

// Known is what an agent's memory was measured to depend on, for the time in which
// nothing can be learned from the cluster itself. version is that of its image; not
// knowing it ("") is taken for the old one, which costs more. The base is that of the
// process alone: [Cost.At] makes it that of the container.
//
// Measured for policies of 90 rules: felix and Typha of Calico 3.23.3 and 3.31.7, with
// Calico's calculation graph, a real felix in a memory cgroup, and a real Typha and API
// server; single runs on one machine. kube-controllers took 103 to 105 MiB whether there
// were none or 1,800 policies, so it is not here.
func Known(agent, version string) (Cost, bool) {
	packed := newer(version, 3, 30) // felix keeps policies packed since then
	switch agent {
	case "calico-node":
		if packed {
			return Cost{Of: Rules, Base: 54 * MiB, PerUnit: 15.9 * 1024 / 90, Error: 0.5,
				Source: "measured with Calico 3.31.7"}, true
		}
		return Cost{Of: Rules, Base: felixBase, PerUnit: felixPerRule, Error: felixError,
			Source: "measured with Calico 3.23.3"}, true
	case "calico-typha":
		if packed {
			return Cost{Of: Rules, Base: 120 * MiB, PerUnit: 186 * 1024 / 90.0, Error: 0.2,
				Source: "measured with Calico 3.31.7"}, true
		}
		// At the peak of a start: 100, 457 and 830 MiB with none, 2,000 and 4,000.
		return Cost{Of: Rules, Base: 100 * MiB, PerUnit: 187 * 1024 / 90.0, Error: 0.2,
			Source: "measured with Calico 3.23.3"}, true
	}
	return Cost{}, false
}

// newer is whether a version such as v3.31.7 is at least major.minor. One that cannot
// be read is not.
func newer(version string, major, minor int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, okA := number(parts[0])
	b, okB := number(parts[1])
	return okA && okB && (a > major || a == major && b >= minor)
}

// number reads digits.
func number(s string) (int, bool) {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 1e6 {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, s != ""
}

// Thresholds are how many units lie between an agent that is well and one that is not
// alive any more.
type Thresholds struct {
	// Restart: up to here a fresh start becomes ready.
	Restart float64
	// Full: its memory is at the limit. It lives on, but once restarted it never becomes ready.
	Full float64
	// Hangs: the limit leaves no room for the pages of its binary; they are evicted
	// and read again all the time, health checks time out, and nothing kills it.
	Hangs float64
	// Killed: the limit leaves no room for what cannot be evicted.
	Killed float64
}

// anonymous is how much of a felix' unit is memory that cannot be evicted, and what its
// base has of it: 102 of 106.5 kB, 31 of 60 MiB.
const (
	anonymousUnit = 102 / 106.5
	anonymousBase = felixBase - 31*MiB
)

// Thresholds are those of calico-node under a limit in bytes; the cost has the base
// of the whole container, with confd and BIRD. Measured with a real felix 3.23.3 in a memory
// cgroup, limit 500 MiB, 170 MiB of other memory, policies of 90 rules: a start is
// well with up to 2,400 policies and never ready with 2,700 and more, while one that
// grew slowly works with 2,850 and is dead at 2,966.
func (c Cost) Thresholds(limit float64) Thresholds {
	other := c
	other.Base -= anonymousBase
	other.PerUnit *= anonymousUnit
	return Thresholds{
		Restart: c.Units(limit - felixPages),
		Full:    c.Units(limit),
		Hangs:   other.Units(limit - felixPages),
		Killed:  other.Units(limit),
	}
}
