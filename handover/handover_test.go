package handover_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/handover"
)

var update = flag.Bool("update", false, "write the golden pages")

var (
	zone = time.FixedZone("CET", 3600)
	now  = time.Date(2026, 11, 25, 7, 47, 0, 0, zone)
)

func typed(format string, args ...any) string { return "bulkhead " + fmt.Sprintf(format, args...) }

func input(runs ...*bulkhead.Run) handover.Input {
	return handover.Input{Now: now, Since: now.Add(-8 * time.Hour), Where: "at https://bulkhead.example.org:8443", Runs: runs, Command: typed}
}

// run is a batch, as of hours ago.
func run(id bulkhead.RunID, name string, change func(*bulkhead.Run)) *bulkhead.Run {
	r := &bulkhead.Run{ID: id, State: bulkhead.RunRunning, Created: now.Add(-3 * time.Hour), Started: now.Add(-3 * time.Hour),
		Spec: bulkhead.Spec{Name: name, Owner: "ann@deploy", Comment: "T363966", Class: "wikis/mw", Columns: []string{"wiki"}}}
	change(r)
	return r
}

func single(r *bulkhead.Run) { r.Spec.Columns = nil }

func ended(r *bulkhead.Run, state bulkhead.RunState, c bulkhead.Counts) {
	r.State, r.Counts, r.Finished = state, c, r.Started.Add(40*time.Minute)
}

// night is a night with something of everything.
func night() handover.Input {
	in := input(
		run(330, "Version.php", func(r *bulkhead.Run) {
			single(r)
			r.Counts = bulkhead.Counts{Running: 1}
			r.Started = now.Add(-time.Minute)
		}),
		run(329, "requeue", func(r *bulkhead.Run) {
			r.Counts, r.Reason = bulkhead.Counts{Queued: 588, Running: 4, Succeeded: 406, Failed: 2}, "pool db:s3: all 4 in use"
		}),
		run(328, "migrate", func(r *bulkhead.Run) {
			r.State, r.Counts, r.Reason = bulkhead.RunPaused, bulkhead.Counts{Queued: 90, Succeeded: 9, Failed: 1}, "canary: item 10 failed; `bulkhead resume 328` goes on"
			r.Spec.Owner, r.Spec.Comment = "bob@web", "new schema *now*"
		}),
		run(327, "backfill", func(r *bulkhead.Run) {
			r.Held, r.Counts, r.Reason = true, bulkhead.Counts{Queued: 1000}, "store: no space left on device"
			r.Started = time.Time{}
		}),
		run(326, "slow", func(r *bulkhead.Run) {
			r.Counts, r.Reason = bulkhead.Counts{Queued: 7, Running: 1, Succeeded: 1}, "limit: 1 at once"
		}),
		run(325, "reads", func(r *bulkhead.Run) { r.State, r.Started = bulkhead.RunAccepting, time.Time{} }),
		run(324, "stops", func(r *bulkhead.Run) {
			r.Ending, r.Counts, r.Reason = bulkhead.RunCancelled, bulkhead.Counts{Running: 2, Cancelled: 8}, "stopping: cancelled by bob@web"
		}),
		run(20, "lost", func(r *bulkhead.Run) { ended(r, bulkhead.RunFailed, bulkhead.Counts{Succeeded: 97, Lost: 3}) }),
		run(19, "one", func(r *bulkhead.Run) {
			single(r)
			ended(r, bulkhead.RunFailed, bulkhead.Counts{Failed: 1})
			r.ExitCode = 137
		}),
		run(18, "gone", func(r *bulkhead.Run) {
			ended(r, bulkhead.RunCancelled, bulkhead.Counts{Cancelled: 10})
			r.Started, r.Reason = time.Time{}, "cancelled by ann@deploy"
		}),
	)
	for id := bulkhead.RunID(300); id > 100; id-- { // a shell loop
		in.Runs = append(in.Runs, run(id, "showSiteStats.php", func(r *bulkhead.Run) {
			single(r)
			ended(r, bulkhead.RunSucceeded, bulkhead.Counts{Succeeded: 1})
		}))
	}
	in.Server = true
	in.Classes = []bulkhead.ClassStatus{
		{Name: "wikis/mw", Workers: 4, Slots: 16, Queued: 1685, Running: 8,
			Objects: []bulkhead.ObjectCount{{Kind: "Pod", Count: 4}, {Kind: "ConfigMap", Count: 1}, {Kind: "NetworkPolicy", Count: 1}}},
		{Name: "wikis/old", Queued: 3, Blocked: "pod old-0-0: ErrImagePull", Objects: []bulkhead.ObjectCount{{Kind: "Pod"}, {Kind: "ConfigMap", Count: 1}}},
	}
	return in
}

func TestPages(t *testing.T) {
	crowd := input()
	for id := bulkhead.RunID(1000); id > 0; id-- {
		crowd.Runs = append(crowd.Runs, run(id, fmt.Sprint("batch", id), func(r *bulkhead.Run) {
			r.Counts, r.Reason = bulkhead.Counts{Queued: 5}, fmt.Sprintf("pool p%d: all 1 in use", id%20)
			if id%2 == 0 {
				ended(r, bulkhead.RunFailed, bulkhead.Counts{Failed: 5})
				r.Reason = ""
			}
		}))
	}
	crowd.More = true
	quiet := input()
	quiet.Where = "in /home/ann/.local/state/bulkhead"
	for name, in := range map[string]handover.Input{"night": night(), "quiet": quiet, "crowd": crowd} {
		page := handover.Compose(in)
		for form, write := range map[string]func(*bytes.Buffer) error{
			"txt": func(b *bytes.Buffer) error { return page.Text(b) },
			"md":  func(b *bytes.Buffer) error { return page.Markdown(b) },
			"json": func(b *bytes.Buffer) error {
				enc := json.NewEncoder(b)
				enc.SetIndent("", "  ")
				return enc.Encode(page)
			},
		} {
			t.Run(name+"."+form, func(t *testing.T) {
				var b bytes.Buffer
				if err := write(&b); err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+form, b.String())
				if lines := strings.Count(b.String(), "\n"); form != "json" && lines > 110 {
					t.Errorf("%d lines are more than a page", lines)
				}
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-golden +got; go test ./handover -update):\n%s", diff)
	}
}

// Stored times may be in any order after a clock was set.
func TestAClockThatWasSetBackSaysNothingWrong(t *testing.T) {
	future := run(1, "future", func(r *bulkhead.Run) {
		r.Started, r.Counts = now.Add(time.Hour), bulkhead.Counts{Queued: 5, Running: 1, Succeeded: 4}
	})
	backwards := run(2, "backwards", func(r *bulkhead.Run) {
		ended(r, bulkhead.RunSucceeded, bulkhead.Counts{Succeeded: 4})
		r.Finished = r.Started.Add(-time.Hour)
	})
	in := input(future, backwards)
	in.Since = now.Add(time.Hour)
	page := handover.Compose(in)
	var b bytes.Buffer
	if err := page.Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"took", "-1h", "-", "ends about"} {
		if text := strings.ReplaceAll(strings.ReplaceAll(b.String(), "2026-11-25", ""), "2026-11-24", ""); strings.Contains(text, wrong) {
			t.Errorf("it says %q:\n%s", wrong, b.String())
		}
	}
	if page.Open[0].Estimate != nil || !strings.Contains(page.Open[0].NoEnd, "clock") {
		t.Errorf("%+v", page.Open[0])
	}
}

func TestNothingOfUsersBreaksALine(t *testing.T) {
	evil := "x\n## Forged\x1b[31m\u202e`rm`<script>|"
	r := run(1, evil, func(r *bulkhead.Run) { r.Spec.Owner, r.Spec.Comment, r.Reason = evil, evil, evil })
	var text, md bytes.Buffer
	page := handover.Compose(input(r))
	if err := page.Text(&text); err != nil {
		t.Fatal(err)
	}
	if err := page.Markdown(&md); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{text.String(), md.String()} {
		if strings.Contains(got, "\n## Forged") || strings.ContainsAny(got, "\x1b\u202e") {
			t.Errorf("%q", got)
		}
	}
	if strings.Contains(md.String(), " `rm`") || strings.Contains(md.String(), "x·## Forged") || !strings.Contains(md.String(), `\<script\>\|`) {
		t.Errorf("%s", md.String())
	}
}
