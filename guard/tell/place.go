package tell

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sender brings notes to one place.
type sender interface {
	// name is the word for it in metrics, logs and the journal's name.
	name() string
	// repeat is how long something is not told again that goes on.
	repeat() time.Duration
	// send returns how many of the notes, from the first on, have arrived.
	send(ctx context.Context, notes []note) (arrived int, err error)
	close()
}

// place is a sender with what it was told.
type place struct {
	sender
	journal *journal
	opts    *Options
	told    *prometheus.CounterVec
	wake    chan struct{} // has room for one

	mu     sync.Mutex
	alerts []alert
	looked bool
}

// put says what is found now, and returns at once.
func (p *place) put(alerts []alert) {
	p.mu.Lock()
	p.alerts, p.looked = alerts, true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *place) now() (alerts []alert, looked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alerts, p.looked
}

const (
	sendTime   = 10 * time.Second
	leaveTime  = time.Second // what is under way may take at the end
	mostPauses = 300         // as long a pause as the first
	// sayAgain is how often it is logged that a place takes nothing.
	sayAgain = time.Hour
)

// run tells until ctx ends.
func (p *place) run(ctx context.Context) error {
	defer p.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop()
	pause, said := time.Duration(0), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			if pause > 0 {
				continue // the timer says when
			}
		case <-timer.C:
		}
		err := p.tell(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			if !said.IsZero() {
				p.opts.Log.Info("findings are told again", "to", p.name())
			}
			pause, said = 0, time.Time{}
			continue
		}
		if now := p.opts.Now(); said.IsZero() || now.Sub(said) >= sayAgain || now.Before(said) {
			p.opts.Log.Warn("findings cannot be told; it is tried again", "to", p.name(), "error", err)
			said = now
		}
		pause = min(max(2*pause, p.opts.Backoff), mostPauses*p.opts.Backoff)
		// A random half of it, so that those who lost a place together do not come back
		// together.
		timer.Reset(pause/2 + rand.N(pause/2+1))
	}
}

// tell sends what is due. What is under way when ctx ends may come to its end: else it
// would be told again by the next process.
func (p *place) tell(ctx context.Context) error {
	alerts, looked := p.now()
	if !looked {
		return nil
	}
	now := p.opts.Now()
	notes := p.journal.due(alerts, now, p.repeat())
	if len(notes) == 0 {
		return nil
	}
	sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(leaveTime, cancel) })
	defer stop()
	arrived, err := p.send(sending, notes)
	p.told.WithLabelValues(p.name(), "sent").Add(float64(arrived))
	if err != nil {
		p.told.WithLabelValues(p.name(), "failed").Inc()
	}
	if jerr := p.journal.arrived(notes[:arrived], now); err == nil {
		err = jerr
	}
	return err
}
