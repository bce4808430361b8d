package faults_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// getAway is a script that leaves five processes behind, each in its own way,
// and does not mind signals that can be ignored. Its first item stays if it is
// told to; the second says so if anything of the first is left. What it leaves
// is known by how long it sleeps: TAG.
const getAway = `#!/bin/sh
trap "" TERM HUP INT QUIT
if [ "$1" = 2 ]; then
	grep -aqs "[T]AG" /proc/[0-9]*/cmdline && echo overlap > overlap
	echo 2 >> ran
	exit 0
fi
( (sleep TAG &) & )                                                   # double fork
( (setsid sh -c 'trap "" TERM; sleep TAG; sleep TAG' &) & )           # and a session of its own
( (setsid -f sh -c 'cd /; exec <&- >&- 2>&-; exec sleep TAG' &) & )   # without any file
( (env -i setsid -f sleep TAG >/dev/null 2>&1 &) & )                  # without an environment
sh -c 'kill -STOP $$; sleep TAG' &                                    # stopped
until [ "$(grep -als "[T]AG" /proc/[0-9]*/cmdline | wc -l)" -ge 6 ]; do :; done
echo 1 >> ran
[ "$2" = leave ] || sleep TAG
`

var tags atomic.Int64

func TestNothingThatAScriptStartedIsLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string // of run
		item string   // what the first item does
		end  func(p *place, q *process, tag string)
	}{
		"when it ends": {item: "leave", end: func(p *place, q *process, _ string) {
			if code := q.wait(); code != 0 {
				p.t.Errorf("exit code %d: %s", code, q.says())
			}
		}},
		"when its time is over": {args: []string{"--timeout", "2s"}, item: "stay", end: func(p *place, q *process, _ string) {
			if code := q.wait(); code != 1 {
				p.t.Errorf("exit code %d: %s", code, q.says())
			}
		}},
		"when its run is cancelled": {item: "stay", end: func(p *place, q *process, _ string) {
			p.ok("cancel", "1")
			if code := q.wait(); code != 3 {
				p.t.Errorf("exit code %d: %s", code, q.says())
			}
		}},
		"when Ctrl-C is pressed twice": {item: "stay", end: func(p *place, q *process, _ string) {
			for _, says := range []string{"interrupted", "cancelling"} {
				q.signal(syscall.SIGINT)
				eventually(p.t, says, func() bool { return strings.Contains(q.says(), says) })
			}
			if code := q.wait(); code != 3 {
				p.t.Errorf("exit code %d: %s", code, q.says())
			}
		}},
		"when bulkhead is killed": {item: "stay", end: func(p *place, q *process, tag string) {
			q.kill()
			eventually(p.t, "the guardian has ended all", func() bool { return len(running(tag)) == 0 })
		}},
		"when bulkhead is killed and the run resumed at once": {item: "stay", end: func(p *place, q *process, _ string) {
			q.kill()
			resumed(p)
		}},
		"when bulkhead and its guardian are killed and the run resumed": {item: "stay", end: func(p *place, q *process, tag string) {
			guards := guardians(q.Process.Pid)
			for _, pid := range guards {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			q.kill()
			if left := running(tag); len(guards) != 1 || len(left) < 6 {
				p.t.Errorf("%d guardians; without them these are left: %v", len(guards), left)
			}
			resumed(p)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			tag := fmt.Sprintf("%d", 86_000+tags.Add(1))
			p.write("get-away", strings.ReplaceAll(strings.ReplaceAll(getAway, "[T]AG", "["+tag[:1]+"]"+tag[1:]), "TAG", tag))
			args := append(append([]string{"run", "--each", "1,2", "--limit", "1", "--grace", "100ms"}, tt.args...), "--", "./get-away", "{}", tt.item)
			q := p.start(args...)
			eventually(t, "the script is up", func() bool { return len(p.appended("ran")) > 0 })
			begin := time.Now()
			tt.end(p, q, tag)
			t.Log(time.Since(begin))
			if left := running(tag); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if read(t, filepath.Join(p.dir, "overlap")) != "" {
				t.Error("the second item was started before the first one was gone")
			}
			p.consistent(1)
		})
	}
}

// resumed resumes a run whose first item was running when its owner died.
func resumed(p *place) {
	p.t.Helper()
	_, stderr, code := p.run("resume", "1")
	r, _ := p.consistent(1)
	if c := r.Counts; code != 1 || c.Lost != 1 || c.Succeeded != 1 || len(p.appended("ran")) != 2 {
		p.t.Errorf("exit code %d, %+v: %s", code, c, stderr)
	}
}
