package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// tty is the terminal of the person in front of us, while every key goes to a
// script: it is raw then, and whatever happens it must not stay so.
type tty struct {
	app     *app
	file    *os.File
	watches bool // keys are not for the script: only what it writes goes through as it is
	signals chan os.Signal
	resized chan struct{} // it may be of another size
	done    chan struct{}
	watch   sync.WaitGroup

	seen screens

	mu     sync.Mutex
	cooked *unix.Termios // as it was; nil: it is not raw
}

// isTerminal reports whether r is a terminal.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// noTerminal is the error of what needs one.
func noTerminal() error {
	return usage("without -t a script reads what is piped in: bulkhead run -i", "-t gives a script a terminal, and our standard input is none")
}

// windowOf is how large a terminal is.
func windowOf(r io.Reader) (w bulkhead.Window) {
	if f, ok := r.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			w = bulkhead.Window{Rows: size.Row, Columns: size.Col}
		}
	}
	return w
}

// takeTTY makes the terminal raw until leave is called. Who only watches keeps Ctrl-C.
func (a *app) takeTTY(watches bool) (*tty, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, noTerminal()
	}
	t := &tty{app: a, file: f, watches: watches, signals: make(chan os.Signal, 8), resized: make(chan struct{}, 1), done: make(chan struct{})}
	if err := t.enter(); err != nil {
		return nil, err
	}
	signal.Notify(t.signals, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	t.watch.Go(t.heed)
	return t, nil
}

// enter makes it raw, as cfmakeraw(3) does: no signals from keys, no echo, no lines.
func (t *tty) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := int(t.file.Fd())
	now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("ask the terminal for its mode: %w", err)
	}
	if t.cooked == nil {
		t.cooked = now
	}
	raw := *t.cooked
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL
	if !t.watches {
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Lflag &^= unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return fmt.Errorf("make the terminal raw: %w", err)
	}
	t.app.raw.Store(!t.watches)
	t.app.stderr.over(func(line string) bool {
		_, err := io.WriteString(t.app.stderr.w, line+"\r\n")
		return err == nil
	})
	return nil
}

// restore makes it what it was. It may be called at any time, by any goroutine.
func (t *tty) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked == nil {
		return
	}
	t.app.stderr.plain(func() {
		// A terminal that is gone needs no mode.
		_ = unix.IoctlSetTermios(int(t.file.Fd()), unix.TCSETSW, t.cooked)
	})
	t.cooked = nil
	t.app.raw.Store(false)
}

// screens knows what a script has switched on in the terminal that must not stay so
// when it is left: the other screen, a hidden cursor, a mouse.
type screens struct {
	on   map[string]bool
	part []byte // of a switch that is not whole yet
}

// switches are private modes of terminals (DECSET) that full-screen programs use,
// in the order in which they are switched off.
var switches = []string{"1049", "1047", "47", "1000", "1002", "1003", "1006", "1004", "2004", "1"}

// note looks for switches in what a script writes.
func (s *screens) note(p []byte) {
	const intro = "\x1b[?"
	p = append(s.part, p...)
	s.part = nil
	for {
		i := bytes.IndexByte(p, intro[0])
		if i < 0 {
			return
		}
		p = p[i:]
		end := bytes.IndexAny(p, "hl")
		if end < 0 || end > maxSwitch {
			if len(p) <= maxSwitch {
				s.part = bytes.Clone(p)
				return
			}
			p = p[1:]
			continue
		}
		if names, ok := bytes.CutPrefix(p[:end], []byte(intro)); ok {
			for name := range strings.SplitSeq(string(names), ";") {
				s.set(name, p[end] == 'h')
			}
		}
		p = p[1:]
	}
}

// maxSwitch is the longest switch that is looked at, in bytes.
const maxSwitch = 32

func (s *screens) set(name string, on bool) {
	if s.on == nil {
		s.on = map[string]bool{}
	}
	if name == "25" || slices.Contains(switches, name) {
		s.on[name] = on
	}
}

// off is what switches everything off that is on.
func (s *screens) off() (out string) {
	for _, name := range switches {
		if s.on[name] {
			out += "\x1b[?" + name + "l"
		}
	}
	if shown, known := s.on["25"]; known && !shown {
		out += "\x1b[?25h" // the cursor
	}
	if len(s.on) > 0 {
		out += "\x1b[0m"
	}
	s.on = nil
	return out
}

// leave gives the terminal back for good.
func (t *tty) leave() {
	select {
	case <-t.done:
		return
	default:
	}
	signal.Stop(t.signals)
	close(t.done)
	t.watch.Wait()
	if off := t.seen.off(); off != "" {
		_, _ = io.WriteString(t.app.stdout, off)
	}
	t.restore()
}

// guard gives the terminal back when the goroutine that defers it panics: that ends
// the program, and nobody could read why.
func (t *tty) guard() {
	if what := recover(); what != nil {
		t.restore()
		panic(what)
	}
}

// heed acts on signals of the terminal's own.
func (t *tty) heed() {
	defer t.guard()
	for {
		select {
		case s := <-t.signals:
			switch s {
			case unix.SIGTSTP:
				t.pause()
			case unix.SIGCONT: // a shell has set its own mode meanwhile
				_ = t.enter() // or its next read fails, too
			}
			t.look()
		case <-t.done:
			return
		}
	}
}

// look says that the size may be another one.
func (t *tty) look() {
	select {
	case t.resized <- struct{}{}:
	default:
	}
}

// pause stops this process, as Ctrl-Z does, with the terminal as it was. It may
// return before it is stopped; SIGCONT tells when it goes on.
func (t *tty) pause() {
	t.restore()
	_ = unix.Kill(0, unix.SIGSTOP) // our process group, which cannot refuse it
}

func (t *tty) window() bulkhead.Window { return windowOf(t.file) }

// escapeText is what ~? says.
const escapeText = `bulkhead: at the beginning of a line
  ~.   leaves: %s
  ~^Z  stops bulkhead, until fg; the script goes on
  ~?   says this
  ~~   types a ~
`

// keys gives what is typed to write, until there is nothing more or ~. is typed.
// It reports whether that was so.
func (t *tty) keys(leaves string, write func([]byte) error) (left bool, err error) {
	var e escapes
	buf := make([]byte, 4096)
	for {
		n, err := t.file.Read(buf)
		if err != nil {
			return false, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			var script []byte
			var found escape
			script, found, rest = e.split(rest)
			if len(script) > 0 {
				if err := write(script); err != nil {
					return false, err
				}
			}
			switch found {
			case escapeLeave:
				return true, nil
			case escapeHelp:
				t.app.tell("\n"+escapeText, leaves)
			case escapePause:
				t.pause()
			case noEscape:
			}
		}
	}
}
