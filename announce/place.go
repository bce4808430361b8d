package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// counter counts what is not done yet.
type counter struct{ atomic.Int32 }

// sender brings one line to one place.
type sender interface {
	// name is the word for it in metrics and logs.
	name() string
	wants(*Line) bool
	// send has until ctx ends. An error that is refused makes no sense to repeat.
	send(ctx context.Context, line *Line) error
	// close lets go of what it keeps open.
	close()
}

// refused is an error that another try would bring again.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

const (
	placeQueue = 256 // lines
	sendTime   = 10 * time.Second
	sendTries  = 6
	mostPauses = 50 // as long a pause as the first
)

// place is where lines go, with a queue and a goroutine of its own.
type place struct {
	sender
	announcer *Announcer
	lines     chan Line
	done      chan struct{} // closed when its goroutine has ended
	ctx       context.Context
	cancel    context.CancelFunc
	lost      dropped
}

func newPlace(s sender, a *Announcer) *place {
	p := &place{sender: s, announcer: a, lines: make(chan Line, placeQueue), done: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.work()
	return p
}

// put queues a line, or drops it.
func (p *place) put(line Line) {
	select {
	case p.lines <- line:
	default:
		p.drop(&line, resultDropped)
		line.settle.done()
	}
}

func (p *place) drop(line *Line, how string) {
	o := &p.announcer.opts
	o.Metrics.Announced(p.name(), how)
	p.lost.add(o.Log, line.At, p.name())
}

// work sends what is queued. Lines that the end of the server leaves unsent are not
// settled: the next server tells of them.
func (p *place) work() {
	defer close(p.done)
	defer p.cancel()
	defer p.close()
	for line := range p.lines {
		err := p.try(&line)
		switch {
		case err == nil:
			p.announcer.opts.Metrics.Announced(p.name(), resultSent)
		case p.ctx.Err() != nil:
			p.announcer.opts.Metrics.Announced(p.name(), resultDropped)
			continue
		default:
			p.lost.why(err)
			p.drop(&line, resultFailed)
		}
		line.settle.done()
	}
}

// try sends a line, and again after growing pauses.
func (p *place) try(line *Line) (err error) {
	pause := p.announcer.opts.Backoff
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(p.ctx, sendTime)
		err = p.send(ctx, line)
		cancel()
		if _, no := errors.AsType[refused](err); err == nil || no || try == sendTries || p.ctx.Err() != nil {
			return err
		}
		// A random half of the pause, so that those who lost the place together do not
		// come back together.
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		pause = min(2*pause, mostPauses*p.announcer.opts.Backoff)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
			return fmt.Errorf("the server stops: %w", err)
		}
	}
}

// dropped says once in a while how much was dropped.
type dropped struct {
	mu   sync.Mutex
	n    int
	told time.Time
	last error
}

const tellDropped = time.Minute

func (d *dropped) add(log *slog.Logger, now time.Time, from string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if age := now.Sub(d.told); !d.told.IsZero() && age >= 0 && age < tellDropped {
		return
	}
	attrs := []any{"from", from, "lines", d.n}
	if d.last != nil {
		attrs = append(attrs, "error", d.last)
	}
	log.Warn("announcements were dropped", attrs...)
	d.n, d.told = 0, now
}

// why notes what kept the last one from arriving.
func (d *dropped) why(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = err
}
