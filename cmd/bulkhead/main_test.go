package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"bulkhead.dev/bulkhead/worker"
)

// TestMain makes the test binary the program that the scripts call: bulkhead
// itself, and the guardian that bulkhead starts from its own executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.GuardianArg {
		os.Exit(worker.GuardianMain(os.Args[2:]))
	}
	testscript.Main(leakChecked{m}, map[string]func(){"bulkhead": bulkheadMain, mwscriptName: bulkheadMain, pluginName: bulkheadMain})
}

// leakChecked are the tests; they fail when they leave goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	// Tests in the background of a shell ignore Ctrl-C, and so would every bulkhead
	// they start, though they are to heed it unless a script says so. What is
	// caught here has its default in a child.
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP, syscall.SIGTERM} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	dir, err := os.MkdirTemp("", "bulkhead-build-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitInternal
	}
	defer os.RemoveAll(dir)
	buildDir = dir
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return exitLeak
	}
	return code
}

// buildDir is where tests build what they share.
var buildDir string

// exitLeak is the exit code of a program that left goroutines behind.
const exitLeak = 99

// bulkheadMain is main, and it checks that nothing goes on behind it.
func bulkheadMain() {
	code := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	// Ctrl-C does not wait for a read of the input, which nothing but data ends.
	reading := goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/cmd/bulkhead.readBatches")
	// No more does it wait for a key.
	typing := goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/cmd/bulkhead.(*app).typeIn")
	typingHere := goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/cmd/bulkhead.(*local).typeIn")
	// A call that has just ended may keep its connection to the server from being
	// idle for a moment more.
	connected := goleak.IgnoreAnyFunction("net/http.(*http2clientConnReadLoop).run")
	if err := goleak.Find(reading, typing, typingHere, connected); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = exitLeak
	}
	os.Exit(code)
}
