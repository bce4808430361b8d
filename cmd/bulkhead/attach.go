package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// attaching is how to attach to an interactive run at a server.
type attaching struct {
	lines    int  // of what was written before; less than 0: all
	watch    bool // type nothing
	takeOver bool // type also if somebody else does
}

// attachLines is what of the output of before attach shows: a screen, if it is no
// other.
const attachLines = 24

func (a *app) attachCmd() *cobra.Command {
	var how attaching
	cmd := &cobra.Command{
		Use:   "attach RUN",
		Short: "Type into an interactive run, and see what it writes",
		Long: `Type into an interactive run (bulkhead run -i, -it) at a server.

The last lines of what its script wrote come first, then what it writes. Keys, or
what is piped in, go to the script; one types at a time, others may look on
(--watch). In a terminal, Enter ~ . leaves the run to the server and says how to
come back, and ~? what else there is; elsewhere Ctrl-C does.

A single script that is not interactive is followed until it ends or Ctrl-C.`,
		Example: `  bulkhead attach 7
  bulkhead attach 7 --watch`,
		Args:              exactly("RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			if how.watch && how.takeOver {
				return usage("", "--watch and --take-over exclude each other")
			}
			return a.withRun(cmd.Context(), args[0], func(h home, r *bulkhead.Run) error {
				s, ok := h.(*remote)
				if !ok {
					return notHere(r)
				}
				return s.attachTo(cmd.Context(), r, how)
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&how.watch, "watch", false, "only look on")
	fl.BoolVar(&how.takeOver, "take-over", false, "type also if somebody else does, who then looks on")
	fl.IntVar(&how.lines, "lines", attachLines, "begin with the last `N` lines of what it wrote")
	completeNoFiles(cmd, "lines")
	return cmd
}

// notHere refuses to attach to a run of this machine.
func notHere(r *bulkhead.Run) error {
	if r.Spec.Terminal {
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d has the terminal in which it was started", r.ID),
			Hint: "a run of a server can be attached to from anywhere; here, start it in tmux or screen"}
	}
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d is of this machine, and reads what it was given when it was started", r.ID),
		Hint: fmt.Sprintf("bulkhead logs %d -f follows what it writes", r.ID)}
}

// attachTo attaches to a run that is there already.
func (s *remote) attachTo(ctx context.Context, r *bulkhead.Run, how attaching) error {
	const logs = "`%s` shows what it wrote"
	switch {
	case r.State.Finished():
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d has ended (%s)", r.ID, r.State),
			Hint: fmt.Sprintf(logs, s.app.typed("logs %d", r.ID))}
	case !r.Spec.Single():
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d is a batch: there is no one script to attach to", r.ID),
			Hint: "`" + s.app.typed("logs %d -f", r.ID) + "` follows all of it, `" + s.app.typed("logs %d ITEM -f", r.ID) + "` one item"}
	case !r.Spec.Interactive:
		return s.follow(ctx, r, following{began: time.Now(), told: true})
	}
	how.lines = max(how.lines, 1)
	return s.attach(ctx, r, how)
}

// attach connects us with the script of an interactive run until it ends, and
// returns its exit code as an error.
func (s *remote) attach(ctx context.Context, r *bulkhead.Run, how attaching) error {
	ctx, stop := s.app.interruptible(ctx)
	defer stop()
	gone := make(chan os.Signal, 1) // as in follow
	signal.Notify(gone, syscall.SIGPIPE)
	defer signal.Stop(gone)
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	t := &talk{app: s.app, server: s, run: r}
	if err := t.begin(ctx, how, leave); err != nil {
		return err
	}
	defer t.end()
	ended := s.watchScript(ctx, r, leave)
	err := s.patient.Attach(ctx, t.attachment(how))
	if err != nil {
		leave(err)
	}
	end, werr := ended()
	t.end()
	switch {
	case errors.Is(context.Cause(ctx), errLeft), ctx.Err() != nil && errors.Is(err, context.Canceled):
		return s.app.leave(r)
	case err != nil || werr != nil:
		return cmp.Or(err, werr)
	}
	s.app.summary(end, time.Time{})
	s.app.explain(ctx, s, end)
	return s.app.checkPassed(end, t.passed, exitOf(end))
}

// errLeft: the person has typed ~.
var errLeft = errors.New("left")

// talk is a person, or a pipe, before the script of an interactive run.
type talk struct {
	app    *app
	server *remote
	run    *bulkhead.Run
	tty    *tty        // nil: what is typed comes in lines, or from a pipe
	typing *rpc.Typing // nil: we look on
	cut    bool
	passed error // why output went through only up to here
}

// begin begins to type.
func (t *talk) begin(ctx context.Context, how attaching, leave func(error)) (err error) {
	if t.run.Spec.Terminal && isTerminal(t.app.stdin) {
		if t.tty, err = t.app.takeTTY(how.watch); err != nil {
			return err
		}
	}
	if how.watch {
		return nil
	}
	t.typing = rpc.NewTyping()
	go t.app.typeIn(ctx, t, leave)
	return nil
}

func (t *talk) end() {
	if t.tty != nil {
		t.tty.leave()
	}
}

// typeIn passes on what is typed. Nothing but data ends its wait for a key, so
// nobody waits for it.
func (a *app) typeIn(ctx context.Context, t *talk, leave func(error)) {
	if t.tty == nil {
		t.pipe(ctx)
		return
	}
	defer t.tty.guard()
	left, err := t.tty.keys("the run goes on at the server", func(p []byte) error {
		const interrupt = 'C' - '@'
		if p[len(p)-1] == interrupt && t.server.patient.IsAway() {
			leave(errLeft) // nobody else would hear it
		}
		return t.typing.Write(ctx, p)
	})
	if left || err != nil && !errors.Is(err, rpc.ErrNotReading) {
		leave(errLeft)
	}
}

// pipe passes on what is read, to its end.
func (t *talk) pipe(ctx context.Context) {
	buf := make([]byte, 64<<10)
	for {
		n, err := t.app.stdin.Read(buf)
		if n > 0 && t.typing.Write(ctx, buf[:n]) != nil {
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				t.app.tell("bulkhead: read standard input: %v", err)
			}
			t.typing.End()
			return
		}
	}
}

// attachment is what the client is to do.
func (t *talk) attachment(how attaching) rpc.Attachment {
	a := rpc.Attachment{Run: t.run.ID, Typing: t.typing, TakeOver: how.takeOver, Lines: how.lines, Output: t.output, Lost: func() {
		t.app.tell("bulkhead: somebody else types into run %d from here on; you look on", t.run.ID)
	}}
	if t.tty != nil && t.typing != nil {
		a.Window, a.Resized = t.tty.window, t.tty.resized
	}
	return a
}

// output passes through what the script writes. A reader who has gone does not end
// us: the exit code is still to come.
func (t *talk) output(c bulkhead.Chunk) error {
	switch {
	case c.Dropped > 0 && !t.cut:
		t.cut = true
		t.app.tell("… bulkhead: output is missing here: more than --max-output was not kept")
	case c.Stream == bulkhead.Stderr:
		_, _ = t.app.stderr.w.Write(c.Data) // raw is not the script's concern
	case t.passed == nil:
		if t.tty != nil {
			t.tty.seen.note(c.Data)
		}
		_, t.passed = t.app.stdout.Write(c.Data)
	}
	return nil
}
