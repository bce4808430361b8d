// Package forecasttest makes series as clusters make them: growths that hurt, in the
// shapes they have had, and a healthy background. All of it is decided by the seed.
package forecasttest

import (
	"math"
	"math/rand/v2"
	"time"

	"bulkhead.dev/bulkhead/guard/forecast"
)

// Loop is how many objects an hour the loop of 2024-10-09 made of each kind of which
// one release has one (Wikitech, Incidents/2024-10-09 calico-codfw: 1,791 in about
// eight hours).
const Loop = 224.0

// Shape is how many objects there are, at hours since a series began.
type Shape func(hour float64) float64

// Series is a shape seen each step, for a time, with whole numbers as counts are.
func Series(start time.Time, length, step time.Duration, shape Shape) []forecast.Point {
	points := make([]forecast.Point, 0, length/step+1)
	for at := time.Duration(0); at <= length; at += step {
		points = append(points, forecast.Point{At: start.Add(at), Value: math.Max(0, math.Round(shape(at.Hours())))})
	}
	return points
}

// Sum is several shapes at once.
func Sum(shapes ...Shape) Shape {
	return func(hour float64) float64 {
		var sum float64
		for _, s := range shapes {
			sum += s(hour)
		}
		return sum
	}
}

// Flat is always the same.
func Flat(value float64) Shape { return func(float64) float64 { return value } }

// Linear adds so many in an hour, from an hour on.
func Linear(perHour, from float64) Shape {
	return func(hour float64) float64 { return perHour * math.Max(0, hour-from) }
}

// Stepwise adds a batch at once, each so many hours.
func Stepwise(batch, every, from float64) Shape {
	return func(hour float64) float64 { return batch * math.Max(0, math.Floor((hour-from)/every+1)) }
}

// Accelerating grows by the square of time: perHour is its rate after one hour.
func Accelerating(perHour, from float64) Shape {
	return func(hour float64) float64 { h := math.Max(0, hour-from); return perHour / 2 * h * h }
}

// Expiring adds so many in an hour, and each goes at a random time, after life hours
// in the mean: it levels off at perHour × life.
func Expiring(perHour, life, from float64) Shape {
	return func(hour float64) float64 {
		return perHour * life * (1 - math.Exp(-math.Max(0, hour-from)/life))
	}
}

// Saw grows until a clean-up each so many hours takes all of it.
func Saw(perHour, every float64) Shape {
	return func(hour float64) float64 { return perHour * math.Mod(hour, every) }
}

// Daily is a cycle of a day around a mean.
func Daily(mean, share float64) Shape {
	return func(hour float64) float64 { return mean * share * math.Sin(2*math.Pi*hour/24) }
}

// Noise is a value that wanders around 0 with a standard deviation, and has forgotten
// where it was after about memory hours. It is defined by its seed for a week and a day.
func Noise(seed uint64, deviation, memory float64) Shape {
	r := rand.New(rand.NewPCG(seed, 1))
	const minute = 1.0 / 60
	keep := 0.0
	if memory > 0 {
		keep = math.Exp(-minute / memory)
	}
	values := make([]float64, 8*24*60)
	values[0] = deviation * r.NormFloat64()
	for i := range values[1:] {
		values[i+1] = keep*values[i] + deviation*math.Sqrt(1-keep*keep)*r.NormFloat64()
	}
	return func(hour float64) float64 {
		return values[min(max(int(hour/minute+0.5), 0), len(values)-1)]
	}
}

// Random adds so many in an hour, each at a random time, from an hour on.
func Random(seed uint64, perHour, from float64) Shape {
	r := rand.New(rand.NewPCG(seed, 2))
	var births []float64
	for at := from; at < 8*24; {
		at += r.ExpFloat64() / perHour
		births = append(births, at)
	}
	return func(hour float64) float64 {
		low, high := 0, len(births)
		for low < high {
			if mid := (low + high) / 2; births[mid] <= hour {
				low = mid + 1
			} else {
				high = mid
			}
		}
		return float64(low)
	}
}

// Churn is births at random, so many in an hour, each of which lives for a random
// time, life hours in the mean: perHour × life of them, more or less.
func Churn(seed uint64, perHour, life float64) Shape {
	r := rand.New(rand.NewPCG(seed, 6))
	change := make([]float64, 8*24*60)
	for at := -10 * life; at < 8*24; at += r.ExpFloat64() / perHour {
		from, to := int(max(0, at)*60), int((at+life*r.ExpFloat64())*60)
		if to < 0 || from >= len(change) {
			continue
		}
		change[from]++
		if to < len(change) {
			change[to]--
		}
	}
	for i := range change[1:] {
		change[i+1] += change[i]
	}
	return func(hour float64) float64 { return change[min(max(int(hour*60+0.5), 0), len(change)-1)] }
}

// Once adds so many at an hour and takes them at another (0: never).
func Once(count, from, to float64) Shape {
	return func(hour float64) float64 {
		if hour < from || (to > 0 && hour >= to) {
			return 0
		}
		return count
	}
}

// Deploys are rolling updates: some times a day, at random, a share more for minutes.
func Deploys(seed uint64, perDay, more float64) Shape {
	r := rand.New(rand.NewPCG(seed, 3))
	var shapes []Shape
	for at := 24 / perDay * r.ExpFloat64(); at < 8*24; at += 24 / perDay * r.ExpFloat64() {
		shapes = append(shapes, Once(more*(0.3+0.7*r.Float64()), at, at+(2+10*r.Float64())/60))
	}
	return Sum(shapes...)
}

// CronJobs are so many of them with a period in hours, each keeping its last Jobs and
// running for some minutes of it.
func CronJobs(seed uint64, count int, every, history float64) Shape {
	r := rand.New(rand.NewPCG(seed, 4))
	var shapes []Shape
	for range count {
		phase, took := r.Float64()*every, (1+5*r.Float64())/60
		shapes = append(shapes, func(hour float64) float64 {
			hour += every * history // they are not new
			ran := math.Max(0, math.Floor((hour-phase)/every+1))
			running := 0.0
			if ran > 0 && math.Mod(hour-phase, every) < took {
				running = 1
			}
			return math.Min(ran-running, history) + running
		})
	}
	return Sum(shapes...)
}

// Background is the healthy life of one family or kind with a mean: a daily cycle of
// 10 %, rolling deploys, CronJobs that keep a few Jobs, namespaces that come and go, and noise.
func Background(seed uint64, mean float64) Shape {
	r := rand.New(rand.NewPCG(seed, 5))
	phase := 24 * r.Float64()
	daily := Daily(mean, 0.1)
	shapes := []Shape{
		Flat(mean),
		func(hour float64) float64 { return daily(hour + phase) },
		Deploys(seed, 12, 0.05*mean),
		CronJobs(seed, 1+int(mean/200), 1, 3),
		CronJobs(seed+1, 1+int(mean/200), 24, 10),
		Noise(seed, 0.01*mean, 0.3),
	}
	for range 4 {
		at := 150 * r.Float64()
		shapes = append(shapes, Once(20+0.1*mean*r.Float64(), at, at+1+20*r.Float64()))
	}
	return Sum(shapes...)
}
