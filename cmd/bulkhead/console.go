package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// console completes a spec of an interactive run.
func (f *runFlags) console(spec *bulkhead.Spec) error {
	spec.Terminal = spec.Terminal || f.tty
	spec.Interactive = spec.Interactive || f.interactive || spec.Terminal
	if !spec.Interactive {
		return nil
	}
	if f.stdinFile != "" || spec.Stdin != nil {
		return usage("give one of them", "-i and --stdin or --stdin-file exclude each other")
	}
	if !spec.Terminal {
		return nil
	}
	switch {
	case f.detach && !f.place.remote():
		return usage("at a server it can be attached to later", "-d and -t exclude each other on this machine")
	case !f.detach && !f.dryRun && !f.plan && !isTerminal(f.stdinFrom):
		return noTerminal()
	}
	spec.Window = windowOf(f.stdinFrom)
	// What the terminal understands is a matter of ours, not of where the script runs.
	set := slices.ContainsFunc(spec.Env, func(v string) bool { return strings.HasPrefix(v, "TERM=") })
	if term := os.Getenv("TERM"); term != "" && !set && f.place.remote() && !strings.ContainsAny(term, "{}") {
		spec.Env = append(spec.Env, "TERM="+term)
	}
	return nil
}

// takeTTY makes our terminal that of the script, if it is to have one; giveBack may
// be called more than once.
func (l *local) takeTTY(r *bulkhead.Run) (giveBack func(), err error) {
	if !r.Spec.Terminal {
		return func() {}, nil
	}
	if l.tty, err = l.app.takeTTY(false); err != nil {
		return nil, err
	}
	return l.tty.leave, nil
}

// converse connects our terminal with the script's while that runs.
func (l *local) converse(run bulkhead.RunID, c *worker.Console) {
	go l.typeIn(run, c)
	go func() {
		defer l.tty.guard()
		for {
			select {
			case <-l.tty.resized:
				_ = c.Resize(l.tty.window()) // or the script has ended
			case <-l.tty.done:
				return
			}
		}
	}()
}

// typeIn passes on what is typed. Nothing but data ends its wait for a key, so
// nobody waits for it.
func (l *local) typeIn(run bulkhead.RunID, c *worker.Console) {
	defer l.tty.guard()
	left, err := l.tty.keys("the run is cancelled; one that is to go on without you needs a server", func(p []byte) error {
		_, err := c.Write(p)
		return err
	})
	if left || err != nil && !errors.Is(err, worker.ErrNotReading) {
		l.cancel(&bulkhead.Run{ID: run})
	}
}
