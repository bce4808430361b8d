package audit

// matches reports whether a name is one that a pattern stands for: * in it is any text,
// of one word, or of several if it is to be loose. Names may have a * of their own, for
// what varies in them.
func matches(pattern, name string, loose bool) bool {
	p, n := 0, 0
	star, from := -1, 0 // the last * and where what it stands for ends
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0 && (loose || !separates(name[from])):
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// separates says that c is between words, as guard/family has them.
func separates(c byte) bool {
	return c < 0x80 && c != '*' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
}
