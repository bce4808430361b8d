package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// WatchRun implements RunServiceHandler. Each message is the whole, made when it
// is sent: a reader that is slow misses what was in between, and nothing is kept
// for it.
func (s *Server) WatchRun(ctx context.Context, req *bulkheadv1.WatchRunRequest, stream *connect.ServerStream[bulkheadv1.WatchRunResponse]) error {
	ctx, end, _, err := s.runFor(ctx, req.GetRun(), VerbGet)
	defer end()
	if err != nil {
		return err
	}
	alive := time.NewTicker(s.opts.KeepAlive)
	defer alive.Stop()
	w := watcher{server: s, quick: watchQuick, run: bulkhead.RunID(req.GetRun())}
	due := true
	for {
		m, changed, err := w.look(ctx)
		if err != nil {
			return err
		}
		if due || !proto.Equal(m, w.sent) {
			if err := stream.Send(m); err != nil {
				return err
			}
			w.sent = m
		}
		if bulkhead.RunState(m.GetRun().GetState()).Finished() {
			return nil
		}
		if due, err = w.wait(ctx, changed, alive.C); err != nil {
			return err
		}
	}
}

// watcher is one who watches a run.
type watcher struct {
	server *Server
	run    bulkhead.RunID
	sent   *bulkheadv1.WatchRunResponse
	quick  int // how many more messages may come without a pause
}

// look says how the run stands now.
func (w *watcher) look(ctx context.Context) (*bulkheadv1.WatchRunResponse, <-chan struct{}, error) {
	status, changed, ok := w.server.opts.Engine.Watch(w.run, watchRunning)
	if !ok {
		r, err := w.server.opts.Store.Run(ctx, w.run)
		if err != nil {
			return nil, nil, err
		}
		// What failed last the engine knew, and has told.
		return &bulkheadv1.WatchRunResponse{Run: RunMessage(r), Failures: w.sent.GetFailures()}, nil, nil
	}
	if status.Run.State.Finished() { // which is so once it is stored
		r, err := w.server.opts.Store.Run(ctx, w.run)
		if err != nil {
			return nil, nil, err
		}
		if !r.State.Finished() {
			return w.asBefore(r), w.server.soon(), nil
		}
		status.Run = *r
	}
	for i := range status.Running {
		status.Running[i].Item = clipped(status.Running[i].Item)
	}
	for i := range status.Failures {
		status.Failures[i].Item = clipped(status.Failures[i].Item)
	}
	m := StatusMessage(status)
	w.server.lonely(&status.Run, m.GetRun())
	return m, changed, nil
}

// asBefore is what was sent last, or how the run is stored.
func (w *watcher) asBefore(r *bulkhead.Run) *bulkheadv1.WatchRunResponse {
	if w.sent != nil {
		return proto.CloneOf(w.sent)
	}
	return &bulkheadv1.WatchRunResponse{Run: w.server.message(r)}
}

// clipped is an item whose values are cut to what a display can show.
func clipped(it bulkhead.Item) bulkhead.Item {
	if it.Size() <= watchItemSize {
		return it
	}
	room, values := watchItemSize, make([]string, len(it.Values))
	for i, v := range it.Values {
		values[i] = v[:min(len(v), room)]
		room -= len(values[i])
	}
	return bulkhead.Item{Index: it.Index, Values: values}
}

// wait returns when it is time to look again, and whether something is to be sent
// in any case.
func (w *watcher) wait(ctx context.Context, changed <-chan struct{}, alive <-chan time.Time) (due bool, err error) {
	// Not before others have had their turn, whatever happens meanwhile; but a run
	// that is short is not to seem long.
	if w.quick > 0 {
		w.quick--
	} else if err := w.pause(ctx); err != nil {
		return false, err
	}
	poll := time.NewTimer(4 * w.server.opts.Poll)
	defer poll.Stop()
	var look <-chan time.Time
	if changed == nil { // the engine does not have it: nobody tells
		look = poll.C
	}
	select {
	case <-alive:
		return true, nil
	case <-changed:
	case <-look:
	case <-w.server.opts.Stopping:
		return false, stopping()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	return false, nil
}

func (w *watcher) pause(ctx context.Context) error {
	over := time.NewTimer(watchEvery)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-w.server.opts.Stopping:
		return stopping()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// soonest is how soon it is looked again for what is about to be stored.
const soonest = 10 * time.Millisecond

// soon is closed then.
func (s *Server) soon() <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(min(s.opts.Poll, soonest), func() { close(c) })
	return c
}
