package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// shared is a server with one agent of class plain, all of them processes on this
// machine.
type shared struct {
	t             *testing.T
	dir, port     string
	env           []string
	server, agent *exec.Cmd
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{t: t, dir: t.TempDir()}
	l, err := net.Listen("tcp", "localhost:0")
	s.check(err)
	_, s.port, err = net.SplitHostPort(l.Addr().String())
	s.check(err)
	s.check(l.Close())
	class := fmt.Sprintf(testClass, "plain", "")
	s.check(os.WriteFile(s.path("classes.yaml"), []byte(class), 0o600))
	s.env = append(os.Environ(), "HOME="+s.dir, "XDG_STATE_HOME="+s.path("home"), "XDG_CONFIG_HOME="+s.path("config"), "PS1=$ ", "ENV=", "TERM=xterm",
		"BULKHEAD_SERVER=https://localhost:"+s.port, "BULKHEAD_CA="+s.path("server/keys/ca.crt"), "BULKHEAD_TOKEN_FILE="+s.path("server/keys/token"))
	s.startServer()
	token, err := s.command("--state", s.path("server"), "token", "plain").Output()
	s.check(err)
	s.check(os.WriteFile(s.path("token"), token, 0o600))
	s.startAgent()
	t.Cleanup(func() {
		s.end(s.agent, syscall.SIGTERM)
		s.end(s.server, syscall.SIGTERM)
	})
	return s
}

func (s *shared) startAgent() {
	s.t.Helper()
	s.agent = s.background("agent", "agent", "--server", "https://localhost:"+s.port, "--ca", s.path("server/keys/ca.crt"),
		"--token-file", s.path("token"), "--class", "plain", "--slots", "4", "--name", "worker", "--spool", s.path("spool"))
}

func (s *shared) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shared) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shared) command(args ...string) *exec.Cmd {
	cmd := exec.Command("bulkhead", args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

// background starts a command whose messages go into a file of its name.
func (s *shared) background(name string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := s.command(args...)
	log, err := os.OpenFile(s.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	s.check(err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	s.check(cmd.Start())
	return cmd
}

func (s *shared) startServer() {
	s.t.Helper()
	before := strings.Count(s.log("server"), "msg=serving")
	s.server = s.background("server", "serve", "--state", s.path("server"), "--classes", s.path("classes.yaml"), "--listen", "localhost:"+s.port)
	s.awaits("the server serves", func() bool { return strings.Count(s.log("server"), "msg=serving") > before })
}

func (s *shared) log(name string) string {
	text, err := os.ReadFile(s.path(name + ".log"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return string(text)
}

// end ends a process that this test has started.
func (s *shared) end(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd != nil && cmd.ProcessState == nil {
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
	}
}

func (s *shared) awaits(what string, is func() bool) {
	s.t.Helper()
	awaits(s.t, what, is)
}

func awaits(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// person sits before a terminal in which a command runs.
type person struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File // stays open, so that its mode can be seen afterwards
	before unix.Termios
	read   sync.WaitGroup

	mu   sync.Mutex
	seen bytes.Buffer
	at   int // seen before is not looked at any more
}

func sit(t *testing.T, cmd *exec.Cmd) *person {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, cmd: cmd, master: master, slave: slave}
	if err := pty.Setsize(master, &pty.Winsize{Rows: 30, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	p.before = *p.mode()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	// It is not the terminal that signals come from: the end of a command that leads
	// its session would take with it what it has said last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.read.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		_ = slave.Close()
		_ = master.Close()
		p.read.Wait()
	})
	return p
}

func (p *person) mode() *unix.Termios {
	p.t.Helper()
	m, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *person) types(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// resizes changes the window.
func (p *person) resizes(rows, columns uint16) {
	p.t.Helper()
	if err := pty.Setsize(p.master, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGWINCH); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()[p.at:]
}

// sees waits until something was written behind what was seen before.
func (p *person) sees(text string) {
	p.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		if i := strings.Index(p.screen(), text); i >= 0 {
			p.mu.Lock()
			p.at += i + len(text)
			p.mu.Unlock()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("%q was not written in %v, but %q", text, patience, p.screen())
		}
	}
}

// leaves waits for the end of the command, and checks that the terminal is as it was.
func (p *person) leaves() (code int) {
	p.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.cmd.Wait() // its exit code says how
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		p.t.Fatalf("it does not end; it wrote %q", p.screen())
	}
	p.restored()
	return p.cmd.ProcessState.ExitCode()
}

func (p *person) restored() {
	p.t.Helper()
	if now := p.mode(); *now != p.before {
		p.t.Errorf("the terminal is not as it was: %+v, was %+v", *now, p.before)
	}
}

func TestAShellAtAServerIsTypedIntoLikeALocalOne(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	for where, cmd := range map[string]*exec.Cmd{
		"at a server":     s.command("run", "--class", "plain", "-it", "--", "sh", "-i"),
		"on this machine": s.command("--state", s.path("here"), "run", "-it", "--", "sh", "-i"),
	} {
		t.Run(where, func(t *testing.T) {
			p := sit(t, cmd)
			p.sees("$ ")
			p.types("tty -s && stty size && echo $TERM\r")
			p.sees("30 100\r\nxterm\r\n")
			p.resizes(50, 120)
			p.types("until stty size | grep -q '50 120'; do :; done; echo re'sized'\r")
			p.sees("resized")
			p.sees("$ ")
			p.types("cat\r")
			p.sees("cat\r\n")
			p.types("to cat\r")
			p.sees("to cat\r\nto cat\r\n")
			p.types("\x1a") // Ctrl-Z
			p.sees("Stopped")
			p.sees("$ ")
			p.types("fg\r")
			p.sees("fg\r\ncat\r\n")
			p.types("\x03") // Ctrl-C
			p.sees("^C")
			p.sees("$ ")
			p.types("echo code $?.\r")
			p.sees("code 130.")
			p.types("cat\r")
			p.sees("cat\r\n")
			p.types("\x04") // Ctrl-D
			p.sees("$ ")
			p.types("echo tilde ~ ~~.\r")
			p.sees("tilde")
			p.types("exit 42\r")
			if code := p.leaves(); code != 42 {
				t.Errorf("exit code %d; it wrote %q", code, p.screen())
			}
		})
	}
	out, err := s.command("logs", "1").Output()
	if err != nil || !strings.Contains(string(out), "to cat\r\nto cat\r\n") {
		t.Errorf("logs: %v: %q", err, out)
	}
}

func TestWhoLeavesAnInteractiveRunCanComeBack(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	p := sit(t, s.command("run", "--class", "plain", "-it", "--", "sh", "-i"))
	p.sees("$ ")
	p.types("echo before\r")
	p.sees("\r\nbefore\r\n")
	p.types("\r~?")
	p.sees("~.   leaves: the run goes on at the server\r\n")
	p.types("\r~.")
	p.sees("run 1 goes on at the server:")
	p.sees("bulkhead attach 1")
	p.sees("bulkhead cancel 1")
	if code := p.leaves(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	s.awaits("its reason says so", func() bool {
		out, err := s.command("show", "1").Output()
		return err == nil && strings.Contains(string(out), "waits for somebody to attach: `bulkhead attach 1`")
	})
	p = sit(t, s.command("attach", "1"))
	p.sees("\r\nbefore\r\n")
	p.types("echo again\r")
	p.sees("\r\nagain\r\n")

	other := sit(t, s.command("attach", "1"))
	other.sees("types into run 1 since")
	other.sees("--take-over")
	if code := other.leaves(); code != exitUsage {
		t.Errorf("exit code %d; it wrote %q", code, other.screen())
	}
	watcher := sit(t, s.command("attach", "1", "--watch"))
	watcher.sees("\r\nagain\r\n")
	p.types("echo to both\r")
	p.sees("\r\nto both\r\n")
	watcher.sees("\r\nto both\r\n")

	taker := sit(t, s.command("attach", "1", "--take-over"))
	taker.sees("\r\nto both\r\n")
	p.sees("somebody else types into run 1 from here on")
	taker.types("echo taken; exit 5\r")
	p.sees("\r\ntaken\r\n")
	watcher.sees("\r\ntaken\r\n")
	for name, q := range map[string]*person{"the one who was there": p, "who looks on": watcher, "who took over": taker} {
		if code := q.leaves(); code != 5 {
			t.Errorf("%s: exit code %d; it wrote %q", name, code, q.screen())
		}
	}
}

func TestAFileOfAnyLengthIsPipedIntoAScriptOverARestartOfTheServer(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	size := int64(1 << 30)
	if raceEnabled {
		size = 64 << 20
	}
	cmd := s.command("run", "--class", "plain", "-i", "--", "sha256sum")
	in, feed := io.Pipe()
	cmd.Stdin = in
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	s.check(cmd.Start())
	sum := sha256.New()
	piece := make([]byte, 1<<16)
	for at := int64(0); at < size; at += int64(len(piece)) {
		copy(piece, fmt.Sprintf("%020d", at))
		sum.Write(piece)
		_, err := feed.Write(piece)
		s.check(err)
		if at == size/4/int64(len(piece))*int64(len(piece)) || at == size/2/int64(len(piece))*int64(len(piece)) {
			s.end(s.server, syscall.SIGKILL)
			s.startServer()
		}
	}
	s.check(feed.Close())
	s.check(cmd.Wait())
	if want := fmt.Sprintf("%x  -\n", sum.Sum(nil)); out.String() != want {
		t.Errorf("got %q, want %q; it said %q", out.String(), want, messages.String())
	}
	for name, pid := range map[string]*os.ProcessState{"client": cmd.ProcessState} {
		usage, ok := pid.SysUsage().(*syscall.Rusage)
		if ok && usage.Maxrss > 200<<10 {
			t.Errorf("the %s took %d MiB", name, usage.Maxrss>>10)
		}
	}
}

func TestTheTerminalIsGivenBackWhateverHappens(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	begin := func(args ...string) *person {
		p := sit(t, s.command(append(args, "--", "sh", "-i")...))
		p.sees("$ ")
		if now := p.mode(); *now == p.before {
			t.Error("it is not raw")
		}
		return p
	}
	t.Run("the command is told to end", func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
			p := begin("run", "--class", "plain", "-it")
			s.check(p.cmd.Process.Signal(sig))
			p.sees("goes on at the server")
			if code := p.leaves(); code != exitInterrupted {
				t.Errorf("%v: exit code %d", sig, code)
			}
		}
		p := begin("--state", s.path("here"), "run", "-it")
		s.check(p.cmd.Process.Signal(syscall.SIGHUP)) // the script gets it
		if code := p.leaves(); code != 128+int(syscall.SIGHUP) {
			t.Errorf("on this machine: exit code %d; it wrote %q", code, p.screen())
		}
		for _, run := range []string{"1", "2", "3"} {
			s.check(s.command("cancel", run).Run())
		}
	})
	t.Run("who sits there stops it and goes on", func(t *testing.T) {
		p := begin("run", "--class", "plain", "-it")
		p.types("\r~\x1a")
		awaits(t, "it is stopped", func() bool { return *p.mode() == p.before })
		p.stopped()
		s.check(p.cmd.Process.Signal(syscall.SIGCONT))
		awaits(t, "it is raw again", func() bool { return *p.mode() != p.before })
		s.check(p.cmd.Process.Signal(syscall.SIGTSTP))
		awaits(t, "it is stopped again", func() bool { return *p.mode() == p.before })
		p.stopped()
		s.check(p.cmd.Process.Signal(syscall.SIGCONT))
		awaits(t, "it is raw again", func() bool { return *p.mode() != p.before })
		p.types("exit 3\r")
		if code := p.leaves(); code != 3 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the server dies", func(t *testing.T) {
		p := begin("run", "--class", "plain", "-it")
		q := begin("run", "--class", "plain", "-it")
		p.types("echo be'fore'\r")
		p.sees("before")
		s.end(s.server, syscall.SIGKILL)
		p.sees("until it is back, Ctrl-C leaves")
		q.sees("until it is back, Ctrl-C leaves")
		q.types("\x03")
		q.sees("goes on at the server")
		if code := q.leaves(); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
		p.types("echo mean'while'\r")
		s.startServer()
		p.sees("meanwhile")
		p.types("exit 4\r")
		if code := p.leaves(); code != 4 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the agent dies", func(t *testing.T) {
		p := begin("run", "--class", "plain", "-it")
		s.end(s.agent, syscall.SIGKILL)
		s.startAgent()
		p.sees("is lost: it may have started and nobody saw the end")
		if code := p.leaves(); code != exitFailed {
			t.Errorf("exit code %d", code)
		}
	})
}

// stopped waits until the command is stopped, as by Ctrl-Z.
func (p *person) stopped() {
	p.t.Helper()
	awaits(p.t, "it is stopped", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			p.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		return strings.HasPrefix(rest, "T")
	})
}

func TestAFullScreenProgramRunsAtAServer(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	file := s.path("text")
	p := sit(t, s.command("run", "--class", "plain", "-it", "--env", "TERM=xterm", "--", "vi", "-u", "NONE", "-N", file))
	p.sees("\x1b[?1049h") // the other screen
	p.sees("~")
	p.types("ione\rtwo\rfour\x1b")
	p.sees("four")
	p.types("\x1b[A") // cursor up
	p.types("othree\x1b")
	p.sees("three")
	p.resizes(40, 90)
	p.sees("\x1b[39;1H~") // of what it draws anew
	p.types(":set lines? columns?\r")
	p.sees("lines=40")
	p.sees("columns=90")
	p.types("\r:wq\r")
	p.sees("\x1b[?1049l")
	if code := p.leaves(); code != 0 {
		t.Errorf("exit code %d; it wrote %q", code, p.screen())
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "one\ntwo\nthree\nfour\n" {
		t.Errorf("%v: %q", err, text)
	}

	p = sit(t, s.command("run", "--class", "plain", "-it", "--env", "TERM=xterm", "--", "vi", "-u", "NONE", "-N", file))
	p.sees("\x1b[?1049h")
	p.sees("three")
	p.types("~\x1b\r~.")  // a ~ for vi, and one for us
	p.sees("\x1b[?1049l") // who leaves does not stay on the other screen
	p.sees("goes on at the server")
	if code := p.leaves(); code != exitInterrupted {
		t.Errorf("exit code %d; it wrote %q", code, p.screen())
	}
	s.check(s.command("cancel", "2").Run())
	s.check(ignoreExit(s.command("wait", "2").Run()))
}

// ignoreExit leaves out an exit code.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

func TestNothingOfAnInteractiveRunIsLeft(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	p := sit(t, s.command("run", "--class", "plain", "-it", "--grace", "100ms", "--", "sh", "-i"))
	p.sees("$ ")
	p.types("(trap '' HUP TERM; sleep 4321) & echo pid $!.\r")
	p.sees("\r\npid ")
	var pid int
	awaits(t, "it says the number", func() bool { n, _ := fmt.Sscanf(p.screen(), "%d.", &pid); return n == 1 })
	files := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.agent.Process.Pid))
		s.check(err)
		return len(list)
	}
	before := files()
	p.types("exit\r")
	p.leaves()
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d is left: %v", pid, err)
	}
	awaits(t, "its terminal is closed", func() bool { return files() < before })
}
