package forecast_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/forecast"
	. "bulkhead.dev/bulkhead/guard/forecast/forecasttest"
)

func TestAGrowthThatGoesOnIsSeenAllTheTime(t *testing.T) {
	for name, c := range map[string]struct {
		shape  Shape
		first  float64 // hours after which it must be found
		until  float64
		rate   float64
		before float64
	}{
		"a loop":                 {Random(1, Loop, 5), 0.25, 60, Loop, 5},
		"a slow one":             {Random(2, 20, 5), 4, 100, 20, 5},
		"a very slow one":        {Random(3, 4, 5), 24, 160, 4, 5},
		"a batch each hour":      {Stepwise(100, 1, 5), 6, 60, 100, 5},
		"a batch each night":     {Stepwise(500, 24, 5), 24 * 6, 160, 500.0 / 24, 5},
		"one beside a cycle":     {Sum(Random(4, Loop, 40), Daily(300, 0.1)), 0.5, 80, Loop, 40},
		"one from the beginning": {Random(5, Loop, 0), 0.3, 20, Loop, 0},
	} {
		t.Run(name, func(t *testing.T) {
			points := minutes(c.until, Sum(Flat(300), c.shape))
			seen, looks := 0, 0
			for hour := c.before + c.first; hour < c.until; hour += c.until / 150 {
				looks++
				trend := forecast.Of(kept(points[:int(hour*60)]))
				if !trend.Growing {
					t.Logf("not after %.2f h: %+v", hour-c.before, trend)
					continue
				}
				seen++
				if hour > c.before+2*c.first && (trend.PerHour < 0.7*c.rate || trend.PerHour > 1.4*c.rate) {
					t.Errorf("after %.2f h it is %v an hour", hour-c.before, trend.PerHour)
				}
			}
			if seen < looks*97/100 {
				t.Errorf("it was seen in %d of %d looks", seen, looks)
			}
		})
	}
}

func TestAGrowthThatEndedIsNone(t *testing.T) {
	points := minutes(24, Sum(Flat(50), func(h float64) float64 { return Loop * math.Min(math.Max(0, h-2), 8) }))
	if trend := forecast.Of(points[:10*60]); !trend.Growing {
		t.Errorf("at its end it is %+v", trend)
	}
	for _, hour := range []float64{10.35, 10.5, 11, 12, 13, 15, 18, 24} {
		if trend := forecast.Of(points[:int(hour*60)]); trend.Growing {
			t.Errorf("%.1f h after its end it is %+v", hour-10, trend)
		}
	}
}

func TestGrowthWithATimeToLiveLevelsOff(t *testing.T) {
	points := minutes(40, Expiring(Loop, 6, 2)) // up to 1,344
	trend := forecast.Of(points[:10*60])
	if !trend.Growing || trend.Level < 1344*0.8 || trend.Level > 1344*1.25 {
		t.Errorf("it levels off at 1,344: %+v", trend)
	}
	if _, _, _, ok := trend.Reach(2000); ok {
		t.Error("it does not reach 2,000")
	}
	in, low, high, ok := trend.Reach(1200)
	t.Log(in, low, high)
	reached := 2 - 6*math.Log(1-1200.0/1344) - 10
	if off := in.Hours() / reached; !ok || off < 0.7 || off > 1.3 {
		t.Errorf("it reaches 1,200 in %.1f h, said to be %v", reached, in)
	}
	if level, in, ok := trend.Levels(0); !ok || level != trend.Level || in < 6*time.Hour || in > 24*time.Hour {
		t.Errorf("it levels off at %v in %v", level, in)
	}
	if trend := forecast.Of(points); trend.Growing {
		t.Errorf("in the end it does not grow: %+v", trend)
	}
	// Jobs that are kept for a day, exactly.
	jobs := forecast.Of(minutes(12, Linear(Loop, 2)))
	if level, in, ok := jobs.Levels(24 * time.Hour); !ok || math.Abs(level-24*Loop) > 100 || (in-14*time.Hour).Abs() > 10*time.Minute {
		t.Errorf("it levels off at %v in %v", level, in)
	}
}

func TestACleanUpResetsTheBaseAndTheGrowthGoesOn(t *testing.T) {
	loop := Random(1, Loop, 5)
	shape := Sum(Flat(100), loop, func(h float64) float64 {
		if h < 9 {
			return 0
		}
		return -math.Floor(loop(9) * 0.9)
	})
	for _, hour := range []float64{9.1, 9.3, 10, 12} {
		trend := forecast.Of(minutes(hour, shape))
		if !trend.Growing || trend.PerHour < 0.75*Loop || trend.PerHour > 1.35*Loop {
			t.Errorf("%.1f h after the clean-up it is %+v", hour-9, trend)
		}
	}
}

func TestASawIsNoGrowthOnceItIsKnown(t *testing.T) {
	points := minutes(7*24, Sum(Flat(50), Saw(30, 24)))
	for hour := 73.0; hour < 7*24; hour += 1.7 {
		if trend := forecast.Of(points[:int(hour*60)]); trend.Growing {
			t.Errorf("after %.1f days it is %+v", hour/24, trend)
		}
	}
	// One day the clean-up does not come.
	missed := minutes(7*24, Sum(Flat(50), Saw(30, 24), Once(720, 120, 0)))
	if trend := forecast.Of(missed[:132*60]); !trend.Growing {
		t.Errorf("half a day after a clean-up that did not come it is %+v", trend)
	}
}

func TestTimesThatGuardsHave(t *testing.T) {
	loop := Sum(Flat(100), Random(1, Loop, 5))
	for name, points := range map[string][]forecast.Point{
		"it was down for three hours":   append(minutes(6, loop), minutes(12, loop)[9*60:]...),
		"it was down until now":         append(minutes(10, loop), minutes(12, loop)[12*60-2:]...),
		"it looks each five minutes":    Series(begin, 12*time.Hour, 5*time.Minute, loop),
		"it looks each quarter":         Series(begin, 12*time.Hour, 15*time.Minute, loop),
		"each minute twice":             append(minutes(12, loop), minutes(12, loop)...),
		"its clock was an hour ahead":   append(minutes(12, loop), shifted(minutes(11, loop)[10*60:], -time.Hour)...),
		"its clock was a day behind":    append(minutes(12, loop), shifted(minutes(11, loop)[10*60:], -24*time.Hour)...),
		"its clock was set in between":  append(shifted(minutes(9, loop), 90*time.Second), minutes(12, loop)[9*60:]...),
		"it looks each hour":            Series(begin, 12*time.Hour, time.Hour, loop),
		"it kept an hour's points only": append(Series(begin, 11*time.Hour, time.Hour, loop), minutes(12, loop)[11*60+1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			trend := forecast.Of(forecast.Until(points, at(12)))
			if !trend.Growing || trend.PerHour < 0.8*Loop || trend.PerHour > 1.25*Loop {
				t.Errorf("it is %+v", trend)
			}
		})
	}
}

func shifted(points []forecast.Point, by time.Duration) []forecast.Point {
	return mapped(points, func(p forecast.Point) forecast.Point { p.At = p.At.Add(by); return p })
}

func TestTheIntervalHoldsTheTruth(t *testing.T) {
	held, all := 0, 0
	for seed := range uint64(100) {
		for _, shape := range []Shape{
			Sum(Linear(Loop, 5), Noise(seed, 10, 0)), Sum(Linear(Loop, 5), Noise(seed, 10, 0.3)), Sum(Linear(40, 5), Noise(seed, 4, 0.1)),
		} {
			rate := shape(6) - shape(5)
			rate = map[bool]float64{true: Loop, false: 40}[rate > 130]
			trend := forecast.Of(minutes(12, Sum(Flat(100), shape)))
			all++
			if trend.Low <= rate && rate <= trend.High {
				held++
			}
		}
	}
	t.Logf("%d of %d", held, all)
	if share := float64(held) / float64(all); share < 0.8 || share > 0.99 {
		t.Errorf("90 %% were promised, it was %.0f %%", 100*share)
	}
}

func TestBirthsShowTheGrowthBeforeTheFirstLook(t *testing.T) {
	var births []bulkhead.Birth
	births = append(births, bulkhead.Birth{At: at(-160), Objects: 230})
	for hour := -160.0; hour < 0; hour += 31 { // now and then one
		births = append(births, bulkhead.Birth{At: at(hour + 7), Objects: 1})
	}
	for hour := 0.0; hour < 7.9; hour += 0.25 {
		births = append(births, bulkhead.Birth{At: at(hour), Objects: 56})
	}
	trend := forecast.Of(forecast.FromBirths(births, 2100, at(8)))
	if !trend.Growing || math.Abs(trend.PerHour-224) > 20 || trend.Since.Sub(at(0)).Abs() > 30*time.Minute {
		t.Errorf("it is %+v", trend)
	}
	// Those that were always there are no growth.
	quiet := forecast.FromBirths(births[:4], 240, at(8))
	if trend := forecast.Of(quiet); trend.Growing {
		t.Errorf("it is %+v", trend)
	}
}

func TestBirthsAreWhatWasThere(t *testing.T) {
	births := []bulkhead.Birth{{At: at(5), Objects: 2}, {At: at(0), Objects: 10}, {At: at(7.5), Objects: 3}, {At: at(9), Objects: 4}}
	want := []forecast.Point{
		{At: at(5), Value: 15}, {At: at(6), Value: 17}, {At: at(7), Value: 17}, {At: at(7.5), Value: 17}, {At: at(8), Value: 24},
	}
	if diff := cmp.Diff(want, forecast.FromBirths(births, 24, at(8))); diff != "" {
		t.Error(diff)
	}
}
