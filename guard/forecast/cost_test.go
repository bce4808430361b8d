package forecast_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"bulkhead.dev/bulkhead/guard/forecast"
	. "bulkhead.dev/bulkhead/guard/forecast/forecasttest"
)

// felix are the policies and the memory in MiB (cgroup_rss: felix, and 170 MiB that stand
// in for confd and BIRD) of a real felix 3.23.3 that was given one policy of 90 rules after
// the other under a limit of 500 MiB.
var felix = [][2]float64{
	{8, 200.3}, {164, 215.6}, {321, 231.9}, {477, 247.5}, {633, 263.9}, {789, 279.7}, {944, 294.6}, {1099, 310.0}, {1255, 327.1},
	{1411, 343.4}, {1566, 359.6}, {1723, 372.3}, {1879, 391.7}, {2034, 404.5}, {2190, 419.9}, {2346, 437.8}, {2503, 454.2},
}

// calibration gives each of its points ten minutes.
func calibration() (memory, policies []forecast.Point) {
	for i, f := range felix {
		for minute := range 10 {
			at := begin.Add(time.Duration(10*i+minute) * time.Minute)
			policies = append(policies, forecast.Point{At: at, Value: f[0]})
			// The collector lets it rise by a few MiB between its runs.
			memory = append(memory, forecast.Point{At: at, Value: (f[1] + float64(minute%5)) * forecast.MiB})
		}
	}
	return memory, policies
}

func scaled(points []forecast.Point, by float64) []forecast.Point {
	return mapped(points, func(p forecast.Point) forecast.Point { p.Value *= by; return p })
}

func TestTheCostOfAPolicyIsLearnedFromARealFelix(t *testing.T) {
	memory, policies := calibration()
	cost, ok := forecast.Learn(memory, map[string][]forecast.Point{
		forecast.Rules: scaled(policies, 90), "pods": minutes(3, Background(1, 6000)), "secrets": minutes(3, Flat(400)),
	})
	if !ok || cost.Of != forecast.Rules {
		t.Fatalf("learned %+v", cost)
	}
	// 102 kB a policy are anonymous, which is what this counts.
	if perPolicy := 90 * cost.PerUnit; math.Abs(perPolicy-102e3) > 0.05*102e3 {
		t.Errorf("a policy costs %.0f bytes", perPolicy)
	}
	if base := cost.Base / forecast.MiB; math.Abs(base-200) > 5 {
		t.Errorf("the base is %.0f MiB", base)
	}
	if cost.Error > 0.05 {
		t.Errorf("the error is %v", cost.Error)
	}
	// What is known beforehand is within its own error of it.
	known, ok := forecast.Known("calico-node", "v3.23.3")
	if !ok || math.Abs(known.PerUnit/cost.PerUnit-1) > known.Error {
		t.Errorf("known %v, learned %v bytes a rule", known.PerUnit, cost.PerUnit)
	}
}

// The calculation graph after a start (cgraph of Calico 3.23.3, 90 rules a policy), in MiB.
func TestWhatIsKnownFitsTheCalculationGraph(t *testing.T) {
	for version, table := range map[string]map[float64]float64{
		"v3.23.3": {0: 39.2, 250: 68.1, 500: 95.8, 1000: 149.6, 2000: 251.4, 4000: 460.2, 8000: 857.7},
		"v3.31.7": {0: 53.7, 2000: 84.8, 4000: 100.5, 8000: 122.1},
	} {
		known, ok := forecast.Known("calico-node", version)
		if !ok {
			t.Fatal(version)
		}
		known.Base = table[0] * forecast.MiB
		for policies, want := range table {
			if got := known.Memory(90*policies) / forecast.MiB; math.Abs(got-want) > 0.2*want+3 && version == "v3.23.3" {
				t.Errorf("%s with %v policies: %.0f MiB, measured %.0f", version, policies, got, want)
			} else if got < 0.8*want {
				t.Errorf("%s with %v policies: %.0f MiB, measured %.0f", version, policies, got, want)
			}
		}
	}
	for policies, want := range map[float64]float64{0: 99.7, 2000: 457.1, 4000: 829.7} {
		known, _ := forecast.Known("calico-typha", "v3.23.3")
		if got := known.Memory(90*policies) / forecast.MiB; math.Abs(got-want) > 0.1*want {
			t.Errorf("Typha with %v policies: %.0f MiB, measured %.0f", policies, got, want)
		}
	}
	if _, ok := forecast.Known("calico-kube-controllers", "v3.23.3"); ok {
		t.Error("kube-controllers does not depend on policies")
	}
}

// What was measured under 500 MiB with 170 MiB of other memory.
func TestThresholdsAreThoseOfARealFelix(t *testing.T) {
	cost, _ := forecast.Known("calico-node", "v3.23.3")
	cost.Base += 170 * forecast.MiB
	limits := cost.Thresholds(500 * forecast.MiB)
	for _, c := range []struct {
		what           string
		rules          float64
		atLeast, below float64
	}{
		{"a start is well with 2,400 policies and not with 2,700", limits.Restart, 2300, 2450},
		{"its memory is at the limit", limits.Full, 2500, 2700},
		{"readiness fails at 2,866, after faults from 2,690 on", limits.Hangs, 2690, 2866},
		{"killed with 3,200, where pages were charged elsewhere, not with 2,800", limits.Killed, 2800, 3200},
	} {
		if policies := c.rules / 90; policies < c.atLeast || policies >= c.below {
			t.Errorf("%s: said to be %.0f", c.what, policies)
		}
	}
}

// agentSeries is the memory of a process that holds something for a time: with a
// collector's saw, noise and restarts.
func agentSeries(seed uint64, held []forecast.Point, base, perUnit float64) []forecast.Point {
	r := rand.New(rand.NewPCG(seed, 9))
	return mapped(held, func(p forecast.Point) forecast.Point {
		minute := p.At.Sub(begin).Minutes()
		live := base + perUnit*p.Value
		p.Value = live * (1 + 0.15*math.Mod(minute, 7)/7 + 0.005*r.Float64())
		if restarted := math.Mod(minute, 400); restarted < 3 {
			p.Value = live * 0.3 // it has not read all yet
		}
		return p
	})
}

func TestLearning(t *testing.T) {
	policies := minutes(10, Sum(Flat(200), Random(1, Loop, 2)))
	pods := minutes(10, Background(2, 5000))
	secrets := minutes(10, Sum(Flat(3000), Random(3, 40, 0)))
	held := map[string][]forecast.Point{"networkpolicies": policies, forecast.Rules: scaled(policies, 90), "pods": pods, "secrets": secrets}
	for name, c := range map[string]struct {
		memory []forecast.Point
		of     string
		per    float64
	}{
		"rules, which grow in step with policies": {agentSeries(1, scaled(policies, 90), 240e6, 1200), forecast.Rules, 1200},
		"pods": {agentSeries(2, pods, 50e6, 30e3), "pods", 30e3},
		"nothing that is known": {mapped(policies, func(p forecast.Point) forecast.Point {
			p.Value = 1e8 + 1e6*math.Mod(p.At.Sub(begin).Minutes(), 11)
			return p
		}), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			cost, ok := forecast.Learn(c.memory, held)
			if ok != (c.of != "") || cost.Of != c.of {
				t.Fatalf("learned %+v", cost)
			}
			if ok && math.Abs(cost.PerUnit-c.per) > 0.12*c.per {
				t.Errorf("learned %+v", cost)
			}
		})
	}
	if cost, ok := forecast.Learn(minutes(10, Flat(3e8)), map[string][]forecast.Point{"pods": minutes(10, Flat(100))}); ok {
		t.Errorf("nothing has changed, learned %+v", cost)
	}
}

func TestAnAgentSaysWhenItIsFull(t *testing.T) {
	held := minutes(6, Sum(Flat(20), Linear(Loop, 1))) // 1,140 policies by now
	known, _ := forecast.Known("calico-node", "")
	agent := forecast.Agent{
		Name: "calico-node", Uses: 410 * forecast.MiB, Limit: 500 * forecast.MiB, Cost: known,
		Held: forecast.Of(scaled(held, 90)), Objects: 1.0 / 90, Noun: "policies",
	}
	reach, ok := agent.Reach()
	if !ok {
		t.Fatal("it is not reached")
	}
	// 90 MiB for 106.5 kB each are 886 policies, 3 h 57 min of the loop.
	if off := reach.In - 237*time.Minute; off.Abs() > 10*time.Minute {
		t.Errorf("in %v", reach.In)
	}
	for _, c := range []struct{ got, want string }{
		{agent.Sentence(Loop, "releases"), "at 224 releases/h, calico-node (limit 500Mi, now 410Mi) is full in 4 h (3 h 30 – 4 h 40), at 2,030 policies"},
		{reach.Detail, "restarting calico-node is safe up to 1,800 policies; above that raise the limit first"},
		{reach.Budget.Source, "full at 2,030 policies; measured with Calico 3.23.3: 1.18 kB per rule (±15 %), limit 500Mi"},
		{reach.Budget.Name + " in " + reach.Budget.Unit, "calico-node memory in bytes"},
	} {
		if c.got != c.want {
			t.Errorf("it says %q, not %q", c.got, c.want)
		}
	}
	agent.Uses = 490 * forecast.MiB
	if got, want := agent.Detail(), "do not restart calico-node: it holds 1,140 policies, and above 960 it does not become ready again; raise the limit first"; got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
	agent.Limit = 0
	if _, ok := agent.Reach(); ok {
		t.Error("without a limit there is nothing to reach")
	}
}

func TestTheIncidentsAgentIsSafeToRestartUpTo2400Policies(t *testing.T) {
	known, _ := forecast.Known("calico-node", "v3.23.3")
	rules := 90 * 1000.0
	agent := forecast.Agent{
		Name: "calico-node", Uses: 170*forecast.MiB + known.Memory(rules), Limit: 500 * forecast.MiB, Cost: known,
		Held: forecast.Trend{Now: rules}, Objects: 1.0 / 90, Noun: "policies",
	}
	if got, want := agent.Detail(), "restarting calico-node is safe up to 2,400 policies; above that raise the limit first"; got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
}

func TestSpansAreSaidAsPeopleDo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 min", 45 * time.Minute: "45 min", 3*time.Hour + 52*time.Minute: "3 h 50 min", 4 * time.Hour: "4 h",
		59*time.Minute + 50*time.Second: "1 h", 76 * time.Hour: "3 d 4 h", forecast.Far: "never",
	} {
		if got := forecast.Span(d, true); got != want {
			t.Errorf("%v is said as %q, not %q", d, got, want)
		}
	}
}

// Whoever serves the metrics may say anything.
func TestNumbersThatAreTooLargeEndTheLearning(t *testing.T) {
	var memory, held []forecast.Point
	for i := range 60 {
		x := (float64(i) - 30) / 30 * math.MaxFloat64
		memory, held = append(memory, forecast.Point{At: at(float64(i)), Value: x}), append(held, forecast.Point{At: at(float64(i)), Value: x})
	}
	if c, ok := forecast.Learn(memory, map[string][]forecast.Point{"pods": held}); ok {
		t.Errorf("%+v", c)
	}
}
