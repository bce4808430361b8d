package audit

import "bytes"

// members calls yield with the members of a JSON object, keys without their quotes. It
// is for lines of which the end may be missing, which encoding/json refuses: of such an
// object it yields what is there, the last value perhaps cut. It checks no more than it
// has to, and takes the same time however deep the values are nested.
func members(object []byte, yield func(key, value []byte)) {
	at := space(object, 0)
	if at >= len(object) || object[at] != '{' {
		return
	}
	for {
		at = space(object, at+1)
		if at >= len(object) || object[at] != '"' {
			return
		}
		end := quoted(object, at)
		colon := space(object, end)
		if colon >= len(object) || object[colon] != ':' {
			return
		}
		begin := space(object, colon+1)
		behind := valueEnd(object, begin)
		if behind > begin {
			yield(object[at+1:end-1], object[begin:behind])
		}
		if at = space(object, behind); at >= len(object) || object[at] != ',' {
			return
		}
	}
}

// space is the first place from at on that is no white space.
func space(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\r' || b[at] == '\n') {
		at++
	}
	return at
}

// quoted is the place behind a string that begins at one; the end, if it is cut.
func quoted(b []byte, at int) int {
	for at++; at < len(b); at++ {
		i := bytes.IndexByte(b[at:], '"')
		if i < 0 {
			return len(b)
		}
		at += i
		slashes := 0
		for b[at-1-slashes] == '\\' { // the opening quote ends it at the latest
			slashes++
		}
		if slashes%2 == 0 {
			return at + 1
		}
	}
	return len(b)
}

// valueEnd is the place behind the value that begins at one; the end, if it is cut.
func valueEnd(b []byte, at int) int {
	depth := 0
	for at < len(b) {
		switch b[at] {
		case '"':
			at = quoted(b, at)
		case '{', '[':
			depth++
			at++
		case '}', ']':
			if depth == 0 { // of the object around it
				return at
			}
			depth--
			at++
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return at
			}
			at++
			continue
		default:
			at++
			continue
		}
		if depth == 0 {
			return at
		}
	}
	return len(b)
}
