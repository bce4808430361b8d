package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// random is the source of a test's choices.
func random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// place is a state folder and the folder that scripts work in.
type place struct {
	t     *testing.T
	bin   string
	dir   string
	state string
	said  int // files of output so far
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	return &place{t: t, bin: filepath.Join(os.Getenv(binEnv), "bulkhead"), dir: dir, state: filepath.Join(dir, "state")}
}

// racing is a place with the binary that looks for data races.
func racing(t *testing.T) *place {
	p := newPlace(t)
	p.bin += "-race"
	return p
}

// process is a command that was started. What it says goes to a file, so that
// neither a pipe nor a reader of ours has a part in it.
type process struct {
	*exec.Cmd
	t      *testing.T
	stdout string // paths
	stderr string
	ended  chan error
}

func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.bin, args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "BULKHEAD_STATE="+p.state, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// start starts bulkhead.
func (p *place) start(args ...string) *process {
	p.t.Helper()
	return p.launch(p.command(args...))
}

func (p *place) launch(cmd *exec.Cmd) *process {
	p.t.Helper()
	p.said++
	stdout, stderr := p.create("stdout"), p.create("stderr")
	defer stdout.Close()
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	q := &process{Cmd: cmd, t: p.t, stdout: stdout.Name(), stderr: stderr.Name(), ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { q.ended <- cmd.Wait() }()
	p.t.Cleanup(q.kill)
	return q
}

// create makes the file for what the process that is started now says.
func (p *place) create(name string) *os.File {
	p.t.Helper()
	f, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("%s.%d", name, p.said)))
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

// kill is kill -9, and waits for the end.
func (q *process) kill() {
	_ = q.Process.Kill()
	err := <-q.ended
	q.ended <- err // for whoever asks next
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (q *process) wait() int {
	q.t.Helper()
	select {
	case err := <-q.ended:
		q.ended <- err
		if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			q.t.Fatal(err)
		}
		q.noRace()
		return q.ProcessState.ExitCode()
	case <-time.After(patience):
		q.t.Fatalf("%v has not ended after %v: %s", q.Args, patience, q.says())
		return 0
	}
}

func (q *process) noRace() {
	q.t.Helper()
	if says := q.says(); strings.Contains(says, "DATA RACE") || strings.Contains(says, "panic:") {
		q.t.Errorf("%v:\n%s", q.Args, says)
	}
}

// over reports whether the process has ended.
func (q *process) over() bool { return len(q.ended) > 0 }

func (q *process) signal(s syscall.Signal) {
	q.t.Helper()
	if err := q.Process.Signal(s); err != nil {
		q.t.Fatal(err)
	}
}

// says is what it wrote to standard error so far.
func (q *process) says() string { return read(q.t, q.stderr) }

// read is the content of a file, "" if there is none.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// run runs bulkhead to its end.
func (p *place) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	q := p.start(args...)
	code = q.wait()
	return read(p.t, q.stdout), q.says(), code
}

// ok runs bulkhead, which must succeed, and returns its standard output.
func (p *place) ok(args ...string) string {
	p.t.Helper()
	stdout, stderr, code := p.run(args...)
	if code != 0 {
		p.t.Fatalf("bulkhead %s: exit code %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// runView and itemView are what show and items print, as far as tests look.
type runView struct {
	ID     int64
	State  string
	Reason string
	Limit  int
	Counts bulkhead.Counts
}

type itemView struct {
	Item    int64
	State   string
	Attempt int
}

func fromJSON[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

func (p *place) ls() []runView { return fromJSON[[]runView](p.t, p.ok("ls", "-o", "json")) }

func (p *place) show(id int) runView {
	p.t.Helper()
	return fromJSON[runView](p.t, p.ok("show", strconv.Itoa(id), "-o", "json"))
}

// items returns what is known of each item, by its number.
func (p *place) items(id int) map[int64]itemView {
	p.t.Helper()
	items := map[int64]itemView{}
	for _, it := range fromJSON[[]itemView](p.t, p.ok("items", strconv.Itoa(id), "-o", "json")) {
		items[it.Item] = it
	}
	return items
}

// waitFor waits until a run is as wanted.
func (p *place) waitFor(id int, what string, so func(runView) bool) runView {
	p.t.Helper()
	var r runView
	eventually(p.t, what, func() bool {
		runs := p.ls() // newest first
		if len(runs) < id {
			return false // it is not there yet
		}
		r = runs[len(runs)-id]
		return so(r)
	})
	return r
}

// consistent checks what must hold of a run at any time that nobody works on
// it: the database is whole and the counters are those of the items.
func (p *place) consistent(id int) (runView, map[int64]itemView) {
	p.t.Helper()
	r, items := p.show(id), p.items(id)
	var c bulkhead.Counts
	for _, it := range items {
		s, err := bulkhead.ParseItemState(it.State)
		if err != nil {
			p.t.Fatal(err)
		}
		*c.Of(s)++
	}
	// What a run has accepted counts only once it has accepted all.
	if r.State != "accepting" && c != r.Counts {
		p.t.Errorf("run %d: %s", id, cmp.Diff(c, r.Counts))
	}
	conn, err := sqlite.OpenConn(filepath.Join(p.state, "bulkhead.db"), sqlite.OpenReadWrite)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	if err := whole(conn); err != nil {
		p.t.Error(err)
	}
	return r, items
}

// whole is SQLite's own opinion of a database.
func whole(conn *sqlite.Conn) error {
	stmt, _, err := conn.PrepareTransient("PRAGMA integrity_check")
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Finalize() }()
	if text, err := sqlitex.ResultText(stmt); err != nil || text != "ok" {
		return fmt.Errorf("integrity_check: %s (%w)", text, err)
	}
	return nil
}

// appended counts how often each item's script has appended its number to a
// file of the folder.
func (p *place) appended(name string) map[int64]int {
	p.t.Helper()
	counts := map[int64]int{}
	for word := range strings.FieldsSeq(read(p.t, filepath.Join(p.dir, name))) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		counts[n]++
	}
	return counts
}

// write makes a file in the folder.
func (p *place) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o700); err != nil {
		p.t.Fatal(err)
	}
}

// running lists the processes whose command holds a text, itself apart.
func running(text string) []string {
	return processes(func(pid int, command string) bool {
		return pid != os.Getpid() && strings.Contains(command, text)
	})
}

// guardians are the guardians among the children of a process.
func guardians(pid int) (found []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list) // the thread may be gone
		for word := range strings.FieldsSeq(string(text)) {
			command, _ := os.ReadFile("/proc/" + word + "/cmdline")
			if child, _ := strconv.Atoi(word); strings.Contains(string(command), "bulkhead-guardian\x00") && !slices.Contains(found, child) {
				found = append(found, child)
			}
		}
	}
	return found
}
