package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"bulkhead.dev/bulkhead"
)

// topLive watches on a terminal, on a screen of its own, until the user quits. What
// is said meanwhile (that the server is away) is the last line.
func (a *app) topLive(ctx context.Context, w *topWatch, tty *os.File, interval time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	m := &topModel{ctx: ctx, watch: w, interval: interval}
	m.profile = colorprofile.ANSI
	if os.Getenv("NO_COLOR") != "" {
		m.profile = colorprofile.ASCII
	}
	a.stderr.over(func(line string) bool {
		m.said.Store(&line)
		return true
	})
	program := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(tty), tea.WithColorProfile(m.profile))
	_, err := program.Run()
	cancel()
	m.looking.Wait() // or it would go on behind us
	a.stderr.plain(func() {})
	if errors.Is(err, tea.ErrInterrupted) { // by a signal, and not by the key
		return exitError(exitInterrupted)
	}
	return err
}

// topModel is what the program shows.
type topModel struct {
	ctx      context.Context
	watch    *topWatch
	interval time.Duration
	profile  colorprofile.Profile
	looking  sync.WaitGroup
	said     atomic.Pointer[string]

	width, height int
	now           *top
	err           error
}

// What the program is told.
type (
	looked struct {
		top *top
		err error
	}
	due struct{} // time for another look
)

// look asks how things stand, beside the program. There is one at a time.
func (m *topModel) look(all bool) tea.Cmd {
	m.looking.Add(1)
	return func() tea.Msg {
		defer m.looking.Done()
		t, err := m.watch.look(m.ctx, all)
		return looked{t, err}
	}
}

func (m *topModel) Init() tea.Cmd { return m.look(true) }

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		if slices.Contains([]string{"q", "Q", "esc", "ctrl+c", "ctrl+d"}, msg.String()) {
			return m, tea.Quit
		}
	case looked:
		if m.err = msg.err; msg.err == nil {
			m.now = msg.top
			m.said.Store(nil)
		}
		return m, tea.Tick(m.interval, func(time.Time) tea.Msg { return due{} })
	case due:
		look := m.look(false)
		return m, look
	}
	return m, nil
}

func (m *topModel) View() tea.View {
	v := tea.NewView("")
	v.AltScreen = true
	if m.width <= 0 || m.height <= 1 {
		return v
	}
	var lines []string
	if m.now != nil {
		lines = m.now.lines(m.width, m.height-1)
	}
	for i, line := range lines {
		// Headings: the first line, and what follows an empty one.
		if m.profile != colorprofile.ASCII && (i == 0 || lines[i-1] == "") && line != "" {
			lines[i] = "\x1b[1m" + line + "\x1b[m"
		}
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	v.SetContent(strings.Join(append(lines, printable(m.foot(), m.width)), "\n"))
	return v
}

// foot is the last line: what is wrong, or how to leave.
func (m *topModel) foot() string {
	if said := m.said.Load(); said != nil {
		return *said
	}
	if m.err != nil {
		return "bulkhead: " + strings.TrimSpace(m.err.Error()+" "+bulkhead.HintOf(m.err))
	}
	if m.now == nil {
		return "looking…"
	}
	return "q quits"
}
