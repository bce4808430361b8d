package worker

import (
	"context"
	"encoding/binary"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// An attempt may have a limit that holds also when this process cannot act: it is
// stopped, or swapped out, or starved. The guardian knows the limits and ends what
// goes on beyond its own. It is told through its pipe, in records of two numbers:
// the mark of an attempt, and when it must be over, in nanoseconds of
// CLOCK_BOOTTIME, which all processes share and which counts on while a machine
// sleeps; 0: it is over.
const limitRecord = 16

func bootTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // it cannot fail on a kernel that we run on
	return t.Nano()
}

// limited gives the job's Watch the function that sets the limit; what limited
// returns takes the limit away.
func (a *attempt) limited() (over func()) {
	if a.job.Watch == nil || a.mark == 0 {
		return func() {}
	}
	a.job.Watch(func(until time.Time) {
		a.w.limit(a, bootTime()+int64(time.Until(until)))
	})
	return func() { a.w.limit(a, 0) }
}

// limit tells the guardian. A guardian that does not read in time misses it: we
// must not wait for it, and will tell it again.
func (w *Worker) limit(a *attempt, at int64) {
	w.forking.Lock()
	defer w.forking.Unlock()
	if a.unlimited || w.guard == nil {
		return
	}
	a.unlimited = at == 0
	record := binary.NativeEndian.AppendUint64(make([]byte, 0, limitRecord), a.mark)
	record = binary.NativeEndian.AppendUint64(record, uint64(at))
	_, _ = unix.Write(w.guard.pipe, record)
}

// limits are what a guardian knows.
type limits struct {
	owner uint64
	procs *procs // nil: not opened yet
	at    map[uint64]int64
	part  []byte // of a record
}

// watch returns when the pipe has ended.
func (l *limits) watch(pipe int) {
	var buf [64 * limitRecord]byte
	ready := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, l.wait())
		if err != nil && err != unix.EINTR {
			return
		}
		if err == nil && n > 0 {
			n, err := unix.Read(pipe, buf[:])
			if n == 0 || err != nil && err != unix.EINTR {
				return
			}
			l.note(buf[:max(n, 0)])
		}
		l.end()
	}
}

// wait is how long until the next limit, in milliseconds; -1: there is none. It is
// a second at most, because poll does not count while the machine sleeps.
func (l *limits) wait() int {
	if len(l.at) == 0 {
		return -1
	}
	least, now := time.Second, bootTime()
	for _, at := range l.at {
		least = min(least, max(time.Duration(at-now), 0))
	}
	return int((least + time.Millisecond - 1) / time.Millisecond)
}

func (l *limits) note(p []byte) {
	l.part = append(l.part, p...)
	for ; len(l.part) >= limitRecord; l.part = l.part[limitRecord:] {
		mark, at := binary.NativeEndian.Uint64(l.part), int64(binary.NativeEndian.Uint64(l.part[8:]))
		if delete(l.at, mark); at != 0 {
			l.at[mark] = at
		}
	}
	l.part = append([]byte(nil), l.part...)
}

// end kills what has gone on beyond its limit: who should have ended it in time,
// with its grace, did not.
func (l *limits) end() {
	now := bootTime()
	for mark, at := range l.at {
		if at > now || ownerOf(mark) != l.owner {
			continue
		}
		if l.procs == nil {
			debug.SetGCPercent(100)
			procs, err := openProcs()
			if err != nil {
				continue
			}
			l.procs = procs
		}
		h := &hunt{procs: l.procs, owner: l.owner, mark: mark}
		if h.end(context.Background(), 0) == nil {
			delete(l.at, mark)
		} else {
			l.at[mark] = now + int64(time.Second)
		}
	}
}
