package agent

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// console is the side of an interactive attempt that people see. What they type
// comes through the server, each byte with its offset in what its writer types: what
// comes twice after a break is known, and what is missing will come again. What the
// script was given is said back; the rest is still with who types. What the script
// writes goes to the server at once, and besides, like all output, to where it is
// kept.
type console struct {
	t    *attempt
	most int64 // bytes of output that are kept

	news chan struct{} // something is to be said to the server
	some chan struct{} // something is there for the script
	over chan struct{} // closed when the script has ended
	fed  sync.WaitGroup

	mu      sync.Mutex
	recent  bulkhead.Recent
	input   Console // nil: the script does not run yet
	window  bulkhead.Window
	writer  uint64 // who types; 0: nobody has yet
	queue   []byte // typed, and not with the script yet; at most bulkhead.MaxUntaken
	taken   int64  // offset of the queue
	ends    bool   // the writer's input ends behind the queue
	ended   bool   // and the script knows
	closed  bool   // the script reads no more
	again   bool   // to be said: whatever is not in the queue is to be sent again
	changed bool   // taken or closed are to be said
}

// feedSize is how much the script is given at once, in bytes.
const feedSize = 64 << 10

// goodbyeTime is how long the server may take to hear the end of the output.
const goodbyeTime = 5 * time.Second

func newConsole(t *attempt) *console {
	c := &console{t: t, most: t.lease.GetMaxOutput(), news: make(chan struct{}, 1), some: make(chan struct{}, 1), over: make(chan struct{})}
	switch {
	case c.most == 0:
		c.most = bulkhead.DefaultMaxOutput
	case c.most < 0:
		c.most = math.MaxInt64
	}
	return c
}

// attach begins to give the script what is typed, and to tell the server.
func (c *console) attach(input Console) {
	c.mu.Lock()
	c.input = input
	c.mu.Unlock()
	c.fed.Go(c.feed)
	c.t.agent.attends.Go(c.attend)
}

// end is called when nothing of the script is left.
func (c *console) end() {
	close(c.over)
	c.fed.Wait()
}

// wrote takes what the script writes.
func (c *console) wrote(stream int, at time.Time, p []byte) {
	c.mu.Lock()
	c.recent.Add(c.recent.End(), bulkhead.Chunk{Stream: bulkhead.Stream(stream), At: at, Data: p})
	c.mu.Unlock()
	signal(c.news)
}

// feed gives the script what is typed.
func (c *console) feed() {
	buf := make([]byte, feedSize)
	for {
		c.mu.Lock()
		n, writer, ends := copy(buf, c.queue), c.writer, c.ends && !c.ended
		closed := c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return
		case n > 0:
			n, err := c.input.Write(buf[:n])
			c.gave(writer, n, err)
		case ends:
			c.gaveEnd(c.input.End())
		default:
			select {
			case <-c.some:
			case <-c.over:
				return
			}
		}
	}
}

// gave notes how much of what a writer typed the script has got.
func (c *console) gave(writer uint64, n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writer == writer {
		c.queue, c.taken = c.queue[n:], c.taken+int64(n)
	}
	if err != nil {
		c.closed, c.queue = true, nil
	}
	c.changed = true
	signal(c.news)
}

func (c *console) gaveEnd(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.changed = true, true
	// A terminal can be typed into all the same: its end is that of a line.
	c.closed = c.closed || err != nil || !c.t.lease.GetTerminal()
	signal(c.news)
}

// attend tells the server until the attempt is over, and comes back when the
// connection breaks.
func (c *console) attend() {
	a := c.t.agent
	for try := 0; ; try++ {
		came, err := c.attendOnce()
		if came {
			try = 0
		}
		switch {
		case err == nil, unwanted(err), connect.CodeOf(err) == connect.CodeUnimplemented, c.isOver():
			return
		case !a.link.pause(a.calls, try, err, renewWait):
			return
		}
	}
}

func (c *console) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// attendOnce is one connection. Its error is nil when the server has heard all.
func (c *console) attendOnce() (came bool, err error) {
	ctx, cancel := context.WithCancel(c.t.agent.calls)
	defer cancel()
	stream, err := c.t.agent.opts.Client.Attend(ctx)
	if err != nil {
		return false, err
	}
	l := c.t.lease
	first := &bulkheadv1.AttendRequest{Agent: c.t.agent.self, Attempt: l.GetAttempt(),
		Lease: &bulkheadv1.Held{Run: l.GetRun(), Item: l.GetItem(), Token: l.GetToken()}}
	sent := c.say(0, first)
	err = stream.Send(first)
	heard := make(chan error, 1)
	go func() { heard <- c.listen(stream, &came) }()
	for err == nil {
		select {
		case <-c.news:
			m := &bulkheadv1.AttendRequest{}
			sent = c.say(sent, m)
			err = stream.Send(m)
		case err = <-heard:
			if err == nil {
				err = io.ErrUnexpectedEOF // it has not heard the end
			}
			return came, err
		case <-c.over:
			return came, c.goodbye(cancel, stream, sent, heard)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	cancel()
	_ = stream.CloseRequest() // or net/http does not notice that ctx has ended
	// What went wrong the other direction knows better.
	if herr := <-heard; herr != nil {
		err = herr
	}
	return came, err
}

type attendStream = connect.BidiStreamForClientSimple[bulkheadv1.AttendRequest, bulkheadv1.AttendResponse]

// goodbye says what is left to say, and waits until the server has heard it.
func (c *console) goodbye(cancel context.CancelFunc, stream *attendStream, sent int64, heard <-chan error) error {
	late := time.AfterFunc(goodbyeTime, cancel)
	defer late.Stop()
	m := &bulkheadv1.AttendRequest{}
	c.say(sent, m)
	err := stream.Send(m)
	if err == nil {
		err = stream.CloseRequest()
	}
	if err != nil {
		cancel()
	}
	if herr := <-heard; herr != nil {
		err = herr
	}
	return err
}

// say completes a message with what is new behind the output that was sent, and
// returns how much will have been sent with it.
func (c *console) say(sent int64, m *bulkheadv1.AttendRequest) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent = max(sent, c.recent.Start())
	m.Offset, m.Most = sent, c.most
	for _, chunk := range c.recent.From(sent, bulkhead.RecentBytes) {
		m.Chunks = append(m.Chunks, &bulkheadv1.Chunk{Stream: bulkheadv1.Stream(chunk.Stream), At: timestamppb.New(chunk.At), Data: chunk.Data})
	}
	if c.writer != 0 && (c.again || c.changed || m.Agent != nil) {
		m.Typed = &bulkheadv1.Typed{Writer: c.writer, Taken: c.taken, Again: c.again, Closed: c.closed}
		c.again, c.changed = false, false
	}
	return c.recent.End()
}

// listen takes what the server says.
func (c *console) listen(stream *attendStream, came *bool) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		*came = true
		c.hear(m)
	}
}

func (c *console) hear(m *bulkheadv1.AttendResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := m.GetWriter(); w != nil {
		if w.GetWriter() != c.writer {
			c.writer, c.queue, c.taken, c.ends, c.ended = w.GetWriter(), nil, w.GetOffset(), false, false
		}
		c.again = true
		signal(c.news)
	}
	if w := m.GetWindow(); w != nil {
		c.window = windowOf(w)
		// A script whose terminal cannot be resized has ended.
		_ = c.input.Resize(c.window)
	}
	in := m.GetInput()
	if in == nil || in.GetWriter() != c.writer || c.closed {
		return
	}
	have := c.taken + int64(len(c.queue))
	data := in.GetData()
	switch behind := have - in.GetOffset(); {
	case behind < 0:
		return // something before it is missing, and will come again
	case behind > int64(len(data)):
		return
	default:
		data = data[behind:]
	}
	if len(c.queue)+len(data) > bulkhead.MaxUntaken {
		return // more than who types may have under way
	}
	c.queue = append(c.queue, data...)
	c.ends = c.ends || in.GetEnd()
	signal(c.some)
}

func windowOf(m *bulkheadv1.Window) bulkhead.Window {
	fit := func(n int32) uint16 { return uint16(min(max(n, 0), math.MaxUint16)) }
	return bulkhead.Window{Rows: fit(m.GetRows()), Columns: fit(m.GetColumns())}
}
