package guard

import (
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/forecast"
)

// growth is one family, or a sum, that grows.
type growth struct {
	bulkhead.Key
	tally  *bulkhead.Tally // never nil
	points []bulkhead.Point
	trend  forecast.Trend
	rules  forecast.Trend // of network policies
	gain   float64        // objects since the growth began
	// earlier: it was there at the first look, and may have begun before.
	earlier bool
}

const (
	// settledFor is how long something must grow that follows what somebody has asked
	// for, before it is more than a change of size: pods of a Deployment that is scaled
	// up, workers of ours.
	settledFor = time.Hour
	// scaledFor is how long that of one controller must grow, and of what nodes have: an
	// autoscaler adds to them all morning, up to a limit that somebody has set.
	scaledFor = 12 * time.Hour
	// sumFor is how long a sum must grow: in it, what has nothing to do with one another
	// may go up at the same time, several deploys for example.
	sumFor = 30 * time.Minute
	// bornFor is how long it must grow if only the objects' own times of creation are
	// known. These are in steps of a quarter of an hour.
	bornFor = 30 * time.Minute
	// youngFor is how long births are asked what grows: by then what was seen shows also
	// what is little in an hour of what is there.
	youngFor = 3 * time.Hour
)

// growth returns how a key grows; nil if it does not.
func (a *analysis) growth(key bulkhead.Key) *growth {
	g, ok := a.made[key]
	if !ok {
		g = a.judge(key)
		a.made[key] = g
	}
	return g
}

func (a *analysis) judge(key bulkhead.Key) *growth {
	g := &growth{Key: key, tally: a.tallies[key]}
	if g.tally == nil || a.calm[key] || g.tally.Objects < least {
		return nil // it is gone, or stands, or is small
	}
	atLeast := time.Duration(0)
	switch {
	case scales(g.tally) || isSum(key) && 2*a.scaled[key] >= g.tally.Objects:
		atLeast = scaledFor
	case key == total(key.Kind) || followsDemand(g.tally) || 2*a.demand[key] >= g.tally.Objects:
		atLeast = settledFor
	case isSum(key):
		atLeast = sumFor
	}
	grows := a.watched(g, atLeast)
	g.earlier = grows && a.fromTheFirstLook(g)
	// What was seen says most; what began before anybody looked only births tell, and who
	// began to look a moment ago would wait for them in vain when it began with the look.
	young := len(a.Looked) == 0 || a.Now.Sub(a.Looked[0].From) < youngFor
	if g.earlier || !grows && young {
		if of := a.ofBirths(key, max(atLeast, bornFor)); of != nil && grows {
			g.reachBack(of)
		} else if of != nil && a.borneOut(of) {
			g, grows = of, true
		}
	}
	if !grows || g.gain < least || a.maybeDaily(g) {
		return nil
	}
	return g
}

// watched judges a growth by what was seen of it.
func (a *analysis) watched(g *growth, atLeast time.Duration) bool {
	if len(a.Looked) == 0 {
		return false
	}
	g.points = a.pointsOf(g.Key)
	return g.measure(a.Looked, a.Now, false, atLeast)
}

// ofBirths is a growth as the objects' times of creation tell it; nil: they tell of none.
func (a *analysis) ofBirths(key bulkhead.Key, atLeast time.Duration) *growth {
	g := &growth{Key: key, tally: a.tallies[key]}
	if g.points = born(g.tally, a.Now); len(g.points) == 0 {
		return nil
	}
	looked := []bulkhead.Span{{From: g.points[0].At, To: a.Now}}
	if !g.measure(looked, a.Now, true, atLeast) {
		return nil
	}
	return g
}

// measure finds the trend of a growth in its points, and reports whether it is one.
func (g *growth) measure(looked []bulkhead.Span, now time.Time, evenly bool, atLeast time.Duration) bool {
	if len(g.points) == 0 {
		return false
	}
	lowest := slices.MinFunc(g.points, func(a, b bulkhead.Point) int { return int(a.Objects - b.Objects) })
	if g.tally.Objects-lowest.Objects < least {
		return false
	}
	g.trend = trendOf(dense(g.points, looked, now, evenly, objectsAt), looked)
	if !g.trend.Growing || g.trend.PerHour <= 0 || now.Sub(g.trend.Since) < atLeast {
		return false
	}
	g.gain = float64(g.tally.Objects - valueAt(g.points, g.trend.Since).Objects)
	if g.gain >= least && g.tally.Rules > 0 {
		g.rules = trendOf(dense(g.points, looked, now, evenly, rulesAt), looked)
	}
	return true
}

// borneOut reports whether what was seen so far bears out what births say: not when
// they are of what replaces others, which are gone.
func (a *analysis) borneOut(g *growth) bool {
	if len(a.Looked) == 0 || a.Now.Sub(a.Looked[0].From) < bornFor {
		return true
	}
	points := a.pointsOf(g.Key)
	if len(points) == 0 {
		return false
	}
	from := a.Looked[0].From
	gain := float64(g.tally.Objects - valueAt(points, from).Objects)
	return gain >= g.trend.PerHour*a.Now.Sub(from).Hours()/2
}

// sinceLook is how near to the first look what may have begun before it seems to begin.
const sinceLook = 5 * time.Minute

// fromTheFirstLook is whether a growth was there at the first look already.
func (a *analysis) fromTheFirstLook(g *growth) bool {
	return g.trend.Since.Sub(a.Looked[0].From) <= sinceLook
}

// reachBack gives a growth the time before it was seen, as births tell of it.
func (g *growth) reachBack(of *growth) {
	if len(g.points) == 0 || !of.trend.Since.Before(g.trend.Since) {
		return
	}
	from := g.points[0].At
	before := slices.DeleteFunc(of.points, func(p bulkhead.Point) bool { return !p.At.Before(from) })
	g.points = append(before, g.points...)
	g.trend.Since, g.trend.Base = of.trend.Since, of.trend.Base
	g.rules.Since, g.rules.Base = of.rules.Since, of.rules.Base
	g.gain = of.gain
}

// trendOf is where a series is going. What came while nobody looked is one jump, which
// may hide that it goes on: then what was seen since then counts.
func trendOf(points []forecast.Point, looked []bulkhead.Span) forecast.Trend {
	t := forecast.Of(points)
	if t.Growing || len(looked) < 2 {
		return t
	}
	from := looked[len(looked)-1].From
	i, _ := slices.BinarySearchFunc(points, from, func(p forecast.Point, from time.Time) int { return p.At.Compare(from) })
	if after := forecast.Of(points[i:]); after.Growing {
		return after
	}
	return t
}

// What a daily cycle of ten percent does not do, also with a deploy on top of it: rise
// by more than a share, or by more than one of it in an hour.
const (
	dailyRise, dailyRate = 0.3, 0.066
	knownDay             = 30 * time.Hour
	// beyond is by how much what grows slowly has to be above what was there before,
	// for an hour: a deploy is over by then.
	beyond, beyondFor = 1.02, time.Hour
)

// maybeDaily is whether a growth may be the morning of a day. Nobody knows before a
// whole day was seen; after that, whether there have been as many before.
func (a *analysis) maybeDaily(g *growth) bool {
	// By its rate, because a deploy that is under way counts for little in that.
	rise := min(g.gain, g.trend.PerHour*a.Now.Sub(g.trend.Since).Hours())
	base := float64(g.tally.Objects) - g.gain
	if rise >= dailyRise*base || !isSum(g.Key) && g.trend.PerHour >= dailyRate*base || len(a.Looked) == 0 {
		return false
	}
	if a.Now.Sub(a.Looked[0].From) < knownDay {
		return true
	}
	highest, lowest := int64(0), g.tally.Objects
	for _, p := range g.points {
		if p.At.Before(g.trend.Since) {
			highest = max(highest, p.Objects)
		} else if a.Now.Sub(p.At) <= beyondFor {
			lowest = min(lowest, p.Objects)
		}
	}
	return float64(lowest) <= beyond*float64(highest)
}

// controllers make as many objects as somebody has asked for, and no more.
var controllers = []string{"deployments.apps/", "statefulsets.apps/", "daemonsets.apps/", "replicasets.apps/"}

// followsDemand is whether there are as many of them as somebody has asked for.
func followsDemand(t *bulkhead.Tally) bool {
	for _, c := range controllers {
		if strings.HasPrefix(t.Origin, c) {
			return true
		}
	}
	return ours(t)
}

// fleet are the origins of what there is of for each node.
var fleet = []string{"nodes/", "daemonsets.apps/", "machinesets.cluster.x-k8s.io/", "machinesets.machine.openshift.io/", "nodepools.karpenter.sh/"}

// scales is whether there are as many of them as one controller has been asked for, or as
// nodes: not of controllers that multiply themselves.
func scales(t *bulkhead.Tally) bool {
	for _, c := range fleet {
		if strings.HasPrefix(t.Origin, c) {
			return true
		}
	}
	return followsDemand(t) && !ours(t) && !strings.Contains(t.Origin, "*")
}

// ours is whether Bulkhead itself made them: worker pods, and the little each class has.
func ours(t *bulkhead.Tally) bool {
	return t.Manager == "bulkhead" || slices.ContainsFunc(t.Facts, func(f bulkhead.Fact) bool {
		return f.Key == "app.kubernetes.io/managed-by" && f.Value == "bulkhead" && 2*f.Objects > t.Objects
	})
}

// born is how a family grew as its objects' times of creation tell. They tell nothing
// of those that are gone: where something removes objects all the time, those that are
// left are young whether there are more of them or not. So there is an answer only
// for what nothing removes, or not yet.
func born(t *bulkhead.Tally, now time.Time) (points []bulkhead.Point) {
	if len(t.Born) < 2 || 2*t.Keeps.Nothing < t.Objects && t.Keeps.TTL < 2*now.Sub(t.Born[0].At) {
		return nil
	}
	rules := float64(t.Rules) / float64(max(1, t.Objects))
	for _, p := range forecast.FromBirths(t.Born, t.Objects, now) {
		points = append(points, bulkhead.Point{At: p.At, Objects: int64(p.Value), Rules: int64(rules * p.Value)})
	}
	return points
}

// dense fills in what a series leaves out because it did not change, in the times in
// which somebody looked. Of objects' times of creation nobody knows where in their step
// they were: evenly.
func dense(points []bulkhead.Point, looked []bulkhead.Span, now time.Time, evenly bool, value func(bulkhead.Point) float64) []forecast.Point {
	var out []forecast.Point
	i, s := len(points)-1, len(looked)-1
	for at, first := now, points[0].At; !at.Before(first) && now.Sub(at) <= allFor; at = at.Add(-denseStep(now.Sub(at))) {
		for i > 0 && points[i].At.After(at) {
			i--
		}
		for s >= 0 && looked[s].From.After(at) {
			s--
		}
		if s < 0 {
			break
		}
		if looked[s].To.Before(at) && !at.Equal(now) {
			continue
		}
		v := value(points[i])
		if evenly && i+1 < len(points) {
			share := at.Sub(points[i].At).Hours() / points[i+1].At.Sub(points[i].At).Hours()
			v += share * (value(points[i+1]) - v)
		}
		out = append(out, forecast.Point{At: at, Value: v})
	}
	slices.Reverse(out)
	return out
}

func objectsAt(p bulkhead.Point) float64 { return float64(p.Objects) }
func rulesAt(p bulkhead.Point) float64   { return float64(p.Rules) }

func denseStep(age time.Duration) time.Duration {
	switch {
	case age < minutesFor:
		return time.Minute
	case age < stepsFor:
		return shortStep
	}
	return longStep
}

// valueAt is what was counted last at a time; before the first point it is that.
func valueAt(points []bulkhead.Point, at time.Time) bulkhead.Point {
	i, found := slices.BinarySearchFunc(points, at, func(p bulkhead.Point, at time.Time) int { return p.At.Compare(at) })
	if !found {
		i--
	}
	return points[max(0, i)]
}
