package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// giveUpTime is how long it is tried to remove a run that was given up.
const giveUpTime = 3 * time.Second

// Items travel in batches of about this size: few calls for millions of items,
// and not much to send again after a break.
const (
	batchItems = 16 << 10
	batchBytes = 1 << 20
	// itemBytes is what an item takes in a message around its values, at most; and
	// valueBytes, each of those.
	itemBytes, valueBytes = 24, 6
)

// Submit has the server run r.Spec. Items come from next until io.EOF, with
// indices from 1 on; it is nil for a single script. Then hash is asked for the
// SHA-256 of all of them. When it returns nil, r is the run as the server has
// accepted it, durably, and once: calls that got no answer are repeated under
// the same key. Otherwise nothing of the run is left behind, at the latest when
// the server removes runs that nobody went on with.
func (c *Client) Submit(ctx context.Context, r *bulkhead.Run, next func() (bulkhead.Item, error), hash func() string) error {
	if err := carriable(&r.Spec); err != nil {
		return err
	}
	s := submission{client: c, next: next, hash: hash, key: rand.Text()}
	err := s.run(ctx, r)
	if err == nil || s.accepted {
		return err
	}
	return s.giveUp(ctx, err)
}

// giveUp removes what the server has of a run that could not be submitted, and
// says so when that is not sure: the call that ended accepting may have arrived.
func (s *submission) giveUp(ctx context.Context, cause error) error {
	refused := bulkhead.CodeOf(cause) != bulkhead.CodeInternal
	gone := errors.New("there is no number to ask for")
	if s.id != 0 {
		// Not for long: otherwise the server does it later.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
		defer cancel()
		_, gone = s.client.runs.DeleteRun(ctx, &bulkheadv1.DeleteRunRequest{Run: s.id})
	}
	switch {
	case !s.ending || refused || gone == nil:
		return cause
	case connect.CodeOf(gone) == connect.CodeFailedPrecondition:
		return &bulkhead.Error{Code: bulkhead.CodeInternal, Err: cause, Message: fmt.Sprintf("run %d was accepted all the same", s.id),
			Hint: fmt.Sprintf("bulkhead cancel %d ends it", s.id)}
	}
	hint := "bulkhead ls shows it, if so"
	if more := bulkhead.HintOf(cause); more != "" {
		hint += "; " + more
	}
	return &bulkhead.Error{Code: bulkhead.CodeInternal, Err: cause, Message: "it is not known whether the run was accepted", Hint: hint}
}

// carriable refuses numbers that a message would change.
func carriable(s *bulkhead.Spec) error {
	if s.Priority > math.MaxInt32 || s.Priority < math.MinInt32 {
		return &bulkhead.Error{Code: bulkhead.CodeUsage,
			Message: fmt.Sprintf("priority %d is not between %d and %d", s.Priority, math.MinInt32, math.MaxInt32)}
	}
	return nil
}

// submission is one run on its way to the server.
type submission struct {
	client   *Client
	next     func() (bulkhead.Item, error)
	hash     func() string
	key      string
	id       int64
	ending   bool // the call that ends accepting was made
	accepted bool
	total    int64
	ahead    *bulkheadv1.Item // read, and too large for the last batch
}

func (s *submission) run(ctx context.Context, r *bulkhead.Run) error {
	items, last, err := s.batch(ctx)
	if err != nil {
		return err
	}
	req := &bulkheadv1.CreateRunRequest{Key: s.key, Spec: SpecMessage(&r.Spec), Items: items, Accept: last}
	if last {
		req.Hash = s.hash()
	}
	var run *bulkheadv1.Run
	s.ending = last
	err = s.client.call(ctx, func(ctx context.Context) error {
		res, err := s.client.runs.CreateRun(ctx, req)
		run = res.GetRun()
		return err
	})
	s.id, s.accepted = run.GetId(), last && err == nil
	for err == nil && !last {
		if items, last, err = s.batch(ctx); err == nil && len(items) > 0 {
			err = s.append(ctx, items)
		}
	}
	if err == nil && !s.accepted {
		run, err = s.accept(ctx)
	}
	if err != nil {
		return err
	}
	accepted, err := RunOf(run)
	if err == nil {
		*r = *accepted
	}
	return err
}

func (s *submission) append(ctx context.Context, items []*bulkheadv1.Item) error {
	return s.client.call(ctx, func(ctx context.Context) error {
		_, err := s.client.runs.AppendItems(ctx, &bulkheadv1.AppendItemsRequest{Run: s.id, Items: items})
		return err
	})
}

func (s *submission) accept(ctx context.Context) (run *bulkheadv1.Run, err error) {
	s.ending = true
	req := &bulkheadv1.AcceptRunRequest{Run: s.id, Total: s.total, Hash: s.hash()}
	err = s.client.call(ctx, func(ctx context.Context) error {
		res, err := s.client.runs.AcceptRun(ctx, req)
		run = res.GetRun()
		return err
	})
	s.accepted = err == nil
	return run, err
}

// batch reads the next items, and says whether they are the last.
func (s *submission) batch(ctx context.Context) (items []*bulkheadv1.Item, last bool, err error) {
	if s.next == nil {
		return nil, true, nil
	}
	for size := 0; len(items) < batchItems; {
		m := s.ahead
		if s.ahead = nil; m == nil {
			if err := ctx.Err(); err != nil {
				return nil, false, context.Cause(ctx)
			}
			it, err := s.next()
			if errors.Is(err, io.EOF) {
				return items, true, nil
			}
			if err != nil {
				return nil, false, err
			}
			m = ItemMessage(it)
		}
		n := sizeOf(m)
		if n > MaxItemsBytes {
			return nil, false, &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: "give such data as a file (--file)",
				Message: fmt.Sprintf("item %d has more than %d bytes, the most that a server takes", m.GetIndex(), MaxItemsBytes)}
		}
		if size += n; len(items) > 0 && size > batchBytes {
			s.ahead = m
			return items, false, nil
		}
		items, s.total = append(items, m), m.GetIndex()
	}
	return items, false, nil
}

// sizeOf is what an item takes in a message, at most.
func sizeOf(m *bulkheadv1.Item) int {
	n := itemBytes
	for _, v := range m.GetValues() {
		n += len(v) + valueBytes
	}
	return n
}
