package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// opened counts who reads output.
type opened struct {
	rpc.Outputs
	now, ever atomic.Int64
	closed    chan struct{} // gets something whenever one has let go
}

func (o *opened) Follow(ctx context.Context, run bulkhead.RunID, from []bulkhead.Position, over func() bool, broken func(error),
	fn func(int64, int, bulkhead.Chunk, bulkhead.Position) error,
) error {
	o.ever.Add(1)
	o.now.Add(1)
	defer func() { o.closed <- struct{}{} }()
	defer o.now.Add(-1)
	return o.Outputs.Follow(ctx, run, from, over, broken, fn)
}

// long is the output of an item: more than fits into what is on the way to a reader.
func long(item int64) string {
	line := fmt.Sprintf("a line of item %d that is long enough to be one\n", item)
	return strings.Repeat(line, 5<<19/len(line))
}

func TestNothingIsOpenForReadersWhoTakeNothing(t *testing.T) {
	const readers, n = 3, 3
	o := &opened{closed: make(chan struct{}, 1000)}
	s := newSite(t, func(w *work) bulkhead.Result {
		for text := long(w.Lease.Item.Index); text != ""; {
			part := text[:min(len(text), 256<<10)]
			w.say(bulkhead.Stdout, part)
			text = text[len(part):]
		}
		return bulkhead.Result{}
	}, func(opts *rpc.Options) { opts.Outputs, opts.Pause = o, 20*time.Millisecond })
	o.Outputs = outputsOf{s}
	sp := spec()
	sp.MaxOutput = 16 << 20
	r := &bulkhead.Run{Spec: sp}
	direct := s.client(nil, nil)
	if err := direct.Submit(t.Context(), r, items(n, func(int64) string { return "v" }), hash); err != nil {
		t.Fatal(err)
	}
	s.finish(direct, r.ID)

	goOn := make(chan struct{})
	errs := make(chan error, readers)
	for range readers {
		c := s.client(nil, nil)
		go func() {
			texts := map[int64]*strings.Builder{}
			var once sync.Once
			err := c.FollowOutput(t.Context(), r.ID, true, nil, func(item int64, _ int, c bulkhead.Chunk) error {
				once.Do(func() { <-goOn })
				if texts[item] == nil {
					texts[item] = &strings.Builder{}
				}
				texts[item].Write(c.Data)
				return nil
			})
			for item := range int64(n) {
				if b := texts[item+1]; b == nil || b.String() != long(item+1) {
					err = errors.Join(err, fmt.Errorf("item %d is not what was written: %d bytes of %d", item+1, b.Len(), len(long(item+1))))
				}
			}
			errs <- err
		}()
	}
	for left := 0; left < readers || o.now.Load() > 0; left++ {
		<-o.closed // in the end all of them are: nobody takes anything
	}
	before := o.ever.Load()
	close(goOn)
	for range readers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if ever := o.ever.Load(); ever < before+readers {
		t.Errorf("%d times opened, %d of them before %d readers went on", ever, before, readers)
	}
}
