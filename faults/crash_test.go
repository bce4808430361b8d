package faults_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crashes is how many processes of each shape are killed while they work: with
// seven shapes more than a hundred in all.
const crashes = 15

// shape is a kind of run to be killed.
type shape struct {
	name    string
	items   int64
	limit   int
	retries int
	args    []string // before --limit
	item    string   // what the script gets as its number
	span    time.Duration
}

// crashScript appends its number, by one write with O_APPEND, says so, and
// fails for every seventh item.
const crashScript = `echo "$1" >> ran; echo "ran $1"; exit $(($1 % 7 == 0))`

func crashShapes() []*shape {
	return []*shape{
		{name: "one at a time", items: 12, limit: 1, args: []string{"--each", "1..12"}, item: "{}"},
		{name: "four at a time", items: 40, limit: 4, args: []string{"--each", "1..40"}, item: "{}"},
		{name: "a single script", items: 1, limit: 1, item: "1"},
		{name: "with retries", items: 20, limit: 3, retries: 2, item: "{}",
			args: []string{"--each", "1..20", "--retries", "2", "--retry-delay", "20ms"}},
		{name: "slow to be read", items: 20, limit: 2, args: []string{"--each", "large"}, item: "{#}"},
		// The pool lets items overtake others: 1, 8 and 15 are the first ones.
		{name: "out of order", items: 21, limit: 4, item: "{#}",
			args: []string{"--each", "key=a,b,c", "--each", "n=1..7", "--pool", "p:{key}=1"}},
		{name: "more slots than items", items: 5, limit: 8, args: []string{"--each", "1..5"}, item: "{}"},
	}
}

func (s *shape) command() []string {
	args := append([]string{"run"}, s.args...)
	if len(s.args) > 0 {
		args = append(args, "--limit", fmt.Sprint(s.limit))
	}
	return append(args, "--", "sh", "-c", crashScript, "sh", s.item)
}

// longLines is an input that takes several transactions to accept: its lines are
// long, and none of them compresses well.
func longLines(r *rand.Rand, lines int64) string {
	var b strings.Builder
	for range lines {
		for range 200_000 / 16 {
			fmt.Fprintf(&b, "%016x", r.Uint64())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestAfterKill9AtAnyInstantNothingRunsTwiceAndAllIsKnown(t *testing.T) {
	r := random(t)
	input := longLines(r, 20)
	for _, s := range crashShapes() {
		random := rand.New(rand.NewPCG(r.Uint64(), 0))
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.crashOften(t, random, input)
		})
	}
}

// crashOften starts one run after the other until enough of their processes
// were killed while they worked.
func (s *shape) crashOften(t *testing.T, random *rand.Rand, input string) {
	c := &crash{of: s, random: random}
	for round := 0; c.killed < crashes; round++ {
		if c.place = newPlace(t); round > 10*crashes {
			t.Fatalf("only %d processes were alive to be killed", c.killed)
		}
		c.write("large", input)
		if round == 0 {
			begin := time.Now()
			c.run(s.command()...)
			s.span = time.Since(begin)
			continue
		}
		if killed := c.killed; c.untilOver() {
			c.check(c.killed - killed)
		}
	}
	t.Logf("%v undisturbed; %d killed, %d of them before all was accepted, %d together with their guardian; %d items lost",
		s.span.Round(time.Millisecond), c.killed, c.accepting, c.guards, c.lost)
}

// crash is one run that is killed until it is over.
type crash struct {
	*place
	of        *shape
	random    *rand.Rand
	killed    int // while at work
	accepting int // of these, before all items were accepted
	guards    int // of these, together with the guardian
	lost      int64
}

// untilOver kills a run until it is over. It reports false if nothing was
// accepted.
func (c *crash) untilOver() bool {
	c.t.Helper()
	for q := c.start(c.of.command()...); ; q = c.start("resume", "1") {
		killed := c.killAtRandom(q)
		runs := c.ls()
		if killed && (len(runs) == 0 || runs[0].State == "accepting") {
			c.accepting++
			if ran := c.appended("ran"); len(ran) > 0 {
				c.t.Errorf("nothing was accepted, but %v ran", ran)
			}
		}
		if len(runs) == 0 {
			return false
		}
		if c.random.IntN(3) == 0 {
			c.consistent(1)
		}
		if s := runs[0].State; s == "succeeded" || s == "failed" {
			return true
		}
	}
}

// killAtRandom kills a process at any instant of the time that it should take,
// or a little later, and now and then its guardian with it. It reports false if
// the process had ended.
func (c *crash) killAtRandom(q *process) bool {
	c.t.Helper()
	begin := time.Now()
	after := time.Duration(c.random.Float64() * 1.1 * float64(c.of.span))
	both := c.random.IntN(4) == 0
	select {
	case <-time.After(after): // the instant is the point of the test
	case err := <-q.ended:
		q.ended <- err
		if q.Args[1] == "run" { // the machine has become faster
			c.of.span = min(c.of.span, time.Since(begin))
		}
	}
	var guards []int
	if both {
		guards = guardians(q.Process.Pid)
	}
	for _, pid := range guards {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	q.kill()
	code := q.ProcessState.ExitCode()
	if code == -1 {
		c.killed++
		c.guards += len(guards)
	} else if code > 1 {
		c.t.Errorf("%v: exit code %d: %s", q.Args, code, q.says())
	}
	return code == -1
}

// check is what is promised after any number of crashes.
func (c *crash) check(killed int) {
	c.t.Helper()
	r, items := c.consistent(1)
	ran, output := c.appended("ran"), c.output()
	counts := r.Counts
	c.lost += counts.Lost
	if counts.Total() != c.of.items || counts.Queued+counts.Running+counts.Cancelled > 0 {
		c.t.Errorf("%+v", r)
	}
	if most := int64(c.of.limit * killed); counts.Lost > most {
		c.t.Errorf("%d items are lost, want at most %d: %d killed", counts.Lost, most, killed)
	}
	for n, times := range ran {
		if most := min(items[n].Attempt, 1+c.of.retries); times > most {
			c.t.Errorf("item %d ran %d times in %d attempts: %+v", n, times, most, items[n])
		}
	}
	for n, it := range items {
		if it.State == "lost" {
			continue
		}
		want := "succeeded"
		if n%7 == 0 {
			want = "failed"
		}
		if it.State != want || ran[n] == 0 || c.of.retries == 0 && it.Attempt != 1 {
			c.t.Errorf("item %d ran %d times, want %s: %+v", n, ran[n], want, it)
		}
		if text := fmt.Sprintf("ran %d\n", n); output[n] != text {
			c.t.Errorf("output of item %d is %q, want %q", n, output[n], text)
		}
	}
	if c.t.Failed() {
		for i := 1; i <= c.said; i++ {
			c.t.Log(read(c.t, filepath.Join(c.dir, fmt.Sprintf("stderr.%d", i))))
		}
	}
}

// output is what the last attempt of each item wrote.
func (c *crash) output() map[int64]string {
	c.t.Helper()
	out := map[int64]string{}
	text := c.ok("logs", "1")
	if c.of.args == nil {
		return map[int64]string{1: text}
	}
	for line := range strings.Lines(text) {
		var n int64
		if _, err := fmt.Sscanf(line, "[%d]", &n); err != nil {
			c.t.Fatalf("%v: %q", err, line)
		}
		_, rest, _ := strings.Cut(line, "] ")
		out[n] += rest
	}
	return out
}
