package kubernetes_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"bulkhead.dev/bulkhead/bench/table"
)

var (
	scale = flag.Float64("scale", 1, "share of the items, and of the time to wait")

	binary string // bulkhead as it is built for users
	result table.Table
)

func TestMain(m *testing.M) {
	flag.Parse()
	log.SetLogger(logr.Discard()) // or it complains
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bulkhead-bench-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "bulkhead")
		build := exec.Command("go", "build", "-o", binary, "../../cmd/bulkhead")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build bulkhead: %v\n%s", err, out)
			return 1
		}
		code := m.Run()
		fmt.Println()
		result.Print(os.Stdout, "")
		return code
	}())
}

// scaled is a number of items, or of anything that can be fewer.
func scaled(n float64, least int) int { return max(int(n**scale), least) }
