package plan

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

var (
	durationPart = regexp.MustCompile(`^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)`)
	plainNumber  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	sizeText     = regexp.MustCompile(`^(?i)([0-9]+)(\.[0-9]+)? ?(?:([kmgtpe])(i?))?b?$`)
)

// ParseDuration reads a time span as time.ParseDuration does, with d for a day
// of 24 hours, blanks between the parts ("1d 2h 30m"), and a bare number as
// seconds. It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	rest := strings.TrimSpace(text)
	if plainNumber.MatchString(rest) {
		rest += "s"
	}
	total := time.Duration(0)
	for first := true; first || rest != ""; first = false {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, usage("for example 90s, 5m, 1h30m or 2d; a bare number is seconds", "duration %s is not understood", bulkhead.Quote(text))
		}
		times, part := 1, m[0]
		if m[2] == "d" {
			times, part = 24, m[1]+"h"
		}
		d, err := time.ParseDuration(part)
		for range times {
			if err != nil || d > math.MaxInt64-total {
				return 0, usage("", "duration %s is more than 292 years", bulkhead.Quote(text))
			}
			total += d
		}
		rest = strings.TrimLeft(rest[len(m[0]):], " ")
	}
	return total, nil
}

// ParseSize reads a number of bytes: 1000, 10M, 1.5GB or 64MiB. As in Kubernetes,
// k, M, G, T, P and E are powers of 1000, and Ki, Mi, … powers of 1024; a final B
// and upper or lower case make no difference. It is never negative.
func ParseSize(text string) (int64, error) {
	m := sizeText.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, usage("for example 1000, 10M (powers of 1000) or 64MiB (powers of 1024)", "size %s is not understood", bulkhead.Quote(text))
	}
	base, unit := int64(1000), int64(1)
	if m[4] != "" {
		base = 1024
	}
	if m[3] != "" {
		for range 1 + strings.Index("kmgtpe", strings.ToLower(m[3])) {
			unit *= base
		}
	}
	whole, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || whole > math.MaxInt64/unit {
		return 0, usage("", "size %s is more than 8 EiB", bulkhead.Quote(text))
	}
	size := whole * unit
	if m[2] != "" {
		part, _ := strconv.ParseFloat("0"+m[2], 64) // digits by the pattern
		size += min(int64(part*float64(unit)), math.MaxInt64-size)
	}
	return size, nil
}
