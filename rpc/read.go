package rpc

import (
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// ListItems implements RunServiceHandler. The store reads in pages, so that a
// reader that is slow keeps nobody from it.
func (s *Server) ListItems(ctx context.Context, req *bulkheadv1.ListItemsRequest, stream *connect.ServerStream[bulkheadv1.ListItemsResponse]) error {
	ctx, end, r, err := s.runFor(ctx, req.GetRun(), VerbGet)
	defer end()
	if err != nil {
		return err
	}
	q := bulkhead.ItemQuery{From: req.GetFrom(), To: req.GetTo()}
	if req.GetState() != bulkheadv1.ItemState_ITEM_STATE_UNSPECIFIED {
		state, err := ItemStateOf(req.GetState())
		if err != nil {
			return err
		}
		q.State = &state
	}
	var page []*bulkheadv1.ItemStatus
	size := 0
	send := func() error {
		m := &bulkheadv1.ListItemsResponse{Items: page}
		page, size = nil, 0
		return stream.Send(m)
	}
	err = s.opts.Store.Items(ctx, r, q, func(it bulkhead.ItemStatus) error {
		if err := s.alive(ctx); err != nil {
			return err
		}
		page, size = append(page, ItemStatusMessage(it)), size+it.Size()
		if len(page) < maxItemsPage && size < maxItemsMessage {
			return nil
		}
		return send()
	})
	if err != nil || len(page) == 0 {
		return err
	}
	return send()
}

// alive is an error once nobody reads any more, or the server stops.
func (s *Server) alive(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.opts.Stopping:
		return stopping()
	default:
		return nil
	}
}

// ReadOutput implements RunServiceHandler.
func (s *Server) ReadOutput(ctx context.Context, req *bulkheadv1.ReadOutputRequest, stream *connect.ServerStream[bulkheadv1.ReadOutputResponse]) error {
	run := bulkhead.RunID(req.GetRun())
	switch {
	case req.GetAttempt() < 1:
		return usage(nil, "attempts count from 1", "attempt %d is less than 1", req.GetAttempt())
	case req.GetSkip() < 0:
		return usage(nil, "", "skip %d is less than 0", req.GetSkip())
	case req.GetTail() < 0 || req.GetTail() > maxTailLines:
		return usage(nil, "", "tail %d is not between 0 and %d", req.GetTail(), maxTailLines)
	}
	ctx, end, _, err := s.runFor(ctx, req.GetRun(), VerbGet)
	defer end()
	if err != nil {
		return err
	}
	o := attemptOutput{server: s, run: run, item: req.GetItem(), n: int(req.GetAttempt()), place: outputPlace{bytes: req.GetSkip()}}
	at, err := o.find(ctx)
	if err != nil {
		return err
	}
	if req.GetTail() > 0 {
		tail, err := s.opts.Outputs.Tail(ctx, run, at, int(req.GetTail()))
		if err != nil || len(tail) == 0 {
			return err
		}
		return stream.Send(&bulkheadv1.ReadOutputResponse{Chunks: []*bulkheadv1.Chunk{{Stream: bulkheadv1.Stream_STREAM_STDOUT, Data: tail}}})
	}
	follow := req.GetFollow()
	if follow { // so that the reader knows that it is read to
		if err := stream.Send(&bulkheadv1.ReadOutputResponse{}); err != nil {
			return err
		}
	}
	// It reads one segment, and is not made to stop: it would have to count from the
	// attempt's first byte again.
	p := newPump[*bulkheadv1.Chunk](0)
	o.put = func(ctx context.Context, c bulkhead.Chunk) error {
		return p.put(ctx, c, func(m *bulkheadv1.Chunk) *bulkheadv1.Chunk { return m })
	}
	produce := func(ctx context.Context) error { return o.read(ctx, at, follow) }
	return carry(ctx, s, p, produce, func(chunks []*bulkheadv1.Chunk) error {
		return stream.Send(&bulkheadv1.ReadOutputResponse{Chunks: chunks})
	})
}

// attemptOutput is the output of an attempt on its way to a reader.
type attemptOutput struct {
	server *Server
	run    bulkhead.RunID
	item   int64
	n      int
	place  outputPlace                                 // what the reader has
	put    func(context.Context, bulkhead.Chunk) error // passes on what it does not have
}

// find returns the attempt, as it is now.
func (o *attemptOutput) find(ctx context.Context) (bulkhead.Attempt, error) {
	r, err := o.server.opts.Store.Run(ctx, o.run)
	if err != nil {
		return bulkhead.Attempt{}, err
	}
	if at, err := o.ended(ctx); err != nil || at.N > 0 {
		return at, err
	}
	var now bulkhead.Attempt
	err = o.server.opts.Store.Items(ctx, r, bulkhead.ItemQuery{From: o.item, To: o.item}, func(it bulkhead.ItemStatus) error {
		now = it.Attempt
		return nil
	})
	if err != nil {
		return bulkhead.Attempt{}, err
	}
	if now.N == o.n && now.State == bulkhead.ItemRunning && o.item > 0 {
		return now, nil
	}
	// It may have ended between the two looks.
	if at, err := o.ended(ctx); err != nil || at.N > 0 {
		return at, err
	}
	return bulkhead.Attempt{}, notFound("item %d of run %d has no attempt %d", o.item, o.run, o.n)
}

// ended returns the attempt if it has ended.
func (o *attemptOutput) ended(ctx context.Context) (bulkhead.Attempt, error) {
	all, err := o.server.opts.Store.Attempts(ctx, o.run, o.item)
	if err != nil {
		return bulkhead.Attempt{}, err
	}
	if i := slices.IndexFunc(all, func(at bulkhead.Attempt) bool { return at.N == o.n }); i >= 0 {
		return all[i], nil
	}
	return bulkhead.Attempt{}, nil
}

// read reads what the reader does not have; with follow, until the attempt ends.
func (o *attemptOutput) read(ctx context.Context, at bulkhead.Attempt, follow bool) error {
	if at.State != bulkhead.ItemRunning || !follow {
		return o.pass(ctx, at, nil)
	}
	over := func() bool {
		end, err := o.ended(ctx)
		return err != nil || end.N > 0 || o.server.runOver(ctx, o.run)
	}
	if at.Output.Segment > 0 {
		if err := o.pass(ctx, at, over); err != nil {
			return err
		}
	} else if err := o.server.poll(ctx, over); err != nil {
		return err
	}
	// Where it was said to write first it may not have written all: what it has
	// written is what its result says.
	end, err := o.ended(ctx)
	if err != nil || end.Output.Bytes <= o.place.bytes {
		return err
	}
	return o.pass(ctx, end, nil)
}

// pass passes on what lies behind the bytes that the reader has, and counts it.
func (o *attemptOutput) pass(ctx context.Context, at bulkhead.Attempt, over func() bool) error {
	skip, seen := o.place.reopen(), int64(0)
	return o.server.opts.Outputs.Read(ctx, o.run, at, over, func(c bulkhead.Chunk) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		seen += int64(len(c.Data))
		if seen < skip || seen == skip && len(c.Data) > 0 {
			return nil
		}
		if n := seen - skip; n < int64(len(c.Data)) {
			c.Data = c.Data[int64(len(c.Data))-n:]
		}
		if !o.place.take(&c) {
			return nil
		}
		return o.put(ctx, c)
	})
}

// chunkOverhead is what a chunk takes beside its data, about.
const chunkOverhead = 64

// poll asks over from time to time, until it is so.
func (s *Server) poll(ctx context.Context, over func() bool) error {
	tick := time.NewTicker(s.opts.Poll)
	defer tick.Stop()
	for !over() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// runOver reports whether a run is finished, or is not there any more. What the
// engine has is neither.
func (s *Server) runOver(ctx context.Context, id bulkhead.RunID) bool {
	if status, _, ok := s.opts.Engine.Watch(id, 0); ok && !status.Run.State.Finished() {
		return false
	}
	r, err := s.opts.Store.Run(ctx, id)
	return err != nil || r.State.Finished()
}

// FollowOutput implements RunServiceHandler.
func (s *Server) FollowOutput(ctx context.Context, req *bulkheadv1.FollowOutputRequest, stream *connect.ServerStream[bulkheadv1.FollowOutputResponse]) error {
	run := bulkhead.RunID(req.GetRun())
	ctx, end, _, err := s.runFor(ctx, req.GetRun(), VerbGet)
	defer end()
	if err != nil {
		return err
	}
	if n := len(req.GetPositions()); n > maxPositions {
		return usage(nil, "begin without positions", "%d positions are more than %d", n, maxPositions)
	}
	over := func() bool { return true }
	if req.GetFollow() {
		over = func() bool { return s.runOver(ctx, run) }
	}
	if err := stream.Send(&bulkheadv1.FollowOutputResponse{}); err != nil {
		return err // so that the reader knows that it is read to
	}
	pump := newPump[*bulkheadv1.Piece](s.opts.Pause)
	places := map[int64]bulkhead.Position{} // of the reader, by segment
	for _, p := range req.GetPositions() {
		places[p.GetSegment()] = PositionOf(p)
	}
	produce := func(ctx context.Context) error {
		broken := func(err error) {
			piece := &bulkheadv1.Piece{Broken: text(err.Error())}                                           // a reader hears of it once, however often it comes
			_ = pump.put(ctx, bulkhead.Chunk{}, func(*bulkheadv1.Chunk) *bulkheadv1.Piece { return piece }) // its error comes again
		}
		return s.opts.Outputs.Follow(ctx, run, slices.Collect(maps.Values(places)), over, broken,
			func(item int64, attempt int, c bulkhead.Chunk, behind bulkhead.Position) error {
				places[behind.Segment] = behind
				return pump.put(ctx, c, func(m *bulkheadv1.Chunk) *bulkheadv1.Piece {
					return &bulkheadv1.Piece{Item: item, Attempt: int32Of(attempt), Chunk: m, Position: PositionMessage(behind)}
				})
			})
	}
	return carry(ctx, s, pump, produce, func(pieces []*bulkheadv1.Piece) error {
		return stream.Send(&bulkheadv1.FollowOutputResponse{Pieces: pieces})
	})
}
