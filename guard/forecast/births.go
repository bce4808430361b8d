package forecast

import (
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// FromBirths is what the creation times of objects say about the time before anybody
// watched: how many of those that are there now were there then. What was deleted in
// between is not in it, so it shows less growth than there was, if objects of the
// family go again, and more than there was, if they are replaced: of pods, which live
// for days and then are made anew, it is not to be used. total is how many there are
// at the time of the look; it is at least the sum of the births.
func FromBirths(births []bulkhead.Birth, total int64, at time.Time) []Point {
	sorted := slices.Clone(births)
	slices.SortStableFunc(sorted, func(a, b bulkhead.Birth) int { return a.At.Compare(b.At) })
	var sum int64
	for _, b := range sorted {
		sum += b.Objects
	}
	// What has no creation time was there first.
	alive := max(0, total-sum)
	points := make([]Point, 0, len(sorted)+1)
	for i, b := range sorted {
		if i > 0 && !b.At.Before(at) {
			break // a creation time that is ahead of the clock
		}
		// At the start of a step those of the steps before were there. The first step
		// holds all that is older.
		if i > 0 {
			points = append(points, gap(points, sorted[i-1].At, b.At, alive)...)
			points = append(points, Point{At: b.At, Value: float64(alive)})
		}
		alive += b.Objects
	}
	return append(points, Point{At: at, Value: float64(max(alive, total))})
}

// gap are the points of steps in which nothing was created, an hour apart: a series
// without them would look as if nobody had looked. The first step of births has no start
// that means anything.
func gap(have []Point, last, next time.Time, alive int64) []Point {
	if len(have) == 0 {
		return nil
	}
	var quiet []Point
	for at := last.Add(time.Hour); at.Before(next) && len(quiet) < 7*24; at = at.Add(time.Hour) {
		quiet = append(quiet, Point{At: at, Value: float64(alive)})
	}
	return quiet
}
