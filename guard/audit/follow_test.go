package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead/guard/audit"
)

const missing = "no such file or directory"

// logFile is an audit log that is followed in a bubble.
type logFile struct {
	*testing.T
	path  string
	users audit.Users
	made  int

	mu     sync.Mutex
	states []string
	counts map[audit.Result]int
}

func (l *logFile) options() audit.Options {
	l.counts = map[audit.Result]int{}
	return audit.Options{Users: &l.users,
		Count: func(result audit.Result, n int) { l.mu.Lock(); l.counts[result] += n; l.mu.Unlock() },
		State: func(err error) { l.mu.Lock(); l.states = append(l.states, fmt.Sprint(err)); l.mu.Unlock() }}
}

// followed runs a test of a log.
func followed(t *testing.T, change func(*audit.Options), test func(*logFile)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &logFile{T: t, path: filepath.Join(dir, "audit.log")}
		ctx, cancel := context.WithCancel(t.Context())
		o := l.options()
		if change != nil {
			change(&o)
		}
		done := make(chan struct{})
		go func() { defer close(done); audit.Follow(ctx, l.path, o) }()
		test(l)
		cancel()
		<-done
	})
}

// lines are of ConfigMaps that ann makes now.
func (l *logFile) lines(n int) string {
	var b strings.Builder
	for range n {
		l.made++
		b.WriteString(event(func(e map[string]any) {
			set("objectRef.name", "mail-"+random(l.made))(e)
			set("requestReceivedTimestamp", time.Now().UTC().Format(time.RFC3339Nano))(e)
		}) + "\n")
	}
	return b.String()
}

func (l *logFile) write(path, text string) {
	l.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		_ = f.Close()
	}
	l.check(err)
}

func (l *logFile) check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// wait waits until the log has been read.
func (l *logFile) wait() {
	<-time.After(3 * time.Second)
	synctest.Wait()
}

func (l *logFile) want(n int64) {
	l.Helper()
	l.wait()
	if got := told(&l.users, "mail-*", time.Time{})["ann"]; got != n {
		l.Errorf("%d are known, want %d; %v", got, n, l.states)
	}
}

// said is what was said, but that there was no file at first: who looked before it was
// written says so.
func (l *logFile) said(want ...string) {
	l.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.states
	if len(got) > 1 && got[0] == missing {
		got = got[1:]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		l.Errorf("it was said (-want +got):\n%s", diff)
	}
}

func TestALogThatIsNotThereYetIsFollowed(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		l.want(0)
		if diff := cmp.Diff([]string{missing}, l.states); diff != "" {
			t.Error(diff)
		}
		l.write(l.path, l.lines(3))
		l.want(3)
		l.said("<nil>")
		l.check(os.Remove(l.path))
		<-time.After(time.Minute)
		l.said("<nil>", missing)
		l.write(l.path, l.lines(2))
		l.want(5)
	})
}

func TestAFolderIsNoLog(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		l.check(os.Mkdir(l.path, 0o700))
		l.wait()
		if l.states[len(l.states)-1] != "it is a folder" {
			t.Error(l.states)
		}
	})
}

func TestALineCountsWhenItIsWhole(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		text := l.lines(1)
		l.write(l.path, text[:200])
		l.want(0)
		l.write(l.path, text[200:len(text)-1])
		l.want(0)
		l.write(l.path, "\n\n  \n")
		l.want(1)
		if len(l.counts) != 1 {
			t.Error(l.counts)
		}
	})
}

func TestRotationMissesNothing(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		l.write(l.path, l.lines(10))
		l.want(10)
		for range 3 { // as the API server does it
			l.write(l.path, l.lines(10))
			l.check(os.Rename(l.path, l.path+".old"))
			l.write(l.path+".old", l.lines(5))
			l.write(l.path, l.lines(10))
			l.wait()
		}
		l.want(10 + 3*25)
		l.said("<nil>")
	})
}

func TestALogThatIsEmptiedIsReadFromItsBegin(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		l.write(l.path, l.lines(10)+l.lines(1)[:100])
		l.want(10)
		l.check(os.Truncate(l.path, 0))
		l.write(l.path, l.lines(3))
		l.want(13)
	})
}

func TestOfALargeLogTheEndIsRead(t *testing.T) {
	followed(t, func(o *audit.Options) { o.Tail = 64 << 10 }, func(l *logFile) {
		l.write(l.path, strings.Repeat("not read\n", 100_000)+l.lines(20))
		l.want(20)
		if l.counts[audit.Invalid] > 10_000 {
			t.Error(l.counts)
		}
		// Who was away for so long that there is much more does not read all of it either.
		l.write(l.path, strings.Repeat("not read\n", 100_000)+l.lines(20))
		l.want(40)
		if l.counts[audit.Invalid] > 20_000 {
			t.Error(l.counts)
		}
	})
}

func TestReadingHasABoundedRate(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		began := time.Now()
		l.write(l.path, strings.Repeat(strings.Repeat("x", 1<<10)+"\n", 48<<10))
		l.write(l.path, l.lines(1))
		for len(told(&l.users, "mail-*", time.Time{})) == 0 {
			<-time.After(10 * time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(began); took < time.Second || took > 10*time.Second {
			t.Errorf("48 MiB took %s", took)
		}
	})
}

func TestALineOfMegabytesIsReadAtItsBegin(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		text := strings.TrimSuffix(l.lines(1), "}\n")
		huge := func(n int) string { return `,"responseObject":{"data":"` + strings.Repeat("x", n) + `"}}` + "\n" }
		// Written by an API server, the object is behind what is read.
		l.write(l.path, text+huge(3<<20)+l.lines(1)+huge(5<<20)+l.lines(1))
		l.want(3)
	})
}

func TestSomethingElseThanAnAuditLogIsSaid(t *testing.T) {
	followed(t, nil, func(l *logFile) {
		for range 30 {
			l.write(l.path, strings.Repeat("\x00\xff garbage {\n", 50))
			l.wait()
		}
		l.said("<nil>", audit.ErrNoEvents.Error())
		l.write(l.path, l.lines(1))
		l.want(1)
		l.said("<nil>", audit.ErrNoEvents.Error(), "<nil>")
	})
}

func TestTheClockOfTheLogsMachineDoesNotMatter(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -5 * time.Hour, "ahead": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			followed(t, nil, func(l *logFile) {
				line := func() string {
					return strings.ReplaceAll(l.lines(1), time.Now().UTC().Format(time.RFC3339Nano), time.Now().Add(off).UTC().Format(time.RFC3339Nano))
				}
				l.write(l.path, line())
				l.wait()
				l.write(l.path, line())
				l.wait()
				// What was there before goes by the log's clock, but is not of the future.
				want := map[string]int64{"ann": 1}
				if off > 0 {
					want["ann"] = 2
				}
				if diff := cmp.Diff(want, told(&l.users, "mail-*", time.Now())); diff != "" {
					t.Error(diff)
				}
				if got := told(&l.users, "mail-*", time.Now().Add(time.Hour)); len(got) > 0 {
					t.Errorf("of the future: %v", got)
				}
			})
		})
	}
}

func TestAPipeIsReadToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logFile{T: t}
		from, to := io.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); audit.FollowReader(t.Context(), from, l.options()) }()
		text := l.lines(5)
		for _, part := range []string{text[:10], text[10:900], text[900:]} {
			_, err := io.WriteString(to, part)
			l.check(err)
		}
		l.want(5)
		l.check(to.Close())
		<-done
		l.said("<nil>", audit.ErrEnded.Error())
	})
}

// ssh takes its time to log in, and what it then brings first has been there for hours.
func TestWhatWasThereBeforeAPipeOpenedCountsWhenItWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logFile{T: t}
		from, to := io.Pipe()
		go audit.FollowReader(t.Context(), from, l.options())
		old := l.lines(3)
		<-time.After(5 * time.Hour)
		_, err := io.WriteString(to, old)
		l.check(err)
		l.check(to.Close())
		synctest.Wait()
		if got := told(&l.users, "mail-*", time.Now().Add(-time.Hour)); len(got) > 0 {
			t.Errorf("made lately: %v", got)
		}
		if got := told(&l.users, "mail-*", time.Now().Add(-6*time.Hour))["ann"]; got != 3 {
			t.Errorf("%d are known", got)
		}
	})
}

func TestAPipeThatBringsNothingKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logFile{T: t}
		from, to := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); audit.FollowReader(ctx, from, l.options()) }()
		synctest.Wait()
		cancel()
		<-done
		_ = to.Close() // the read of it ends then
		synctest.Wait()
		l.said()
	})
}

func TestOneLookReadsTheEndOnce(t *testing.T) {
	l := &logFile{T: t, path: filepath.Join(t.TempDir(), "audit.log")}
	if err := audit.Last(t.Context(), l.path, l.options()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	l.write(l.path, l.lines(1)[:300]+"\n")
	l.check(audit.Last(t.Context(), l.path, l.options()))
	l.write(l.path, l.lines(7)+l.lines(1)[:300])
	l.check(audit.Last(t.Context(), l.path, l.options()))
	if got := told(&l.users, "mail-*", time.Now().Add(-time.Hour))["ann"]; got != 7 {
		t.Errorf("%d are known", got)
	}
	l.check(os.WriteFile(l.path, []byte("something else\n"), 0o600))
	if err := audit.Last(t.Context(), l.path, l.options()); !errors.Is(err, audit.ErrNoEvents) {
		t.Error(err)
	}
}

// How much of a core a log takes, by what its lines are.
func BenchmarkParse(b *testing.B) {
	create := event(func(map[string]any) {})
	for name, line := range map[string]string{
		"creation": create, "other": strings.NewReplacer(`"create"`, `"update"`).Replace(create),
		"whole object": strings.TrimSuffix(create, "}") + `,"zObject":{"data":"` + strings.Repeat("x", 60<<10) + `"}}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				audit.Parse([]byte(line))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)*1000, "µs/1000-lines")
		})
	}
}
