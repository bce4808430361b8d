package plan_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// BenchmarkNext reads a million items, hashed as they go.
func BenchmarkNext(b *testing.B) {
	const items = 1_000_000
	dir := b.TempDir()
	var lines, csv, tsv bytes.Buffer
	csv.WriteString("id,mail\n")
	tsv.WriteString("id\tmail\n")
	for i := range items {
		fmt.Fprintf(&lines, "wiki%07d\n", i)
		fmt.Fprintf(&csv, "%d,user%d@example.org\n", i, i)
		fmt.Fprintf(&tsv, "%d\tuser%d@example.org\n", i, i)
	}
	for name, data := range map[string][]byte{"lines": lines.Bytes(), "u.csv": csv.Bytes(), "u.tsv": tsv.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, bench := range []struct {
		name   string
		inputs []bulkhead.Source
	}{
		{"lines", []bulkhead.Source{{From: "lines"}}},
		{"range", []bulkhead.Source{{From: "1..1000000"}}},
		{"product", []bulkhead.Source{{From: "1..1000"}, {From: "01..10"}, {From: "1..100"}}},
		{"csv", []bulkhead.Source{{From: "u.csv", CSV: true}}},
		{"tsv", []bulkhead.Source{{From: "u.tsv", CSV: true}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in, err := plan.Open(bench.inputs, plan.Options{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				n := int64(0)
				for ; ; n++ {
					if _, err := in.Next(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
				if err := in.Close(); err != nil || n != items {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(items)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mitems/s")
		})
	}
}
