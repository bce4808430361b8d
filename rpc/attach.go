package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// maxAttached bounds who may be attached to one run.
	maxAttached = 32
	// maxInput is the most of one Input, in bytes.
	maxInput = 64 << 10
)

type attachStream = connect.BidiStream[bulkheadv1.AttachRequest, bulkheadv1.AttachResponse]

// Attach implements RunServiceHandler.
func (s *Server) Attach(ctx context.Context, stream *attachStream) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	join := first.GetJoin()
	if join == nil {
		return usage(nil, "", "the first message does not say which run to attach to")
	}
	ctx, end, r, err := s.runFor(ctx, join.GetRun(), VerbAttach)
	defer end()
	if err == nil {
		err = attachable(r)
	}
	if err != nil {
		return err
	}
	sess := s.opts.Relay.enter(r.ID)
	defer sess.leave()
	a := &attached{server: s, session: sess, stream: stream, who: ownerOf(ctx, CallerOf(ctx).Name), since: s.opts.Now(),
		writer: join.GetWriter(), typed: join.GetTyped(), at: join.GetHave(), tail: int(join.GetTail())}
	if err := a.join(join); err != nil {
		return err
	}
	defer a.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.opts.Relay.guarded("Attach", func() error { return a.receive(ctx) }) }()
	return a.send(ctx, ended)
}

// attachable refuses what nobody can type into.
func attachable(r *bulkhead.Run) error {
	switch {
	case r.Spec.Interactive:
		return nil
	case r.Spec.Single():
		return conflict(fmt.Sprintf("bulkhead logs %d -f follows what it writes; bulkhead run -it makes a script interactive", r.ID),
			"run %d is not interactive", r.ID)
	}
	return conflict(fmt.Sprintf("bulkhead logs %d -f follows all of it, bulkhead logs %[1]d ITEM -f one item", r.ID),
		"run %d is a batch: there is no one script to attach to", r.ID)
}

// attached is a caller who is attached to a run.
type attached struct {
	server  *Server
	session *session
	stream  *attachStream
	who     string
	since   time.Time
	writer  uint64 // 0: looks on
	typed   int64  // offset of the first byte that it can still send

	at   int64 // bytes of output that it has; less than 0: not decided yet
	tail int   // lines to begin with

	// What was sent to it.
	joined bool
	lost   bool
	taken  *bulkheadv1.Typed
	again  int
}

// introduction tells an agent who types.
func (a *attached) introduction() *bulkheadv1.AttendResponse {
	return &bulkheadv1.AttendResponse{Writer: &bulkheadv1.Writer{Writer: a.writer, Offset: a.typed}}
}

// join adds a caller to the session. One types, and nobody takes that away by
// accident: it may be a file that is being piped in.
func (a *attached) join(m *bulkheadv1.Joining) error {
	s := a.session
	s.mu.Lock()
	if len(s.attached) >= maxAttached {
		s.mu.Unlock()
		return tooMuch("%d callers are attached to run %d", maxAttached, s.run)
	}
	if w := s.writer; a.writer != 0 && w != nil && w.writer != a.writer && !m.GetTakeOver() {
		s.mu.Unlock()
		return conflict(fmt.Sprintf("bulkhead attach %d --watch looks on; --take-over lets you type, and them look on", s.run),
			"%s types into run %d since %s", w.who, s.run, w.since.UTC().Format("15:04:05 MST"))
	}
	s.attached[a] = struct{}{}
	a.again = s.again
	if a.writer != 0 {
		s.writer = a
		if w := WindowOf(m.GetWindow()); w != (bulkhead.Window{}) {
			s.window = w
		}
		s.tell()
	}
	window := s.window
	s.mu.Unlock()
	if a.writer != 0 {
		s.send(a.introduction(), s.relay.opts.Stopping)
		if window != (bulkhead.Window{}) {
			s.send(&bulkheadv1.AttendResponse{Window: WindowMessage(window)}, s.relay.opts.Stopping)
		}
	}
	return nil
}

func (a *attached) leave() {
	s := a.session
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.attached, a)
	if s.writer == a {
		s.writer = nil
	}
	s.tell()
}

// types reports whether what the caller sends is for the script.
func (a *attached) types() bool {
	a.session.mu.Lock()
	defer a.session.mu.Unlock()
	return a.session.writer == a
}

// receive passes on what the caller types. It waits until the agent takes it, and
// so does the caller.
func (a *attached) receive(ctx context.Context) error {
	for {
		m, err := a.stream.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !a.types():
			continue // somebody else does, as the caller is told
		}
		if in := m.GetInput(); in != nil {
			if n := len(in.GetData()); n > maxInput {
				return usage(nil, "send it in several", "input of %d bytes is more than %d", n, maxInput)
			}
			in.Writer = a.writer
			a.session.send(&bulkheadv1.AttendResponse{Input: in}, ctx.Done())
		}
		if w := m.GetWindow(); w != nil {
			a.resize(WindowOf(w))
			a.session.send(&bulkheadv1.AttendResponse{Window: w}, ctx.Done())
		}
	}
}

func (a *attached) resize(w bulkhead.Window) {
	a.session.mu.Lock()
	defer a.session.mu.Unlock()
	a.session.window = w
}

// send sends the caller what the script writes, until the run has ended.
func (a *attached) send(ctx context.Context, ended <-chan error) error {
	alive := time.NewTicker(a.server.opts.KeepAlive)
	defer alive.Stop()
	if err := a.stream.Send(&bulkheadv1.AttachResponse{}); err != nil {
		return err // so that the caller knows that it is there
	}
	for {
		news := a.changed()
		more, err := a.news(ctx)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		over, changed, err := a.over(ctx)
		if err != nil {
			return err
		}
		if over {
			return a.rest(ctx)
		}
		select {
		case <-news:
		case <-changed:
		case <-alive.C:
			err = a.stream.Send(&bulkheadv1.AttachResponse{})
		case err = <-ended:
			ended = nil // it says nothing more, and looks on
		case <-a.server.opts.Stopping:
			err = stopping()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (a *attached) changed() <-chan struct{} {
	a.session.mu.Lock()
	defer a.session.mu.Unlock()
	return a.session.changed
}

// over reports whether the run has ended, durably; changed is closed when that may
// be otherwise.
func (a *attached) over(ctx context.Context) (over bool, changed <-chan struct{}, err error) {
	status, changed, ok := a.server.opts.Engine.Watch(a.session.run, 0)
	if ok && !status.Run.State.Finished() {
		return false, changed, nil
	}
	r, err := a.server.opts.Store.Run(ctx, a.session.run)
	if err != nil || r.State.Finished() {
		return true, nil, err
	}
	// The engine is about to have it, or to store its end.
	return false, a.server.soon(), nil
}

// news sends what the caller does not have yet, and reports whether there was
// anything.
func (a *attached) news(ctx context.Context) (more bool, err error) {
	m, from := a.next()
	if m == nil {
		return false, nil
	}
	if from {
		return true, a.catchUp(ctx, m.GetOffset())
	}
	return true, a.stream.Send(m)
}

// next is the next message; nil: there is nothing to say. With from, what comes
// before its offset has to be read from where output is kept.
func (a *attached) next() (m *bulkheadv1.AttachResponse, from bool) {
	s := a.session
	s.mu.Lock()
	defer s.mu.Unlock()
	m = &bulkheadv1.AttachResponse{Typed: a.typing()}
	say := m.Typed != nil
	if !a.joined && s.token != 0 {
		a.joined, m.Joined, say = true, true, true
	}
	if s.token == 0 {
		return orNone(m, say), false
	}
	start, end := s.recent.Start(), s.recent.End()
	if a.at < 0 {
		a.at = start
		if a.tail > 0 {
			a.at = s.recent.Tail(a.tail)
		}
	}
	m.Offset = a.at
	switch {
	case a.at < start && a.at < s.most && !say:
		m.Offset = min(start, s.most)
		return m, true
	case say, a.at >= end:
		return orNone(m, say), false
	case a.at < start:
		m.Chunks = []*bulkheadv1.Chunk{{Dropped: start - a.at}}
		a.at = start
		return m, false
	}
	for _, c := range s.recent.From(a.at, maxOutputBytes) {
		m.Chunks = append(m.Chunks, ChunkMessage(c))
		a.at += int64(len(c.Data))
	}
	return m, false
}

func orNone(m *bulkheadv1.AttachResponse, say bool) *bulkheadv1.AttachResponse {
	if !say {
		return nil
	}
	return m
}

// typing is what the caller is to know of its input, nil if it does.
func (a *attached) typing() *bulkheadv1.Typed {
	s := a.session
	switch {
	case a.writer == 0:
		return nil
	case s.writer != a && !a.lost:
		a.lost = true
		return &bulkheadv1.Typed{Writer: a.writer, Lost: true}
	case s.writer != a, s.typed.GetWriter() != a.writer:
		return nil
	}
	again := s.again != a.again
	if !again && s.typed == a.taken {
		return nil
	}
	a.again, a.taken = s.again, s.typed
	return &bulkheadv1.Typed{Writer: a.writer, Taken: s.typed.GetTaken(), Closed: s.typed.GetClosed(), Again: again}
}

// errCaughtUp: the rest comes from the agent.
var errCaughtUp = errors.New("caught up")

// catchUp sends what is kept of the attempt up to an offset.
func (a *attached) catchUp(ctx context.Context, to int64) error {
	a.session.mu.Lock()
	n := a.session.attempt
	a.session.mu.Unlock()
	o := attemptOutput{server: a.server, run: a.session.run, item: 1, n: n, place: outputPlace{bytes: a.at}}
	at, err := o.find(ctx)
	if err != nil {
		return err
	}
	o.put = func(_ context.Context, c bulkhead.Chunk) error {
		err := a.stream.Send(&bulkheadv1.AttachResponse{Offset: a.at, Chunks: []*bulkheadv1.Chunk{ChunkMessage(c)}})
		a.at += int64(len(c.Data)) + c.Dropped
		if err == nil && a.at >= to {
			err = errCaughtUp
		}
		return err
	}
	err = o.read(ctx, at, true)
	if err == nil && a.at < to {
		a.at = to // it has ended, and that is all that there is
	}
	if errors.Is(err, errCaughtUp) {
		return nil
	}
	return err
}

// rest sends the end of the output of a run that has ended.
func (a *attached) rest(ctx context.Context) error {
	all, err := a.server.opts.Store.Attempts(ctx, a.session.run, 1)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		at := slices.MaxFunc(all, func(x, y bulkhead.Attempt) int { return x.N - y.N })
		if err := a.end(ctx, at); err != nil {
			return err
		}
	}
	return a.stream.Send(&bulkheadv1.AttachResponse{Offset: a.at, Over: true})
}

func (a *attached) end(ctx context.Context, at bulkhead.Attempt) error {
	if a.at < 0 && a.tail > 0 {
		tail, err := a.server.opts.Outputs.Tail(ctx, a.session.run, at, a.tail)
		a.at = at.Output.Bytes
		if err != nil || len(tail) == 0 {
			return err
		}
		return a.stream.Send(&bulkheadv1.AttachResponse{Chunks: []*bulkheadv1.Chunk{{Stream: bulkheadv1.Stream_STREAM_STDOUT, Data: tail}}})
	}
	a.at = max(a.at, 0)
	if a.at >= at.Output.Bytes {
		return nil
	}
	o := attemptOutput{server: a.server, run: a.session.run, item: 1, n: at.N, place: outputPlace{bytes: a.at}}
	o.put = func(_ context.Context, c bulkhead.Chunk) error {
		err := a.stream.Send(&bulkheadv1.AttachResponse{Offset: a.at, Chunks: []*bulkheadv1.Chunk{ChunkMessage(c)}})
		a.at += int64(len(c.Data))
		return err
	}
	return o.pass(ctx, at, nil)
}

// message is a run for who asks, with what only the relay knows of it.
func (s *Server) message(r *bulkhead.Run) *bulkheadv1.Run {
	m := RunMessage(r)
	s.lonely(r, m)
	return m
}

// lonely says of a script that waits for somebody to type that it does.
func (s *Server) lonely(r *bulkhead.Run, m *bulkheadv1.Run) {
	if r.Spec.Interactive && r.State == bulkhead.RunRunning && r.Reason == "" && r.Counts.Running > 0 && s.opts.Relay.lonely(r.ID) {
		m.Reason = fmt.Sprintf("waits for somebody to attach: `bulkhead attach %d`", r.ID)
	}
}
