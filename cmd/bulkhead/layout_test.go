package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

// example is a run in the middle of its life.
func example(t *testing.T, changes ...func(*scene)) *scene {
	t.Helper()
	now := time.Unix(1_000_000, 0)
	s := &scene{now: now, since: now.Add(-62 * time.Second), forecast: []string{"5/s", "18s left"}}
	s.run.Run = bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Reason: "limit: 3 at once", Limit: 3, Started: now.Add(-62 * time.Second),
		Counts: bulkhead.Counts{Queued: 87, Running: 3, Succeeded: 108, Failed: 2},
		Spec: bulkhead.Spec{Name: "requeue", Comment: "T363966", Columns: []string{"wiki", "key"},
			Command: []string{"./requeue", "--wiki={wiki}", "--key={key}"}}}
	for i, wiki := range []string{"enwiki", "dewiki", "日本語ウィキ"} {
		s.run.Live = append(s.run.Live, bulkhead.Lease{Since: now.Add(time.Duration(i-3) * 20 * time.Second),
			Item: bulkhead.Item{Index: int64(96 + 4*i), Values: []string{wiki, "144p"}}})
	}
	s.failures = []engine.Failure{
		{Item: bulkhead.Item{Index: 13, Values: []string{"frwiki", "240p"}}, Attempt: bulkhead.Attempt{N: 1, Final: true,
			Result: bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowExit, ExitCode: 1}}},
		{Item: bulkhead.Item{Index: 71, Values: []string{"a\x1b[31m", "b"}}, Attempt: bulkhead.Attempt{N: 1,
			Result: bulkhead.Result{State: bulkhead.ItemFailed, How: bulkhead.HowTimeout}}},
	}
	for _, change := range changes {
		change(s)
	}
	var err error
	if s.command, err = parseAll(s.run.Spec.Command, s.run.Spec.Columns); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheLiveDisplayShowsWhatMattersInTheRoomThereIs(t *testing.T) {
	for name, c := range map[string]struct {
		change        func(*scene)
		width, height int
		want          string
	}{
		"a usual terminal": {width: 79, height: 22, want: `
run 7: requeue  T363966                                           running 1m02s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────────────────────────  55%
110/200 done, 3/3 running, 2 failed, 87 queued, 5/s, 18s left
waits: limit: 3 at once
running   96  1m00s  ./requeue --wiki=enwiki --key=144p
         100    40s  ./requeue --wiki=dewiki --key=144p
         104    20s  ./requeue '--wiki=日本語ウィキ' --key=144p
failed    71  timeout, again  ./requeue '--wiki=a·[31m' --key=b
          13          exit 1  ./requeue --wiki=frwiki --key=240p
`},
		"a narrow one, in which values are left of commands": {width: 40, height: 22, want: `
run 7: requeue  T363966    running 1m02s
━━━━━━━━━━━━━━━━━━━────────────────  55%
110/200 done, 3/3 running, 2 failed, 87…
waits: limit: 3 at once
running   96  1m00s  wiki=enwiki key=14…
         100    40s  wiki=dewiki key=14…
         104    20s  wiki=日本語ウィキ …
failed    71  timeout, again  wiki=a·[3…
          13          exit 1  wiki=frwi…
`},
		"a low one, in which some items have no line": {width: 60, height: 7, want: `
run 7: requeue  T363966                        running 1m02s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━─────────────────────────  55%
110/200 done, 3/3 running, 2 failed, 87 queued, 5/s, 18s le…
waits: limit: 3 at once
running  96  1m00s  ./requeue --wiki=enwiki --key=144p
                    … and 2 more
failed   71  timeout, again  wiki=a·[31m key=b
`},
		"three lines":          {width: 30, height: 3, want: "\nrun 7: requeue   running 1m02s\n110/200 done, 3/3 running, 2 …\nwaits: limit: 3 at once\n"},
		"two lines":            {width: 20, height: 2, want: "\nrun 7: running 1m02…\n110/200 done, 3/3 r…\n"},
		"one line":             {width: 12, height: 1, want: "\n110/200 don…\n"},
		"next to nothing":      {width: 1, height: 5, want: "\n…\n…\n…\n…\n…\n"},
		"nothing":              {width: -1, height: -2, want: "\n…\n"},
		"held, with the cause": {change: func(s *scene) { s.run.Held, s.run.Reason, s.run.Live, s.failures = true, "store: no space", nil, nil }, width: 40, height: 9, want: "\nrun 7: requeue  T363966       held 1m02s\n━━━━━━━━━━━━━━━━━━━────────────────  55%\n110/200 done, 3/3 running, 2 failed, 87…\nwaits: store: no space\nrunning      … and 3 more\n"},
		"while it is cancelled": {change: func(s *scene) {
			s.run.Ending, s.run.Reason, s.run.Live, s.failures, s.forecast = bulkhead.RunCancelled, "cancelled by ann@host", nil, nil, nil
			s.run.Counts = bulkhead.Counts{Succeeded: 5, Cancelled: 5}
		}, width: 60, height: 9, want: "\nrun 7: requeue      cancelled once what runs has ended 1m02s\n━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  50%\n5/10 done, 5 cancelled\nstopping: cancelled by ann@host\n"},
		"lines kept for items that may come": {change: func(s *scene) {
			s.rows, s.run.Live, s.run.Counts = 3, nil, bulkhead.Counts{Queued: 1}
			s.failures = s.failures[:1]
			s.forecast, s.run.Reason, s.since = nil, "", time.Time{}
		}, width: 60, height: 12, want: "\nrun 7: requeue  T363966                              running\n───────────────────────────────────────────────────────   0%\n0/1 done, 1 queued\n\n\n\n\nfailed   13  exit 1  ./requeue --wiki=frwiki --key=240p\n"},
	} {
		s := example(t)
		if c.change != nil {
			s = example(t, c.change)
		}
		got := ansi.Strip("\n" + strings.Join(s.lines(c.width, c.height), "\n") + "\n")
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestNothingThatUsersWroteLeavesItsPlaceInTheLiveDisplay(t *testing.T) {
	random := newRandom(t)
	for range 3000 {
		s := example(t, func(s *scene) {
			s.run.Spec.Name, s.run.Spec.Comment, s.run.Reason = textOf(random), textOf(random), textOf(random)
			s.run.Counts = bulkhead.Counts{Queued: random.Int64N(1e7), Running: random.Int64N(50), Succeeded: random.Int64N(1e7),
				Failed: random.Int64N(9), Lost: random.Int64N(9), Cancelled: random.Int64N(1e7)}
			for i := range s.run.Live {
				s.run.Live[i].Item.Values = []string{textOf(random), strings.Repeat(textOf(random), 200)}
			}
			s.failures[0].Values = []string{textOf(random), textOf(random)}
			s.rows = random.IntN(10)
		})
		width, height := 1+random.IntN(130), 1+random.IntN(30)
		lines := s.lines(width, height)
		if len(lines) > height {
			t.Fatalf("%d lines in %d", len(lines), height)
		}
		for _, line := range lines {
			plain := ansi.Strip(line)
			if w := ansi.StringWidthWc(plain); w > width || strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
				t.Fatalf("%d columns of %d: %q", w, width, line)
			}
		}
	}
}

func TestALargeItemCostsADisplayNoMoreThanASmallOne(t *testing.T) {
	frame := func(size int) float64 {
		s := example(t, func(s *scene) { s.run.Live[0].Item.Values[0] = strings.Repeat("x", size) })
		return testing.AllocsPerRun(20, func() { s.lines(80, 24) })
	}
	if small, large := frame(1000), frame(10_000_000); large > small+5 {
		t.Errorf("%.0f allocations, %.0f for a large item", small, large)
	}
}

func TestMessagesGoAboveADisplayLineByLine(t *testing.T) {
	var out bytes.Buffer
	m := &messages{w: &out}
	fmt.Fprint(m, "before\n")
	var above []string
	alive := true
	m.over(func(line string) bool {
		if alive {
			above = append(above, line)
		}
		return alive
	})
	fmt.Fprint(m, "one\ntw")
	fmt.Fprint(m, "o\nbegun, ")
	m.plain(func() { above = append(above, "(gone)") })
	fmt.Fprint(m, "and ended\n")
	m.over(func(string) bool { return false })
	fmt.Fprint(m, "the display has failed\n")
	fmt.Fprint(m, "and is not asked again\n")
	if d := cmp.Diff([]string{"one", "two", "(gone)"}, above); d != "" {
		t.Errorf("above the display (-want +got):\n%s", d)
	}
	if want := "before\nbegun, and ended\nthe display has failed\nand is not asked again\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
