package agent

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// exchangeTime bounds a call that the server leaves open while there is no
	// work. It answers long before; this is for one that never will.
	exchangeTime = 2 * time.Minute
	// sameTime is how long a slot waits that is given again what it has done:
	// something is wrong, and must not spin.
	sameTime = time.Second
)

// slot runs one attempt at a time.
type slot struct {
	agent *Agent
	n     int32
	last  *attempt // the last one of which the server has the result

	former  bool // it is that of a former process, and only hands in a result
	asks    bool // it has a ticket
	leaving bool // its last call said that no lease is wanted
}

// run takes leases until none is wanted any more and the last result is
// delivered, or cannot be.
func (s *slot) run() {
	var t *attempt // whose result is to be handed in
	for {
		lease, sent, ok := s.exchange(t)
		if t != nil {
			s.handedIn(t, ok)
			t = nil
		}
		switch {
		case !ok, lease == nil && s.leaving:
			return
		case lease != nil:
			s.asks = false
			s.agent.busy(+1)
			t = s.attempt(lease, sent)
			s.agent.busy(-1)
		}
	}
}

// handedIn forgets an attempt once the server has its result.
func (s *slot) handedIn(t *attempt, ok bool) {
	s.agent.drop(t)
	if ok {
		s.last = t
		s.agent.spool.forget(t)
		t.out.forgetAll()
		return
	}
	if t.out.abandon(); t.saved {
		s.agent.opts.Log.Warn("a result waits in the spool folder", "run", t.lease.GetRun(), "item", t.lease.GetItem())
	}
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	s.agent.kept++
}

// ticket is the permission to ask for another lease.
func (s *slot) ticket() bool {
	a := s.agent
	if s.former || a.leaving() {
		return false
	}
	if !s.asks && a.opts.MaxItems > 0 {
		if a.tickets.Add(1) > a.opts.MaxItems {
			return false
		}
	}
	s.asks = true
	return true
}

// attempt runs what a lease allows, unless its token was used before. Then the
// server has missed the result, or will never know it.
func (s *slot) attempt(lease *bulkheadv1.Lease, sent time.Time) *attempt {
	a := s.agent
	t := a.begin(s.n, lease, sent)
	if a.hold(t) {
		t.run()
		return t
	}
	t.out.forgetAll()
	a.opts.Log.Warn("the server gave a lease a second time", "run", lease.GetRun(), "item", lease.GetItem())
	timer := time.NewTimer(sameTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.calls.Done():
	}
	if a.holds(t.token()) {
		t.release()
		return nil // another slot has it, and its result will come from there
	}
	if s.last != nil && s.last.token() == t.token() {
		t.release()
		t.result, t.cut = s.last.result, s.last.cut
		t.out.base, t.out.kept, t.out.lost = s.last.out.kept, s.last.out.kept, s.last.out.lost
		return t
	}
	t.finish(bulkhead.Result{State: bulkhead.ItemLost, How: bulkhead.HowLost, Error: "its lease came twice"})
	return t
}

// exchange hands in a result, if there is one, and waits for a lease. Sent is
// when the call that brought it was made. It is false when there was no answer
// and will be none: the agent is to end, or is not wanted.
func (s *slot) exchange(t *attempt) (lease *bulkheadv1.Lease, sent time.Time, ok bool) {
	a := s.agent
	for try := 0; ; try++ {
		s.leaving = !s.ticket()
		res, sent, err := s.call(t, s.leaving)
		switch {
		case err == nil:
			a.link.ok()
			if res.GetLeave() {
				a.leave("the server said so")
			}
			return res.GetLease(), sent, true
		case errors.Is(err, errLeaving):
			try = -1
			continue
		case t != nil && unwanted(err) && (s.former || !replaced(err)):
			a.opts.Log.Error("the server does not take a result", "run", t.lease.GetRun(), "item", t.lease.GetItem(), "error", err)
			return nil, sent, true
		}
		if s.give(t, err) || !s.pause(t, try, err) {
			return nil, sent, false
		}
	}
}

// pause waits before another try, and reports whether there is to be one. Who has
// nothing to hand in waits no longer once the agent is to end.
func (s *slot) pause(t *attempt, try int, err error) bool {
	a := s.agent
	ctx, longest := a.calls, lastWait
	switch {
	case t == nil && s.leaving:
		longest = time.Second
	case t == nil:
		ctx = a.wanted
	}
	a.link.pause(ctx, try, err, longest)
	return a.calls.Err() == nil
}

// give decides about a call that did not get through: it keeps the result and
// reports whether to give up.
func (s *slot) give(t *attempt, err error) bool {
	a := s.agent
	if t != nil {
		t.late.Store(true)
		if serr := a.spool.save(t); serr != nil {
			a.opts.Log.Error("a result is in memory only", "error", serr)
		}
	}
	if a.calls.Err() != nil {
		return true
	}
	if wrongVersion(err) || replaced(err) {
		if !s.former {
			a.fail(err)
		}
		return true
	}
	a.link.failed(err)
	// Who has nothing to hand in only wanted to say goodbye.
	left := a.leftAt.Load()
	return t == nil && left != nil && (refused(err) || time.Since(*left) > a.opts.Linger)
}

// errLeaving: the call was given up in order to say that no lease is wanted.
var errLeaving = errors.New("leaving")

// call makes one Exchange. One that asks for a lease is given up when none is
// wanted any more. If its answer had a lease, the next call will bring it again.
func (s *slot) call(t *attempt, leaving bool) (res *bulkheadv1.ExchangeResponse, sent time.Time, err error) {
	a := s.agent
	req := &bulkheadv1.ExchangeRequest{Agent: a.self, Slot: s.n}
	if t != nil {
		if !a.settle(t) {
			return nil, time.Now(), context.Canceled
		}
		// Whether or not it arrives, more than this there will not be.
		defer func() {
			if err != nil {
				t.out.unsettle()
			}
		}()
		req = t.request()
	}
	req.Leaving = leaving
	parent := a.wanted
	if leaving {
		parent = a.calls
	}
	ctx, cancel := context.WithTimeout(parent, exchangeTime)
	defer cancel()
	sent = time.Now()
	res, err = a.opts.Client.Exchange(ctx, req)
	if err != nil && !leaving && a.leaving() && a.calls.Err() == nil && connect.CodeOf(err) == connect.CodeCanceled {
		err = errLeaving
	}
	return res, sent, err
}

// settle waits until what is left of the output fits into the call that hands in
// the result. An attempt with more than that is kept in the spool before.
func (a *Agent) settle(t *attempt) bool {
	for {
		wait := t.out.settle()
		if wait == nil {
			return true
		}
		t.late.Store(true)
		if err := a.spool.save(t); err != nil {
			a.opts.Log.Error("a result is in memory only", "error", err)
		}
		a.push.now()
		select {
		case <-wait:
		case <-a.calls.Done():
			return false
		}
	}
}

// deliverLeftovers hands in what former processes could not, before this one
// asks for anything: the server takes for lost what they held when it meets us.
// What it refuses is kept: it may be of another version, and then so are we.
func (a *Agent) deliverLeftovers() (refused []*attempt) {
	list, err := a.spool.leftovers()
	if err != nil {
		a.opts.Log.Error("some results of a former process cannot be read", "error", err)
	}
	for _, t := range list {
		t.agent = a
		a.hold(t)
		s := &slot{agent: a, n: t.slot, former: true}
		if _, _, ok := s.exchange(t); ok || a.calls.Err() != nil {
			s.handedIn(t, ok)
			continue
		}
		a.drop(t)
		refused = append(refused, t)
	}
	return refused
}
