package faults_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/charmbracelet/x/vt"
	"golang.org/x/sys/unix"
)

// picture is what a person sees on a terminal.
type picture struct {
	mu     sync.Mutex
	screen *vt.Emulator
	raw    strings.Builder
}

func (v *picture) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.raw.Write(p)
	return v.screen.Write(p)
}

// lines are the lines that are not empty, above the screen and on it.
func (v *picture) lines() (out []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := v.screen.String()
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimRight(line, " "); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// bytes is all that came.
func (v *picture) bytes() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.raw.String()
}

// watched is a terminal of a size whose picture is kept.
func watched(t *testing.T, width, height uint16) (*terminal, *picture) {
	v := &picture{screen: vt.NewEmulator(int(width), int(height))}
	tt := openTerminalTo(t, v)
	tt.resize(t, v, width, height)
	return tt, v
}

// resize is what happens when the window gets another size.
func (tt *terminal) resize(t *testing.T, v *picture, width, height uint16) {
	t.Helper()
	v.mu.Lock()
	v.screen.Resize(int(width), int(height))
	v.mu.Unlock()
	if err := unix.IoctlSetWinsize(int(tt.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

// types is what happens when somebody presses keys.
func (tt *terminal) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := tt.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

func (tt *terminal) modes(t *testing.T) unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(tt.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *modes
}

// sees waits until the lines on the screen match patterns, one after the other
// with others in between.
func (v *picture) sees(t *testing.T, patterns ...string) {
	t.Helper()
	var lines []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen when it was looked at for %q:\n%s", patterns, strings.Join(lines, "\n"))
		}
	})
	eventually(t, strings.Join(patterns, ", "), func() bool {
		lines = v.lines()
		next := 0
		for _, line := range lines {
			if next < len(patterns) && regexp.MustCompile(patterns[next]).MatchString(line) {
				next++
			}
		}
		return next == len(patterns)
	})
}

// in is a command of a place on a terminal of a kind.
func (p *place) in(term string, args ...string) *exec.Cmd {
	cmd := p.command(args...)
	cmd.Env = append(cmd.Env, "TERM="+term, "NO_COLOR=")
	return cmd
}

// failing is a gated script, of which the second item fails instead.
const failing = `[ $1 != 2 ] || exit 7; ` + gated

func TestALiveDisplayShowsABatchAndLeavesTheTerminalAsItWas(t *testing.T) {
	t.Parallel()
	p := racing(t)
	tt, v := watched(t, 80, 24)
	modes := tt.modes(t)
	q := tt.start(p, p.in("xterm-256color", "run", "--each", "1..40", "--limit", "3", "--comment", "T363966", "--", "sh", "-c", failing, "sh", "{}"))
	p.ran(3)
	v.sees(t, `^run 1: sh  T363966 +running \d+s$`, `━─+ +2%$`, `^1/40 done, 3/3 running, 1 failed, 36 queued`, `^waits: limit: 3 at once$`,
		`^running  1  +\d+s  1$`, `^ +3  +\d+s  3$`, `^ +4 `, `^failed   2  exit 7  2$`)
	if now := tt.modes(t); now != modes {
		t.Errorf("the terminal's modes were\n%+v and are\n%+v", modes, now)
	}
	p.ok("pause", "1")
	v.sees(t, `^run 1: sh .* paused \d+s$`, `^waits: paused by `)
	p.ok("resume", "1")
	v.sees(t, `^run 1: sh .* running \d+s$`, `^waits: limit`)
	tt.resize(t, v, 40, 8)
	v.sees(t, `^run 1: sh  T363966 +running \d+s$`, `^1/40 done, 3/3 running, 1 failed, 36 q…$`, `^waits: limit`, `and 2 more$`)
	tt.resize(t, v, 160, 30)
	v.sees(t, `^run 1: sh .* running \d+s$`, `^ +4 +\d+s  sh -c`)

	tt.types(t, "\x03")
	v.sees(t, `^run 1: interrupted \(Ctrl-C\): starting nothing more, waiting for what runs; once more`, `^run 1: sh  T363966 +running`,
		`^stopping: interrupted`, `^running +1 `, `^failed +2 `)
	tt.types(t, "\x03")
	if code := q.wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	v.sees(t, `starting nothing more`, `^run 1: cancelling: SIGTERM to what runs`, `^run 1: cancelled in \d+s: 0 succeeded, 1 failed, 0 lost, 39 cancelled$`)
	lines := v.lines()
	for i, line := range lines {
		if strings.HasPrefix(line, "run 1: cancelled in") {
			lines = lines[i:]
			break
		}
	}
	if len(lines) != 5 || !strings.Contains(lines[2], "bulkhead logs 1 --failed") || strings.ContainsAny(strings.Join(v.lines(), ""), "━─") {
		t.Errorf("after the end:\n%s", strings.Join(v.lines(), "\n"))
	}
	if now := tt.modes(t); now != modes {
		t.Errorf("afterwards the terminal's modes were\n%+v and are\n%+v", modes, now)
	}
	plainly(t, v)
}

// plainly checks that nothing was asked of the terminal that would stay after a
// kill -9, or that it would answer.
func plainly(t *testing.T, v *picture) {
	t.Helper()
	all := v.bytes()
	for what, pattern := range map[string]string{
		"another screen":          `\x1b\[\?(47|1047|1049)h`,
		"reports of the mouse":    `\x1b\[\?100\dh`,
		"bracketed paste":         `\x1b\[\?2004h`,
		"another cursor":          `\x1b\[\d* q`,
		"an answer":               `\x1b\[[>=?]?\d*(\$p|c|n)`,
		"another title":           `\x1b\]`,
		"another keyboard":        `\x1b\[[>=<?]\d*u`,
		"another scroll region":   `\x1b\[\d+;\d+r`,
		"a cursor that is hidden": `\x1b\[\?25l[^\x1b]*$`,
	} {
		if found := regexp.MustCompile(pattern).FindString(all); found != "" {
			t.Errorf("%s: %q", what, found)
		}
	}
	if hidden, shown := strings.LastIndex(all, "\x1b[?25l"), strings.LastIndex(all, "\x1b[?25h"); hidden > shown {
		t.Error("the cursor is hidden")
	}
}

func TestAFastBatchLeavesNothingOfItsDisplay(t *testing.T) {
	t.Parallel()
	p := racing(t)
	tt, v := watched(t, 80, 24)
	q := tt.start(p, p.in("xterm", "run", "--each", "1..300", "--limit", "4", "--", "true", "{}"))
	if code := q.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	v.sees(t, `^run 1: succeeded in \d+s: 300 succeeded, 0 failed, 0 lost, 0 cancelled$`)
	if lines := v.lines(); len(lines) != 1 {
		t.Errorf("after the end:\n%s", strings.Join(lines, "\n"))
	}
	plainly(t, v)
}

func TestADisplayEndsWithASignalAsItDoesWithCtrlC(t *testing.T) {
	t.Parallel()
	p := racing(t)
	tt, v := watched(t, 80, 24)
	q := tt.start(p, p.in("xterm", "run", "--each", "1..6", "--limit", "2", "--", "sh", "-c", gated, "sh", "{}"))
	p.ran(2)
	v.sees(t, `^0/6 done, 2/2 running`)
	q.signal(syscall.SIGTERM)
	v.sees(t, `^run 1: interrupted \(SIGTERM\)`, `^stopping: interrupted`)
	p.open()
	if code := q.wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	v.sees(t, `^run 1: interrupted`, `^run 1: paused: 2 succeeded, .*4 still queued$`, `bulkhead resume 1`)
	plainly(t, v)
}

func TestADisplayGoesOnBelowWhatAShellHasWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	p := racing(t)
	tt, v := watched(t, 80, 24)
	q := tt.start(p, p.in("xterm", "run", "--each", "1..6", "--limit", "2", "--", "sh", "-c", gated, "sh", "{}"))
	p.ran(2)
	v.sees(t, `^0/6 done, 2/2 running`)
	q.signal(syscall.SIGSTOP)
	eventually(t, "it is stopped", func() bool {
		return regexp.MustCompile(`(?m)^State:\s+T`).MatchString(read(t, fmt.Sprintf("/proc/%d/status", q.Process.Pid)))
	})
	if _, err := tt.slave.WriteString("^Z\n[1]+  Stopped\n$ fg\nbulkhead run\n"); err != nil {
		t.Fatal(err)
	}
	q.signal(syscall.SIGCONT)
	v.sees(t, `^0/6 done, 2/2 running`, `^\^Z`, `^\[1\]\+`, `^\$ fg`, `^bulkhead`, `^run 1: sh .* running`, `^0/6 done`, `^running +1 `, `^ +2 `)
	p.open()
	if code := q.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	v.sees(t, `^0/6 done`, `^\$ fg`, `^bulkhead`, `^run 1: succeeded in`)
	plainly(t, v)
}

func TestATerminalThatCannotDoMoreGetsLines(t *testing.T) {
	t.Parallel()
	for _, term := range []string{"dumb", ""} {
		p := newPlace(t)
		tt, v := watched(t, 80, 24)
		q := tt.start(p, p.in(term, "run", "--each", "1..3", "--", "true", "{}"))
		if code := q.wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		v.sees(t, `^run 1: true: 3 items, limit \d+$`, `^run 1: succeeded in`)
		if all := v.bytes(); strings.Contains(all, "\x1b") {
			t.Errorf("TERM=%q: %q", term, all)
		}
	}
}

func TestNothingIsDrawnWhereTheShellHasTheTerminal(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	tt, v := watched(t, 80, 24)
	// The shell is the session's leader and in its foreground; with job control
	// what it starts in the background has a process group of its own.
	run := p.in("xterm", "run", "--each", "1..3", "--", "true", "{}")
	shell := exec.Command("bash", append([]string{"-c", `set -m; "$@" & wait`, "bash", run.Path}, run.Args[1:]...)...)
	shell.Dir, shell.Env = run.Dir, run.Env
	tt.start(p, shell).wait()
	v.sees(t, `^run 1: true: 3 items`, `^run 1: succeeded in`)
	if all := v.bytes(); strings.Contains(all, "\x1b") {
		t.Errorf("%q", all)
	}
}
