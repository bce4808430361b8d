package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// pump carries output from one goroutine, which reads it, to another that sends it.
// While a message is on its way the next one gathers, up to maxOutputBytes; then the
// reader waits. So few messages carry much, nothing waits for more to come, and who
// takes it slowly makes the server hold no more than that.
//
// A reader holds open files and what it has read of them: more than the messages,
// if it merges many. One that can go on where it stopped is told to stop when it has
// waited for a moment, and is begun again when there is room.
type pump[T any] struct {
	pause time.Duration // how long the reader waits before it stops; 0: as long as it takes

	mu    sync.Mutex
	queue []T
	size  int
	data  *arena        // of the chunks in the queue; nil: they have none
	more  chan struct{} // something is there
	room  chan struct{} // something was taken
}

// arena is memory for the data of one message: with a buffer for each chunk, half of
// the time would go to the garbage collector.
type arena struct {
	used int
	buf  [maxOutputBytes + maxChunkData]byte
}

// maxChunkData is what output puts into one chunk at most, bytes.
const maxChunkData = 32 << 10

var arenas = sync.Pool{New: func() any { return new(arena) }}

// keep copies p.
func (a *arena) keep(p []byte) []byte {
	if len(p) > len(a.buf)-a.used {
		return slices.Clone(p)
	}
	kept := a.buf[a.used : a.used+len(p) : a.used+len(p)]
	a.used += copy(kept, p)
	return kept
}

// free gives the memory of a message that is sent to the next one.
func (a *arena) free() {
	if a != nil {
		a.used = 0
		arenas.Put(a)
	}
}

func newPump[T any](pause time.Duration) *pump[T] {
	return &pump[T]{pause: pause, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// errPause is what put returns when it is time to stop. What was put is put.
var errPause = errors.New("nobody takes what is read")

// put adds what wrap makes of a chunk, whose data it copies, and waits until there is
// room for the next.
func (p *pump[T]) put(ctx context.Context, c bulkhead.Chunk, wrap func(*bulkheadv1.Chunk) T) error {
	p.mu.Lock()
	if len(c.Data) > 0 {
		if p.data == nil {
			p.data, _ = arenas.Get().(*arena)
		}
		c.Data = p.data.keep(c.Data)
	}
	p.queue = append(p.queue, wrap(ChunkMessage(c)))
	p.size += len(c.Data) + chunkOverhead
	full := p.size >= maxOutputBytes
	p.mu.Unlock()
	signal(p.more)
	if !full {
		return nil
	}
	if p.pause == 0 {
		return p.wait(ctx, nil)
	}
	pause := time.NewTimer(p.pause)
	defer pause.Stop()
	return p.wait(ctx, pause.C)
}

// wait returns when there is room, or errPause when it is time to stop.
func (p *pump[T]) wait(ctx context.Context, stop <-chan time.Time) error {
	for p.full() {
		select {
		case <-p.room:
		case <-stop:
			return errPause
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *pump[T]) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size >= maxOutputBytes
}

// take takes all that is there.
func (p *pump[T]) take() (all []T, data *arena) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, data = p.queue, p.data
	p.queue, p.size, p.data = nil, 0, nil
	signal(p.room)
	return all, data
}

// read has produce put what there is. When it stopped because of errPause it is
// called again, to go on behind what it has put: after a wait that gets longer each
// time, since to begin anew costs something, too.
func (p *pump[T]) read(ctx context.Context, produce func(context.Context) error) error {
	for {
		err := produce(ctx)
		if !errors.Is(err, errPause) {
			return err
		}
		p.pause *= 2
		if err := p.wait(ctx, nil); err != nil {
			return err
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// carry sends what produce puts into the pump until produce ends and everything is
// sent, and an empty message whenever nothing came for a while.
func carry[T any](ctx context.Context, s *Server, p *pump[T], produce func(context.Context) error, send func([]T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		// A panic here would be the end of the server, not of the call.
		defer func() {
			if what := recover(); what != nil {
				ended <- s.bug(ctx, what)
			}
		}()
		ended <- p.read(ctx, produce)
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
	next := func() error {
		all, data := p.take()
		defer data.free()
		if len(all) == 0 {
			return nil
		}
		return send(all)
	}
	alive := time.NewTicker(s.opts.KeepAlive)
	defer alive.Stop()
	for {
		select {
		case <-p.more:
			err = next()
			alive.Reset(s.opts.KeepAlive)
		case err := <-ended:
			return true, cmp.Or(err, next())
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
