package chunk_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/chunk"
)

func TestWhatIsPackedComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(0, 4).Draw(t, "columns")
		first := rapid.Int64Range(1, 1<<40).Draw(t, "first")
		var items []bulkhead.Item
		for i := range rapid.IntRange(0, 200).Draw(t, "count") {
			values := make([]string, columns)
			for c := range values {
				values[c] = string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value"))
			}
			items = append(items, bulkhead.Item{Index: first + int64(i), Values: values})
		}
		got, err := chunk.Decode(chunk.Encode(items), first, len(items), columns)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(items) {
			t.Fatalf("got %d items, want %d", len(got), len(items))
		}
		if len(items) > 0 {
			if d := cmp.Diff(items, got); d != "" {
				t.Fatal(d)
			}
		}
	})
}

func TestALongLineIsPackedAlone(t *testing.T) {
	items := []bulkhead.Item{{Index: 1, Values: []string{strings.Repeat("x", 16<<20)}}}
	data := chunk.Encode(items)
	if len(data) > 1<<20 {
		t.Errorf("16 MiB of one letter take %d bytes", len(data))
	}
	got, err := chunk.Decode(data, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Values[0] != items[0].Values[0] {
		t.Error("the value changed")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(chunk.Encode([]bulkhead.Item{{Index: 1, Values: []string{"a", "b"}}}), 1, 2)
	f.Add(chunk.Encode([]bulkhead.Item{{Index: 1, Values: []string{strings.Repeat("ab", 400)}}}), 1, 1)
	f.Fuzz(func(t *testing.T, data []byte, count, columns int) {
		if columns < 0 || columns > 16 {
			return
		}
		items, err := chunk.Decode(data, 1, count, columns)
		if err == nil && len(items) != count {
			t.Errorf("got %d items, want %d", len(items), count)
		}
	})
}
