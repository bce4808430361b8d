package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead/bench/table"
)

const (
	// logFile is how large the file is that the script prints again and again.
	logFile = 16 << 20
	// toPrint is what the script prints in all, bytes.
	toPrint = 1 << 30
)

// output is one script that prints a gigabyte, followed through an agent, a server
// and the command line, each a process of its own on this machine. What it prints
// are lines of words and numbers as a script's would be: they shrink to a third,
// where zeros, or one line again and again, would cost nothing to keep and to send.
// Beside it, the same script and a pipe, which keeps nothing.
func (b *bench) output() (err error) {
	file := filepath.Join(b.dir, "lines")
	if err := writeLines(file, logFile); err != nil {
		return err
	}
	times := max(int(toPrint/logFile*b.scale), 1)
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do cat '%s'; i=$((i+1)); done", times, file)
	pipe, err := toNowhere("sh", "-c", "{ "+script+"; } | cat")
	if err != nil {
		return err
	}
	s, err := b.startServer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	worker, err := b.startAgent(s)
	if err != nil {
		return err
	}
	defer func() {
		_ = worker.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, worker.Wait())
	}()
	run, err := b.followed(s, worker, script)
	if err != nil {
		return err
	}
	return b.reportOutput(run, pipe, float64(times*logFile))
}

// writeLines makes a file of lines as scripts print them, the same each time. It
// holds little of it: what this process has in memory counts for its children, too.
func writeLines(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 2000)
	for i := range words {
		words[i] = strconv.FormatUint(random.Uint64()>>random.IntN(48), 36)
	}
	for left := size; left > 0; {
		line := fmt.Appendf(nil, "2026-01-02T03:04:05.%06d enwiki page %d:", random.IntN(1e6), random.IntN(1e8))
		for range 3 + random.IntN(12) {
			line = append(line, ' ')
			line = append(line, words[random.IntN(1+random.IntN(len(words)))]...)
		}
		n, _ := w.Write(append(line, '\n')[:min(len(line)+1, left)]) // its Flush has the error
		left -= n
	}
	return w.Flush()
}

// spent is what one command took.
type spent struct {
	took, cpu time.Duration
	peak      int64 // bytes
}

// toNowhere runs a command whose output nobody wants.
func toNowhere(name string, args ...string) (spent, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	begin := time.Now()
	if err := cmd.Run(); err != nil { // its output is /dev/null
		return spent{}, fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	s := spent{took: time.Since(begin), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = u.Maxrss << 10
	}
	return s, nil
}

// startAgent starts a real agent.
func (b *bench) startAgent(s *served) (*exec.Cmd, error) {
	token, err := s.agentToken()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(b.binary, "agent", "--server", s.url, "--ca", s.key("ca.crt"), "--token-file", token,
		"--class", benchClass, "--slots", "4", "--spool", b.state("spool"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	return cmd, err
}

// followedRun is what a followed script took, by process.
type followedRun struct {
	client, server, agent spent
	sealed                time.Duration // until the server had put the output into its final form
}

func (b *bench) followed(s *served, worker *exec.Cmd, script string) (r followedRun, err error) {
	before, err := cpuOf(worker.Process.Pid)
	if err != nil {
		return r, err
	}
	r.server.cpu, err = s.busyWhile(func() {
		r.client, err = toNowhere(b.binary, "run", "--server", s.url, "--ca", s.key("ca.crt"), "--token-file", s.key("token"),
			"--class", benchClass, "--max-output", "2GiB", "--", "sh", "-c", script)
	})
	if err != nil {
		return r, err
	}
	after, err := cpuOf(worker.Process.Pid)
	if err != nil {
		return r, err
	}
	r.agent.cpu = after - before
	if r.agent.peak, err = peakMemory(worker.Process.Pid); err != nil {
		return r, err
	}
	if r.sealed, err = b.untilSealed(s); err != nil {
		return r, err
	}
	r.server.peak, err = s.peakMemory()
	return r, err
}

// untilSealed waits until no output of the server's is in the form in which it is
// written.
func (b *bench) untilSealed(s *served) (time.Duration, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := filepath.Glob(filepath.Join(s.state, "output", "*", "*.seg"))
		if err != nil || len(left) == 0 {
			return time.Since(begin), err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, errors.New("the output was not sealed")
		}
	}
}

func (b *bench) reportOutput(r followedRun, pipe spent, size float64) error {
	what := fmt.Sprintf("%.0f MB of output of one script, followed: ", size/1e6)
	rate := func(s spent) float64 { return size / 1e6 / s.took.Seconds() }
	perMB := func(s spent) float64 { return s.cpu.Seconds() * 1e3 / (size / 1e6) }
	const mib = 1 << 20
	b.AtLeast(what+"rate", rate(r.client), 100, " MB/s", fmt.Sprintf("script | cat %.0f MB/s;", rate(pipe)))
	b.Note(what+"wall time / script | cat", table.Format(r.client.took.Seconds()/pipe.took.Seconds(), ""), "which keeps nothing;")
	b.Note(what+"CPU per MB", table.Format(perMB(r.client)+perMB(r.server)+perMB(r.agent), " ms"),
		fmt.Sprintf("agent %.2f, server %.2f, client %.2f; script | cat %.2f ms;",
			perMB(r.agent), perMB(r.server), perMB(r.client), perMB(pipe)))
	b.AtMost(what+"peak memory of the server", float64(r.server.peak)/mib, 200, " MiB",
		fmt.Sprintf("agent %.0f, client %.0f MiB;", float64(r.agent.peak)/mib, float64(r.client.peak)/mib))
	b.Note(what+"until it was in its final form on disk", table.Format(r.sealed.Seconds(), " s"), "after the end;")
	return nil
}

// agentToken is a file with the token of the agents.
func (s *served) agentToken() (string, error) {
	out, err := exec.Command(s.cmd.Path, "token", benchClass, "--state", s.state).Output()
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	path := filepath.Join(s.state, "agent.token")
	return path, os.WriteFile(path, out, 0o600)
}
