package worker

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// linger is what processes that outlive their script have to end by themselves.
const linger = time.Second

// stop asks a living script to end and waits for its leader, for the grace at
// most. Who has not ended then is killed by endRest.
func (a *attempt) stop(how bulkhead.How) {
	a.stopped, a.how = true, how
	until := time.Now().Add(a.job.Grace)
	enough := func() bool { return a.hard() || !time.Now().Before(until) }
	if enough() {
		return
	}
	a.tell(unix.SIGTERM)
	for wait := lastLook; !enough(); wait = min(2*wait, time.Second) {
		next := time.Now().Add(wait)
		if next.After(until) {
			next = until
		}
		if a.awaitUntil(next, a.hard) {
			a.waitRest(until, unix.SIGTERM, a.hard)
			return
		}
		// Whom the leader starts now is for it to end, or to wait for: what it does to
		// end well. Whom it was starting is not.
		a.hunt.again(unix.SIGTERM, a.pid)
		a.hangUpAgain()
	}
}

// hangUpAgain wakes a shell that has noted the hang-up just before it began to wait
// for a key: bash has this gap. A shell is who ignores SIGTERM in a terminal.
func (a *attempt) hangUpAgain() {
	if a.console != nil && a.console.terminal && ignores(a.pid, unix.SIGTERM) {
		_ = unix.Kill(a.pid, unix.SIGHUP) // ours until it is reaped
	}
}

// endRest ends what the leader has left behind, and the leader if it did not
// react to stop. It returns when nothing carries the mark any more.
func (a *attempt) endRest() {
	if a.reaped() {
		if left, err := a.hunt.any(); !left {
			a.cannotLook(err)
			return
		}
	}
	if !a.stopped {
		if a.waitRest(time.Now().Add(linger), 0, a.mustStop) ||
			a.waitRest(time.Now().Add(a.job.Grace), unix.SIGTERM, a.hard) {
			return
		}
	}
	a.kill()
}

// waitRest waits until nothing is left. Meanwhile it signals whatever turns up.
func (a *attempt) waitRest(until time.Time, sig unix.Signal, enough func() bool) bool {
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		left := time.Until(until)
		if left <= 0 || enough() {
			return false
		}
		if sig != 0 {
			if a.tell(sig) == 0 {
				return true
			}
		} else if found, err := a.hunt.any(); !found {
			a.cannotLook(err)
			return true
		}
		a.pause(min(wait, left))
	}
}

// kill sends SIGKILL until nobody is left to get it. Each round takes
// microseconds per process, a fork hundreds: a script that forks as fast as it
// can loses.
func (a *attempt) kill() {
	a.hunt.adopt()
	a.hunt.change()
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		n := a.tell(unix.SIGKILL)
		if a.reaped() {
			if n == 0 {
				return
			}
			if time.Since(a.hunt.newest) > immortal {
				a.note = fmt.Sprintf("%d of its processes cannot be killed: the kernel is busy for them (state D in ps)", n)
				return
			}
			<-time.After(wait)
			continue
		}
		// A leader that cannot be killed still runs; so does its attempt.
		if time.Since(a.hunt.newest) > immortal {
			wait = time.Second
		}
		a.awaitUntil(time.Now().Add(wait), func() bool { return false })
	}
}

// tell signals all processes of the attempt and returns how many live, without
// the leader. While the leader is ours to reap, the process group has its
// number; all who are in it are told at once.
func (a *attempt) tell(sig unix.Signal) (alive int) {
	h := &a.hunt
	grouped := !a.reaped()
	if _, told := h.told[a.pid]; grouped && !told {
		a.tellGroup(sig)
	}
	alive, err := h.tell(sig, func(pid int) bool {
		if !grouped || pid == a.pid {
			return grouped // the leader's status is for reap
		}
		if _, told := h.told[pid]; !told && sig == unix.SIGTERM && a.inGroup(pid) {
			h.note(pid, imageOf(pid)) // born since tellGroup looked; it may be what the leader does to end well
		}
		return false
	})
	a.cannotLook(err)
	if len(h.denied) > 0 && a.note == "" {
		a.note = fmt.Sprintf("processes of another user were left running: %v", sortedKeys(h.denied))
	}
	return alive
}

// tellGroup signals the leader and the other processes of its group.
func (a *attempt) tellGroup(sig unix.Signal) {
	h := &a.hunt
	group := map[int]image{a.pid: imageOf(a.pid)}
	if sig == unix.SIGTERM {
		_ = h.procs.each(h.from(), func(pid int) bool {
			if a.inGroup(pid) {
				group[pid] = imageOf(pid)
			}
			return true
		})
	}
	if err := unix.Kill(-a.pid, sig); err == nil && sig == unix.SIGTERM {
		if a.console != nil && a.console.terminal {
			_ = unix.Kill(-a.pid, unix.SIGHUP) // a shell heeds it, and not SIGTERM
		}
		_ = unix.Kill(-a.pid, unix.SIGCONT)
	}
	for pid, as := range group {
		h.note(pid, as)
	}
}

func (a *attempt) inGroup(pid int) bool {
	group, err := unix.Getpgid(pid)
	return err == nil && group == a.pid
}

func (a *attempt) cannotLook(err error) {
	if err != nil {
		a.note = err.Error()
	}
}

func sortedKeys(m map[int]struct{}) []int {
	var keys []int
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
