package agent

import (
	"context"
	"slices"
	"time"

	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// renewTime bounds a call that the server answers after a few seconds.
	renewTime = time.Minute
	// renewEvery is the least time between two calls, whatever the server says.
	renewEvery = 200 * time.Millisecond
	// renewIdly is the same after an answer that had nothing new: attempts had
	// ended meanwhile, as short ones do all the time.
	renewIdly = time.Second
)

// renew says over and over which leases are held, and ends the scripts that the
// server names.
func (a *Agent) renew(ctx context.Context) {
	var told []uint64
	for try := 0; ; {
		held := a.holding()
		sent := time.Now()
		res, err := a.renewOnce(ctx, held, told)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if replaced(err) {
				a.fail(err)
			}
			a.link.failed(err)
			longest := lastWait
			if len(held) > 0 {
				longest = renewWait
			}
			if !a.link.pause(ctx, try, err, longest) {
				return
			}
			try++
			continue
		}
		a.link.ok()
		try = 0
		told = res.GetStop()
		pace := renewEvery
		if !a.renewed(held, told, sent) && len(told) > 0 {
			pace = renewIdly
		}
		if res.GetLeave() {
			a.leave("the server said so")
		}
		if !until(ctx, sent.Add(pace)) {
			return
		}
	}
}

func (a *Agent) renewOnce(ctx context.Context, held []*attempt, told []uint64) (*bulkheadv1.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	req := &bulkheadv1.RenewRequest{Agent: a.self, Told: told, Leaving: a.leaving()}
	for _, t := range held {
		if t.ended.Load() && !t.late.Load() {
			continue // its result is on its way
		}
		req.Held = append(req.Held, &bulkheadv1.Held{Run: t.lease.GetRun(), Item: t.lease.GetItem(), Token: t.token()})
	}
	return a.opts.Client.Renew(ctx, req)
}

// renewed takes note of an answer. What is to end may have been leased since the
// call was sent. It reports whether anything was to end.
func (a *Agent) renewed(held []*attempt, stop []uint64, sent time.Time) (news bool) {
	for _, t := range held {
		if !slices.Contains(stop, t.token()) {
			t.renewed(sent)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, token := range stop {
		if t := a.held[token]; t != nil && t.ctx.Err() == nil {
			t.end(errStopped)
			news = true
		}
	}
	return news
}

// until waits for a time; false when ctx has ended before.
func until(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
