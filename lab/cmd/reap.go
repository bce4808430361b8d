package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children are the processes that process 1 has started. Every orphan of the
// namespace is its child too (containerd's shims are), and must be waited for;
// so nobody may wait for one process alone, as os/exec would.
type children struct {
	tmp    string
	mu     sync.Mutex
	living map[int]chan unix.WaitStatus
}

// newChildren waits for children. What commands say goes through files in tmp.
func newChildren(tmp string) *children {
	c := &children{tmp: tmp, living: map[int]chan unix.WaitStatus{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			c.reap()
		}
	}()
	return c
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if exit := c.living[pid]; exit != nil {
			exit <- status
			delete(c.living, pid)
		}
	}
}

// start starts a process in a group of its own. Its end comes from exit, once.
func (c *children) start(path string, args, env []string, out *os.File) (pid int, exit <-chan unix.WaitStatus, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err = syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{
		Dir: "/", Env: env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	ch := make(chan unix.WaitStatus, 1)
	c.living[pid] = ch
	return pid, ch, nil
}

// run runs a command to its end and returns what it says, which is in the error
// too if it fails.
func (c *children) run(name string, args ...string) (said []byte, err error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	says, err := os.CreateTemp(c.tmp, "says-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(says.Name())
	defer says.Close()
	_, exit, err := c.start(path, args, os.Environ(), says)
	if err != nil {
		return nil, err
	}
	status := <-exit
	if said, err = os.ReadFile(says.Name()); err == nil && status != 0 {
		err = fmt.Errorf("%s %s: %s: %s", name, strings.Join(args, " "), ending(status), strings.TrimSpace(string(said)))
	}
	return said, err
}

// ending says how a process ended.
func ending(s unix.WaitStatus) string {
	if s.Signaled() {
		return "killed by " + s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}
