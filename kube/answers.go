package kube

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/lru"
)

// answers remembers what the cluster has said, so that it is asked seldom, once by
// many at the same time, and that what it has allowed goes on for a while when it
// cannot be asked. What it has refused is never made anything else by that.
type answers[V any] struct {
	stale time.Duration        // how much longer a good answer counts while the cluster cannot be asked
	good  func(V) bool         // it allows something
	now   func() time.Time     // the clock
	kept  *lru.Cache           // of answer[V], bounded
	wave  singleflight.Group   // of questions under way
	asked func(outcome string) // counts

	mu    sync.Mutex
	quiet time.Time // until when a cluster that does not answer is left alone
}

// answer is what was said, and until when nobody need ask again.
type answer[V any] struct {
	value V
	until time.Time
}

const (
	// maxAnswers bounds what is remembered of each kind.
	maxAnswers = 10_000
	// askTime bounds one question.
	askTime = 5 * time.Second
	// quietTime is how long a cluster that did not answer is not asked again by those
	// who have an answer of before.
	quietTime = 5 * time.Second
)

func newAnswers[V any](stale time.Duration, now func() time.Time, good func(V) bool, asked func(string)) *answers[V] {
	return &answers[V]{stale: stale, good: good, now: now, kept: lru.New(maxAnswers), asked: asked}
}

// get returns the answer to what key stands for. ask gets it from the cluster, and
// says how long it may be used.
func (a *answers[V]) get(ctx context.Context, key string, ask func(context.Context) (V, time.Duration, error)) (V, error) {
	var none V
	last, usable := a.last(key)
	if usable == fresh || usable == lapsed && a.isQuiet() {
		return last, nil
	}
	result := a.wave.DoChan(key, func() (any, error) {
		// Others may wait for the same, so it goes on without this caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		v, keep, err := ask(ctx)
		a.noteOutcome(err)
		if err != nil {
			return none, err
		}
		a.kept.Add(key, answer[V]{v, a.now().Add(keep)})
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
