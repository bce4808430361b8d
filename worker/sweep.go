package worker

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sweepEvery is how often the sweeper looks, and about how long a zombie, or a
// pipe whose script is gone, can be left over.
const sweepEvery = time.Second

// sweep does once a second what would cost every attempt something: it reaps
// orphans, looks after the guardian, and ends the wait for pipes that were
// given away.
func (w *Worker) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-tick.C:
			// The first process of a container gets the orphans of everything in
			// it, also of what others start there (kubectl exec).
			if w.expire(time.Now()) > 0 || os.Getpid() == 1 {
				w.reapOrphans()
				w.checkGuardian()
			}
		}
	}
}

// expire stops the readers of attempts of which nothing has been left for a
// second, and returns how many attempts there are.
func (w *Worker) expire(now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.running {
		if gone := a.gone.Load(); gone != 0 && now.UnixNano()-gone > int64(sweepEvery) {
			a.out.expire()
			a.err.expire()
		}
	}
	return len(w.running)
}

// reapOrphans reaps zombies that have come to us as the subreaper. It looks at
// one at a time without taking it: a leader is for its own attempt, and a child
// that another part of this program has started is for that part. Such a one
// hides the others until it is reaped; they can wait.
func (w *Worker) reapOrphans() {
	w.forking.Lock() // a leader is a stranger until fork has registered it
	defer w.forking.Unlock()
	for {
		pid := zombie()
		if pid == 0 || !w.orphan(pid) || !bury(pid) {
			return
		}
	}
}

// orphan tells what scripts have left from what this program has started: they
// carry a mark of ours, or are at least in a session of their own.
func (w *Worker) orphan(pid int) bool {
	if w.guard != nil && w.guard.pid == pid {
		return false
	}
	w.mu.Lock()
	for a := range w.running {
		if int(a.leader.Load()) == pid {
			w.mu.Unlock()
			return false
		}
	}
	w.mu.Unlock()
	if limit, _ := limitOf(pid); w.marked && ownerOf(limit) == w.owner {
		return true
	}
	own, err := unix.Getsid(0)
	if err != nil {
		return false
	}
	sid, err := unix.Getsid(pid)
	return err == nil && sid != own
}

// childInfo is the part of siginfo_t that waitid fills in. On 64-bit machines
// the union after the first three fields begins at a multiple of 8.
type childInfo struct {
	signo, errno, code int32
	_                  [0]uintptr
	pid                int32
	_                  [112]byte
}

// zombie is a child that has ended, or 0. It stays a zombie.
func zombie() int {
	var info childInfo
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	if err != nil {
		return 0
	}
	return int(info.pid)
}
