package bulkhead

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ShellLine is a command as a shell would take it, for people to read or copy.
func ShellLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = shellWord(arg)
	}
	return strings.Join(quoted, " ")
}

func shellWord(arg string) string {
	plain := arg != "" && strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,@%+") == ""
	if plain {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// OneLine makes a text harmless for a line that others read as one: what would
// end it, move the cursor or turn the direction of writing becomes ·, and what is
// longer than so many characters is cut, with an … at its end.
func OneLine(text string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > most {
			return cutLast(b.String()) + "…"
		}
		switch {
		case r == utf8.RuneError, r == '\u2028', r == '\u2029', unicode.IsControl(r), unicode.Is(unicode.Cf, r) && r != '\u200d':
			r = '·'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// cutLast takes away the last character, to make room for another one.
func cutLast(text string) string {
	_, size := utf8.DecodeLastRuneInString(text)
	return text[:len(text)-size]
}

// CommandLine is ShellLine and OneLine, and looks at no more of a long command than
// it shows.
func CommandLine(args []string, most int) string {
	var b strings.Builder
	for i, arg := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		// A character takes at most 4 bytes, and a quote makes 4 of one.
		if longest := utf8.UTFMax * (most + 1); len(arg) > longest {
			arg = strings.ToValidUTF8(arg[:longest], "\uFFFD")
		}
		b.WriteString(shellWord(arg))
		if b.Len() > utf8.UTFMax*(most+1) {
			break
		}
	}
	return OneLine(b.String(), most)
}
