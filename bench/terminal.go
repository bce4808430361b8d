package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"

	"bulkhead.dev/bulkhead/bench/table"
)

// echoing is a script that writes every key back, and says when it is ready.
const echoing = "stty raw -echo; printf ready; exec cat"

// terminal is one person, and one pipe, before scripts of a real server and a real
// agent: processes on this machine, with TLS in between.
func (b *bench) terminal() (err error) {
	s, err := b.startServer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	agent, err := b.startAgent(s)
	if err != nil {
		return err
	}
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait()
	}()
	env := append(os.Environ(), "BULKHEAD_SERVER="+s.url, "BULKHEAD_CA="+s.key("ca.crt"), "BULKHEAD_TOKEN_FILE="+s.key("token"))
	remote := exec.Command(b.binary, "run", "--class", benchClass, "-it", "--", "sh", "-c", echoing)
	remote.Env = env
	far, most, err := b.keys(remote)
	if err != nil {
		return err
	}
	near, _, err := b.keys(exec.Command(b.binary, "--state", b.state("here"), "run", "-it", "--", "sh", "-c", echoing))
	if err != nil {
		return err
	}
	b.AtMost("terminal, through server and agent: key to echo, median", far.Seconds()*1e3, 20, " ms",
		fmt.Sprintf("99 of 100 within %.2f ms; on this machine without a server %.2f ms;", most.Seconds()*1e3, near.Seconds()*1e3))
	size := int64(b.items(1<<30)) &^ (1<<20 - 1)
	pipe := exec.Command(b.binary, "run", "--class", benchClass, "-i", "--", "sh", "-c", "cat > /dev/null")
	pipe.Env = env
	took, err := piped(pipe, size)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	peak := func(pid int) float64 {
		n, _ := (&served{cmd: &exec.Cmd{Process: &os.Process{Pid: pid}}}).peakMemory() // shown only
		return float64(n) / mib
	}
	client := 0.0
	if u, ok := pipe.ProcessState.SysUsage().(*syscall.Rusage); ok {
		client = float64(u.Maxrss) / 1024
	}
	b.Note(fmt.Sprintf("%d MiB piped into a script through server and agent", size/mib), table.Format(float64(size)/mib/took.Seconds(), " MiB/s"),
		fmt.Sprintf("peaks of memory: client %.0f, server %.0f, agent %.0f MiB;", client, peak(s.cmd.Process.Pid), peak(agent.Process.Pid)))
	return nil
}

// keys types into a command that echoes, and returns how long the echo of a key
// takes.
func (b *bench) keys(cmd *exec.Cmd) (middle, most time.Duration, err error) {
	master, err := pty.Start(cmd)
	if err != nil {
		return 0, 0, err
	}
	defer master.Close()
	defer func() { _ = cmd.Wait() }() // it is killed
	defer func() { _ = cmd.Process.Kill() }()
	if err := until(master, "ready"); err != nil {
		return 0, 0, err
	}
	var took []time.Duration
	for range b.items(500) {
		begin := time.Now()
		if _, err := master.WriteString("k"); err != nil {
			return 0, 0, err
		}
		if err := until(master, "k"); err != nil {
			return 0, 0, err
		}
		took = append(took, time.Since(begin))
		<-time.After(5 * time.Millisecond) // nobody types without a pause
	}
	middle = median(took)
	return middle, took[len(took)*99/100], nil
}

// until reads up to a text.
func until(r io.Reader, text string) error {
	var seen []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if seen = append(seen, buf[:n]...); bytes.Contains(seen, []byte(text)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w, after %q", err, seen)
		}
	}
}

// piped pipes so many bytes into a command.
func piped(cmd *exec.Cmd, size int64) (time.Duration, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 1<<12)
	for at := int64(0); at < size && err == nil; at += int64(len(piece)) {
		_, err = in.Write(piece)
	}
	err = errors.Join(err, in.Close(), cmd.Wait())
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, said.String())
	}
	return time.Since(begin), nil
}
