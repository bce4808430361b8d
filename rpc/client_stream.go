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

// Items calls fn for every item of a run that the query asks for, in index order.
func (c *Client) Items(ctx context.Context, r *bulkhead.Run, q bulkhead.ItemQuery, fn func(bulkhead.ItemStatus) error) error {
	req := &bulkheadv1.ListItemsRequest{Run: int64(r.ID), From: q.From, To: q.To}
	if q.State != nil {
		req.State = ItemStateMessage(*q.State)
	}
	over := false
	open := func(ctx context.Context) (*connect.ServerStreamForClient[bulkheadv1.ListItemsResponse], error) {
		return c.runs.ListItems(ctx, req)
	}
	return receive(ctx, c, reading{over: func() bool { return over }}, open, func(m *bulkheadv1.ListItemsResponse) error {
		for _, it := range m.GetItems() {
			status, err := ItemStatusOf(r.ID, it)
			if err != nil {
				return err
			}
			if err := fn(status); err != nil {
				return err
			}
			req.From = status.Index + 1
			over = q.To > 0 && req.From > q.To
		}
		return nil
	})
}

// Watch calls fn with how a run stands, now and whenever that has changed, and
// returns once fn was told that it is finished. While the server is away it
// waits for it.
func (c *Client) Watch(ctx context.Context, id bulkhead.RunID, fn func(Status) error) error {
	over := false
	open := func(ctx context.Context) (*connect.ServerStreamForClient[bulkheadv1.WatchRunResponse], error) {
		return c.runs.WatchRun(ctx, &bulkheadv1.WatchRunRequest{Run: int64(id)})
	}
	for !over {
		err := receive(ctx, c, reading{follow: true, over: func() bool { return over }}, open, func(m *bulkheadv1.WatchRunResponse) error {
			s, err := StatusOf(m)
			if err != nil {
				return err
			}
			over = s.Run.State.Finished()
			return fn(s)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadOutput calls fn for every chunk of what an attempt wrote, in order of
// arrival; with follow it waits for more until the attempt has ended. Of the
// attempt, Item and N matter. A chunk's data is valid until fn returns.
func (c *Client) ReadOutput(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, follow bool, fn func(bulkhead.Chunk) error) error {
	req := &bulkheadv1.ReadOutputRequest{Run: int64(run), Item: at.Item, Attempt: int32Of(at.N), Follow: follow}
	place := outputPlace{}
	open := func(ctx context.Context) (*connect.ServerStreamForClient[bulkheadv1.ReadOutputResponse], error) {
		req.Skip = place.reopen()
		return c.runs.ReadOutput(ctx, req)
	}
	return receive(ctx, c, reading{follow: follow}, open, func(m *bulkheadv1.ReadOutputResponse) error {
		for _, cm := range m.GetChunks() {
			chunk, err := ChunkOf(cm)
			if err != nil {
				return err
			}
			if !place.take(&chunk) {
				continue
			}
			if err := fn(chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

// outputPlace is where a reader is in an attempt's output. The server leaves out
// what is before a number of bytes of data; what was cut has no bytes, so cuts
// at that very place come again and are left out here.
type outputPlace struct {
	bytes   int64 // of data
	dropped int64 // cut behind the last of them, told to the reader
	again   int64 // of those, how much is still to come again
}

// reopen is how much to skip.
func (p *outputPlace) reopen() int64 {
	p.again = p.dropped
	return p.bytes
}

// take accounts for a chunk and reports whether the reader has not seen it; it
// makes a cut as small as what is new in it.
func (p *outputPlace) take(c *bulkhead.Chunk) bool {
	if n := int64(len(c.Data)); n > 0 {
		p.bytes, p.dropped, p.again = p.bytes+n, 0, 0
		return true
	}
	seen := min(p.again, c.Dropped)
	p.again -= seen
	c.Dropped -= seen
	p.dropped += c.Dropped
	return c.Dropped > 0
}

// TailOutput returns the last lines of what an attempt wrote, both streams in one.
func (c *Client) TailOutput(ctx context.Context, run bulkhead.RunID, at bulkhead.Attempt, lines int) ([]byte, error) {
	if lines <= 0 {
		return nil, nil
	}
	var tail []byte
	open := func(ctx context.Context) (*connect.ServerStreamForClient[bulkheadv1.ReadOutputResponse], error) {
		tail = nil
		return c.runs.ReadOutput(ctx, &bulkheadv1.ReadOutputRequest{Run: int64(run), Item: at.Item, Attempt: int32Of(at.N), Tail: int32Of(lines)})
	}
	err := receive(ctx, c, reading{}, open, func(m *bulkheadv1.ReadOutputResponse) error {
		for _, chunk := range m.GetChunks() {
			tail = append(tail, chunk.GetData()...)
		}
		return nil
	})
	return tail, err
}

// FollowOutput calls fn for every chunk of what all items of a run wrote, in the
// order in which they were written; with follow it waits for more until the run
// is finished. Of a part that cannot be read broken is told, once, and the rest
// goes on. A chunk's data is valid until fn returns.
func (c *Client) FollowOutput(ctx context.Context, run bulkhead.RunID, follow bool, broken func(error),
	fn func(item int64, attempt int, c bulkhead.Chunk) error,
) error {
	positions := map[int64]*bulkheadv1.Position{}
	told := map[string]bool{}
	open := func(ctx context.Context) (*connect.ServerStreamForClient[bulkheadv1.FollowOutputResponse], error) {
		return c.runs.FollowOutput(ctx, &bulkheadv1.FollowOutputRequest{Run: int64(run), Follow: follow,
			Positions: slices.Collect(maps.Values(positions))})
	}
	piece := func(m *bulkheadv1.Piece) error {
		if text := m.GetBroken(); text != "" {
			if !told[text] {
				told[text] = true
				broken(&bulkhead.Error{Code: bulkhead.CodeInternal, Message: text})
			}
			return nil
		}
		chunk, err := ChunkOf(m.GetChunk())
		if err != nil {
			return err
		}
		if p := m.GetPosition(); p != nil {
			positions[p.GetSegment()] = p
		}
		return fn(m.GetItem(), int(m.GetAttempt()), chunk)
	}
	return receive(ctx, c, reading{follow: follow}, open, func(m *bulkheadv1.FollowOutputResponse) error {
		for _, p := range m.GetPieces() {
			if err := piece(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// stopped is the error of who receives, which ends a stream for good.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }

// reading is how a stream is read.
type reading struct {
	// follow: who follows a run waits for the server as long as it is away. That the
	// run is there they have asked before.
	follow bool
	// over reports whether everything has come that is to come; nil: nobody knows.
	over func() bool
}

// receive gives every message of a stream to each, and opens it again when it
// breaks; open asks for what has not come yet. It returns nil when the stream
// ended, or broke when everything had come.
func receive[M any](ctx context.Context, c *Client, how reading, open func(context.Context) (*connect.ServerStreamForClient[M], error),
	each func(*M) error,
) error {
	b := c.backoff()
	for try := 1; ; try++ {
		came, err := receiveOnce(ctx, c, open, each)
		if came {
			try, b = 1, c.backoff()
		}
		if err == nil {
			return nil
		}
		if s, ok := err.(stopped); ok { //nolint:errorlint // it is never wrapped, and what is in it may be anything
			return s.err
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case how.over != nil && how.over():
			return nil
		case !transient(err) || !how.follow && !came && try >= c.opts.Tries:
			return Error(c.opts.URL, err)
		}
		c.away(err)
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
}

// receiveOnce receives one stream to its end or until it breaks, and reports
// whether anything came.
func receiveOnce[M any](ctx context.Context, c *Client, open func(context.Context) (*connect.ServerStreamForClient[M], error),
	each func(*M) error,
) (came bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(c.opts.Quiet, func() { cancel(errQuiet) })
	defer quiet.Stop()
	stream, err := open(ctx)
	if err != nil {
		return false, err
	}
	defer stream.Close() //nolint:errcheck // what matters of it Err has said
	for stream.Receive() {
		quiet.Stop() // however long it takes to print it
		if !came {
			came = true
			c.back()
		}
		if err := each(stream.Msg()); err != nil {
			return true, stopped{err}
		}
		quiet.Reset(c.opts.Quiet)
	}
	return came, stream.Err()
}
