package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// conversation is a run that is interactive, and its agent.
type conversation struct {
	*site
	run    *bulkhead.Run
	lease  *bulkheadv1.Lease
	stream *connect.BidiStreamForClientSimple[bulkheadv1.AttendRequest, bulkheadv1.AttendResponse]
}

func (s *site) interactive() *bulkhead.Run {
	s.t.Helper()
	r := &bulkhead.Run{Spec: bulkhead.Spec{Class: "a", Command: []string{"cat"}, Limit: 1, MaxOutput: 1 << 20, Interactive: true}}
	if err := s.client(nil, nil).Submit(s.t.Context(), r, nil, func() string { return strings.Repeat("0", 64) }); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// converse leases a run to an agent that attends it.
func (s *site) converse() *conversation {
	s.t.Helper()
	c := &conversation{site: s, run: s.interactive()}
	ctx, cancel := context.WithCancel(context.Background())
	agents := s.agents(rpc.Tokens{Secret: userToken}.OfClass("a"))
	for c.lease == nil {
		got, err := agents.Exchange(ctx, &bulkheadv1.ExchangeRequest{Agent: agentOf("a")})
		if err != nil {
			s.t.Fatal(err)
		}
		c.lease = got.GetLease()
	}
	if !c.lease.GetInteractive() {
		s.t.Errorf("the lease is %v", c.lease)
	}
	var err error
	if c.stream, err = agents.Attend(ctx); err != nil {
		s.t.Fatal(err)
	}
	c.say(c.hello())
	s.t.Cleanup(func() {
		cancel()
		_ = c.stream.CloseRequest()
		_ = c.stream.CloseResponse()
	})
	return c
}

func (c *conversation) hello() *bulkheadv1.AttendRequest {
	return &bulkheadv1.AttendRequest{Agent: agentOf("a"), Attempt: 1, Most: 1 << 20,
		Lease: &bulkheadv1.Held{Run: c.lease.GetRun(), Item: c.lease.GetItem(), Token: c.lease.GetToken()}}
}

func (c *conversation) say(m *bulkheadv1.AttendRequest) {
	c.t.Helper()
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

// writes says what the script writes.
func (c *conversation) writes(offset int64, text string) {
	c.t.Helper()
	c.say(&bulkheadv1.AttendRequest{Offset: offset, Most: 1 << 20,
		Chunks: []*bulkheadv1.Chunk{{Stream: bulkheadv1.Stream_STREAM_STDOUT, Data: []byte(text)}}})
}

// hears waits for a message that is not only to show that the server is there.
func (c *conversation) hears(is func(*bulkheadv1.AttendResponse) bool) *bulkheadv1.AttendResponse {
	c.t.Helper()
	for {
		m, err := c.stream.Receive()
		if err != nil {
			c.t.Fatal(err)
		}
		if is(m) {
			return m
		}
	}
}

func isWriter(m *bulkheadv1.AttendResponse) bool { return m.GetWriter() != nil }
func isInput(m *bulkheadv1.AttendResponse) bool  { return m.GetInput() != nil }

// attached is a caller; what it sees comes through the channel.
func (c *conversation) attached(a rpc.Attachment) (seen chan string, end func() error) {
	ctx, cancel := context.WithCancel(c.t.Context())
	seen = make(chan string, 100)
	a.Run = c.run.ID
	a.Output = func(chunk bulkhead.Chunk) error {
		seen <- string(bytes.Clone(chunk.Data))
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- c.client(nil, nil).Attach(ctx, a) }()
	return seen, func() error {
		cancel()
		return <-ended
	}
}

func TestOneTypesAndOthersLookOn(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.converse()
	typing := rpc.NewTyping()
	seen, end := c.attached(rpc.Attachment{Typing: typing, Lines: -1})
	writer := c.hears(isWriter).GetWriter().GetWriter()
	// Nothing is sent before the agent has said from where on.
	if err := typing.Write(t.Context(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	c.say(&bulkheadv1.AttendRequest{Typed: &bulkheadv1.Typed{Writer: writer, Again: true}})
	in := c.hears(isInput).GetInput()
	if string(in.GetData()) != "hello" || in.GetOffset() != 0 || in.GetWriter() != writer {
		t.Errorf("the agent got %v", in)
	}
	// It got half of it before the connection broke.
	c.say(&bulkheadv1.AttendRequest{Typed: &bulkheadv1.Typed{Writer: writer, Taken: 2, Again: true}})
	if in := c.hears(isInput).GetInput(); string(in.GetData()) != "llo" || in.GetOffset() != 2 {
		t.Errorf("the agent got %v", in)
	}
	c.writes(0, "one\ntwo\n")
	if got := <-seen; got != "one\ntwo\n" {
		t.Errorf("who types sees %q", got)
	}
	looks, endLook := c.attached(rpc.Attachment{Lines: 1})
	if got := <-looks; got != "two\n" {
		t.Errorf("who looks on sees %q", got)
	}

	other := rpc.NewTyping()
	_, endOther := c.attached(rpc.Attachment{Typing: rpc.NewTyping()})
	if err := endOther(); err == nil {
		t.Error("a second one may type")
	}
	_, endOther = c.attached(rpc.Attachment{Typing: other, TakeOver: true})
	for next := writer; next == writer; {
		next = c.hears(isWriter).GetWriter().GetWriter()
	}
	<-typing.Closed()
	if err := typing.Write(t.Context(), []byte("x")); !errors.Is(err, rpc.ErrNotReading) {
		t.Errorf("who was taken over from: %v", err)
	}
	c.writes(8, "three\n")
	if a, b := <-seen, <-looks; a != "three\n" || b != "three\n" {
		t.Errorf("they see %q and %q", a, b)
	}
	for _, end := range []func() error{end, endLook, endOther} {
		if err := end(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	s.waitFor(c.run.ID, "waits for somebody to attach: `bulkhead attach 1`")
}

// waitFor waits until a run has a reason.
func (s *site) waitFor(id bulkhead.RunID, reason string) {
	s.t.Helper()
	for {
		r, err := s.client(nil, nil).Run(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		if r.Reason == reason {
			return
		}
	}
}

func TestOnlyWhoHoldsTheLeaseAttends(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.converse()
	for name, x := range map[string]struct {
		class  string
		change func(*bulkheadv1.AttendRequest)
		code   connect.Code
	}{
		"an agent of another class": {"batch", func(m *bulkheadv1.AttendRequest) { m.Agent = agentOf("batch") }, connect.CodeNotFound},
		"a token of another class":  {"batch", func(*bulkheadv1.AttendRequest) {}, connect.CodePermissionDenied},
		"another token":             {"a", func(m *bulkheadv1.AttendRequest) { m.Lease.Token++ }, connect.CodeNotFound},
		"another process":           {"a", func(m *bulkheadv1.AttendRequest) { m.Agent.Process++ }, connect.CodeNotFound},
		"another agent":             {"a", func(m *bulkheadv1.AttendRequest) { m.Agent.Name = "other" }, connect.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := s.agents(rpc.Tokens{Secret: userToken}.OfClass(x.class)).Attend(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m := c.hello()
			x.change(m)
			_ = stream.Send(m) // its error comes with the answer
			if _, err := stream.Receive(); connect.CodeOf(err) != x.code {
				t.Errorf("got %v", err)
			}
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
		})
	}
}

// nobodyAttaches lets users do everything but type.
type nobodyAttaches struct{}

func (nobodyAttaches) Authorize(_ context.Context, _ rpc.Caller, verb rpc.Verb, class string) error {
	if verb == rpc.VerbAttach {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "not into " + class}
	}
	return nil
}

func TestWhoMayNotAttachDoesNot(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.Authorizer = nobodyAttaches{} })
	r := s.interactive()
	err := s.client(nil, nil).Attach(t.Context(), rpc.Attachment{Run: r.ID, Typing: rpc.NewTyping()})
	if err == nil || err.Error() != "not into a" {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNotInteractiveIsNotAttachedTo(t *testing.T) {
	s := newSite(t, nil, nil)
	r := s.accepted(bulkhead.Spec{Command: []string{"x", "{}"}, MaxOutput: 1}, "1")
	err := s.client(nil, nil).Attach(t.Context(), rpc.Attachment{Run: r.ID})
	if bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(bulkhead.HintOf(err), "bulkhead logs 1 -f") {
		t.Errorf("got %v, %q", err, bulkhead.HintOf(err))
	}
}

func TestWhoPipesKeepsNoMoreThanTheScriptMayBeBehind(t *testing.T) {
	typing := rpc.NewTyping()
	ctx, cancel := context.WithCancel(t.Context())
	if err := typing.Write(ctx, make([]byte, bulkhead.MaxUntaken)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- typing.Write(ctx, []byte("x")) }()
	cancel()
	if err := <-wrote; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
