package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

type attendStream = connect.BidiStream[bulkheadv1.AttendRequest, bulkheadv1.AttendResponse]

// Attend implements AgentServiceHandler. There is at most one for each lease.
func (s *Agents) Attend(ctx context.Context, stream *attendStream) error {
	if s.Relay == nil {
		return refused(connect.CodeUnimplemented, "", "this server has no interactive runs")
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	who, err := s.agent(ctx, first.GetAgent())
	if err != nil {
		return err
	}
	l := first.GetLease()
	held := bulkhead.Held{Run: bulkhead.RunID(l.GetRun()), Item: l.GetItem(), Token: l.GetToken()}
	if !s.Leases.Attends(who, held) {
		return refused(connect.CodeNotFound, "", "the agent does not hold a lease of run %d with that token", held.Run)
	}
	sess := s.Relay.enter(held.Run)
	defer sess.leave()
	a, err := sess.attend(held.Token, first)
	defer sess.unattend(a)
	if err != nil {
		return Fault(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Relay.guarded("Attend", func() error { return sess.listen(a, stream) }) }()
	for _, m := range sess.greeting() {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return sess.pass(ctx, a, stream, ended)
}

// listen takes what an agent says until it has nothing more to say.
func (s *session) listen(a *attending, stream *attendStream) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.heard(a, m)
		}
		if err != nil {
			return err
		}
	}
}

// pass sends an agent what comes for it.
func (s *session) pass(ctx context.Context, a *attending, stream *attendStream, ended <-chan error) error {
	alive := time.NewTicker(s.relay.opts.KeepAlive)
	defer alive.Stop()
	for {
		m := &bulkheadv1.AttendResponse{}
		select {
		case m = <-a.out:
		case <-alive.C:
		case <-a.gone:
			return connect.NewError(connect.CodeAborted, errors.New("the agent has come again"))
		case err := <-ended:
			return err
		case <-s.relay.opts.Stopping:
			return stopping()
		case <-ctx.Done():
			return Fault(context.Cause(ctx))
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// guarded keeps a panic from ending the server: it is the end of one call.
func (r *Relay) guarded(what string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.opts.Log.Error("panic", "call", what, "panic", p)
			err = fmt.Errorf("%s: the server has met a bug of its own", what)
		}
	}()
	return fn()
}
