package guard

import (
	"cmp"
	"context"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// life is how long Jobs of a family stay after their end.
type life struct {
	ttl   time.Duration // 0: for good, or nobody knows
	until time.Time     // when it is asked again
}

const (
	jobs       = "jobs.batch"
	livesFor   = time.Hour
	livesAgain = 10 * time.Minute // after a failure
	livesAsked = 5                // at each look
	livesTime  = 5 * time.Second  // for all of those
	mostLives  = 1000
)

// withLives adds to a census how long Jobs stay, which is not in their metadata: of each
// large family one is asked for, now and then. Without it Jobs that go an hour after their end
// would grow without end for an hour. What Known returns is ours to change.
func (g *Guard) withLives(ctx context.Context, c bulkhead.Census, now time.Time) bulkhead.Census {
	if g.opts.TTL == nil {
		return c
	}
	if g.lives == nil || len(g.lives) > mostLives {
		g.lives = map[bulkhead.Key]life{}
	}
	var large []*bulkhead.Tally
	for i := range c.Tallies {
		if t := &c.Tallies[i]; t.Kind == jobs && t.Objects >= least && t.Keeps.Nothing > 0 {
			large = append(large, t)
		}
	}
	slices.SortFunc(large, func(a, b *bulkhead.Tally) int {
		return cmp.Or(cmp.Compare(b.Objects, a.Objects), compareKeys(a.Key, b.Key))
	})
	ctx, cancel := context.WithTimeout(ctx, livesTime)
	defer cancel()
	asked := 0
	for _, t := range large {
		l, known := g.lives[t.Key]
		fresh := known && now.Before(l.until) && l.until.Sub(now) <= livesFor // the clock may go back
		if !fresh && asked < livesAsked && t.Example.Name != "" {
			asked++
			if ttl, err := g.opts.TTL(ctx, t.Key, t.Example.Name); err == nil {
				l = life{ttl, now.Add(livesFor)}
			} else {
				l.until = now.Add(livesAgain) // the Job may be gone; what was known is still good
			}
			g.lives[t.Key] = l
		}
		if l.ttl > 0 {
			t.Keeps.TTL, t.Keeps.Nothing = l.ttl, 0
		}
	}
	return c
}
