package main

import (
	"bytes"
	"crypto/sha256"
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
	s.agent = s.background("agent", "agent", "--server", "https://localhost:"+s.port, "--ca", s.path("server/keys/ca.crt"),
		"--token-file", s.path("token"), "--class", "plain", "--slots", "4", "--spool", s.path("spool"))
	t.Cleanup(func() {
		s.end(s.agent, syscall.SIGTERM)
		s.end(s.server, syscall.SIGTERM)
	})
	return s
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
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
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
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
			if err := pty.Setsize(p.master, &pty.Winsize{Rows: 50, Cols: 120}); err != nil {
				t.Fatal(err)
			}
			p.types("trap 'stty size' WINCH; until stty size | grep -q '50 120'; do :; done; stty size\r")
			p.sees("50 120\r\n")
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
	if code := other.leaves(); code != exitUsage || !strings.Contains(other.screen(), "types into run 1 since") || !strings.Contains(other.screen(), "--take-over") {
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
