package worker

import (
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// hunt finds the processes of one attempt, or of all attempts of one owner, and
// ends them.
type hunt struct {
	procs *procs
	mark  uint64 // of the attempt; 0: every mark of the owner counts
	owner uint64
	// They were born after a pid and a time. The zero time: not known.
	since int
	born  time.Time

	// session is that of the attempt, 0 if not known. It counts too, for those
	// without the mark: processes of other users and those that set the limit
	// themselves. The number may get a new meaning once the session is empty
	// and the pids have wrapped, so it counts for a while after it was seen.
	session     int
	sessionSeen time.Time

	// nested are owners that belong here: a script may be a Bulkhead itself.
	nested []uint64

	told   map[int]image    // got the current signal, as which program
	denied map[int]struct{} // belong to another user; we may not end them
	newest time.Time        // when one was told
	count  int              // how many were
}

// belongs asks the kernel whether a process is one of those we look for.
func (h *hunt) belongs(pid int) bool {
	limit, exists := limitOf(pid)
	if !exists {
		return false
	}
	if owner := ownerOf(limit); owner != 0 {
		if owner == h.owner {
			return h.mark == 0 || h.mark == limit
		}
		if slices.Contains(h.nested, owner) {
			return true
		}
	}
	return h.inSession(pid)
}

func (h *hunt) inSession(pid int) bool {
	if h.session == 0 {
		return false
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != h.session {
		return false
	}
	now := time.Now()
	if now.Sub(h.sessionSeen) > h.procs.wrapTime() {
		return false
	}
	h.sessionSeen = now
	return true
}

// bury reaps a zombie that has become our child; false if pid is not one.
func bury(pid int) bool {
	got, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	return err == nil && got == pid
}

// from is where to begin to look, see procs.each.
func (h *hunt) from() int {
	if h.born.IsZero() || time.Since(h.born) > h.procs.wrapTime() {
		return -1
	}
	return h.since
}

// any reports whether one of them is left. This is the question after every
// attempt; the answer is no and should cost microseconds.
func (h *hunt) any() (found bool, err error) {
	err = h.procs.each(h.from(), func(pid int) bool {
		found = h.belongs(pid) && !bury(pid)
		return !found
	})
	return found, err
}

// tell sends a signal to each of them that did not get it before, and returns
// how many live. It passes over those for whom spare is true.
func (h *hunt) tell(sig unix.Signal, spare func(pid int) bool) (alive int, err error) {
	self := os.Getpid()
	err = h.procs.each(h.from(), func(pid int) bool {
		if pid == self || !h.belongs(pid) || spare != nil && spare(pid) || bury(pid) {
			return true
		}
		if _, no := h.denied[pid]; !no && h.tellOne(pid, sig) {
			alive++
		}
		return true
	})
	return alive, err
}

// change forgets who was told, before another signal.
func (h *hunt) change() {
	clear(h.told)
	h.newest = time.Now()
}

// tellOne reports whether the process is alive. The pidfd keeps the signal from
// a process that gets the pid between our question and the signal.
func (h *hunt) tellOne(pid int, sig unix.Signal) (alive bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false // gone, or a thread, whose process has a pid of its own
	}
	defer unix.Close(fd)
	dead := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(dead, 0); err == nil && n > 0 || !h.belongs(pid) {
		return false // a zombie that its parent has to reap, or another one
	}
	now := imageOf(pid)
	if then, ok := h.told[pid]; ok && then == now {
		return true
	}
	switch unix.PidfdSendSignal(fd, sig, nil, 0) {
	case nil:
		h.note(pid, now)
		if sig == unix.SIGTERM { // a stopped process notices it when it goes on
			_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
		}
		return true
	case unix.EPERM:
		if h.denied == nil {
			h.denied = map[int]struct{}{}
		}
		h.denied[pid] = struct{}{}
	}
	return false
}

// again tells those who were told while they were another program, see image. The
// leader has to be spared: it is reaped elsewhere.
func (h *hunt) again(sig unix.Signal, leader int) {
	for pid, as := range h.told {
		if pid != leader && imageOf(pid) != as {
			h.tellOne(pid, sig)
		}
	}
}

func (h *hunt) note(pid int, as image) {
	if h.told == nil {
		h.told = map[int]image{}
	}
	h.told[pid] = as
	h.newest = time.Now()
	h.count++
}

// adopt looks for processes that carry marks of another owner and descend from
// one of ours: what a Bulkhead that runs in a script has started. It must be
// done while that one lives; its orphans come to us and have lost their past.
func (h *hunt) adopt() {
	var strangers []int
	_, _ = h.procs.scan(func(pid int) bool {
		limit, _ := limitOf(pid)
		if owner := ownerOf(limit); owner != 0 && owner != h.owner {
			strangers = append(strangers, pid)
		}
		return true
	})
	for _, pid := range strangers {
		limit, _ := limitOf(pid)
		owner := ownerOf(limit)
		if owner == 0 || h.belongs(pid) {
			continue
		}
		for up := parentOf(pid); up > 1; up = parentOf(up) {
			if h.belongs(up) {
				h.nested = append(h.nested, owner)
				break
			}
		}
	}
}

// How often it is looked whether something has ended, where the kernel does not
// tell: at first after firstLook, then after twice as long, up to lastLook. The
// last must be well below the shortest wrapTime.
const (
	firstLook = 200 * time.Microsecond
	lastLook  = 50 * time.Millisecond
)

// immortal is how long after SIGKILL a process is taken for one that cannot be
// killed: the kernel is in the middle of something for it (state D in ps).
const immortal = 5 * time.Second
