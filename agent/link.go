package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// link knows whether the server answers. Whoever did not get through waits here,
// longer each time, and is woken when somebody else of the agent did.
type link struct {
	log *slog.Logger

	mu   sync.Mutex
	down time.Time     // of the first failure; zero: the server answers
	said bool          // that it does not
	up   chan struct{} // closed when it answers again
}

const (
	firstWait = 100 * time.Millisecond // after a failure; doubles
	lastWait  = 15 * time.Second
	// A server that refuses us does so until somebody has changed something.
	refusedWait = 5 * time.Second
	// renewWait is the longest between renewals while leases are held: keeping
	// them depends on coming back soon.
	renewWait = 2 * time.Second
)

func newLink(log *slog.Logger) *link { return &link{log: log, up: make(chan struct{})} }

// ok notes an answer.
func (l *link) ok() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.IsZero() {
		return
	}
	if l.said {
		l.log.Info("the server answers again", "after", time.Since(l.down).Round(time.Millisecond))
	}
	l.down, l.said = time.Time{}, false
	close(l.up)
	l.up = make(chan struct{})
}

// sayAfter is how long a server does not answer before it is worth a line: a
// restart is shorter.
const sayAfter = 2 * time.Second

// failed notes a call that did not get through, and says so once.
func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.IsZero() {
		l.down = time.Now()
	}
	switch {
	case l.said:
	case refused(err):
		l.said = true
		l.log.Error("the server refuses this agent, which goes on asking", "error", err)
	case time.Since(l.down) >= sayAfter:
		l.said = true
		l.log.Warn("the server does not answer; what runs goes on, output and results are kept", "error", err)
	}
}

func (l *link) away() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.down.IsZero()
}

// pause waits after the failed try number n, from 0, at most as long as given.
// It returns false when ctx has ended.
func (l *link) pause(ctx context.Context, n int, err error, longest time.Duration) bool {
	wait := firstWait << min(n, 10)
	if refused(err) {
		wait = max(wait, refusedWait)
	}
	wait = min(wait, longest)
	wait = wait/2 + rand.N(wait/2)
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-up:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// refused: trying again soon does not help.
func refused(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented, connect.CodeFailedPrecondition:
		return true
	}
	return unwanted(err)
}

// wrongVersion: the server does not speak with agents like this one.
func wrongVersion(err error) bool { return connect.CodeOf(err) == connect.CodeFailedPrecondition }

// replaced: a later process of the same name is known to the server.
func replaced(err error) bool { return connect.CodeOf(err) == connect.CodeAlreadyExists }

// refusal is what a person is told of an error like that.
func refusal(err error) error {
	e := &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the server does not work with this agent: " + err.Error()}
	wire, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return e
	}
	e.Message = "the server does not work with this agent: " + wire.Message()
	for _, d := range wire.Details() {
		if m, err := d.Value(); err == nil {
			if f, ok := m.(*bulkheadv1.Fault); ok {
				e.Hint = f.GetHint()
			}
		}
	}
	return e
}

// unwanted: the server has read what it was sent and will never take it.
func unwanted(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists, connect.CodeOutOfRange, connect.CodeDataLoss:
		return true
	}
	return false
}
