package forecast_test

import (
	"testing"

	"bulkhead.dev/bulkhead/guard/forecast"
	. "bulkhead.dev/bulkhead/guard/forecast/forecasttest"
)

// A guard asks for each family each minute: thousands of times.
func BenchmarkOf(b *testing.B) {
	for name, shape := range map[string]Shape{
		"a week at rest":        Background(1, 300),
		"a week, then growth":   Sum(Background(1, 300), Random(1, Loop, 160)),
		"a week of slow growth": Sum(Flat(10), Linear(10, 0)),
	} {
		points := minutes(7*24, shape)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				forecast.Of(points)
			}
		})
	}
}
