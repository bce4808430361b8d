package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/utils/lru"
)

// answers remembers what the cluster has said, so that it is asked seldom, once by
// many at the same time, and that what it has allowed goes on for a while when it
// cannot be asked. What it has refused is never made anything else by that.
//
// Anybody can make it ask, with what he made up. So that this takes nothing from those
// whom the cluster knows, refusals are kept apart, and a question that no good answer
// was given to lately has to come through a narrower way than one that only has to be
// asked again.
type answers[V any] struct {
	stale   time.Duration        // how much longer a good answer counts while the cluster cannot be asked
	good    func(V) bool         // it allows something
	now     func() time.Time     // the clock
	kept    *lru.Cache           // of answer[V] that are good, bounded
	refused *lru.Cache           // of the others
	pace    *rate.Limiter        // of all questions
	first   limit                // of those of one asker that are new
	askers  *lru.Cache           // of *rate.Limiter
	wave    singleflight.Group   // of questions under way
	asked   func(outcome string) // counts

	mu    sync.Mutex
	quiet time.Time // until when a cluster that does not answer is left alone
}

// answer is what was said, and until when nobody need ask again.
type answer[V any] struct {
	value V
	until time.Time
}

// limit is how many questions there may be, each second and at once.
type limit struct {
	rate  rate.Limit
	burst int
}

// errBusy is said instead of asking. It says nothing about the cluster.
var errBusy = errors.New("too many questions")

const (
	// maxAnswers bounds what is remembered of each kind.
	maxAnswers = 10_000
	// askTime bounds one question.
	askTime = 5 * time.Second
	// quietTime is how long a cluster that did not answer is not asked again by those
	// who have an answer of before.
	quietTime = 5 * time.Second
)

func newAnswers[V any](stale time.Duration, now func() time.Time, good func(V) bool, asked func(string), first limit) *answers[V] {
	return &answers[V]{stale: stale, good: good, now: now, kept: lru.New(maxAnswers), refused: lru.New(maxAnswers),
		pace: rate.NewLimiter(reviewsPerSecond, 2*reviewsPerSecond), first: first, askers: lru.New(maxAnswers), asked: asked}
}

// get returns the answer to what key stands for. ask gets it from the cluster, and
// says how long it may be used. The asker is whose new questions are bounded together.
func (a *answers[V]) get(ctx context.Context, asker, key string, ask func(context.Context) (V, time.Duration, error)) (V, error) {
	var none V
	last, usable := a.last(key)
	if usable == fresh || usable == lapsed && a.isQuiet() {
		return last, nil
	}
	if usable == useless && !a.limiter(asker).Allow() {
		return none, errBusy
	}
	result := a.wave.DoChan(key, func() (any, error) {
		// Others may wait for the same, so it goes on without this caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		if err := a.pace.Wait(ctx); err != nil {
			return none, fmt.Errorf("%w: %w", errBusy, err)
		}
		v, keep, err := ask(ctx)
		a.noteOutcome(err)
		if err != nil {
			return none, err
		}
		a.keep(key, answer[V]{v, a.now().Add(keep)})
		return v, nil
	})
	select {
	case r := <-result:
		if r.Err == nil {
			return r.Val.(V), nil
		}
		if usable == lapsed {
			return last, nil
		}
		return none, r.Err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// limiter bounds the new questions of an asker.
func (a *answers[V]) limiter(asker string) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.askers.Get(asker); ok {
		return l.(*rate.Limiter)
	}
	l := rate.NewLimiter(a.first.rate, a.first.burst)
	a.askers.Add(asker, l)
	return l
}

// keep remembers the last answer.
func (a *answers[V]) keep(key string, last answer[V]) {
	to, other := a.refused, a.kept
	if a.good(last.value) {
		to, other = other, to
	}
	to.Add(key, last)
	other.Remove(key)
}

// Of what use an answer of before is.
type use int

const (
	useless use = iota
	lapsed      // if the cluster cannot be asked
	fresh
)

func (a *answers[V]) last(key string) (V, use) {
	var none V
	kept, ok := a.kept.Get(key)
	if !ok {
		kept, ok = a.refused.Get(key)
	}
	if !ok {
		return none, useless
	}
	last, now := kept.(answer[V]), a.now()
	switch {
	case now.Before(last.until):
		return last.value, fresh
	case a.good(last.value) && now.Before(last.until.Add(a.stale)):
		return last.value, lapsed
	}
	return none, useless
}

func (a *answers[V]) isQuiet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now().Before(a.quiet)
}

func (a *answers[V]) noteOutcome(err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	a.asked(outcome)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quiet = time.Time{}
	if err != nil {
		a.quiet = a.now().Add(quietTime)
	}
}
