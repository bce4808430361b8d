package bulkhead

import (
	"fmt"
	"strconv"
	"strings"
)

// Quote quotes a text for a message, and only the start of a long one.
func Quote(text string) string {
	const most = 60 // characters
	if len(text) > most {
		return fmt.Sprintf("%.*q…", most, text)
	}
	return strconv.Quote(text)
}

// Nearest returns the known word that the given one was probably meant to be:
// at most a third of its letters, and at least one, wrong, missing, too many or
// swapped with its neighbour, and one more of four or more that begin with the right two;
// upper and lower case are the same. It returns "" when nothing is near. Every "did you
// mean" comes from here.
func Nearest(word string, known []string) string {
	const longest = 100 // bytes: nobody means a longer one, and the work is the square
	if len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, most := "", max(1, len(word)/3)
	least := most + 2
	for _, k := range known {
		lower := strings.ToLower(k)
		wrong := most
		if len(word) >= 4 && strings.HasPrefix(lower, word[:2]) {
			wrong++
		}
		// With every letter changed it is another word.
		if d := distance(word, lower, least); d < least && d <= wrong && d < len(word) {
			best, least = k, d
		}
	}
	return best
}

// distance is the optimal string alignment distance of a and b in bytes, or
// some number ≥ limit when it is not below the limit.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	// Three rows of the table: of the letter before last, the last and this one.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			swap := 1
			if a[i-1] == b[j-1] {
				swap = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+swap)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
