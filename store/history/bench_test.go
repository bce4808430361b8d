package history_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/history"
)

// BenchmarkAppend is a look at 5,000 families that all have changed, over and over:
// the file's size after the looks, in bytes per family and day, and the time a look
// takes.
//
//	go test -run '^$' -bench Append -benchtime 4320x ./store/history
func BenchmarkAppend(b *testing.B) {
	for _, changing := range []int{5000, 300} {
		b.Run(fmt.Sprintf("%d of 5000 change", changing), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), history.Name)
			s, err := history.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			c := bulkhead.Census{Kinds: []bulkhead.KindStatus{{Kind: "configmaps", Exact: true}}}
			for i := range 5000 {
				k := key(fmt.Sprintf("family-%d-*", i))
				k.Namespace = fmt.Sprintf("namespace-%d", i%100)
				c.Tallies = append(c.Tallies, bulkhead.Tally{Key: k, Objects: int64(rand.IntN(2000))})
			}
			c.At = start
			for b.Loop() {
				c.At = c.At.Add(time.Minute)
				for i := range changing {
					c.Tallies[i].Objects += int64(rand.IntN(3)) - 1 + int64(i%2)
					c.Tallies[i].Objects = max(1, c.Tallies[i].Objects)
				}
				if err := s.Append(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
			_ = s.Close() // which puts the WAL into the file
			info, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			days := c.At.Sub(start).Hours() / 24
			b.ReportMetric(float64(info.Size())/float64(changing)/days, "B/series/day")
			b.ReportMetric(float64(info.Size())/1e6, "MB")
		})
	}
}
