package plan_test

import (
	"math"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func TestParseDurationReadsGoAndDaysAndSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30": 30 * time.Second, "1.5": 1500 * time.Millisecond, "30s": 30 * time.Second,
		"5m": 5 * time.Minute, "250ms": 250 * time.Millisecond, "3us": 3 * time.Microsecond, "3µs": 3 * time.Microsecond,
		"3μs": 3 * time.Microsecond, "7ns": 7, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, ".5s": 500 * time.Millisecond,
		"1.s": time.Second, "1d": 24 * time.Hour, "1d2h": 26 * time.Hour, "1d 2h 30m": 26*time.Hour + 30*time.Minute,
		"0.5d": 12 * time.Hour, " 2d ": 48 * time.Hour, "106751d": 106751 * 24 * time.Hour,
		"9223372036s": 9223372036 * time.Second,
	} {
		if got, err := plan.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "x", "-5s", "+5s", "5min", "5 m", "1e3s", "s", "1d -2h", "1,5h", "5s!", "٣s", "1d\n2h"} {
		_, err := plan.ParseDuration(text)
		wantUsage(t, err, "duration "+bulkhead.Quote(text)+" is not understood", "for example 90s, 5m, 1h30m or 2d; a bare number is seconds")
	}
	for _, text := range []string{"106752d", "9223372037", "2562048h", "106751d 24h", "99999999999999999999s", "99999999999999999999d"} {
		_, err := plan.ParseDuration(text)
		wantUsage(t, err, "duration "+bulkhead.Quote(text)+" is more than 292 years", "")
	}
}

func TestParseSizeReadsPowersOf1000And1024(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1000": 1000, "7B": 7, "1k": 1000, "1K": 1000, "1kB": 1000, "1Ki": 1024, "1KiB": 1024, "10M": 10e6, "10MB": 10e6,
		"64MiB": 64 << 20, "64 MiB": 64 << 20, "64mib": 64 << 20, " 1G ": 1e9, "1.5GiB": 3 << 29, "0.5k": 500, "2T": 2e12, "2Ti": 2 << 40,
		"1P": 1e15, "1PiB": 1 << 50, "7E": 7e18, "7EiB": 7 << 60, "1.9": 1, "9223372036854775807": math.MaxInt64,
		"9007199254740993": 9007199254740993, "7.9999999999999999999EiB": math.MaxInt64,
	} {
		if got, err := plan.ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "+1", "1,5M", "1,000", "1iB", "1i", "1MM", "1 M iB", "M", ".5M", "1.M", "1e3", "0x10", "10X", "１M"} {
		_, err := plan.ParseSize(text)
		wantUsage(t, err, "size "+bulkhead.Quote(text)+" is not understood", "for example 1000, 10M (powers of 1000) or 64MiB (powers of 1024)")
	}
	for _, text := range []string{"9223372036854775808", "8EiB", "10E", "99999999999999999999k"} {
		_, err := plan.ParseSize(text)
		wantUsage(t, err, "size "+bulkhead.Quote(text)+" is more than 8 EiB", "")
	}
}
