package worker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// Options of a Worker. The zero value works.
type Options struct {
	// HoldFiles are kept open by the guardian: what they lock with flock(2)
	// stays locked until nothing that was started here is left. (Locks of
	// fcntl(2) belong to one process and are not held.)
	HoldFiles []*os.File
	// Grace is the guardian's, between SIGTERM and SIGKILL, after our death.
	// Default: bulkhead.DefaultGrace.
	Grace time.Duration
	// NoGuardian: what runs when this process dies by SIGKILL goes on.
	NoGuardian bool
	// Random is where the mark comes from. Default: crypto/rand.
	Random io.Reader
}

// Worker runs attempts, any number at once. There is at most one open Worker in
// a process, because what it rests on belongs to the process: the limit that is
// the mark, the orphans, the children.
type Worker struct {
	opts     Options
	owner    uint64 // our part of every mark
	marker   marker
	marked   bool
	procs    *procs
	null     int // /dev/null, for reading and writing
	unblock  bool
	signals  chan os.Signal
	paths    sync.Map // lookup → string
	killed   chan struct{}
	killOnce sync.Once

	// forking is held while our limit is a mark, and by whoever must not see a
	// child before it is registered.
	forking  sync.Mutex
	attempts uint64    // so far; under forking
	guard    *guardian // under forking

	mu      sync.Mutex
	running map[*attempt]struct{}
	closed  bool

	quit    chan struct{}
	sweeper sync.WaitGroup
}

// open is whether this process has a Worker.
var open atomic.Bool

// New prepares this process for running scripts. It makes it a child subreaper,
// closes its file descriptors on exec (but 0, 1 and 2), catches what signals it
// was started with as ignored, so that scripts get their defaults (ask
// signal.Ignored before), and starts the guardian without waiting for it.
//
// The program must call [GuardianMain] when its first argument is GuardianArg,
// before anything else.
func New(opts Options) (_ *Worker, err error) {
	if os.Getenv(guardianEnv) != "" {
		return nil, errors.New("this process was started as a guardian, but its main does not call worker.GuardianMain")
	}
	if !open.CompareAndSwap(false, true) {
		return nil, errors.New("this process has a worker already")
	}
	w := &Worker{
		opts: opts, null: -1, killed: make(chan struct{}), quit: make(chan struct{}),
		running: map[*attempt]struct{}{},
	}
	defer func() {
		if err != nil {
			w.release()
		}
	}()
	if err := w.prepare(); err != nil {
		return nil, err
	}
	if !opts.NoGuardian {
		if err := w.startGuardian(); err != nil {
			return nil, err
		}
	}
	w.sweeper.Go(w.sweep)
	return w, nil
}

func (w *Worker) prepare() (err error) {
	if w.opts.Grace == 0 {
		w.opts.Grace = bulkhead.DefaultGrace
	}
	if w.opts.Random == nil {
		w.opts.Random = rand.Reader
	}
	if err := closeOnExec(); err != nil {
		return fmt.Errorf("close files on exec: %w", err)
	}
	if w.procs, err = openProcs(); err != nil {
		return err
	}
	if w.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("this kernel does not have what running scripts needs (Linux 5.11 or later): pidfd_open: %w", err)
	}
	unix.Close(self)
	if w.owner, err = newOwner(w.opts.Random); err != nil {
		return err
	}
	w.marker, w.marked = newMarker(w.owner)
	w.defaultSignals()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the child subreaper: %w", err)
	}
	return nil
}

// closeOnExec keeps from the scripts whatever we were started with beyond the
// standard streams. Go itself opens everything with O_CLOEXEC.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range fds {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// Mark is our part of every mark: what [KillMarked] needs once we are dead.
func (w *Worker) Mark() uint64 { return w.owner }

// Marked is false where marks are not possible because the hard limit on
// real-time CPU time is set (ulimit -R). Then only what stays in the session of
// its script is found and ended, and nothing is after our death.
func (w *Worker) Marked() bool { return w.marked }

// Kill is the hardest stop: all attempts end at once, as if their contexts had
// ended with ErrKill, also those that are in their grace, and those to come.
// Output that a sink does not take is dropped.
func (w *Worker) Kill() {
	w.killOnce.Do(func() { close(w.killed) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.running {
		a.poke()
	}
}

// Signal passes a signal on to the process groups of all scripts that run, as a
// terminal would, and returns to how many. What they make of it is theirs.
func (w *Worker) Signal(sig unix.Signal) (told int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.running {
		if a.signal(sig) {
			told++
		}
	}
	return told
}

// Close ends the guardian and gives back what New took. It fails while attempts
// run: their guardian is needed then.
func (w *Worker) Close() error {
	w.mu.Lock()
	if n := len(w.running); n > 0 {
		w.mu.Unlock()
		return fmt.Errorf("%d attempts are still running", n)
	}
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		return nil
	}
	close(w.quit)
	w.sweeper.Wait()
	w.release()
	return nil
}

func (w *Worker) release() {
	if w.guard != nil {
		w.guard.end()
	}
	if w.procs != nil {
		w.procs.close()
	}
	if w.null >= 0 {
		unix.Close(w.null)
	}
	w.resetSignals()
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	open.Store(false)
}

// begin registers an attempt; false after Close.
func (w *Worker) begin(a *attempt) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.running[a] = struct{}{}
	}
	return !w.closed
}

func (w *Worker) finish(a *attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, a)
}
