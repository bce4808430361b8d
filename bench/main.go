// Command bench measures what a user would feel, beside what the user would use
// instead, in one run on one machine, and reports ratios: single times on a
// shared machine say little.
//
//	go run ./bench                 everything (about 17 minutes on two cores)
//	go run ./bench -only true      one part: true, engine, latency, large, server, output, terminal
//	go run ./bench -scale 0.1      a tenth of the items
//
// What needs a cluster is measured by package bench/kubernetes.
//
// `make bench` builds the binary and installs the peers first.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead/bench/table"
)

// bench is one run of the benchmarks.
type bench struct {
	binary string
	pprof  string // where the server serves profiles; "": nowhere
	dir    string // scratch, removed at the end
	scale  float64
	table.Table
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		child(os.Args[2:])
		return
	}
	b := &bench{}
	only := flag.String("only", "", "one part: true, engine, latency, large, server, output, terminal")
	flag.StringVar(&b.binary, "bulkhead", "bin/bulkhead", "the binary to measure")
	flag.Float64Var(&b.scale, "scale", 1, "share of the items")
	flag.StringVar(&b.pprof, "pprof", "", "address where the measured server serves profiles, to see where the time goes")
	tmp := flag.String("tmp", "", "folder for scratch files, on the disk to measure")
	flag.Parse()
	if err := b.run(*only, *tmp); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(only, tmp string) (err error) {
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(tmp, "bulkhead-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, part := range []struct {
		name string
		fn   func() error
	}{{"latency", b.latency}, {"true", b.shortItems}, {"engine", b.engine}, {"large", b.large}, {"server", b.server},
		{"output", b.output}, {"terminal", b.terminal}} {
		if only != "" && only != part.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s …\n", part.name)
		if err := part.fn(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.Print(os.Stdout, "; scratch on "+b.dir)
	return nil
}

func (b *bench) items(n float64) int { return max(int(n*b.scale), 20) }

// state is a fresh state folder.
func (b *bench) state(name string) string { return filepath.Join(b.dir, name) }

// command runs a command with a state folder and returns how long it took.
func (b *bench) timed(state, stdin string, name string, args ...string) (time.Duration, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_STATE="+state)
	cmd.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	cmd.Stderr = &said
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	return time.Since(start), nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
