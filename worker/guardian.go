package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GuardianArg is the first argument of a guardian. A main that uses this
// package begins with
//
//	if len(os.Args) > 1 && os.Args[1] == worker.GuardianArg {
//		os.Exit(worker.GuardianMain(os.Args[2:]))
//	}
const GuardianArg = "bulkhead-guardian"

// guardianEnv keeps a program that forgot those lines from starting itself, as
// the guardian's guardian's guardian, without end.
const guardianEnv = "BULKHEAD_GUARDIAN"

// guardian is the helper process as its owner sees it. What it waits for is the
// end of a pipe that only we can write to: that comes with our death, however
// sudden, and before anything of ours can be seen as released.
type guardian struct {
	pid  int
	pipe int // our end; limits of attempts are written
}

// startGuardian returns once the guardian is forked. That it comes up takes
// milliseconds, for which nobody waits: the pipe tells it then, too, that we
// are gone.
func (w *Worker) startGuardian() error {
	w.forking.Lock() // it must not carry a mark
	defer w.forking.Unlock()
	return w.forkGuardian()
}

func (w *Worker) forkGuardian() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("start the guardian: %w", err)
	}
	defer unix.Close(p[0])
	// Not our standard streams: whoever reads them must see them end with us.
	files := []uintptr{uintptr(p[0]), uintptr(w.null), uintptr(w.null)}
	for _, f := range w.opts.HoldFiles {
		files = append(files, f.Fd())
	}
	owner := w.owner
	if !w.marked {
		owner = 0
	}
	args := []string{os.Args[0], GuardianArg, strconv.FormatUint(owner, 16), w.opts.Grace.String()}
	pid, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Dir: "/",
		// One thread at work and no collector: it is to be small and to start
		// fast. Nothing of our environment needs to live longer than we do.
		Env:   []string{guardianEnv + "=1", "GOMAXPROCS=1", "GOGC=off"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		unix.Close(p[1])
		return fmt.Errorf("start the guardian: %w", err)
	}
	_ = unix.SetNonblock(p[1], true) // see limit
	w.guard = &guardian{pid: pid, pipe: p[1]}
	return nil
}

// end is the clean one: nothing runs any more, so nothing is lost by SIGKILL,
// which works also before the guardian has come up.
func (g *guardian) end() {
	_ = unix.Kill(g.pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(g.pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	unix.Close(g.pipe)
}

// checkGuardian starts another one if somebody has killed ours, and tries again
// next time if that fails.
func (w *Worker) checkGuardian() {
	w.forking.Lock()
	defer w.forking.Unlock()
	if w.guard != nil {
		if !bury(w.guard.pid) {
			return
		}
		unix.Close(w.guard.pipe)
		w.guard = nil
	}
	if !w.opts.NoGuardian {
		_ = w.forkGuardian()
	}
}

// GuardianMain is the main function of a guardian: it waits until its owner is
// dead, then ends everything that carries a mark of it. Meanwhile it ends attempts
// that are beyond their limit, see [Job.Watch]. args are the program's
// arguments after GuardianArg. It returns the exit code.
func GuardianMain(args []string) int {
	// It goes with its owner. Whoever ends both (systemd, a shell's kill) must
	// not end it first; only SIGKILL can.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGTSTP,
		unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	if len(args) != 2 {
		return exitNotRunnable
	}
	owner, err := strconv.ParseUint(args[0], 16, 64)
	if err != nil {
		return exitNotRunnable
	}
	grace, err := time.ParseDuration(args[1])
	if err != nil {
		return exitNotRunnable
	}
	(&limits{owner: owner, at: map[uint64]int64{}}).watch(0)
	debug.SetGCPercent(100) // what the kernel does not let go of can take days
	// As long as anything is left, the held files stay locked: nobody may take
	// over what still runs.
	for {
		if _, err := KillMarked(context.Background(), owner, grace); err == nil {
			return 0
		}
		grace = 0
		<-time.After(time.Second)
	}
}

// KillMarked ends everything that carries a mark of a dead owner, as told by
// the Mark of its Worker: SIGTERM, after the grace SIGKILL. It returns how many
// processes it has signalled. An error means that some are left. Owner 0 has no
// marks.
func KillMarked(ctx context.Context, owner uint64, grace time.Duration) (killed int, err error) {
	if owner == 0 {
		return 0, nil
	}
	if ownerOf(attemptMark(owner, 0)) != owner {
		return 0, fmt.Errorf("%#x is not the mark of a worker", owner)
	}
	p, err := openProcs()
	if err != nil {
		return 0, err
	}
	defer p.close()
	h := &hunt{procs: p, owner: owner}
	err = h.end(ctx, grace)
	return h.count, err
}

var errImmortal = errors.New("processes remain that cannot be killed")

// end signals until nothing is left: SIGTERM, and after the grace SIGKILL.
func (h *hunt) end(ctx context.Context, grace time.Duration) error {
	sig, until := unix.SIGTERM, time.Now().Add(grace)
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		if sig == unix.SIGTERM && !time.Now().Before(until) {
			sig = unix.SIGKILL
			h.adopt()
			h.change()
		}
		alive, err := h.tell(sig, nil)
		switch {
		case err != nil || alive == 0:
			return err
		case sig == unix.SIGKILL && time.Since(h.newest) > immortal:
			return fmt.Errorf("%w: %d", errImmortal, alive)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes remain: %w", alive, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}
