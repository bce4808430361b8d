package guard_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

// cores is what an agent uses of its CPU: a base that wobbles with the day, one day more
// than another, noise, and what it takes for each policy of the loop.
type cores struct {
	base, wobble, perPolicy float64
	limit                   float64
}

func (c cores) at(w *world, name string, at time.Time) float64 {
	minute := at.Unix() / 60
	day := c.wobble * (0.7 + 0.6*w.noise(name+"day", minute/1440).Float64())
	use := c.base * (1 + day*math.Sin(2*math.Pi*float64(minute%1440)/1440) + 0.1*w.noise(name, minute).NormFloat64())
	if w.noise(name+"peak", minute).IntN(50) == 0 {
		use *= 3
	}
	use += c.perPolicy * w.made(max(0, at.Sub(w.loop).Hours()))
	if c.limit > 0 {
		use = min(use, c.limit)
	}
	return max(0.001, use)
}

// agentsOf is how agents stand, of which nothing but CPU has a limit.
func agentsOf(o *watch, agents map[string]cores) func(context.Context) ([]guard.AgentSample, error) {
	return func(context.Context) (out []guard.AgentSample, err error) {
		for name, c := range agents {
			out = append(out, guard.AgentSample{Agent: name, Namespace: "kube-system", Memory: 100 << 20, CPU: c.at(o.world, name, o.now), CPULimit: c.limit})
		}
		return out, nil
	}
}

// looks are so many, one every five minutes: the guard takes that for being there all
// the time.
func (o *watch) looks(n int, done func([]bulkhead.Finding) bool) bool {
	o.t.Helper()
	for range n {
		o.now = o.now.Add(4 * time.Minute)
		if o.minutes(1, done) {
			return true
		}
	}
	return false
}

// watchAgents is a guard that measures agents, too, and has these budgets alone.
func watchAgents(t *testing.T, w *world, agents map[string]cores, budgets ...bulkhead.Budget) *watch {
	o := newWatch(t, w, start, nil)
	o.guard = guard.New(guard.Options{
		Snapshot: func() bulkhead.Census { return w.census(o.now) }, Now: func() time.Time { return o.now },
		Budgets: append([]bulkhead.Budget{}, budgets...), Agents: agentsOf(o, agents),
	})
	return o
}

func cpuReaches(f bulkhead.Finding) (out []bulkhead.Reach) {
	for _, r := range f.Reaches {
		if r.Budget.Unit == "cores" {
			out = append(out, r)
		}
	}
	return out
}

func TestTheCPUOfAnAgentIsForecast(t *testing.T) {
	w := &world{quiet: true, perHour: 224, loop: start.Add(26 * time.Hour)}
	agents := map[string]cores{
		"calico-node": {base: 0.2, wobble: 0.3, perPolicy: 0.25e-3, limit: 1},
		"coredns":     {base: 0.3, wobble: 0.5, limit: 0.5},      // busy, and policies are nothing to it
		"typha":       {base: 0.2, wobble: 0.3, perPolicy: 1e-3}, // no limit
	}
	o := watchAgents(t, w, agents)
	var learned time.Time
	o.looks((26+8)*12, func(f []bulkhead.Finding) bool {
		if learned.IsZero() && len(f) > 0 && len(cpuReaches(f[0])) > 0 {
			learned = o.now
		}
		return false
	})
	findings := o.guard.Findings()
	if len(findings) != 1 || len(cpuReaches(findings[0])) != 1 {
		t.Fatalf("%s", o.text())
	}
	t.Logf("known after %s\n%s", learned.Sub(w.loop), o.text())
	f, r := findings[0], cpuReaches(findings[0])[0]
	// Its limit is reached by what it uses at this time of the day.
	c := agents["calico-node"]
	c.base *= 1 + c.wobble*math.Sin(2*math.Pi*float64(o.now.Unix()/60%1440)/1440)
	rest := (c.limit-c.base)/c.perPolicy/224 - o.now.Sub(w.loop).Hours()
	if hours := r.In.Hours(); hours < 0.85*rest || hours > 1.15*rest {
		t.Errorf("in %.1f h, really in %.1f h", hours, rest)
	}
	if r.Budget.Name != "calico-node CPU" || r.Budget.Limit != 1 || !strings.HasPrefix(r.Budget.Source, "learned: ") {
		t.Errorf("%+v", r.Budget)
	}
	if !strings.HasPrefix(r.Detail, "calico-node (CPU limit 1, now 0.") || !strings.HasSuffix(r.Detail, "policies on: slower, not killed") {
		t.Errorf("it says %q", r.Detail)
	}
	if f.Severity != bulkhead.Warning {
		t.Errorf("it is %s", f.Severity)
	}
	for _, a := range f.Advice {
		if a.Text == r.Detail {
			t.Error("that it is slower is no advice")
		}
	}
	if lines := strings.Count(o.text(), "\n"); lines > 24 {
		t.Errorf("%d lines", lines)
	}
}

func TestCPUAloneStopsNothing(t *testing.T) {
	budgetOf := func(namespace string, limit float64) bulkhead.Budget {
		return bulkhead.Budget{Name: "networkpolicies", Kind: "networkpolicies.networking.k8s.io", Namespace: namespace, Unit: "objects", Limit: limit, Source: "configured"}
	}
	for name, c := range map[string]struct {
		budgets []bulkhead.Budget
		level   bulkhead.Level
		scope   string
		reason  string
	}{
		"CPU alone":                         {nil, bulkhead.Slow, "mw-script", "calico-node CPU reached about "},
		"CPU, and later a budget":           {[]bulkhead.Budget{budgetOf("", 3500)}, bulkhead.Stop, "", "networkpolicies reached about "},
		"CPU, and a budget of a namespace":  {[]bulkhead.Budget{budgetOf("mw-script", 3500)}, bulkhead.Stop, "mw-script", "networkpolicies reached about "},
		"CPU, and a budget that is far off": {[]bulkhead.Budget{budgetOf("", 6000)}, bulkhead.Slow, "mw-script", "calico-node CPU reached about "},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{quiet: true, perHour: 224, loop: start.Add(26 * time.Hour)}
			o := watchAgents(t, w, map[string]cores{"calico-node": {base: 0.2, wobble: 0.2, perPolicy: 0.27e-3, limit: 1}}, c.budgets...)
			o.looks((26+12)*12, nil)
			rulings := o.guard.Rulings()
			if len(rulings) != 1 {
				t.Fatalf("%+v\n%s", rulings, o.text())
			}
			if r := rulings[0]; r.Verdict.Level != c.level || r.Scope.Name != c.scope || !strings.Contains(r.Verdict.Reason, c.reason) {
				t.Errorf("%+v\n%s", r, o.text())
			}
		})
	}
}

// Something grows for days that hurts nobody. That CPU goes up in the morning, too, is no
// reason to wake anybody, however near it comes to its limit.
func TestCPUThatWobblesDailyIsNoFinding(t *testing.T) {
	wobbling := map[string]cores{
		"wobbles much": {base: 0.3, wobble: 0.6, limit: 0.5}, "is calm": {base: 0.3, wobble: 0.05, limit: 0.4},
		"is throttled each day": {base: 0.3, wobble: 0.8, limit: 0.35}, "has no limit": {base: 0.1, wobble: 0.3, perPolicy: 0.3e-3},
		"has a limit that is far off": {base: 0.1, wobble: 0.3, perPolicy: 0.3e-3, limit: 30},
	}
	for name, c := range map[string]struct {
		begins, days time.Duration
		agents       map[string]cores
		found        bool
	}{
		"a growth from the beginning":           {0, 2, wobbling, false},
		"a growth that begins on a morning":     {5*24*time.Hour + 9*time.Hour, 7, wobbling, false},
		"one that does depend on what it holds": {30 * time.Hour, 4, map[string]cores{"x": {base: 0.1, wobble: 0.3, perPolicy: 0.3e-3, limit: 0.6}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{quiet: true, perHour: 8, loop: start.Add(c.begins)}
			o := watchAgents(t, w, c.agents)
			if found := o.looks(int(c.days)*24*12, some); found != c.found {
				t.Fatalf("at %s:\n%s", o.now.Sub(start), o.text())
			} else if found {
				t.Logf("found %s after it began:\n%s", o.now.Sub(w.loop), o.text())
			}
		})
	}
}
