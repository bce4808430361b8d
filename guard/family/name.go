package family

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is how many bytes of a name count. Kubernetes' own names have 253 at most.
const maxName = 256

// Hints are what is known of a name.
type Hints struct {
	// Known are strings that were made up for this object, such as the hash of a
	// pod template. They count where they stand between separators.
	Known []string
}

// Name is the name with * for each part that varies from one object to the next.
// What stands in a row is one *: web-5d4f8c7b9-x7z2p is web-*. Names are cut after 256
// bytes, and what cannot be printed is a question mark.
func Name(name string, hints Hints) string {
	name = Clean(name, maxName)
	if rest, ok := strings.CutPrefix(name, helmRecord); ok {
		return helmRecordName(rest, hints)
	}
	var space [maxName + 8]byte
	s := scanner{name: name, out: space[:0]}
	for s.at < len(name) {
		if !inWord(name[s.at]) {
			s.out = append(s.out, name[s.at])
			s.at++
			continue
		}
		if n := s.known(hints); n > 0 {
			s.star("", n)
			continue
		}
		s.word()
	}
	if string(s.out) == name {
		return name // spares the copy
	}
	return string(s.out)
}

// helmRecord begins the names of the records that Helm keeps, one for each revision
// of a release: sh.helm.release.v1.NAME.v3.
const helmRecord = "sh.helm.release.v1."

func helmRecordName(rest string, hints Hints) string {
	i := strings.LastIndex(rest, ".v")
	if i < 0 || i+2 == len(rest) || strings.Trim(rest[i+2:], "0123456789") != "" {
		return helmRecord + Name(rest, hints)
	}
	return helmRecord + Name(rest[:i], hints) + ".v*"
}

// Clean cuts s after n bytes, at the end of a rune, and makes what cannot be printed
// a question mark: names and labels are written by whoever may write to the cluster.
func Clean(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	clean := func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return strings.Map(clean, s)
		}
	}
	return s
}

// scanner goes through a name once.
type scanner struct {
	name string
	at   int
	out  []byte
}

// star puts what is kept of a word and a * into the output, and goes on behind the n
// bytes that it stands for. Behind another * it adds nothing.
func (s *scanner) star(kept string, n int) {
	s.at += n
	if kept == "" {
		end := len(s.out)
		for end > 0 && !inWord(s.out[end-1]) {
			end--
		}
		if end > 0 && s.out[end-1] == '*' {
			s.out = s.out[:end]
			return
		}
	}
	s.out = append(append(s.out, kept...), '*')
}

// known is the length of what is known to vary here: a hint, a UUID, an address.
func (s *scanner) known(hints Hints) int {
	rest := s.name[s.at:]
	for _, k := range hints.Known {
		if k != "" && len(k) <= len(rest) && rest[:len(k)] == k && (len(k) == len(rest) || !inWord(rest[len(k)])) &&
			!strings.Contains(k, "*") {
			return len(k)
		}
	}
	return uuid(rest)
}

// uuid is the length of a UUID that s begins with, or 0.
func uuid(s string) int {
	const n = len("01234567-89ab-cdef-0123-456789abcdef")
	if len(s) < n || len(s) > n && inWord(s[n]) {
		return 0
	}
	for i := range n {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') || !dash && !isHex(s[i]) {
			return 0
		}
	}
	return n
}

// word takes the next word, all of what is there up to a separator.
func (s *scanner) word() {
	end := s.at
	for end < len(s.name) && inWord(s.name[end]) {
		end++
	}
	w := s.name[s.at:end]
	if strings.IndexByte(w, '*') >= 0 { // it is done already
		if w == "*" {
			s.star("", len(w))
			return
		}
		s.out, s.at = append(s.out, w...), end
		return
	}
	versioned := end+1 < len(s.name) && s.name[end] == '.' && isDigit(s.name[end+1])
	kept, tail, varies := judge(w, versioned)
	if !varies {
		s.out, s.at = append(s.out, w...), end
		return
	}
	s.star(kept, len(w))
	s.out = append(s.out, tail...)
}

// inWord says that c belongs to a word. All else separates words.
func inWord(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '*' || c >= utf8.RuneSelf
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
