package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// Submit submits a run of so many items, numbered from 1; 0 is a single script.
func (b *Bed) Submit(items int64, spec bulkhead.Spec) bulkhead.RunID {
	b.Helper()
	return b.SubmitOf(items, spec, func(i int64) string { return fmt.Sprint(i) })
}

// SubmitOf is Submit with the items' values.
func (b *Bed) SubmitOf(items int64, spec bulkhead.Spec, value func(int64) string) bulkhead.RunID {
	b.Helper()
	spec.Class = b.Class()
	spec.Limit = max(spec.Limit, 1)
	r := &bulkhead.Run{Spec: spec}
	var next func() (bulkhead.Item, error)
	if items > 0 {
		r.Spec.Columns = []string{"1"}
		at := int64(0)
		next = func() (bulkhead.Item, error) {
			if at++; at > items {
				return bulkhead.Item{}, io.EOF
			}
			return bulkhead.Item{Index: at, Values: []string{value(at)}}, nil
		}
	}
	hash := func() string { return strings.Repeat("0", 64) }
	if err := b.Client.Submit(b.Context(), r, next, hash); err != nil {
		b.Fatal("submit:", err)
	}
	return r.ID
}

// Until waits until the run stands as ok wants it.
func (b *Bed) Until(id bulkhead.RunID, what string, ok func(*bulkhead.Run) bool) *bulkhead.Run {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), b.Patience)
	defer cancel()
	var last bulkhead.Run
	enough := errors.New("enough")
	err := b.Client.Watch(ctx, id, func(s rpc.Status) error {
		if last = s.Run; ok(&last) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) && !ok(&last) {
		b.Fatalf("run %d is not %s: %s %+v, %s: %v", id, what, last.Shown(), last.Counts, last.Reason, err)
	}
	return &last
}

// Over waits until the run is finished.
func (b *Bed) Over(id bulkhead.RunID) *bulkhead.Run {
	b.Helper()
	return b.Until(id, "finished", func(r *bulkhead.Run) bool { return r.State.Finished() })
}

// Outputs is what each item of a run wrote.
func (b *Bed) Outputs(id bulkhead.RunID) map[int64]string {
	b.Helper()
	out := map[int64]string{}
	r, err := b.Client.Run(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	var all []bulkhead.Attempt
	err = b.Client.Items(b.Context(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		at := it.Attempt
		at.Item = it.Index
		all = append(all, at)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, at := range all {
		if at.N == 0 {
			continue
		}
		err := b.Client.ReadOutput(b.Context(), id, at, false, func(c bulkhead.Chunk) error {
			out[at.Item] += string(c.Data)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return out
}
