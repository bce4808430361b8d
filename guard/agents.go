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
	Sign      string  // that it is about to die, in one line; "": none
}

// agentKey is the key of the series of an agent's memory.
func agentKey(s AgentSample) bulkhead.Key {
	return bulkhead.Key{Kind: agentKind, Namespace: s.Namespace, Family: s.Agent}
}

// worstOf are samples of which each agent has one: that of the container which is
// nearest to its limit.
func worstOf(samples []AgentSample) []AgentSample {
	worst := map[bulkhead.Key]AgentSample{}
	share := func(s AgentSample) float64 {
		if s.Limit > 0 {
			return s.Memory / s.Limit
		}
		return 0
	}
	for _, s := range samples {
		bad := !(s.Memory > 0) || math.IsInf(s.Memory, 0) || math.IsNaN(s.Limit) || math.IsInf(s.Limit, 0)
		if old, ok := worst[agentKey(s)]; !bad && (!ok || share(s) > share(old)) && (ok || len(worst) < mostAgents) {
			worst[agentKey(s)] = s
		}
	}
	out := make([]AgentSample, 0, len(worst))
	for _, s := range worst {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b AgentSample) int { return compareKeys(agentKey(a), agentKey(b)) })
	return out
}

const mostAgents = 20

// withAgents adds the memory of agents to a census, for those that remember it. When
// they were not asked, or do not answer, nothing is known of them.
func withAgents(c bulkhead.Census, samples []AgentSample) bulkhead.Census {
	c.Tallies, c.Kinds = slices.Clip(c.Tallies), slices.Clip(c.Kinds)
	for _, s := range samples {
		c.Tallies = append(c.Tallies, bulkhead.Tally{Key: agentKey(s), Objects: int64(s.Memory), Bytes: int64(s.Limit)})
	}
	c.Kinds = append(c.Kinds, bulkhead.KindStatus{Kind: agentKind})
	return c
}

// agents is when the memory of agents is full that hold what grows.
func (a *analysis) agents(kinds []kindGrowth) (out []bulkhead.Reach) {
	for _, s := range a.Agents {
		if s.Limit <= 0 {
			continue
		}
		cost, ok := a.learn(s, kinds)
		if !ok {
			cost, ok = forecast.Known(s.Agent, s.Version)
		}
		if !ok {
			continue
		}
		held, each, noun, ok := a.held(cost.Of, kinds)
		if !ok {
			continue
		}
		agent := forecast.Agent{Name: clean(s.Agent), Memory: s.Memory, Limit: s.Limit, Cost: cost, Held: held, Objects: each, Noun: noun}
		if r, ok := agent.Reach(); ok && r.In <= horizon {
			if s.Sign != "" {
				r.Detail = strings.TrimSuffix(clean(s.Sign)+"; "+r.Detail, "; ")
			}
			out = append(out, r)
		}
	}
	return out
}

// learn is what the memory of an agent depends on, of what grows.
func (a *analysis) learn(s AgentSample, kinds []kindGrowth) (forecast.Cost, bool) {
	memory := a.pointsOf(agentKey(s))
	if len(memory) == 0 {
		return forecast.Cost{}, false
	}
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
	return forecast.Learn(dense(memory, a.Looked, a.Now, false, objectsAt), held)
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

// pinned is the first reach of an agent that is known to be hard to restart.
func pinned(reaches []bulkhead.Reach) string {
	for _, r := range reaches {
		if r.Budget.Kind == "" && r.Detail != "" {
			return r.Detail
		}
	}
	return ""
}

// nearest puts the reaches in order, the first at the front; of those that are reached
// already, an agent's comes first: it is what fails.
func nearest(a, b bulkhead.Reach) int {
	agent := func(r bulkhead.Reach) int {
		if r.Budget.Kind == "" {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.In, b.In), cmp.Compare(agent(a), agent(b)))
}
