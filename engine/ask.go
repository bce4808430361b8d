package engine

import (
	"context"
	"time"

	"bulkhead.dev/bulkhead"
)

// The words of who asks and who answers.
type (
	// Ask is one question of a worker.
	Ask = bulkhead.Ask
	// Done is what became of an attempt.
	Done = bulkhead.Done
	// Assignment is a lease and what there is to know for it.
	Assignment = bulkhead.Assignment
)

// ask is one request of a worker on its way through the loop.
type ask struct {
	Ask
	agent *agent
	reply chan answer // has room for one
	gone  <-chan struct{}
	over  bool // answered
}

type answer struct {
	work *Assignment
	err  error
}

func (a *ask) answer(work *Assignment, err error) {
	if !a.over {
		a.over = true
		a.reply <- answer{work, err}
	}
}

// Next hands in the result of the worker's last attempt, if there is one, and
// waits for a lease. When it returns a lease, none and no error, or ErrLeave, the
// result is durable.
func (e *Engine) Next(ctx context.Context, q Ask) (*Assignment, error) {
	a := &ask{Ask: q, reply: make(chan answer, 1), gone: ctx.Done()}
	select {
	case e.asks <- a:
	case <-e.done:
		return nil, bulkhead.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Once the loop has the request it answers it, or a lease could be lost
	// between the two.
	got := <-a.reply
	return got.work, got.err
}

// maxTurn bounds how many requests one transaction answers, and with it how
// long the first of them waits.
const maxTurn = 4096

func (e *Engine) takeAll() {
	for range maxTurn {
		select {
		case a := <-e.asks:
			e.take(a)
		default:
			return
		}
	}
}

func (e *Engine) take(a *ask) {
	if a.Agent.Name != "" && !e.greet(a) {
		return
	}
	if a.Done != nil {
		e.ended = append(e.ended, a)
	}
	e.idle = append(e.idle, a)
}

// finishEnded takes the results that have arrived into the batch. What an agent
// says of a lease that is over changes nothing: it was said before, or the lease
// had expired. Nor does what it says of another agent's.
func (e *Engine) finishEnded(b *bulkhead.Batch, now time.Time) error {
	for _, a := range e.ended {
		l := a.Done.Lease
		if a.agent != nil && e.leaseOf(a.agent, bulkhead.Held{Run: l.Run, Item: l.Item.Index, Token: l.Token}) == nil {
			continue
		}
		if err := e.finish(b, a.Done, now); err != nil {
			return err
		}
	}
	e.ended = nil
	return nil
}

// close answers every worker that still waits.
func (e *Engine) close() {
	close(e.done)
	for _, a := range e.idle {
		a.answer(nil, bulkhead.ErrClosed)
	}
	e.idle = nil
}

// rest are the asks that get no new lease in a turn. They are answered after its
// commit, because an answer also says that a result is durable.
type rest struct {
	asks    []*ask
	answers []answer  // to each of them
	until   time.Time // when the next ask has waited long enough; zero: none will
}

func (r *rest) answer() {
	for i, a := range r.asks {
		a.answer(r.answers[i].work, r.answers[i].err)
	}
}

func (r *rest) add(a *ask, work *Assignment, err error) {
	r.asks, r.answers = append(r.asks, a), append(r.answers, answer{work, err})
}

// sort leaves among the idle those that may get a lease.
func (e *Engine) sort() *rest {
	r := &rest{}
	kept := e.idle[:0]
	for _, a := range e.idle {
		switch held := a.held(); {
		case a.over: // replaced
		case a.isGone():
			r.add(a, nil, context.Canceled)
		case a.agent != nil && a.agent.Process != a.Agent.Process:
			// What it would get its successor would get, too.
			r.add(a, nil, bulkhead.ErrFormer)
		case held != nil:
			// It has a lease of which it does not know: the answer was lost. It counts
			// its time from this ask.
			e.renewed(held)
			r.add(a, &Assignment{Lease: held.Lease, Spec: &held.run.Spec, Stop: held.stop}, nil)
		case a.Leaving:
			r.add(a, nil, nil)
		case a.agent != nil && a.agent.retired:
			r.add(a, nil, bulkhead.ErrLeave)
		case a.agent != nil && e.handingOver:
			r.add(a, nil, bulkhead.ErrClosed)
		default:
			kept = append(kept, a)
		}
	}
	clear(e.idle[len(kept):])
	e.idle = kept
	return r
}

// endWaits takes from the idle those that have waited long enough.
func (e *Engine) endWaits(r *rest, now time.Time) {
	kept := e.idle[:0]
	for _, a := range e.idle {
		// An agent is told at once that its result is durable, and asks again: until
		// then it must keep it, and should it end meanwhile, believe it undelivered.
		if !a.Until.IsZero() && !a.Until.After(now) || a.agent != nil && a.Done != nil {
			r.add(a, nil, nil)
			continue
		}
		r.until = sooner(r.until, a.Until)
		kept = append(kept, a)
	}
	clear(e.idle[len(kept):])
	e.idle = kept
}

func (a *ask) isGone() bool {
	select {
	case <-a.gone:
		return true
	default:
		return false
	}
}

// held is the slot's lease, nil if it has none.
func (a *ask) held() *live {
	if a.agent == nil {
		return nil
	}
	return a.agent.slots[a.Slot]
}

// grant is a lease on its way to a worker.
type grant struct {
	to     *ask
	work   *Assignment
	run    *run
	undone bool
}

// decide gives leases to idle workers and adds them to the batch.
func (e *Engine) decide(b *bulkhead.Batch, now time.Time) (Decision, []*grant) {
	d := Decide(e.snapshot(now))
	grants := make([]*grant, 0, len(d.Starts))
	kinds := map[bulkhead.Kind][]*ask{}
	for _, a := range e.idle {
		kinds[a.Agent.Kind] = append(kinds[a.Agent.Kind], a)
	}
	given := make(map[*ask]bool, len(d.Starts))
	for _, st := range d.Starts {
		r := e.runs[st.Run]
		waiting := kinds[r.Spec.Kind()]
		to := waiting[0]
		kinds[r.Spec.Kind()] = waiting[1:]
		given[to] = true
		l := e.lease(r, st.Group, to, now)
		b.Leases = append(b.Leases, l.Lease)
		grants = append(grants, &grant{to: to, run: r,
			work: &Assignment{Lease: l.Lease, Spec: &r.Spec, Stop: l.stop}})
	}
	kept := e.idle[:0]
	for _, a := range e.idle {
		if !given[a] {
			kept = append(kept, a)
		}
	}
	clear(e.idle[len(kept):])
	e.idle = kept
	for i, r := range e.runs {
		r.nextStart = d.NextStart[i]
		r.setWait(d.Waits[i])
		if r.State == bulkhead.RunRunning && e.hold == "" {
			r.Held = d.Held[i] && r.Ending == 0
		}
	}
	return d, grants
}
