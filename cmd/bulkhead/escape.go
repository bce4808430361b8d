package main

// An escape begins a line with ~, as in ssh: what is behind it is for bulkhead, and
// not for the script.
type escape byte

const (
	noEscape     escape = 0
	escapeLeave  escape = '.'
	escapeHelp   escape = '?'
	escapePause  escape = 'Z' - '@' // Ctrl-Z
	escapeItself        = '~'
)

// escapes finds escapes in what is typed. The zero value is at the beginning of a
// line.
type escapes struct {
	inLine bool // something of the line was typed
	tilde  bool // a ~ was typed, and is held back until it is known what follows
}

// split returns what of p is for the script, the escape behind it, and what comes
// after that.
func (e *escapes) split(p []byte) (script []byte, found escape, rest []byte) {
	for i, b := range p {
		if e.tilde {
			e.tilde = false
			switch escape(b) {
			case escapeLeave, escapeHelp, escapePause:
				return script, escape(b), p[i+1:]
			}
			script = append(script, escapeItself)
			e.inLine = true
			if b == escapeItself {
				continue // twice is once
			}
		}
		if b == escapeItself && !e.inLine {
			e.tilde = true
			continue
		}
		e.inLine = b != '\r' && b != '\n'
		script = append(script, b)
	}
	return script, noEscape, nil
}
