package rpc

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// pump carries what one goroutine produces to another that sends it. While a
// message is on its way the next one gathers, up to maxOutputBytes; then the
// producer waits. So few messages carry much, nothing waits for more to come, and a
// slow reader holds no more than that.
type pump[T any] struct {
	mu    sync.Mutex
	queue []T
	size  int
	more  chan struct{} // something is there
	room  chan struct{} // something was taken
}

func newPump[T any]() *pump[T] {
	return &pump[T]{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put adds what takes size bytes, once there is room.
func (p *pump[T]) put(ctx context.Context, v T, size int) error {
	for {
		p.mu.Lock()
		fits := len(p.queue) == 0 || p.size+size <= maxOutputBytes
		if fits {
			p.queue, p.size = append(p.queue, v), p.size+size
		}
		p.mu.Unlock()
		if fits {
			signal(p.more)
			return nil
		}
		select {
		case <-p.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take takes all that is there.
func (p *pump[T]) take() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.queue
	p.queue, p.size = nil, 0
	signal(p.room)
	return out
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// carry sends what produce puts until produce ends and everything is sent, and an
// empty message whenever nothing came for a while.
func carry[T any](ctx context.Context, s *Server, produce func(ctx context.Context, put func(T, int) error) error, send func([]T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	p := newPump[T]()
	ended := make(chan error, 1)
	go func() {
		// A panic here would be the end of the server, not of the call.
		defer func() {
			if what := recover(); what != nil {
				ended <- s.bug(ctx, what)
			}
		}()
		ended <- produce(ctx, func(v T, size int) error { return p.put(ctx, v, size) })
	}()
	over, err := sendAll(ctx, s, p, ended, send)
	cancel(err)
	if !over {
		<-ended //nolint:errcheck // it ends because of err
	}
	return err
}

// sendAll sends what comes, and reports whether the producer has ended.
func sendAll[T any](ctx context.Context, s *Server, p *pump[T], ended <-chan error, send func([]T) error) (over bool, err error) {
	alive := time.NewTicker(s.opts.KeepAlive)
	defer alive.Stop()
	for {
		select {
		case <-p.more:
			if all := p.take(); len(all) > 0 {
				err = send(all)
			}
			alive.Reset(s.opts.KeepAlive)
		case err := <-ended:
			if rest := p.take(); len(rest) > 0 {
				err = cmp.Or(err, send(rest))
			}
			return true, err
		case <-alive.C:
			err = send(nil)
		case <-s.opts.Stopping:
			err = stopping()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return false, err
		}
	}
}
