package forecast_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead/guard/forecast"
	. "bulkhead.dev/bulkhead/guard/forecast/forecasttest"
)

// cores is CPU as agents have it: a base that wobbles with the day by a share, one day up
// to a half more or less than another, with noise.
func cores(seed uint64, base, share float64) Shape {
	r := rand.New(rand.NewPCG(seed, 77))
	phase := 24 * r.Float64()
	var days [9]float64
	for i := range days {
		days[i] = share * (0.5 + r.Float64())
	}
	slow, fast := Noise(seed, 0.05*base, 1), Noise(seed+1, 0.1*base, 0)
	return func(hour float64) float64 {
		day := days[int((hour+phase)/24)]
		return base*(1+day*math.Sin(2*math.Pi*(hour+phase)/24)) + slow(hour) + fast(hour)
	}
}

// remembered is a shape as a guard has it that has looked until an hour: each minute of the
// last hours, each ten minutes of some days, each hour of a week.
func remembered(until float64, shape Shape) (points []forecast.Point) {
	for age := 0.0; age <= min(until, 168); {
		points = append(points, forecast.Point{At: at(until - age), Value: max(0.001, shape(until-age))})
		switch {
		case age < 6:
			age += 1.0 / 60
		case age < 72:
			age += 1.0 / 6
		default:
			age++
		}
	}
	return points
}

func TestLearningCPU(t *testing.T) {
	policies := Sum(Flat(500), Random(1, Loop, 30))
	per := func(each float64, held Shape) Shape { return func(h float64) float64 { return each * held(h) } }
	churn := Once(0.1, 30, 0) // what changes things takes from the first minute on, and no more later
	for name, c := range map[string]struct {
		cpu   Shape
		until float64
		of    string
		each  float64
	}{
		"policies, after some hours":            {Sum(cores(1, 0.2, 0.2), per(0.2e-3, policies)), 36, "networkpolicies", 0.2e-3},
		"policies, that take some for changes":  {Sum(cores(2, 0.2, 0.2), per(0.2e-3, policies), churn), 40, "networkpolicies", 0.2e-3},
		"policies, on a day that changes much":  {Sum(cores(3, 0.2, 0.5), per(0.2e-3, policies)), 44, "networkpolicies", 0.2e-3},
		"policies, of which no day was seen":    {Sum(cores(1, 0.2, 0.2), per(0.2e-3, func(h float64) float64 { return policies(h + 20) })), 18, "", 0},
		"too soon":                              {Sum(cores(1, 0.2, 0.2), per(0.2e-3, policies)), 30.5, "", 0},
		"less than the day does":                {Sum(cores(1, 0.2, 0.5), per(0.01e-3, policies)), 36, "", 0},
		"a day":                                 {cores(1, 0.2, 0.5), 38, "", 0},
		"noise":                                 {cores(2, 0.2, 0), 38, "", 0},
		"changes alone":                         {Sum(cores(1, 0.2, 0.2), churn), 38, "", 0},
		"something that began hours later":      {Sum(cores(1, 0.2, 0.2), Once(0.3, 34, 0)), 38, "", 0},
		"what becomes less while policies come": {Sum(cores(1, 0.6, 0.2), per(-0.2e-3, policies)), 38, "", 0},
		"CPU that nobody uses":                  {Flat(0), 38, "", 0},
		"policies that grow for a week":         {Sum(cores(4, 0.2, 0.3), per(0.1e-3, Linear(40, 10))), 160, "networkpolicies", 0.1e-3},
	} {
		t.Run(name, func(t *testing.T) {
			held := policies
			switch name {
			case "policies that grow for a week":
				held = Sum(Flat(500), Linear(40, 10))
			case "policies, of which no day was seen":
				held = func(h float64) float64 { return policies(h + 20) }
			}
			cost, ok := forecast.LearnCPU(remembered(c.until, c.cpu), map[string][]forecast.Point{
				"networkpolicies": remembered(c.until, held), "pods": remembered(c.until, Background(3, 2000)), "secrets": remembered(c.until, Flat(40)),
			})
			if ok != (c.of != "") || cost.Of != c.of {
				t.Fatalf("learned %+v", cost)
			}
			if ok && math.Abs(cost.PerUnit-c.each) > 0.15*c.each {
				t.Errorf("learned %+v", cost)
			}
		})
	}
}

// Whatever the day does, and whenever something begins to grow that costs nothing: in a
// week no cost is found, but for chance.
func TestCPUThatDependsOnNothingHasNoCost(t *testing.T) {
	looks, learned := 0, 0
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 5))
		from := 160 * r.Float64()
		held := Sum(Flat(500), Random(seed, []float64{10, 50, Loop, 1000}[seed%4], from))
		cpu := cores(seed, 0.3, []float64{0, 0.1, 0.3, 0.6}[seed/4%4])
		for hour := from + 0.5; hour < min(from+60, 168); hour += 1.3 {
			looks++
			if _, ok := forecast.LearnCPU(remembered(hour, cpu), map[string][]forecast.Point{"a": remembered(hour, held)}); ok {
				learned++
			}
		}
	}
	t.Logf("%d of %d looks", learned, looks)
	if learned > looks/500 {
		t.Errorf("in %d of %d looks a cost was found", learned, looks)
	}
}

func TestACostInCPUScalesWithIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64Range(1, 1<<32).Draw(t, "seed")
		from := rapid.Float64Range(20, 60).Draw(t, "from")
		until := from + rapid.Float64Range(0, 24).Draw(t, "length")
		held := Sum(Flat(100), Linear(Loop, from))
		cpu := remembered(until, Sum(cores(seed, 0.2, rapid.Float64Range(0, 0.6).Draw(t, "share")), func(h float64) float64 { return 0.2e-3 * held(h) }))
		points := map[string][]forecast.Point{"a": remembered(until, held)}
		a, okA := forecast.LearnCPU(cpu, points)
		by := math.Pow(2, float64(rapid.IntRange(-6, 6).Draw(t, "by"))) // changes no digit
		later := time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "later"))
		changed := mapped(cpu, func(p forecast.Point) forecast.Point { return forecast.Point{At: p.At.Add(later), Value: by * p.Value} })
		b, okB := forecast.LearnCPU(rapid.Permutation(changed).Draw(t, "shuffled"), map[string][]forecast.Point{
			"a": shifted(points["a"], later),
		})
		if okA != okB || okA && (!alike(by*a.PerUnit, b.PerUnit) || !alike(by*a.Base, b.Base) || !alike(a.Error, b.Error)) {
			t.Fatalf("%+v, %v became %+v, %v", a, okA, b, okB)
		}
		if okA && (a.PerUnit <= 0 || a.Error > 0.3) {
			t.Fatalf("%+v", a)
		}
	})
}

func TestAnyCPUIsAnswered(t *testing.T) {
	points := func(t *rapid.T, what string) []forecast.Point {
		return append(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) forecast.Point {
			return forecast.Point{At: time.Unix(rapid.Int64().Draw(t, "at"), 0), Value: rapid.Float64().Draw(t, "value")}
		}), 0, 30).Draw(t, what), forecast.Point{At: begin, Value: math.NaN()})
	}
	rapid.Check(t, func(t *rapid.T) {
		cpu := points(t, "cpu")
		forecast.LearnCPU(cpu, map[string][]forecast.Point{"a": points(t, "a"), "b": cpu, "c": nil})
		forecast.Lately(cpu)
	})
}

func TestAnAgentSaysWhenItIsThrottled(t *testing.T) {
	held := minutes(6, Sum(Flat(20), Linear(Loop, 1))) // 1,140 policies by now
	agent := forecast.Agent{
		Name: "calico-node", Of: forecast.CPU, Uses: 0.62, Limit: 1, Held: forecast.Of(scaled(held, 90)), Objects: 1.0 / 90, Noun: "policies",
		Cost: forecast.Cost{Of: forecast.Rules, PerUnit: 0.3e-3 / 90, Error: 0.1, Source: "learned"},
	}
	reach, ok := agent.Reach()
	if !ok {
		t.Fatal("it is not reached")
	}
	// 0.38 cores for 0.3 thousandths each are 1,267 policies, 5 h 39 min of the loop.
	if off := reach.In - 339*time.Minute; off.Abs() > 10*time.Minute {
		t.Errorf("in %v", reach.In)
	}
	for _, c := range []struct{ got, want string }{
		{agent.Sentence(Loop, "releases"), "at 224 releases/h, calico-node (CPU limit 1, now 0.62) is throttled in 5 h 40 min (5 h 10 – 6 h 20), at 2,410 policies"},
		{reach.Detail, "calico-node (CPU limit 1, now 0.62) is throttled from 2,400 policies on: slower, not killed"},
		{reach.Budget.Source, "learned: 0.0033 cores per 1,000 rules of networkpolicies (±10 %), limit 1"},
		{reach.Budget.Name + " in " + reach.Budget.Unit, "calico-node CPU in cores"},
	} {
		if c.got != c.want {
			t.Errorf("it says %q, not %q", c.got, c.want)
		}
	}
	agent.Uses = 1
	reach, ok = agent.Reach()
	if want := "calico-node (CPU limit 1, now 1) is throttled: slower, not killed"; !ok || reach.In != 0 || reach.Detail != want {
		t.Errorf("%+v", reach)
	}
	agent.Limit = 0
	if _, ok := agent.Reach(); ok {
		t.Error("without a limit there is nothing to reach")
	}
	for cores, want := range map[float64]string{0: "0", 1: "1", 10: "10", 0.5: "0.5", 0.623: "0.62", 0.0051: "0.005", 100: "100"} {
		if got := forecast.CoresText(cores); got != want {
			t.Errorf("%v is said as %q, not %q", cores, got, want)
		}
	}
}
