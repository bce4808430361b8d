package lookout

import (
	"context"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"bulkhead.dev/bulkhead/guard/quota"
)

const (
	// expireEvery is how often it is looked for quotas of guard quota whose time is over,
	// and deniedEvery how often where that is not permitted.
	expireEvery = time.Minute
	deniedEvery = time.Hour
)

// expireQuotas removes the quotas of guard quota whose time is over, until ctx ends:
// theirs is real time. Where it may not, somebody else has to, and that is said once.
func (l *Lookout) expireQuotas(ctx context.Context) error {
	said := false
	timer := time.NewTimer(rand.N(expireEvery))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		next := expireEvery
		removed, err := quota.Expire(ctx, l.client, time.Now(), l.opts.Census.Namespaces...)
		for _, namespace := range removed {
			l.opts.Log.Info("a quota was removed, as its time is over", "namespace", namespace)
		}
		if apierrors.IsForbidden(err) {
			next = deniedEvery
		}
		if err != nil && ctx.Err() == nil && !said {
			l.opts.Log.Warn("quotas of guard quota whose time is over are not removed", "error", err)
		}
		said = err != nil
		timer.Reset(next/2 + rand.N(next))
	}
}
