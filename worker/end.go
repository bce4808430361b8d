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
	for !enough() {
		if a.awaitUntil(until, a.hard) {
			a.waitRest(until, unix.SIGTERM, a.hard)
			return
		}
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
		if err := unix.Kill(-a.pid, sig); err == nil && sig == unix.SIGTERM {
			if a.console != nil && a.console.terminal {
				_ = unix.Kill(-a.pid, unix.SIGHUP) // a shell heeds it, and not SIGTERM
			}
			_ = unix.Kill(-a.pid, unix.SIGCONT)
		}
		h.note(a.pid)
	}
	alive, err := h.tell(sig, func(pid int) bool {
		if !grouped || pid == a.pid {
			return grouped // the leader's status is for reap
		}
		if group, err := unix.Getpgid(pid); err == nil && group == a.pid && sig == unix.SIGTERM {
			h.note(pid)
		}
		return false
	})
	a.cannotLook(err)
	if len(h.denied) > 0 && a.note == "" {
		a.note = fmt.Sprintf("processes of another user were left running: %v", sortedKeys(h.denied))
	}
	return alive
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
