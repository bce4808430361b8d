package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEscapesBeginALine(t *testing.T) {
	type typed struct {
		Script string
		Found  []escape
	}
	for name, c := range map[string]struct {
		keys string
		want typed
	}{
		"nothing special":            {"ls -l\r", typed{Script: "ls -l\r"}},
		"to leave at once":           {"~.", typed{Found: []escape{escapeLeave}}},
		"to leave after a line":      {"ls\r~.", typed{"ls\r", []escape{escapeLeave}}},
		"not within a line":          {"ls ~.\r", typed{Script: "ls ~.\r"}},
		"a tilde of the script's":    {"~~.", typed{Script: "~."}},
		"another key behind a tilde": {"~/x\r", typed{Script: "~/x\r"}},
		"help, and on":               {"~?ls\r~?", typed{"ls\r", []escape{escapeHelp, escapeHelp}}},
		"a pause":                    {"\n~\x1aa", typed{"\na", []escape{escapePause}}},
	} {
		t.Run(name, func(t *testing.T) {
			for what, pieces := range map[string][]string{"at once": {c.keys}, "key by key": split(c.keys)} {
				var e escapes
				var got typed
				for _, p := range pieces {
					for rest := []byte(p); len(rest) > 0; {
						var script []byte
						var found escape
						script, found, rest = e.split(rest)
						got.Script += string(script)
						if found != noEscape {
							got.Found = append(got.Found, found)
						}
					}
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%s: %s", what, diff)
				}
			}
		})
	}
}

func split(s string) (out []string) {
	for i := range len(s) {
		out = append(out, s[i:i+1])
	}
	return out
}

func TestWhatAScriptSwitchedOnIsSwitchedOff(t *testing.T) {
	for name, c := range map[string]struct{ written, want string }{
		"nothing":               {"hello\x1b[31mred\x1b[0m", ""},
		"another screen":        {"a\x1b[?1049hb", "\x1b[?1049l\x1b[0m"},
		"and back":              {"a\x1b[?1049hb\x1b[?1049l", "\x1b[0m"},
		"a hidden cursor":       {"\x1b[?25l", "\x1b[?25h\x1b[0m"},
		"several in one":        {"\x1b[?1002;1006h", "\x1b[?1002l\x1b[?1006l\x1b[0m"},
		"with other codes":      {"\x1b[1mfat\x1b[0m\x1b[?2004h$ ", "\x1b[?2004l\x1b[0m"},
		"a long one is no such": {"\x1b[?" + "1111111111111111111111111111111111111111111h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for what, pieces := range map[string][]string{"at once": {c.written}, "byte by byte": split(c.written)} {
				var s screens
				for _, p := range pieces {
					s.note([]byte(p))
				}
				if got := s.off(); got != c.want {
					t.Errorf("%s: got %q, want %q", what, got, c.want)
				}
			}
		})
	}
}
