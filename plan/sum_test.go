package plan_test

import (
	"errors"
	"io"
	"testing"

	"bulkhead.dev/bulkhead/plan"
)

func TestSumOfItemsIsTheHashOfTheirInput(t *testing.T) {
	in, err := plan.Open(each(t, "w=a,\xff", "n=1..3"), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sum := plan.NewSum(in.Columns())
	for n := int64(0); ; n++ {
		if sum.Hash() != in.Hash() || in.Count() != n {
			t.Fatalf("after %d items (%d counted) the sum is %s, the hash %s", n, in.Count(), sum.Hash(), in.Hash())
		}
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(item)
	}
}
