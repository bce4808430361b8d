package family

import "strings"

// shape is what a word is made of.
type shape struct {
	letters, digits int
	turns           int  // from letters to digits and back
	safe            bool // of the letters that Kubernetes makes names up from
	other           bool // something else than ASCII letters and digits
}

func shapeOf(w string) shape {
	s := shape{safe: true}
	for i := range len(w) {
		c := w[i]
		switch {
		case isDigit(c):
			s.digits++
		case c < 0x80:
			s.letters++
		default:
			s.other = true
		}
		if i > 0 && isDigit(c) != isDigit(w[i-1]) {
			s.turns++
		}
		s.safe = s.safe && strings.IndexByte(safeLetters, c) >= 0
	}
	return s
}

// safeLetters are those of the suffixes and hashes that Kubernetes makes up: no
// vowels, so that no words come about (k8s.io/apimachinery/pkg/util/rand).
const safeLetters = "bcdfghjklmnpqrstvwxz2456789"

// Lengths that matter. randomWord is that of the release names which tools for
// scripts make up, of all letters and digits: for it the rule has no gap but words
// without any digit. Shorter words of letters are never taken for random ones, most
// are names and abbreviations.
const (
	randomWord  = 8
	safeWord    = 5 // what Kubernetes appends to a generateName
	shortWord   = 4
	longNumber  = 4 // digits, from which on a word with a number is one of many: mw1234
	shortNumber = 3
)

// judge says whether a word varies from object to object, and what of it stays in
// front of and behind the *. versioned: a dot and a digit follow.
func judge(w string, versioned bool) (kept, tail string, varies bool) {
	s := shapeOf(w)
	lower := w
	if s.letters > 0 {
		lower = strings.ToLower(w) // no copy if it is
	}
	switch {
	case s.other:
		return "", "", false
	case s.letters == 0:
		return "", "", true
	case fixed[lower]:
		return "", "", false
	case s.digits == 0:
		return judgeLetters(lower, s)
	case s.turns == 1 && !isDigit(w[0]):
		return judgeNumbered(w, lower, s, versioned)
	}
	return "", "", mixed(lower, s)
}

// judgeLetters is for words without digits.
func judgeLetters(w string, s shape) (kept, tail string, varies bool) {
	for _, suffix := range wikis {
		// enwiki, mrwiki, dewiktionary: a loop over wikis has one of each.
		if n := len(w) - len(suffix); (n == 2 || n == 3) && w[n:] == suffix {
			return "", suffix, true
		}
	}
	if s.safe && len(w) >= safeWord {
		return "", "", true
	}
	return "", "", len(w) >= randomWord && !pronounceable(w)
}

// wikis are the kinds of wikis in names of Wikimedia's databases, which begin with a
// language of two or three letters.
var wikis = [...]string{"wiki", "wiktionary", "wikibooks", "wikinews", "wikiquote", "wikisource", "wikiversity", "wikivoyage", "wikimedia"}

// judgeNumbered is for letters with a number behind them: mysql8, web01, mw1234.
func judgeNumbered(w, lower string, s shape, versioned bool) (kept, tail string, varies bool) {
	letters := lower[:s.letters]
	switch {
	case len(w) == randomWord && (s.digits > 2 || !numbered[letters]): // first: v1234567 is as random as others
		return "", "", true
	case versioned: // python3.11, v1.2.3
		return w[:s.letters], "", true
	case letters == "v":
		return w[:1], "", s.digits > 1
	case len(w) == randomWord:
		return "", "", false
	case s.safe && len(w) >= safeWord:
		return "", "", true
	case len(letters) > shortWord && !spoken(letters):
		return "", "", true
	}
	return w[:s.letters], "", s.digits >= longNumber
}

// mixed says whether letters and digits in turn are made up.
func mixed(w string, s shape) bool {
	switch {
	case s.turns == 1 && w[s.digits:] == "z": // the end of a time in UTC
		return true
	case len(w) < shortWord:
		return false
	case len(w) == shortWord:
		return s.turns > 1
	case len(w) == randomWord || s.safe:
		return true
	case s.turns == 1: // a number in front: 3scale, 10gbe
		return s.digits > shortNumber || !spoken(w[s.digits:])
	}
	for _, prefix := range abbreviations {
		if rest, ok := strings.CutPrefix(w, prefix); ok && spoken(rest) {
			return false
		}
	}
	// text2image, proxysql2exporter
	if i := strings.IndexAny(w, "24"); s.digits == 1 && s.turns == 2 && i >= 3 && len(w)-i > 3 {
		return !spoken(w[:i]) || !spoken(w[i+1:])
	}
	return true
}

// spoken says that a word of letters looks like one that people use.
func spoken(w string) bool { return rare(w) == 0 }

// pronounceable is more lenient: names that people make up have something unusual
// (mwscript, kubectl), random ones have much of it. Of random words of eight letters
// it takes 7 in 100 for words.
func pronounceable(w string) bool {
	n := rare(w)
	return n < 2 || 4*n < len(w)-2
}

// rare counts the rows of three letters that do not occur in people's words. What is
// no letter is in none.
func rare(w string) int {
	n := 0
	for i := range max(0, len(w)-2) {
		a, b, c := w[i]-'a', w[i+1]-'a', w[i+2]-'a'
		if a > 25 || b > 25 || c > 25 || follows[int(a)*26+int(b)]&(1<<c) == 0 {
			n++
		}
	}
	return n
}
