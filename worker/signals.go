package worker

import (
	"bytes"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A script starts with no signal blocked and none ignored, however we were
// started (nohup, a shell's background job, a careless parent). Go resets the
// signals that it catches; what it leaves alone are those that were ignored or
// blocked when it started.

// defaultSignals catches what is ignored, into a channel that nobody reads: for
// us that is the same, but exec resets what is caught. It also finds out
// whether signals are blocked.
func (w *Worker) defaultSignals() {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return
	}
	w.unblock = statusMask(status, "SigBlk:") != 0
	ignored := statusMask(status, "SigIgn:")
	for n := 1; n <= 64; n++ {
		if ignored&(1<<(n-1)) == 0 {
			continue
		}
		if w.signals == nil {
			w.signals = make(chan os.Signal, 1)
		}
		if n == 32 || n == 33 {
			// glibc keeps these two for itself, and its posix_spawn (make uses
			// it) starts programs with both ignored. Go cannot catch them.
			var deflt [4]uint64 // struct sigaction: SIG_DFL, no flags, no mask
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&deflt)), 0, 8, 0, 0)
			continue
		}
		signal.Notify(w.signals, syscall.Signal(n))
	}
}

func (w *Worker) resetSignals() {
	if w.signals != nil {
		signal.Stop(w.signals)
	}
}

// statusMask reads one line of /proc/PID/status.
func statusMask(status []byte, field string) uint64 {
	_, after, _ := bytes.Cut(status, []byte("\n"+field))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	mask, _ := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return mask
}

// unblocked calls f on a thread that blocks no signal. Go's fork passes on the
// mask of the thread that calls it.
func unblocked(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, before uint64
	mask := func(set, old *uint64) {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
			uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(*set), 0, 0)
	}
	mask(&none, &before)
	defer mask(&before, nil)
	f()
}
