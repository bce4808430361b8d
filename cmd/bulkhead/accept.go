package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// Accepting is cut into transactions of about this size: few enough syncs for
// millions of items, little enough memory.
const (
	acceptItems = 32 << 10
	acceptBytes = 2 << 20
)

// accept stores a new run with all its items, and closes the input. Until it
// returns nothing was promised: an error or Ctrl-C leaves nothing behind.
func (l *local) accept(spec *bulkhead.Spec, in *plan.Input) (*bulkhead.Run, error) {
	r := &bulkhead.Run{Spec: *spec, Created: time.Now().Truncate(time.Microsecond)}
	if spec.Single() {
		defer in.Close()
		return r, l.store.Submit(l.ctx, r, nil, 1, in.Hash())
	}
	ctx, stop := l.app.interruptible(l.ctx)
	defer stop()
	err := l.acceptBatches(ctx, r, in, 0)
	if err == nil {
		return r, nil
	}
	if r.ID != 0 {
		if derr := l.store.Delete(context.WithoutCancel(l.ctx), r.ID); derr != nil {
			err = errors.Join(err, fmt.Errorf("remove run %d: %w", r.ID, derr))
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintln(l.app.stderr, "bulkhead: interrupted while reading the input; nothing was accepted")
		return nil, exitError(exitInterrupted)
	}
	return nil, err
}

// batch is what one transaction of accepting stores.
type batch struct {
	items []bulkhead.Item
	total int64 // items so far, this batch included
	last  bool
	err   error
}

// acceptBatches stores the items behind the first skip ones, which are stored.
// Reading goes on while the last batch is written; it has a goroutine of its
// own also because nothing but data ends a read from a terminal, and Ctrl-C
// must. It closes the input: nobody else may while it reads.
func (l *local) acceptBatches(ctx context.Context, r *bulkhead.Run, in *plan.Input, skip int64) error {
	batches := make(chan batch)
	go readBatches(ctx, in, skip, batches)
	report := every(statusEvery)
	for {
		var b batch
		select {
		case b = <-batches:
		case <-ctx.Done():
			return ctx.Err()
		}
		if b.err != nil {
			return b.err
		}
		if err := l.acceptBatch(r, in, b); err != nil {
			return fmt.Errorf("store items: %w", err)
		}
		if b.last {
			return nil
		}
		if report() {
			fmt.Fprintf(l.app.stderr, "run %d: reading the input: %d items so far\n", r.ID, b.total)
		}
	}
}

// acceptBatch stores one batch; the first one brings the run into being.
func (l *local) acceptBatch(r *bulkhead.Run, in *plan.Input, b batch) error {
	switch {
	case b.last && r.ID == 0:
		return l.store.Submit(l.ctx, r, b.items, b.total, in.Hash())
	case b.last:
		return l.store.Accept(l.ctx, r, b.items, b.total, in.Hash())
	case r.ID == 0:
		if err := l.store.Create(l.ctx, r); err != nil {
			return err
		}
	}
	return l.store.Append(l.ctx, r.ID, b.items)
}

func readBatches(ctx context.Context, in *plan.Input, skip int64, out chan<- batch) {
	defer in.Close()
	for {
		b := readBatch(in, skip)
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
		if b.last || b.err != nil {
			return
		}
	}
}

func readBatch(in *plan.Input, skip int64) (b batch) {
	b.total = skip
	for bytes := 0; len(b.items) < acceptItems && bytes < acceptBytes; {
		it, err := in.Next()
		if errors.Is(err, io.EOF) {
			b.last = true
			b.total = max(b.total, in.Count())
			return b
		}
		if err != nil {
			b.err = err
			return b
		}
		if b.total = it.Index; it.Index > skip {
			b.items, bytes = append(b.items, it), bytes+it.Size()
		}
	}
	return b
}

// every returns a function that reports true at most once per period, and not
// at first.
func every(period time.Duration) func() bool {
	last := time.Now()
	return func() bool {
		if time.Since(last) < period {
			return false
		}
		last = time.Now()
		return true
	}
}
