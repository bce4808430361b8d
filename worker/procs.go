package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// procs finds processes of our pid namespace, quickly if it can.
//
// The kernel hands out pids in ascending order and starts again from the
// bottom at pidMax (alloc_pid uses idr_alloc_cyclic). The last one given out is
// the fifth field of /proc/loadavg. So whatever was born since some moment has
// a pid between the last one then and the last one now, and to ask each of
// those few is much cheaper than to read /proc.
type procs struct {
	loadavg int // file descriptor of /proc/loadavg; -1 if it is not the kernel's
	pidMax  int
}

const (
	procMagic = 0x9fa0 // of statfs, see PROC_SUPER_MAGIC in linux/magic.h
	// nearby is how many pids are asked one by one (1 µs each) rather than by
	// reading /proc (100 µs and more).
	nearby = 256
	// forkRate is more than any machine can do. An attempt that was shorter
	// than pidMax/forkRate has not seen the pids wrap.
	forkRate = 300_000
	// justWrapped: pids below it may be the children of pids near pidMax.
	justWrapped = 2000
)

func openProcs() (*procs, error) {
	p := &procs{loadavg: -1, pidMax: 32768}
	if text, err := os.ReadFile("/proc/sys/kernel/pid_max"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil && n > 300 {
			p.pidMax = n
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self", &fs); err != nil || fs.Type != procMagic {
		return nil, fmt.Errorf("no proc file system at /proc (%w): it is needed to find what scripts leave behind", err)
	}
	fd, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, nil //nolint:nilerr // slower, not wrong
	}
	// lxcfs puts its own file there, which is seconds old.
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != procMagic {
		unix.Close(fd)
		return p, nil //nolint:nilerr // likewise
	}
	p.loadavg = fd
	return p, nil
}

func (p *procs) close() {
	if p.loadavg >= 0 {
		unix.Close(p.loadavg)
	}
}

// last is the pid that was given out last; ok is false where that is not known.
func (p *procs) last() (pid int, ok bool) {
	if p.loadavg < 0 {
		return 0, false
	}
	var buf [128]byte
	n, err := unix.Pread(p.loadavg, buf[:], 0)
	if err != nil {
		return 0, false
	}
	for _, c := range buf[bytes.LastIndexByte(buf[:n], ' ')+1 : n] {
		if c >= '0' && c <= '9' {
			pid = pid*10 + int(c-'0')
		}
	}
	return pid, pid > 0
}

// wrapTime is how long the pids cannot have wrapped.
func (p *procs) wrapTime() time.Duration {
	return time.Duration(p.pidMax) * time.Second / forkRate
}

// born is how many pids were given out between two.
func (p *procs) born(from, last int) int {
	if n := last - from; n >= 0 {
		return n
	}
	return last - from + p.pidMax
}

// each calls visit for every process, until visit returns false. It returns
// when no process can have hidden by forking while each was looking: one that
// was alive all along has been asked, and one that was born meanwhile has a pid
// above what was the last, and is asked next, until none was born between two
// looks. Parents are asked before their children.
//
// With since ≥ 0 it visits at least what was born after that pid; the caller
// knows that the pids have not lapped it. With since < 0 it visits everything.
func (p *procs) each(since int, visit func(pid int) bool) error {
	last, ok := p.last()
	if !ok || since < 0 || p.born(since, last) > nearby {
		// Where the kernel does not tell what was born, and where the pids have
		// just wrapped, so that a child can be asked before its parent, two
		// looks must do.
		looks := 1
		if !ok || last < justWrapped {
			looks = 2
		}
		for range looks {
			if more, err := p.scan(visit); err != nil || !more {
				return err
			}
		}
		since = last
	}
	for ok {
		if last, ok = p.last(); last == since {
			break
		}
		for since != last {
			if since++; since > max(p.pidMax, last) {
				since = 1
			}
			if !visit(since) {
				return nil
			}
		}
	}
	return nil
}

// scan visits every process in /proc, in ascending order.
func (p *procs) scan(visit func(pid int) bool) (more bool, err error) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look for processes: %w", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return false, fmt.Errorf("look for processes: %w", err)
		}
		if n == 0 {
			return true, nil
		}
		for entries := buf[:n]; len(entries) > 0; {
			var pid int
			if pid, entries = nextEntry(entries); pid > 0 && !visit(pid) {
				return false, nil
			}
		}
	}
}

// nextEntry takes one struct linux_dirent64 off entries. It returns 0 for a
// name that is not a pid.
func nextEntry(entries []byte) (pid int, rest []byte) {
	const reclen, name = 16, 19 // offsets, see getdents64(2)
	size := int(binary.NativeEndian.Uint16(entries[reclen:]))
	for _, c := range entries[name:size] {
		if c == 0 {
			break
		}
		if c < '0' || c > '9' {
			return 0, entries[size:]
		}
		pid = pid*10 + int(c-'0')
	}
	return pid, entries[size:]
}

// parentOf is 0 if there is none.
func parentOf(pid int) int {
	_, fields := statOf(pid)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}

// image tells the program that a process executes from the one that it executed
// before. A signal that comes between fork and exec is the parent's program's,
// which runs in the child too: where that one ignores it or handles it by a note to
// itself, as an interactive shell does, it is lost with the exec.
type image struct {
	name  string
	stack string // where it starts; the kernel draws lots for it at each exec
}

func imageOf(pid int) image {
	const startstack = 28 - 3
	name, fields := statOf(pid)
	if len(fields) <= startstack {
		return image{}
	}
	return image{name: string(name), stack: string(fields[startstack])}
}

// statOf reads /proc/PID/stat from its third field. The second, the name, may hold
// anything, but ends at the last parenthesis.
func statOf(pid int) (name []byte, fields [][]byte) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, nil
	}
	end := bytes.LastIndexByte(text, ')') + 1
	return text[:end], bytes.Fields(text[end:])
}

// ignores asks /proc/PID/status whether a process ignores a signal.
func ignores(pid int, sig unix.Signal) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, mask, _ := bytes.Cut(text, []byte("\nSigIgn:\t"))
	mask, _, _ = bytes.Cut(mask, []byte("\n"))
	bits, err := strconv.ParseUint(string(mask), 16, 64)
	return err == nil && bits&(1<<(sig-1)) != 0
}
