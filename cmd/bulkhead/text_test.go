package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
)

// textOf makes up text of the characters that shells and terminals treat as
// special, and of some that they do not. Properties are checked with math/rand
// here and not with rapid: this binary is also every bulkhead and guardian of
// the scripts, and rapid's tables take 30 ms of each of their starts.
func textOf(random *rand.Rand) string {
	pieces := strings.Split(`a|é|日|'|"|\|$|$(x)|*|?|;|&|<|>|(|)|{|}|~|#|!|=|-|`+"`|\n|\t|\r|\x1b[31m|\x7f|\u009b|\xe9|\xff| ", "|")
	var b strings.Builder
	for range random.IntN(12) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

func newRandom(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestAShellReadsALineBackAsTheArgumentsItWasMadeOf(t *testing.T) {
	random := newRandom(t)
	args := []string{"", "-n", "--", "~", "~root", "a=b", "|", "caf\xe9"}
	for range 2000 {
		args = append(args, textOf(random))
	}
	out, err := exec.Command("sh", "-c", `p() { printf '%s\0' "$@"; }; p `+shellLine(args)).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if d := cmp.Diff(args, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestOnlyWhatAShellWouldChangeIsQuoted(t *testing.T) {
	got := shellLine([]string{"php", "maintenance/x.php", "--wiki=aawiki", "a,b:c@d%e+f", "it's", "", "{}", "é"})
	if want := `php maintenance/x.php --wiki=aawiki a,b:c@d%e+f 'it'\''s' '' '{}' 'é'`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1499 * time.Millisecond: "1s", 59 * time.Second: "59s",
		time.Minute: "1m00s", 61 * time.Second: "1m01s", time.Hour - time.Second: "59m59s",
		time.Hour: "1h00m", 47*time.Hour + 59*time.Minute: "47h59m", 48 * time.Hour: "2d", 1000 * 24 * time.Hour: "1000d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestPrintableTextCannotPlayWithATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		width int
		want  string
	}{
		"text stays":                     {"naïve – 日本", 0, "naïve – 日本"},
		"an escape sequence is seen":     {"a\x1b[31mb", 0, "a·[31mb"},
		"so are newlines and tabs":       {"a\nb\tc\r", 0, "a·b·c·"},
		"bytes that are no text":         {"caf\xe9", 0, "caf·"},
		"the second set of controls":     {"a\u009bb\x7f", 0, "a·b·"},
		"what fits is not cut":           {"12345", 5, "12345"},
		"what does not fit says so":      {"123456", 5, "1234…"},
		"characters count and not bytes": {"äöüßé", 5, "äöüßé"},
	} {
		if got := printable(c.text, c.width); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	random := newRandom(t)
	for range 2000 {
		text, width := textOf(random), 1+random.IntN(20)
		got := printable(text, width)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > width || strings.ContainsAny(got, "\x1b\n\r\x7f\u009b") {
			t.Errorf("printable(%q, %d) = %q", text, width, got)
		}
	}
}

func TestLinesAreCutBetweenWords(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		width int
		want  string
	}{
		"what fits is one line":         {"bulkhead retry 1 --failed", 25, "bulkhead retry 1 --failed"},
		"flags stay whole":              {"bulkhead retry 1 --failed", 22, "bulkhead retry 1|--failed"},
		"a line that just fits":         {"one two three", 7, "one two|three"},
		"blanks at a cut are left out":  {"one   two", 5, "one  |two"},
		"an indent is no place to cut":  {"  0123456789 x", 8, "  012345|6789 x"},
		"a word longer than a line":     {"a 0123456789", 4, "a|0123|4567|89"},
		"wide characters count as two":  {"日本 語", 4, "日本|語"},
		"a width of less than it takes": {"日本", 1, "日本"},
	} {
		if got := strings.Join(wrapped(c.text, c.width), "|"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAStatusLineSaysWhatMatters(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	measured := func(done int64) *meter {
		m := &meter{}
		m.add(start, 0)
		m.add(start.Add(10*time.Second), done)
		return m
	}
	for name, c := range map[string]struct {
		run  bulkhead.Run
		m    *meter
		want string
	}{
		"nothing has ended yet": {
			bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Counts: bulkhead.Counts{Queued: 8, Running: 2}}, &meter{},
			"run 7: running: 0 of 10 done (0%), 2 running",
		},
		"half way": {
			bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Counts: bulkhead.Counts{Queued: 48, Running: 2, Succeeded: 49, Failed: 1}}, measured(50),
			"run 7: running: 50 of 100 done (50%), 2 running, 1 failed, 5/s, 10s left",
		},
		"held, with the reason": {
			bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Held: true, Reason: "store: disk is full",
				Counts: bulkhead.Counts{Queued: 9, Lost: 1}}, &meter{},
			"run 7: held: 1 of 10 done (10%), 1 lost, waits: store: disk is full",
		},
		"interrupted, and something still runs": {
			bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Reason: bulkhead.Stopping + "interrupted", Counts: bulkhead.Counts{Queued: 4, Running: 1, Succeeded: 5}}, measured(5),
			"run 7: running: 5 of 10 done (50%), 1 running, stopping: interrupted",
		},
		"cancelled, and something still runs": {
			bulkhead.Run{ID: 7, State: bulkhead.RunRunning, Ending: bulkhead.RunCancelled, Reason: "cancelled by ann",
				Counts: bulkhead.Counts{Running: 1, Succeeded: 5, Cancelled: 4}}, measured(5),
			"run 7: cancelled once what runs has ended: 5 of 10 done (50%), 1 running, 4 cancelled, stopping: cancelled by ann",
		},
		"a rate that says nothing about the end": {
			bulkhead.Run{ID: 7, State: bulkhead.RunPaused, Counts: bulkhead.Counts{Queued: 9, Cancelled: 1}}, measured(0),
			"run 7: paused: 0 of 10 done (0%), 1 cancelled",
		},
		"an empty run": {bulkhead.Run{ID: 7, State: bulkhead.RunSucceeded}, &meter{}, "run 7: succeeded: 0 of 0 done (0%)"},
	} {
		if got := statusLine(&c.run, c.m); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestTheMeterMeasuresTheLastMinute(t *testing.T) {
	var m meter
	if m.rate() != 0 {
		t.Error("a rate without a measurement")
	}
	now := time.Unix(1_000_000, 0)
	for i := range int64(300) { // 1/s for four minutes, then 10/s
		done := i
		if i > 240 {
			done = 240 + (i-240)*10
		}
		m.add(now.Add(time.Duration(i)*time.Second), done)
	}
	if got := m.rate(); got < 8 || got > 10 {
		t.Errorf("%.2f/s, want about 10/s: the slow minutes are over", got)
	}
	if len(m.at) > 70 {
		t.Errorf("it keeps %d measurements", len(m.at))
	}
	left, ok := m.left(100)
	if !ok || left < 10*time.Second || left > 13*time.Second {
		t.Errorf("100 more in %s (%t)", left, ok)
	}
	if left, ok := m.left(1 << 62); ok {
		t.Errorf("an end in %s is no forecast", left)
	}
	m.add(now.Add(299*time.Second), 0) // a retry makes the count of finished items go back
	if m.rate() < 0 {
		t.Error("a rate below 0")
	}
}

func TestTheExitCodeOfARun(t *testing.T) {
	single := bulkhead.Spec{Command: []string{"x"}}
	batch := bulkhead.Spec{Command: []string{"x"}, Columns: []string{"1"}}
	for name, c := range map[string]struct {
		run  bulkhead.Run
		want int
	}{
		"all succeeded":                 {bulkhead.Run{Spec: batch, State: bulkhead.RunSucceeded}, 0},
		"some failed":                   {bulkhead.Run{Spec: batch, State: bulkhead.RunFailed, Counts: bulkhead.Counts{Failed: 1}}, 1},
		"some were lost":                {bulkhead.Run{Spec: batch, State: bulkhead.RunFailed, Counts: bulkhead.Counts{Lost: 1}}, 1},
		"cancelled":                     {bulkhead.Run{Spec: batch, State: bulkhead.RunCancelled, Counts: bulkhead.Counts{Failed: 1, Cancelled: 1}}, 3},
		"interrupted":                   {bulkhead.Run{Spec: batch, State: bulkhead.RunPaused, Counts: bulkhead.Counts{Queued: 1}}, 3},
		"one script that failed":        {bulkhead.Run{Spec: single, State: bulkhead.RunFailed, ExitCode: 42, Counts: bulkhead.Counts{Failed: 1}}, 42},
		"one script, ended by a signal": {bulkhead.Run{Spec: single, State: bulkhead.RunFailed, ExitCode: 137, Counts: bulkhead.Counts{Failed: 1}}, 137},
		"one script that was lost":      {bulkhead.Run{Spec: single, State: bulkhead.RunFailed, Counts: bulkhead.Counts{Lost: 1}}, 1},
		"one script that was cancelled": {bulkhead.Run{Spec: single, State: bulkhead.RunCancelled, Counts: bulkhead.Counts{Cancelled: 1}}, 3},
		"one script that succeeded":     {bulkhead.Run{Spec: single, State: bulkhead.RunSucceeded}, 0},
	} {
		a := &app{stderr: &messages{w: &bytes.Buffer{}}}
		if got := a.report(exitOf(&c.run)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestAnErrorIsReportedOnceWithItsHint(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		text string
	}{
		"the user's": {
			fmt.Errorf("input: %w", usage("write it so", "bad %q", "x")), 2,
			"bulkhead: input: bad \"x\"\n  write it so\n",
		},
		"of a state": {
			&bulkhead.Error{Code: bulkhead.CodeConflict, Message: "run 7 has ended (failed)", Hint: "retry it"}, 2,
			"bulkhead: run 7 has ended (failed)\n  retry it\n",
		},
		"our own":             {errors.New("disk is gone"), 125, "bulkhead: disk is gone\n"},
		"said already":        {exitError(3), 3, ""},
		"said, and then more": {errors.Join(exitError(3), nil), 3, ""},
	} {
		var stderr bytes.Buffer
		a := &app{stderr: &messages{w: &stderr}}
		if got := a.report(c.err); got != c.code || stderr.String() != c.text {
			t.Errorf("%s: %d %q, want %d %q", name, got, stderr.String(), c.code, c.text)
		}
	}
}

func TestAListOfJSONIsValidWhateverItsLength(t *testing.T) {
	for n, want := range map[int]string{0: "[\n]\n", 1: "[\n  1\n]\n", 3: "[\n  1,\n  2,\n  3\n]\n"} {
		var b bytes.Buffer
		l := jsonList{w: &b}
		for i := range n {
			if err := l.add(i + 1); err != nil {
				t.Fatal(err)
			}
		}
		l.end()
		if b.String() != want {
			t.Errorf("%d elements: %q, want %q", n, b.String(), want)
		}
	}
}

func TestEveryCommandSaysWhatItTakes(t *testing.T) {
	for _, cmd := range (&app{}).root().Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Args == nil {
			t.Errorf("%s takes any arguments", cmd.Name())
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: what it is for: %q", cmd.Name(), cmd.Short)
		}
		if strings.Contains(cmd.Use, "RUN") && cmd.ValidArgsFunction == nil {
			t.Errorf("%s does not complete the numbers of runs", cmd.Name())
		}
		for _, flag := range flagNames(cmd) {
			if cmd.Flag(flag) == nil {
				t.Errorf("%s: %q is no flag of it", cmd.Name(), flag)
			}
		}
	}
}
