package kubernetes_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"bulkhead.dev/bulkhead/bench/table"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

var (
	scale = flag.Float64("scale", 1, "share of the items, and of the time to wait")

	result table.Table
)

func TestMain(m *testing.M) {
	flag.Parse()
	log.SetLogger(logr.Discard()) // or it complains
	os.Exit(func() int {
		code := testbed.Main(m)
		fmt.Println()
		result.Print(os.Stdout, "")
		return code
	}())
}

// scaled is a number of items, or of anything that can be fewer.
func scaled(n float64, least int) int { return max(int(n**scale), least) }
