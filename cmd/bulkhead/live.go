package main

import (
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// The live display is a few lines at the bottom of the terminal, and it leaves
// the terminal as it is: nothing is read from it, its modes are not changed,
// Ctrl-C stays a signal, the cursor stays visible, and what was printed stays
// above. So there is nothing to restore, however the process ends.

const (
	// frameEvery is how often the display shows something new.
	frameEvery = 200 * time.Millisecond
	// repaintEvery is how often all of it is drawn anew: typing, and whoever else
	// writes to the terminal, leaves traces.
	repaintEvery = 3 * time.Second
	// drawTime is how long a message waits for the first frame.
	drawTime = time.Second
	// keepRows is how long lines are kept free for items that run no more.
	keepRows = 2 * time.Second
)

// terminal is the terminal that messages go to, if a live display can be there.
func (m *messages) terminal() *os.File {
	f, ok := m.w.(*os.File)
	if term := os.Getenv("TERM"); !ok || term == "" || term == "dumb" {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil || !foreground(f) {
		return nil
	}
	return f
}

// foreground reports whether we are who the terminal listens to, and not in the
// background of a shell that is at its prompt.
func foreground(tty *os.File) bool {
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp() // it may be a terminal but not ours
}

// screen is a terminal with a live display.
type screen struct {
	tty     *os.File
	program *tea.Program
	away    atomic.Bool // the shell has, or had, the terminal
	first   sync.Once
	drawn   chan struct{} // closed when the first frame is there
	over    chan struct{} // closed when the program has ended
}

// live shows the live display until the function it returns is called.
func (p *progress) live(tty *os.File, r *bulkhead.Run) (stop func()) {
	s := &screen{tty: tty, drawn: make(chan struct{}), over: make(chan struct{})}
	colours := colorprofile.ANSI
	if os.Getenv("NO_COLOR") != "" {
		colours = colorprofile.ASCII
	}
	s.program = tea.NewProgram(&picture{screen: s}, tea.WithOutput(canvas{tty, s}), tea.WithInput(nil), tea.WithoutSignalHandler(),
		tea.WithColorProfile(colours))
	go func() {
		defer close(s.over)
		// If it fails, the run goes on, and messages go where they went before.
		_, _ = s.program.Run()
	}()
	done := make(chan struct{})
	var frames sync.WaitGroup
	frames.Go(func() { p.frames(s, r, done) })
	p.app.stderr.over(s.say)
	return func() {
		close(done)
		frames.Wait()
		p.app.stderr.plain(s.end)
	}
}

// frames sends what the display shows.
func (p *progress) frames(s *screen, r *bulkhead.Run, done <-chan struct{}) {
	tick := time.NewTicker(frameEvery)
	defer tick.Stop()
	cont := make(chan os.Signal, 1)
	signal.Notify(cont, syscall.SIGCONT)
	defer signal.Stop(cont)
	repaint := every(repaintEvery)
	var m meter
	m.add(time.Now(), r.Counts.Finished())
	for {
		if !foreground(s.tty) {
			s.away.Store(true)
		} else if st := p.status(shownLive); len(st.Runs) > 0 {
			now, run := time.Now(), st.Runs[0]
			m.add(now, run.Counts.Finished())
			s.program.Send(&scene{run: run, failures: st.Failures, command: p.command, forecast: m.forecast(&run.Run), now: now, since: p.since(&run.Run)})
			if s.away.Load() || repaint() {
				s.program.Send(repainted{})
			}
		}
		select {
		case <-tick.C:
		case <-cont:
			s.away.Store(true)
		case <-done:
			return
		}
	}
}

// say prints a line above the display. It returns false if that is gone.
func (s *screen) say(line string) bool {
	select {
	case <-s.drawn: // before, the program does not know where its lines are
	case <-s.over:
		return false
	case <-time.After(drawTime): // the terminal went away before anything was drawn
		return false
	}
	if s.away.Load() || !foreground(s.tty) {
		_, err := s.tty.WriteString(line + "\n")
		return err == nil
	}
	if line == "" {
		return true
	}
	width := 80
	if ws, err := unix.IoctlGetWinsize(int(s.tty.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		width = int(ws.Col)
	}
	// Line by line, each no wider than the terminal: so the program knows where
	// it is afterwards.
	for _, part := range wrapped(printable(line, 0), width) {
		s.program.Send(tea.Println(part)())
	}
	s.program.Send(repainted{}) // there may be a ^C from the keyboard
	select {
	case <-s.over:
		return false
	default:
		return true
	}
}

// wrapped cuts text between words into lines of at most width columns. Package
// ansi would also cut at hyphens, and with them the flags of a command.
func wrapped(text string, width int) (lines []string) {
	for ansi.StringWidthWc(text) > width {
		line := ansi.TruncateWc(text, width, "")
		if line == "" { // not even one character fits
			break
		}
		if end := strings.LastIndexByte(line, ' '); text[len(line)] != ' ' && strings.TrimSpace(line[:max(end, 0)]) != "" {
			line = line[:end]
		}
		lines, text = append(lines, line), strings.TrimLeft(text[len(line):], " ")
	}
	return append(lines, text)
}

// end takes the display away.
func (s *screen) end() {
	s.program.Send(cleared{})
	s.program.Quit()
	<-s.over
}

// canvas is what the program draws on.
type canvas struct {
	*os.File // so that it finds the terminal's size
	screen   *screen
}

// Write writes a frame. All of them begin at the left edge, but for what was
// typed since the last one. While the shell has the terminal nothing is drawn.
func (c canvas) Write(p []byte) (int, error) {
	defer c.screen.first.Do(func() { close(c.screen.drawn) })
	if c.screen.away.Load() || !foreground(c.File) {
		return len(p), nil
	}
	n, err := c.File.Write(slices.Concat([]byte("\r"), p))
	return max(n-1, 0), err
}

// picture is the model of the program: the last scene, in a terminal's size.
type picture struct {
	screen        *screen
	width, height int
	scene         *scene
	rows          int       // kept for running items
	needed        time.Time // when that many ran last
	lines         []string
}

// What the program is told beside scenes and sizes.
type (
	cleared   struct{} // show nothing any more
	repainted struct{} // draw everything again
)

func (p *picture) Init() tea.Cmd { return nil }

func (p *picture) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		p.width, p.height = msg.Width, msg.Height
	case *scene:
		p.scene = msg
		if n := msg.wanted(); n >= p.rows || msg.now.Sub(p.needed) > keepRows {
			p.rows, p.needed = n, msg.now
		}
		msg.rows = p.rows
	case cleared:
		p.scene = nil
	case repainted:
		if p.screen.away.Load() && foreground(p.screen.tty) {
			// Below what the shell has printed. When it cannot be written, neither can
			// the rest.
			_, _ = p.screen.tty.WriteString(strings.Repeat("\n", len(p.lines)))
			p.screen.away.Store(false)
		}
		return p, func() tea.Msg { return tea.WindowSizeMsg{Width: p.width, Height: p.height} }
	default:
		return p, nil
	}
	p.lines = nil
	if p.scene != nil && p.width > 0 {
		// A column and a line are left free, so that nothing wraps or scrolls, and a
		// line for the cursor and for what is typed.
		p.lines = p.scene.lines(p.width-1, p.height-2)
	}
	return p, nil
}

func (p *picture) View() tea.View {
	v := tea.NewView("")
	v.DisableBracketedPasteMode = true
	// Where a shell's prompt can be, whenever the process ends; visible, and in the
	// shape that it had (the program's shapes begin with 0).
	v.Cursor = &tea.Cursor{Shape: -1}
	if len(p.lines) > 0 {
		v.SetContent(strings.Join(p.lines, "\n") + "\n")
		v.Cursor.Y = len(p.lines)
	}
	return v
}
