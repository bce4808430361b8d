package plan

import "bulkhead.dev/bulkhead"

// Sum hashes items that were accepted earlier, as Input.Hash does while it
// reads them. Create it with NewSum.
type Sum struct{ sum sum }

// NewSum returns the sum of no items of the given columns.
func NewSum(columns []string) *Sum {
	s := &Sum{}
	s.sum.columns(columns)
	return s
}

// Add adds the next item.
func (s *Sum) Add(it bulkhead.Item) { s.sum.row(it.Values) }

// Hash is the SHA-256 so far, hex.
func (s *Sum) Hash() string { return s.sum.hex() }
