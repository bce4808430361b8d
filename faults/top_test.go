package faults_test

import (
	"io"
	"strings"
	"syscall"
	"testing"
)

func TestTopShowsWhatRunsAndGivesTheTerminalBack(t *testing.T) {
	t.Parallel()
	p := racing(t)
	p.ok("run", "-d", "--each", "1..40", "--limit", "3", "--comment", "T363966", "--", "sh", "-c", gated, "sh", "{}")
	p.ran(3)
	for how, leave := range map[string]func(*terminal, *process){
		"q":       func(tt *terminal, _ *process) { tt.types(t, "q") },
		"Ctrl-C":  func(tt *terminal, _ *process) { tt.types(t, "\x03") },
		"SIGTERM": func(_ *terminal, q *process) { q.signal(syscall.SIGTERM) },
	} {
		tt, v := watched(t, 120, 20)
		// It asks the terminal what it can, and reads the answers as it reads keys.
		go func() { _, _ = io.Copy(tt.master, v.screen) }()
		t.Cleanup(func() {
			// Its own Close is not for another goroutine than the one that reads.
			if answers, ok := v.screen.InputPipe().(io.Closer); ok {
				_ = answers.Close()
			}
		})
		modes := tt.modes(t)
		if _, err := tt.slave.WriteString("before\r\n"); err != nil {
			t.Fatal(err)
		}
		q := tt.start(p, p.in("xterm-256color", "top", "-n", "1s"))
		v.sees(t, `^\d\d:\d\d:\d\d \S+ +1 not over: 3 items running, 37 queued +in /`,
			`^RUN +STATE +DONE`, `^1 +running +0/40 +3 .* sh +T363966 +limit: 3 at once`, `^q quits$`)
		tt.resize(t, v, 60, 6)
		v.sees(t, `^RUN +STATE`, `^1 +running +0/40 +3 .*…$`, `^q quits$`)
		leave(tt, q)
		if code := q.wait(); code != 0 && how != "SIGTERM" {
			t.Errorf("%s: exit code %d", how, code)
		}
		v.sees(t, `^before$`)
		if now := tt.modes(t); now != modes {
			t.Errorf("%s: the terminal's modes were\n%+v and are\n%+v", how, modes, now)
		}
		all := v.bytes()
		for on, off := range map[string]string{"\x1b[?1049h": "\x1b[?1049l", "\x1b[?25l": "\x1b[?25h", "\x1b[?2004h": "\x1b[?2004l"} {
			if strings.LastIndex(all, on) > strings.LastIndex(all, off) {
				t.Errorf("%s: %q was not taken back", how, on)
			}
		}
	}
	p.ok("cancel", "1")
}
