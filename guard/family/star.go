package family

import (
	"slices"
	"strings"

	"bulkhead.dev/bulkhead"
)

// maxWords is how many words of a key are looked at.
const maxWords = 16

// Words are the words of a key's family and origin that are not * already: those that
// may turn out to be one of many.
func Words(k bulkhead.Key) []string {
	_, origin, _ := strings.Cut(k.Origin, "/")
	var words []string
	for _, name := range [...]string{strings.TrimPrefix(k.Family, helmRecord), origin} {
		for w := range strings.FieldsFuncSeq(name, func(r rune) bool { return r < 0x80 && !inWord(byte(r)) }) {
			if len(words) < maxWords && !strings.Contains(w, "*") && !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
	}
	return words
}

// Star is the key with * in place of a word, in its family and in its origin.
func Star(k bulkhead.Key, word string) bulkhead.Key {
	hints := Hints{Known: []string{word}}
	k.Family = Name(k.Family, hints)
	if kind, name, ok := strings.Cut(k.Origin, "/"); ok {
		k.Origin = kind + "/" + Name(name, hints)
	}
	return k
}
