package guard

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/forecast"
)

// AgentSample is how a container of an agent stands: one that must hold what grows, on
// every node perhaps.
type AgentSample struct {
	Agent     string // calico-node
	Namespace string
	Version   string  // of its image; "" if it is not known
	Memory    float64 // bytes: the working set, as the kubelet counts it against the limit
	Limit     float64 // bytes; 0: none
	CPU       float64 // cores in use, a rate over some minutes; 0: not known
	CPULimit  float64 // cores; 0: none
	Sign      string  // that it is about to die, in one line; "": none
}

// agentKey is the key of the series of an agent's memory, and cpuKey that of its CPU.
func agentKey(s AgentSample) bulkhead.Key {
	return bulkhead.Key{Kind: agentKind, Namespace: s.Namespace, Family: s.Agent}
}

func cpuKey(s AgentSample) bulkhead.Key {
	return bulkhead.Key{Kind: agentCPUKind, Namespace: s.Namespace, Family: s.Agent}
}

// worstOf are samples of which each agent has one: the memory of the container that is
// nearest to its limit, and the CPU of the one, another perhaps, that is nearest to its own.
func worstOf(samples []AgentSample) []AgentSample {
	worst := map[bulkhead.Key]AgentSample{}
	for _, s := range samples {
		if !valid(s.Memory, s.Limit) {
			continue
		}
		if !valid(s.CPU, s.CPULimit) {
			s.CPU, s.CPULimit = 0, 0
		}
		old, ok := worst[agentKey(s)]
		if !ok && len(worst) >= mostAgents {
			continue
		}
		if ok {
			if used(s.Memory, s.Limit) <= used(old.Memory, old.Limit) {
				s.Memory, s.Limit, s.Version, s.Sign = old.Memory, old.Limit, old.Version, old.Sign
			}
			if used(s.CPU, s.CPULimit) <= used(old.CPU, old.CPULimit) {
				s.CPU, s.CPULimit = old.CPU, old.CPULimit
			}
		}
		worst[agentKey(s)] = s
	}
	out := make([]AgentSample, 0, len(worst))
	for _, s := range worst {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b AgentSample) int { return compareKeys(agentKey(a), agentKey(b)) })
	return out
}

// valid reports whether something is used, of a limit that is a number.
func valid(uses, limit float64) bool {
	return uses > 0 && !math.IsInf(uses, 0) && !math.IsNaN(limit) && !math.IsInf(limit, 0)
}

// used is how much of its limit something is, as a share; of what has none nothing.
func used(uses, limit float64) float64 {
	if limit <= 0 {
		return 0
	}
	return uses / limit
}

const (
	mostAgents = 20
	// mostThrottled agents are told of at their limits of CPU, the first ones: they must
	// not take the place of what fails.
	mostThrottled = 2
	// milli is a core as a series has it: in thousandths.
	milli = 1000
	// throttled is the share of its limit from which CPU does not show any more what an
	// agent would take.
	throttled = 0.95
)

// withAgents adds the memory and CPU of agents to a census, for those that remember it. When
// they were not asked, or do not answer, nothing is known of them.
func withAgents(c bulkhead.Census, samples []AgentSample) bulkhead.Census {
	c.Tallies, c.Kinds = slices.Clip(c.Tallies), slices.Clip(c.Kinds)
	for _, s := range samples {
		c.Tallies = append(c.Tallies, bulkhead.Tally{Key: agentKey(s), Objects: int64(s.Memory), Bytes: int64(s.Limit)})
		if s.CPU > 0 {
			c.Tallies = append(c.Tallies, bulkhead.Tally{Key: cpuKey(s), Objects: int64(s.CPU * milli), Bytes: int64(s.CPULimit * milli)})
		}
	}
	c.Kinds = append(c.Kinds, bulkhead.KindStatus{Kind: agentKind}, bulkhead.KindStatus{Kind: agentCPUKind})
	return c
}

// agents is when agents that hold what grows are at their limits of memory, and of CPU.
func (a *analysis) agents(kinds []kindGrowth) []bulkhead.Reach {
	if len(a.Agents) == 0 {
		return nil
	}
	held := a.candidates(kinds)
	var full, slow []bulkhead.Reach
	for _, s := range a.Agents {
		if r, ok := a.memoryOf(s, held, kinds); ok {
			full = append(full, r)
		}
		if r, ok := a.cpuOf(s, held, kinds); ok {
			slow = append(slow, r)
		}
	}
	slices.SortStableFunc(slow, nearest)
	return append(full, slow[:min(len(slow), mostThrottled)]...)
}

// memoryOf is when the memory of an agent is full.
func (a *analysis) memoryOf(s AgentSample, held map[string][]forecast.Point, kinds []kindGrowth) (bulkhead.Reach, bool) {
	if s.Limit <= 0 {
		return bulkhead.Reach{}, false
	}
	cost, ok := forecast.Learn(a.measured(agentKey(s)), held)
	if !ok {
		cost, ok = forecast.Known(s.Agent, s.Version)
	}
	if !ok {
		return bulkhead.Reach{}, false
	}
	r, ok := a.reachOf(forecast.Agent{Name: clean(s.Agent), Uses: s.Memory, Limit: s.Limit, Cost: cost}, kinds)
	if s.Sign != "" {
		r.Detail = strings.TrimSuffix(clean(s.Sign)+"; "+r.Detail, "; ")
	}
	return r, ok
}

// cpuOf is when an agent is at its limit of CPU. Nothing is known of that beforehand: how
// much CPU there is in what it holds is the machine's business, too.
func (a *analysis) cpuOf(s AgentSample, held map[string][]forecast.Point, kinds []kindGrowth) (bulkhead.Reach, bool) {
	if s.CPULimit <= 0 {
		return bulkhead.Reach{}, false
	}
	cpu := a.measured(cpuKey(s))
	for i := range cpu {
		cpu[i].Value /= milli
	}
	uses := forecast.Lately(cpu)
	cpu = slices.DeleteFunc(cpu, func(p forecast.Point) bool { return p.Value >= throttled*s.CPULimit })
	cost, ok := forecast.LearnCPU(cpu, held)
	if !ok || uses <= 0 {
		return bulkhead.Reach{}, false
	}
	return a.reachOf(forecast.Agent{Name: clean(s.Agent), Of: forecast.CPU, Uses: uses, Limit: s.CPULimit, Cost: cost}, kinds)
}

// reachOf is when an agent is at its limit, if anybody plans so far ahead.
func (a *analysis) reachOf(agent forecast.Agent, kinds []kindGrowth) (bulkhead.Reach, bool) {
	var ok bool
	if agent.Held, agent.Objects, agent.Noun, ok = a.held(agent.Cost.Of, kinds); !ok {
		return bulkhead.Reach{}, false
	}
	r, ok := agent.Reach()
	return r, ok && r.In <= horizon
}

// measured is a series of an agent.
func (a *analysis) measured(key bulkhead.Key) []forecast.Point {
	points := a.pointsOf(key)
	if len(points) == 0 {
		return nil
	}
	return dense(points, a.Looked, a.Now, false, objectsAt)
}

// candidates are what may explain a series of an agent, of what grows.
func (a *analysis) candidates(kinds []kindGrowth) map[string][]forecast.Point {
	held := map[string][]forecast.Point{}
	for _, k := range kinds {
		points := a.pointsOf(total(k.kind))
		if len(points) == 0 {
			continue
		}
		held[short(k.kind)] = dense(points, a.Looked, a.Now, false, objectsAt)
		if budget.HasRules(k.kind) {
			held[forecast.Rules] = dense(points, a.Looked, a.Now, false, rulesAt)
		}
	}
	return held
}

// held is how something grows that a cost is of, how many objects a unit of it is, and
// what those are called.
func (a *analysis) held(of string, kinds []kindGrowth) (t forecast.Trend, objects float64, noun string, ok bool) {
	for _, k := range kinds {
		all := a.count(total(k.kind))
		switch {
		case of == forecast.Rules && budget.HasRules(k.kind):
			t = k.trend(rulesOf)
			t.Now = float64(all.Rules)
			each := k.trend(objectsOf).PerHour / t.PerHour
			return t, each, "policies", t.PerHour > 0
		case of == short(k.kind):
			t = k.trend(objectsOf)
			t.Now = float64(all.Objects)
			return t, 1, of, true
		}
	}
	return t, 0, "", false
}

// throttles is whether a reach is one of CPU: an agent gets slower at its limit, and is
// not lost. That is worth a warning, and never a stop.
func throttles(r bulkhead.Reach) bool { return r.Budget.Unit == forecast.Cores }

// ofAgent is whether a reach is about an agent, and not about how much of a kind there is.
func ofAgent(r bulkhead.Reach) bool { return r.Budget.Kind == "" }

// pinned is the first reach of an agent that is known to be hard to restart.
func pinned(reaches []bulkhead.Reach) string {
	for _, r := range reaches {
		if ofAgent(r) && r.Detail != "" && !throttles(r) {
			return r.Detail
		}
	}
	return ""
}

// nearest puts the reaches in order, the first at the front; of those that are reached
// already, an agent's comes first: it is what fails. One that is throttled comes last.
func nearest(a, b bulkhead.Reach) int {
	agent := func(r bulkhead.Reach) int {
		switch {
		case throttles(r):
			return 2
		case r.Budget.Kind == "":
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.In, b.In), cmp.Compare(agent(a), agent(b)))
}
