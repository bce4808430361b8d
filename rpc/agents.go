package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Leases is the engine as agents need it.
type Leases interface {
	Next(context.Context, bulkhead.Ask) (*bulkhead.Assignment, error)
	Renew(bulkhead.Agent, []bulkhead.Held) (bulkhead.Renewal, error)
	Keep(bulkhead.Lease, *bulkhead.Spec) time.Duration
	Hold(reason string)
	// Attends reports whether an agent holds a lease.
	Attends(bulkhead.Agent, bulkhead.Held) bool
}

// Pieces takes what attempts write, see output.Shelf.
type Pieces interface {
	Write(token uint64, offset int64, chunks []bulkhead.Chunk) (have int64, known bool, err error)
	End(token uint64, dropped int64) (ref bulkhead.OutputRef, known bool, err error)
}

// Agents is the handler of AgentService. The fields up to ClassOf are required.
type Agents struct {
	Leases Leases
	Output Pieces
	// Open opens a file of the server.
	Open func(sha256 string) (io.ReadCloser, error)
	// Echo says whether agents of a class repeat output on their own.
	Echo func(class string) bool
	// Relay is that of the Server, which attached callers come to. Nil: there is none.
	Relay *Relay

	Wait      time.Duration    // an Exchange waits for a lease so long; default 25 s
	RenewWait time.Duration    // a Renew waits for news so long; default 10 s
	Now       func() time.Time // default time.Now
}

const (
	defaultWait      = 25 * time.Second
	defaultRenewWait = 10 * time.Second
	maxSlots         = 1000
	maxAgentName     = 300
	maxErrorText     = 4 << 10
	filePiece        = 256 << 10
)

// agentName is what agents may be called: they are shown, and name nothing here.
// Their length is checked apart: counting in the expression would make it so large
// that every start of the program paid for it.
var agentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)

// agent checks who asks.
func (s *Agents) agent(ctx context.Context, m *bulkheadv1.Agent) (bulkhead.Agent, error) {
	if m == nil {
		return bulkhead.Agent{}, refused(connect.CodeInvalidArgument, "", "the call does not say which agent makes it")
	}
	if v := m.GetApi(); v < oldestAPI || v > APIVersion {
		return bulkhead.Agent{}, refused(connect.CodeFailedPrecondition, "run an agent of the server's version, or of the one before",
			"the agent (%s) speaks version %d of the API, the server versions %d to %d", m.GetVersion(), v, oldestAPI, APIVersion)
	}
	if err := whose(CallerOf(ctx), m); err != nil {
		return bulkhead.Agent{}, err
	}
	if len(m.GetName()) > maxAgentName || !agentName.MatchString(m.GetName()) || m.GetProcess() == 0 || m.GetSlots() < 1 || m.GetSlots() > maxSlots {
		return bulkhead.Agent{}, refused(connect.CodeInvalidArgument, "", "agent %s, process %d, %d slots: not a name, a number and 1 to %d slots",
			bulkhead.Quote(m.GetName()), m.GetProcess(), m.GetSlots(), maxSlots)
	}
	return bulkhead.Agent{
		Name: m.GetName(), Process: m.GetProcess(), Kind: bulkhead.Kind{Class: m.GetClass(), Shape: m.GetShape()},
		Slots: int(m.GetSlots()), Version: m.GetVersion(),
	}, nil
}

// whose checks that a caller is the agent that it says it is.
func whose(who Caller, m *bulkheadv1.Agent) error {
	if who.Class == "" || who.Class != m.GetClass() {
		return refused(connect.CodePermissionDenied, "use the token of that class",
			"the token does not belong to an agent of class %s", bulkhead.Quote(m.GetClass()))
	}
	if who.Worker != "" && (m.GetName() != who.Worker || m.GetShape() != who.Shape) {
		return refused(connect.CodePermissionDenied, "a worker pod has a token of its own",
			"the token belongs to worker %s of shape %s, not to %s of shape %s",
			bulkhead.Quote(who.Worker), bulkhead.Quote(who.Shape), bulkhead.Quote(m.GetName()), bulkhead.Quote(m.GetShape()))
	}
	return nil
}

func refused(code connect.Code, hint, format string, args ...any) error {
	e := &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	return fault(code, e)
}

// Exchange implements AgentServiceHandler.
func (s *Agents) Exchange(ctx context.Context, req *bulkheadv1.ExchangeRequest) (*bulkheadv1.ExchangeResponse, error) {
	who, err := s.agent(ctx, req.GetAgent())
	if err != nil {
		return nil, err
	}
	if req.GetSlot() < 0 || int(req.GetSlot()) >= who.Slots {
		return nil, refused(connect.CodeInvalidArgument, "", "slot %d is not one of %d", req.GetSlot(), who.Slots)
	}
	ask := bulkhead.Ask{Agent: who, Slot: int(req.GetSlot()), Leaving: req.GetLeaving(), Until: s.now().Add(or(s.Wait, defaultWait))}
	if d := req.GetDone(); d != nil {
		if ask.Done, err = s.done(d); err != nil {
			return nil, err
		}
	}
	work, err := s.Leases.Next(ctx, ask)
	switch {
	case errors.Is(err, bulkhead.ErrLeave):
		return &bulkheadv1.ExchangeResponse{Leave: true}, nil
	case err != nil:
		return nil, leaseFault(err)
	case work == nil:
		return &bulkheadv1.ExchangeResponse{}, nil
	}
	lease, err := s.lease(work)
	if err != nil {
		return nil, Fault(err)
	}
	return &bulkheadv1.ExchangeResponse{Lease: lease}, nil
}

// leaseFault says what an agent should make of an error of the engine.
func leaseFault(err error) error {
	switch {
	case errors.Is(err, bulkhead.ErrReplaced):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, bulkhead.ErrFormer):
		return refused(connect.CodeAlreadyExists, "give every agent a name of its own", "%v", err)
	case errors.Is(err, bulkhead.ErrCrowded):
		return refused(connect.CodeResourceExhausted, "give agents that come again the name that they had", "%v", err)
	case errors.Is(err, bulkhead.ErrClosed):
		return connect.NewError(connect.CodeUnavailable, errors.New("the server is being stopped"))
	}
	return Fault(err)
}

// done stores the rest of the output of an attempt and returns its result.
func (s *Agents) done(m *bulkheadv1.Done) (*bulkhead.Done, error) {
	res, err := ResultOf(m.GetResult())
	if err != nil {
		return nil, Fault(err)
	}
	if !ended(res.State) {
		return nil, refused(connect.CodeInvalidArgument, "", "%s is not how an attempt ends", res.State)
	}
	res.Error = clip(res.Error)
	if _, err := s.write(m.GetToken(), m.GetOffset(), m.GetRest()); err != nil {
		return nil, err
	}
	m.Rest = nil // the call goes on until there is a lease, and is not to hold it so long
	ref, _, err := s.Output.End(m.GetToken(), m.GetResult().GetOutputDropped())
	if err != nil {
		return nil, s.notKept(err)
	}
	res.Output = ref
	lease := bulkhead.Lease{Run: bulkhead.RunID(m.GetRun()), Item: bulkhead.Item{Index: m.GetItem()}, Token: m.GetToken()}
	return &bulkhead.Done{Lease: lease, Result: res}, nil
}

func ended(s bulkhead.ItemState) bool {
	return slices.Contains([]bulkhead.ItemState{bulkhead.ItemSucceeded, bulkhead.ItemFailed, bulkhead.ItemLost, bulkhead.ItemCancelled}, s)
}

func clip(s string) string { return text(s[:min(len(s), maxErrorText)]) }

// write keeps a piece of output.
func (s *Agents) write(token uint64, offset int64, rest []*bulkheadv1.Chunk) (*bulkheadv1.Received, error) {
	chunks := make([]bulkhead.Chunk, 0, len(rest))
	for _, m := range rest {
		c, err := ChunkOf(m)
		if err != nil {
			return nil, Fault(err)
		}
		if c.Stream != 0 {
			chunks = append(chunks, c)
		}
	}
	if offset < 0 {
		return nil, refused(connect.CodeInvalidArgument, "", "offset %d is less than 0", offset)
	}
	have, known, err := s.Output.Write(token, offset, chunks)
	if err != nil {
		return nil, s.notKept(err)
	}
	return &bulkheadv1.Received{Have: have, Unknown: !known}, nil
}

// notKept tells an agent to come again with what the disk does not take, and lets
// nothing start that would write more.
func (s *Agents) notKept(err error) error {
	s.Leases.Hold(fmt.Sprintf("output: %v", err))
	return connect.NewError(connect.CodeUnavailable, fmt.Errorf("output cannot be kept: %w", err))
}

// lease is what an agent is to know of an assignment.
func (s *Agents) lease(w *bulkhead.Assignment) (*bulkheadv1.Lease, error) {
	spec, l := w.Spec, w.Lease
	m := &bulkheadv1.Lease{
		Run: int64(l.Run), Item: l.Item.Index, Attempt: int32Of(l.Attempt), Token: l.Token,
		Dir: spec.Dir, StdinFile: spec.StdinFile, Files: each(spec.Files, FileMessage),
		Grace: durationpb.New(spec.Grace), MaxOutput: spec.MaxOutput,
		Keep: durationpb.New(s.Leases.Keep(l, spec)), Echo: s.Echo != nil && s.Echo(spec.Class),
		Interactive: spec.Interactive, Terminal: spec.Terminal, Window: WindowMessage(spec.Window),
	}
	if spec.Timeout > 0 {
		m.Timeout = durationpb.New(spec.Timeout)
	}
	var err error
	if m.Command, err = expand(spec.Command, spec.Columns, l.Item); err != nil {
		return nil, err
	}
	if m.Env, err = expand(spec.Env, spec.Columns, l.Item); err != nil {
		return nil, err
	}
	if spec.Stdin != nil {
		stdin, err := expand([]string{*spec.Stdin}, spec.Columns, l.Item)
		if err != nil {
			return nil, err
		}
		m.Stdin = stdin[0]
	}
	return m, nil
}

// expand puts an item into templates.
func expand(texts, columns []string, it bulkhead.Item) ([][]byte, error) {
	out := make([][]byte, len(texts))
	for i, text := range texts {
		t, err := bulkhead.ParseTemplate(text, columns)
		if err != nil {
			return nil, err
		}
		out[i] = []byte(t.Expand(it))
	}
	return out, nil
}

// Renew implements AgentServiceHandler.
func (s *Agents) Renew(ctx context.Context, req *bulkheadv1.RenewRequest) (*bulkheadv1.RenewResponse, error) {
	who, err := s.agent(ctx, req.GetAgent())
	if err != nil {
		return nil, err
	}
	held := make([]bulkhead.Held, 0, len(req.GetHeld()))
	for _, h := range req.GetHeld() {
		held = append(held, bulkhead.Held{Run: bulkhead.RunID(h.GetRun()), Item: h.GetItem(), Token: h.GetToken()})
	}
	if len(held) > maxSlots {
		return nil, refused(connect.CodeInvalidArgument, "", "%d leases are more than an agent has slots", len(held))
	}
	told := map[uint64]bool{}
	for _, token := range req.GetTold() {
		told[token] = true
	}
	over := time.NewTimer(or(s.RenewWait, defaultRenewWait))
	defer over.Stop()
	for waited := false; ; {
		r, err := s.Leases.Renew(who, held)
		if err != nil {
			return nil, leaseFault(err)
		}
		news := r.Leave && !req.GetLeaving() || slices.ContainsFunc(r.Stop, func(token uint64) bool { return !told[token] })
		if news || waited {
			return &bulkheadv1.RenewResponse{Stop: r.Stop, Leave: r.Leave}, nil
		}
		select {
		case <-r.News:
		case <-over.C:
			waited = true
		case <-ctx.Done():
			return nil, Fault(ctx.Err())
		}
	}
}

// PushOutput implements AgentServiceHandler.
func (s *Agents) PushOutput(ctx context.Context, req *bulkheadv1.PushOutputRequest) (*bulkheadv1.PushOutputResponse, error) {
	if _, err := s.agent(ctx, req.GetAgent()); err != nil {
		return nil, err
	}
	out := &bulkheadv1.PushOutputResponse{}
	for _, o := range req.GetOutputs() {
		got, err := s.write(o.GetToken(), o.GetOffset(), o.GetChunks())
		if err != nil {
			return nil, err
		}
		out.Received = append(out.Received, got)
	}
	return out, nil
}

// ReadFile implements AgentServiceHandler. Who knows the hash of a file has been
// told of it in a lease.
func (s *Agents) ReadFile(ctx context.Context, req *bulkheadv1.ReadFileRequest, stream *connect.ServerStream[bulkheadv1.ReadFileResponse]) error {
	if _, err := s.agent(ctx, req.GetAgent()); err != nil {
		return err
	}
	f, err := s.Open(req.GetSha256())
	if err != nil {
		return Fault(err)
	}
	defer func() { _ = f.Close() }() // only read from
	if _, err := io.CopyN(io.Discard, f, max(req.GetOffset(), 0)); err != nil {
		return Fault(fmt.Errorf("read file from byte %d on: %w", req.GetOffset(), err))
	}
	buf := make([]byte, filePiece)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if err := stream.Send(&bulkheadv1.ReadFileResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return Fault(fmt.Errorf("read file: %w", err))
		}
	}
}

func (s *Agents) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
