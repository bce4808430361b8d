package agent

import (
	"context"
	"sync/atomic"
	"time"

	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// pushEvery is how old output gets before it is pushed, about.
	pushEvery = 500 * time.Millisecond
	// pushSize is the most of one request, in bytes.
	pushSize = 1<<20 - 64<<10
	pushTime = 30 * time.Second // for one request
)

// pusher sends what running attempts have written. It sleeps while there is
// nothing: attempts that are over before it wakes hand in their output with
// their result.
type pusher struct {
	agent *Agent
	armed atomic.Bool   // it will look, within pushEvery
	some  chan struct{} // it should look, within pushEvery
	much  chan struct{} // it should look at once
}

func (p *pusher) init(a *Agent) {
	p.agent = a
	p.some, p.much = make(chan struct{}, 1), make(chan struct{}, 1)
}

// soon says that there is something.
func (p *pusher) soon() {
	if p.armed.CompareAndSwap(false, true) {
		signal(p.some)
	}
}

// now says that somebody waits.
func (p *pusher) now() { signal(p.much) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *pusher) run(ctx context.Context) {
	var due <-chan time.Time
	for try := 0; ; {
		select {
		case <-p.some:
			if due == nil {
				due = time.After(pushEvery)
			}
			continue
		case <-due:
		case <-p.much:
		case <-ctx.Done():
			return
		}
		due = nil
		p.armed.Store(false)
		req, list := p.collect()
		if req == nil {
			continue
		}
		progress, err := p.send(ctx, req, list)
		if progress {
			try = 0
			p.again()
			continue
		}
		if !p.agent.link.pause(ctx, try, err, lastWait) {
			return
		}
		try++
		p.now()
	}
}

// again sees to what could not be sent yet, or came meanwhile.
func (p *pusher) again() {
	for _, t := range p.agent.holding() {
		some, much := t.out.waiting()
		if much {
			p.now()
		}
		if some {
			p.soon()
		}
	}
}

// collect makes the next request; nil: there is nothing to send.
func (p *pusher) collect() (*bulkheadv1.PushOutputRequest, []*attempt) {
	req := &bulkheadv1.PushOutputRequest{}
	var list []*attempt
	left := int64(pushSize)
	for _, t := range p.agent.holding() { // a map's order: nobody is always last
		if left <= 0 {
			break
		}
		if req.Agent != nil && req.Agent != t.self {
			continue
		}
		offset, chunks, size := t.out.next(left)
		if chunks == nil {
			continue
		}
		left -= size
		req.Agent = t.self
		list = append(list, t)
		req.Outputs = append(req.Outputs, &bulkheadv1.Output{
			Run: t.lease.GetRun(), Item: t.lease.GetItem(), Token: t.token(), Offset: offset, Chunks: chunks,
		})
	}
	if list == nil {
		return nil, nil
	}
	return req, list
}

// send makes one call. Without progress, and without an error, the server could
// keep nothing of it.
func (p *pusher) send(ctx context.Context, req *bulkheadv1.PushOutputRequest, list []*attempt) (progress bool, err error) {
	call, cancel := context.WithTimeout(ctx, pushTime)
	defer cancel()
	res, err := p.agent.opts.Client.PushOutput(call, req)
	switch {
	case err == nil:
		p.agent.link.ok()
	case ctx.Err() == nil:
		p.agent.link.failed(err)
	}
	for i, t := range list {
		var r *bulkheadv1.Received
		if err == nil && i < len(res.GetReceived()) {
			r = res.GetReceived()[i]
		}
		if t.out.sent(r) {
			progress = true
		}
	}
	return progress, err
}
