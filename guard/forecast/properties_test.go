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

// anySeries is a series of any kind: a shape of those above, seen with gaps.
func anySeries(t *rapid.T) []forecast.Point {
	seed := rapid.Uint64Range(1, 1<<32).Draw(t, "seed")
	from := rapid.Float64Range(0, 20).Draw(t, "from")
	shape := rapid.SampledFrom([]Shape{
		Sum(Flat(20), Linear(Loop, from)), Stepwise(100, 1, from), Random(seed, 30, from), Expiring(300, 3, from), Saw(50, 24),
		Background(seed, 200), Sum(Background(seed, 200), Random(seed, Loop, from)), Accelerating(20, from), Noise(seed, 10, 0.1), Flat(7),
	}).Draw(t, "shape")
	points := minutes(from+rapid.Float64Range(0, 12).Draw(t, "length"), shape)
	r := rand.New(rand.NewPCG(seed, 0))
	kept := points[:0]
	share := rapid.Float64Range(0.2, 1).Draw(t, "kept")
	for _, p := range points {
		if r.Float64() < share {
			kept = append(kept, p)
		}
	}
	return kept
}

func mapped(points []forecast.Point, change func(forecast.Point) forecast.Point) []forecast.Point {
	out := make([]forecast.Point, len(points))
	for i, p := range points {
		out[i] = change(p)
	}
	return out
}

func alike(a, b float64) bool { return math.Abs(a-b) <= 1e-6*(1+math.Abs(a)+math.Abs(b)) }

func TestTheOrderOfPointsMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anySeries(t)
		shuffled := rapid.Permutation(points).Draw(t, "shuffled")
		// Some of them twice, as from a guard that was restarted.
		shuffled = append(shuffled, points[:len(points)/3]...)
		if a, b := forecast.Of(points), forecast.Of(shuffled); a != b {
			t.Fatalf("in order %+v, shuffled %+v", a, b)
		}
	})
}

func TestTimesThatAreShiftedShiftTheStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anySeries(t)
		by := time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "by"))
		a := forecast.Of(points)
		b := forecast.Of(mapped(points, func(p forecast.Point) forecast.Point { p.At = p.At.Add(by); return p }))
		if !a.Since.IsZero() {
			a.Since = a.Since.Add(by)
		}
		if !a.At.IsZero() {
			a.At = a.At.Add(by)
		}
		if a != b {
			t.Fatalf("%+v became %+v", a, b)
		}
	})
}

func TestValuesThatAreScaledScaleTheSlope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anySeries(t)
		// A power of two changes no digit.
		by := math.Pow(2, float64(rapid.IntRange(0, 20).Draw(t, "by")))
		a := forecast.Of(points)
		b := forecast.Of(mapped(points, func(p forecast.Point) forecast.Point { p.Value *= by; return p }))
		if a.Growing && !b.Growing {
			t.Fatalf("%v times as much does not grow any more: %+v", by, b)
		}
		// How many objects a growth has decides whether it matters, and with that which
		// scale is believed.
		if a.Growing == b.Growing && !alike(by*a.PerHour, b.PerHour) && (by*a.PerHour < b.Low*0.9 || by*a.PerHour > b.High*1.1) {
			t.Fatalf("times %v: %+v became %+v", by, a, b)
		}
	})
}

func TestAConstantChangesNoSlope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anySeries(t)
		by := float64(rapid.IntRange(0, 1e5).Draw(t, "by"))
		a := forecast.Of(points)
		b := forecast.Of(mapped(points, func(p forecast.Point) forecast.Point { p.Value += by; return p }))
		// How much a growth is of what was there decides whether it matters, and with that
		// which scale is believed.
		if a.Growing == b.Growing && !alike(a.PerHour, b.PerHour) && (a.PerHour < b.Low*0.9 || a.PerHour > b.High*1.1) {
			t.Fatalf("plus %v: %+v became %+v", by, a, b)
		}
	})
}

func TestAReachIsBetweenItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anySeries(t)
		trend := forecast.Of(points)
		near := trend.Now + rapid.Float64Range(0, 1e4).Draw(t, "near")
		in, low, high, ok := trend.Reach(near)
		if !ok {
			return
		}
		if low < 0 || low > in || in > high {
			t.Fatalf("%v is not between %v and %v", in, low, high)
		}
		later, _, _, ok := trend.Reach(near + 100)
		if ok && later < in {
			t.Fatalf("more is reached sooner: %v, %v", later, in)
		}
	})
}

func TestAnyPointsAreAnswered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := rapid.SliceOf(rapid.Custom(func(t *rapid.T) forecast.Point {
			return forecast.Point{At: time.Unix(rapid.Int64().Draw(t, "at"), 0), Value: rapid.Float64().Draw(t, "value")}
		})).Draw(t, "points")
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			points = append(points, forecast.Point{At: begin, Value: v})
		}
		trend := forecast.Of(points)
		if trend.Confidence < 0 || trend.Confidence > 1 {
			t.Fatalf("%+v", trend)
		}
		trend.Reach(rapid.Float64().Draw(t, "limit"))
		forecast.Learn(points, map[string][]forecast.Point{"a": points})
	})
}
