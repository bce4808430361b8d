package faults_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what a process sees of a person.
type terminal struct {
	master *os.File
	slave  *os.File
	read   chan struct{} // closed when nothing more can be read
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	return openTerminalTo(t, io.Discard)
}

// openTerminalTo is a terminal before a person who sees all that is on it.
func openTerminalTo(t *testing.T, person io.Writer) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal("open /dev/ptmx:", err)
	}
	tt := &terminal{master: os.NewFile(uintptr(fd), "/dev/ptmx"), read: make(chan struct{})}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal("unlock the terminal:", err)
	}
	if tt.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(tt.read)
		_, _ = io.Copy(person, tt.master)
	}()
	t.Cleanup(tt.hangUp)
	return tt
}

// hangUp is what happens when the window is closed or the connection breaks.
func (tt *terminal) hangUp() {
	_ = tt.slave.Close()
	_ = tt.master.Close()
	<-tt.read
}

// start starts a command as the leader of a session with this terminal.
func (tt *terminal) start(p *place, cmd *exec.Cmd) *process {
	p.t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tt.slave, tt.slave, tt.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	q := &process{Cmd: cmd, t: p.t, ended: make(chan error, 1)}
	go func() { q.ended <- cmd.Wait() }()
	p.t.Cleanup(q.kill)
	return q
}

func TestADetachedRunGoesOnWithoutItsTerminal(t *testing.T) {
	t.Parallel()
	p, tt := newPlace(t), openTerminal(t)
	like := p.command()
	cmd := exec.Command("sh", "-c", `"$1" run -d --each 1..6 --limit 2 -- sh -c "$2" sh {}; sleep 1000`, "sh", p.bin, gated)
	cmd.Dir, cmd.Env = like.Dir, like.Env
	session := tt.start(p, cmd)
	p.ran(2)
	// Everything in the session is killed, and then its terminal goes.
	if err := syscall.Kill(-session.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tt.hangUp()
	session.wait()
	if r := p.show(1); r.State != "running" || r.Counts.Running != 2 {
		t.Errorf("%+v", r)
	}
	p.open()
	p.ok("wait", "1")
	if r, _ := p.consistent(1); r.State != "succeeded" || r.Counts.Succeeded != 6 {
		t.Errorf("%+v", r)
	}
	once(p, "ran", 6)
}

func TestARunWhoseTerminalGoesAwayEndsWhatRunsAndCanBeResumed(t *testing.T) {
	t.Parallel()
	p, tt := racing(t), openTerminal(t)
	q := tt.start(p, p.in("xterm", "run", "--each", "1..6", "--limit", "2", "--", "sh", "-c", gated, "sh", "{}"))
	p.ran(2)
	tt.hangUp()
	p.waitFor(1, "it starts nothing more", func(r runView) bool { return strings.Contains(r.Reason, "hang-up") })
	p.open()
	if code := q.wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	r, _ := p.consistent(1)
	if r.State != "paused" || r.Counts.Succeeded != 2 || r.Counts.Queued != 4 || !strings.Contains(r.Reason, "bulkhead resume 1") {
		t.Errorf("%+v", r)
	}
	p.ok("resume", "1")
	once(p, "ran", 6)
}
