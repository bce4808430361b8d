package rpc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Typing is what a caller types, or pipes, into an interactive run. It keeps what
// the script was not given yet, to send it again after a break: whoever writes waits
// while that is bulkhead.MaxUntaken bytes.
type Typing struct {
	writer uint64
	news   chan struct{} // there is something to send
	room   chan struct{} // there may be room
	closed chan struct{} // closed when nobody reads any more

	mu     sync.Mutex
	base   int64  // offset of kept
	kept   []byte // not given to the script yet
	end    bool   // nothing follows
	sent   int64  // offset of what is to be sent next; less than 0: the server has to say
	said   bool   // the end was sent
	isShut bool   // closed is closed
}

// NewTyping returns the input of one caller.
func NewTyping() *Typing {
	t := &Typing{news: make(chan struct{}, 1), room: make(chan struct{}, 1), closed: make(chan struct{}), sent: -1}
	for t.writer == 0 {
		t.writer = rand.Uint64()
	}
	return t
}

// ErrNotReading says that the script reads no more, or somebody else types into it.
var ErrNotReading = errors.New("nobody reads it any more")

// Write adds p, once there is room for it.
func (t *Typing) Write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		t.mu.Lock()
		n := min(len(p), bulkhead.MaxUntaken-len(t.kept))
		t.kept = append(t.kept, p[:n]...)
		shut := t.isShut
		t.mu.Unlock()
		if shut {
			return ErrNotReading
		}
		if n > 0 {
			p = p[n:]
			signal(t.news)
			continue
		}
		select {
		case <-t.room:
		case <-t.closed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// End says that nothing follows.
func (t *Typing) End() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = true
	signal(t.news)
}

// Closed is closed when nobody reads any more.
func (t *Typing) Closed() <-chan struct{} { return t.closed }

// join begins a connection.
func (t *Typing) join(m *bulkheadv1.Joining) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = -1
	m.Writer, m.Typed = t.writer, t.base
}

// heard takes what the server says of it.
func (t *Typing) heard(m *bulkheadv1.Typed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := m.GetTaken() - t.base; !m.GetLost() && n > 0 && n <= int64(len(t.kept)) {
		t.kept, t.base = t.kept[n:], m.GetTaken()
		if len(t.kept) == 0 {
			t.kept = nil
		}
		signal(t.room)
	}
	if m.GetAgain() {
		t.sent, t.said = t.base, false
		signal(t.news)
	}
	if (m.GetClosed() || m.GetLost()) && !t.isShut {
		t.isShut, t.kept, t.end = true, nil, false
		close(t.closed)
	}
}

// next is what is to be sent now, nil if there is nothing.
func (t *Typing) next() *bulkheadv1.Input {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sent < 0 || t.isShut {
		return nil
	}
	t.sent = max(t.sent, t.base)
	rest := t.kept[t.sent-t.base:]
	data := rest[:min(len(rest), maxInput)]
	end := t.end && len(data) == len(rest)
	if len(data) == 0 && (!end || t.said) {
		return nil
	}
	m := &bulkheadv1.Input{Offset: t.sent, Data: append([]byte(nil), data...), End: end}
	t.sent += int64(len(data))
	t.said = t.said || end
	return m
}

// Attachment is how to attach to an interactive run.
type Attachment struct {
	Run      bulkhead.RunID
	Typing   *Typing // nil: look on
	TakeOver bool    // type also if somebody else does
	// Lines is how much of what was written before to begin with; less than 0: all.
	Lines int
	// Window, if it is set, is asked how large our terminal is, and again when Resized
	// has a value.
	Window  func() bulkhead.Window
	Resized <-chan struct{}
	// Output takes what the script writes. Its data is valid until it returns.
	Output func(bulkhead.Chunk) error
	// Joined, if it is set, is called when the script runs.
	Joined func()
	// Lost, if it is set, is called when somebody else has taken over.
	Lost func()
}

// Attach attaches to a run until it has ended and all of its output has come. While
// the server is away it waits for it, and goes on where it was.
func (c *Client) Attach(ctx context.Context, a Attachment) error {
	have := int64(-1)
	if a.Lines < 0 {
		have = 0
	}
	b := c.backoff()
	for {
		came, over, err := c.attachOnce(ctx, &a, &have)
		if came {
			b = c.backoff()
		}
		if over {
			return nil
		}
		if s, ok := err.(stopped); ok { //nolint:errorlint // it is never wrapped, and what is in it may be anything
			return s.err
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !transient(err):
			return Error(c.opts.URL, err)
		case err != nil:
			c.away(err)
		}
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
}

// IsAway reports whether the server could not be reached when it was last called.
func (c *Client) IsAway() bool { return c.isAway.Load() }

func (c *Client) attachOnce(ctx context.Context, a *Attachment, have *int64) (came, over bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(c.opts.Quiet, func() { cancel(errQuiet) })
	defer quiet.Stop()
	stream, err := c.runs.Attach(ctx)
	if err != nil {
		return false, false, err
	}
	defer stream.CloseResponse() //nolint:errcheck // what matters of it Receive has said
	join := &bulkheadv1.Joining{Run: int64(a.Run), TakeOver: a.TakeOver, Have: *have, Tail: int32Of(a.Lines)}
	if a.Typing != nil {
		a.Typing.join(join)
	}
	if a.Window != nil {
		join.Window = WindowMessage(a.Window())
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel(nil)
	sending.Go(func() { a.send(ctx, join, stream) })
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return came, false, io.ErrUnexpectedEOF
		}
		if err != nil {
			return came, false, err
		}
		quiet.Stop()
		if !came {
			came = true
			c.back()
		}
		if err := a.heard(m, have); err != nil {
			return true, false, stopped{err}
		}
		if m.GetOver() {
			return true, true, nil
		}
		quiet.Reset(c.opts.Quiet)
	}
}

// send sends what is typed until the connection ends. Why it ended the other
// direction says.
func (a *Attachment) send(ctx context.Context, join *bulkheadv1.Joining, stream *connect.BidiStreamForClientSimple[bulkheadv1.AttachRequest, bulkheadv1.AttachResponse]) {
	// net/http notices that ctx has ended when there is something to send, or nothing
	// more: without this whoever receives would wait for a ping to fail.
	defer stream.CloseRequest() //nolint:errcheck // nothing was promised
	if stream.Send(&bulkheadv1.AttachRequest{What: &bulkheadv1.AttachRequest_Join{Join: join}}) != nil {
		return
	}
	var news <-chan struct{}
	if a.Typing != nil {
		news = a.Typing.news
	}
	for {
		m := &bulkheadv1.AttachRequest{}
		select {
		case <-news:
			in := a.Typing.next()
			if in == nil {
				continue
			}
			signal(a.Typing.news) // there may be more
			m.What = &bulkheadv1.AttachRequest_Input{Input: in}
		case <-a.Resized:
			m.What = &bulkheadv1.AttachRequest_Window{Window: WindowMessage(a.Window())}
		case <-ctx.Done():
			return
		}
		if stream.Send(m) != nil {
			return
		}
	}
}

// heard takes a message of the server.
func (a *Attachment) heard(m *bulkheadv1.AttachResponse, have *int64) error {
	if t := m.GetTyped(); t != nil && a.Typing != nil {
		a.Typing.heard(t)
		if t.GetLost() && a.Lost != nil {
			a.Lost()
		}
	}
	if m.GetJoined() && a.Joined != nil {
		a.Joined()
	}
	if len(m.GetChunks()) > 0 || m.GetOver() {
		*have = m.GetOffset()
	}
	for _, cm := range m.GetChunks() {
		chunk, err := ChunkOf(cm)
		if err != nil {
			return err
		}
		*have += int64(len(chunk.Data)) + chunk.Dropped
		if err := a.Output(chunk); err != nil {
			return err
		}
	}
	return nil
}
