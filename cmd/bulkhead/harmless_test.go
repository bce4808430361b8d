package main

import (
	"strings"
	"testing"
	"unicode"
)

// TestTextOfUsersDoesNothingToATerminal: what a user calls a run, why, and with what
// arguments, is shown to others, and must not move their cursor or set their title.
func TestTextOfUsersDoesNothingToATerminal(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	const bad = "a\x1b]0;title\x07\x1b[2J\u009b31mb\rc\nd"
	long := strings.Repeat("x", 100<<10)
	check := func(args ...string) {
		t.Helper()
		out, err := s.command(args...).CombinedOutput()
		if err := ignoreExit(err); err != nil {
			t.Error(err)
		}
		for i, r := range string(out) {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Errorf("bulkhead %.200q: %q in %.500q", args, r, out[max(i-100, 0):])
				break
			}
		}
		if len(out) > 20<<10 {
			t.Errorf("bulkhead %.200q writes %d bytes: %.200q", args, len(out), out)
		}
	}
	for _, place := range [][]string{{"--state", s.path("here")}, nil} {
		class := []string{"--class", "plain"}
		if place != nil {
			class = nil
		}
		run := func(args ...string) {
			all := append(append(append([]string{}, place...), "run", "--name", bad, "--comment", bad), class...)
			check(append(all, args...)...)
		}
		ask := func(args ...string) { check(append(append([]string{}, place...), args...)...) }
		run("--", "/does/not/exist"+bad, bad, long)
		run("--each", "list:"+bad+",2", "--halt", "soon,fail=1", "--", "false", bad, "{}", long)
		run("-d", "--", "true", bad, long)
		run("--dry-run", "--", "true", bad)
		ask("wait", "3")
		ask("ls")
		for _, id := range []string{"1", "2", "3"} {
			ask("show", id)
			ask("items", id)
			ask("items", id, "--state", "failed")
			ask("logs", id, "--failed")
			ask("retry", id, "--failed", "-d")
			ask("cancel", id)
			ask("pause", id)
			ask("wait", id)
			ask("rm", id)
		}
		ask("logs", bad)
		ask("run", "--class", bad, "--", "true")
		ask("run", "--run-file", bad)
		ask("run", "--env", bad, "--", "true")
		ask("run", "--file", bad, "--class", "plain", "--", "true")
		ask("run", "--dir", bad, "--class", "plain", "--", "true")
		ask("run", "--timeout", bad, "--", "true")
		ask("run", "--each", bad, "--", "true", "{}")
		ask(bad)
		ask("run", "--"+bad)
		ask("attach", "1")
	}
}

func TestAnArgumentOfAMegabyteReachesItsScript(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	// An argument is at most 128 KiB (MAX_ARG_STRLEN), all of them together 2 MiB.
	args := []string{"run", "--class", "plain", "--", "sh", "-c", `for a; do n=$((n + ${#a})); done; echo $n`, "sh"}
	for range 8 {
		args = append(args, strings.Repeat("x", 120<<10))
	}
	out, err := s.command(args...).CombinedOutput()
	if err != nil || string(out) != "983040\n" {
		t.Errorf("%v: %.200q", err, out)
	}
	for _, args := range [][]string{{"ls"}, {"show", "1"}, {"items", "1"}} {
		if out, err := s.command(args...).Output(); err != nil || len(out) > 4<<10 {
			t.Errorf("%q: %v, %d bytes", args, err, len(out))
		}
	}
}
