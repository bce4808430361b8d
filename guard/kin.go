package guard

import (
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/forecast"
)

// withKin adds to growths what has gained with them, and does not show as a growth by
// itself: the owner of what grows, what comes of one origin with it. Whoever reads of
// pods alone would stop these, and their Jobs would come all the same.
func (a *analysis) withKin(families []*growth) []*growth {
	if len(families) == 0 {
		return families
	}
	in := map[string][]*bulkhead.Tally{}
	have := map[bulkhead.Key]bool{}
	for _, g := range families {
		have[g.Key] = true
		in[g.Namespace] = nil
	}
	for i := range a.Census.Tallies {
		t := &a.Census.Tallies[i]
		if _, ok := in[t.Namespace]; ok && t.Objects >= least && !isSum(t.Key) && !followsDemand(t) {
			in[t.Namespace] = append(in[t.Namespace], t)
		}
	}
	for i := 0; i < len(families) && len(families) < mostGrowths; i++ { // those that are added have kin, too
		g := families[i]
		for _, t := range in[g.Namespace] {
			if have[t.Key] || !related(&t.Key, &g.Key) {
				continue
			}
			if k := a.alongWith(g, t); k != nil {
				have[t.Key] = true
				families = append(families, k)
			}
		}
	}
	return families
}

// related reports whether two families are of one origin: the same, or one of the other.
func related(a, b *bulkhead.Key) bool {
	return a.Origin != "" && a.Origin == b.Origin || owns(a, b) || owns(b, a)
}

// owns reports whether objects of one family are the origin of another.
func owns(owner, owned *bulkhead.Key) bool { return owned.Origin == owner.Kind+"/"+owner.Family }

// alongWith is the growth of a family that has gained what another one's would bring;
// nil if it has not.
func (a *analysis) alongWith(g *growth, t *bulkhead.Tally) *growth {
	points, others := a.pointsOf(t.Key), a.pointsOf(g.Key)
	if len(points) == 0 || len(others) == 0 {
		return nil
	}
	from := g.trend.Since // or what is known of both
	for _, first := range []time.Time{points[0].At, others[0].At} {
		if first.After(from) {
			from = first
		}
	}
	gain, of := float64(t.Objects-valueAt(points, from).Objects), float64(g.tally.Objects-valueAt(others, from).Objects)
	if min(gain, of) < least/2 || !wholeRatio(gain, of) && !owns(&t.Key, &g.Key) {
		return nil
	}
	share := gain / of
	k := &growth{Key: t.Key, tally: t, points: points, gain: min(share*g.gain, float64(t.Objects))}
	k.trend = scaled(g.trend, share)
	k.trend.Now, k.trend.Base = float64(t.Objects), float64(t.Objects)-k.gain
	if t.Rules > 0 {
		k.rules = scaled(g.trend, share*float64(t.Rules)/float64(t.Objects))
		k.rules.Now = float64(t.Rules)
	}
	return k
}

// scaled is a trend of which each step brings so many times as much.
func scaled(t forecast.Trend, by float64) forecast.Trend {
	t.PerHour *= by
	t.Low *= by
	t.High *= by
	t.Bend *= by
	t.Now *= by
	t.Level *= by
	t.Base *= by
	return t
}

// sameStart lets those of one cause that were there at the first look have gained as
// much as they would have since the first of them began.
func sameStart(group []*growth) {
	since := group[0].trend.Since
	for _, g := range group {
		if g.trend.Since.Before(since) {
			since = g.trend.Since
		}
	}
	for _, g := range group {
		if g.earlier && g.trend.Since.Sub(since) > startWithin {
			g.gain = min(float64(g.tally.Objects), g.trend.PerHour*g.trend.At.Sub(since).Hours())
		}
	}
}

// mayBegin reports whether a growth that was there at the first look may have begun
// with another one.
func mayBegin(g, with *growth) bool {
	return g.earlier && with.trend.Since.Before(g.trend.Since.Add(time.Minute))
}
