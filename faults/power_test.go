package faults_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
	store "bulkhead.dev/bulkhead/store/sqlite"
)

// powerScript is what is traced: runs that end well and badly, an owner in the
// background that is asked for something, and an input so large that the WAL is
// copied into the database and begun anew while it is read. Each script says
// which run and item it is of.
const powerScript = `
b=$1
script='echo "$2" >>"${RAN:-/dev/null}"; echo "output of $2"; exit $(($2 % 4 == 0))'
"$b" run --each 1..12 --limit 3 -- sh -c "$script" run 1 {}
"$b" retry 1 --failed
"$b" run -d --each 1..50 --limit 1 -- sleep-or-not run 2 {}
"$b" limit 2 2
"$b" pause 2
"$b" cancel 2
"$b" wait 2
"$b" run -- sh -c "$script" run 3 1 && echo "run 3: succeeded: 1 succeeded, 0 failed, 0 lost, 0 cancelled"
"$b" run --each large --limit 2 --halt now,fail=1 -- false run 4 {#}
`

func TestWhatWasConfirmedSurvivesALossOfPower(t *testing.T) {
	t.Parallel()
	r := random(t)
	p := newPlace(t)
	p.write("sleep-or-not", "#!/bin/sh\n[ $2 -gt 1 ] || exec sleep 0.1\nexec sleep 1000\n")
	p.write("large", noise(r, 900, 20_000))
	root := filepath.Join(p.dir, "disk")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	p.state = filepath.Join(root, "new", "state")
	trace := filepath.Join(p.dir, "trace")
	like := p.command()
	command := strace(trace, "sh", "-c", powerScript, "sh", p.bin)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = like.Dir, slices.Concat(like.Env, []string{"PATH=" + p.dir + ":" + os.Getenv("PATH")})
	q := p.launch(cmd)
	if q.wait() != 1 { // that of the last run
		t.Fatal(q.says())
	}
	events, err := readTrace(trace)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{place: p, random: r, disk: newDisk(root), images: ramDisk(t, ""), told: newTold()}
	w.watch(events)
	t.Logf("%d events, %d confirmations, %d disks, %d resumed", len(events), w.confirmed, w.looks, w.resumed)
	if diff := cmp.Diff([]int64{1, 2, 3, 4}, slices.Sorted(maps.Keys(w.told.ended))); diff != "" {
		t.Errorf("runs that were seen to end: %s\n%s", diff, q.says())
	}
}

// noise is a text of lines that does not compress well.
func noise(r *rand.Rand, lines, length int) string {
	b := make([]byte, 0, lines*(length+1))
	for range lines {
		for range length {
			b = append(b, 0x80|byte(r.Uint32()))
		}
		b = append(b, '\n')
	}
	return string(b)
}

// ramDisk mounts a file system in memory.
func ramDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal("mount:", err)
	}
	t.Cleanup(func() {
		// Guardians may still be ending the scripts of a test that has failed.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	return dir
}

// told is everything that somebody could know for certain at some moment.
type told struct {
	accepted map[int64]int64 // items of a run
	limit    map[int64]int
	started  map[int64]map[int64]int // attempts that began, by run and item
	ended    map[int64]bulkhead.Counts
	state    map[int64]string // of an ended run
	retried  map[int64]bool
}

func newTold() *told {
	return &told{map[int64]int64{}, map[int64]int{}, map[int64]map[int64]int{}, map[int64]bulkhead.Counts{}, map[int64]string{}, map[int64]bool{}}
}

var (
	saysAccepted = regexp.MustCompile(`^run (\d+): \S+: (\d+) items`)
	saysAsked    = regexp.MustCompile(`^run (\d+): \w+, limit (\d+),`)
	saysEnded    = regexp.MustCompile(`^run (\d+): (\w+)(?: in \w+(?: \(.*?\))?)?: (\d+) succeeded, (\d+) failed, (\d+) lost, (\d+) cancelled`)
)

// hear takes in what a call tells the world, which is told as soon as the call
// begins. It reports false if that is nothing.
func (k *told) hear(c *call) bool {
	switch c.name {
	case "execve":
		return k.begins(c.args[1].list)
	case "write":
		// A terminal, or whatever stands for it.
		return (c.args[0].word == "1" || c.args[0].word == "2") && k.says(c.args[1].text)
	}
	return false
}

// begins is the start of a script: … run RUN ITEM.
func (k *told) begins(args []string) bool {
	if at := slices.Index(args, "retry"); at > 0 { // an end that is asked to be none
		run, _ := strconv.ParseInt(args[at+1], 10, 64)
		delete(k.ended, run)
		k.retried[run] = true
		return false
	}
	at := slices.Index(args, "run")
	if at < 0 || len(args) != at+3 {
		return false
	}
	run, err := strconv.ParseInt(args[at+1], 10, 64)
	item, err2 := strconv.ParseInt(args[at+2], 10, 64)
	if err != nil || err2 != nil {
		return false
	}
	if k.started[run] == nil {
		k.started[run] = map[int64]int{}
	}
	k.started[run][item]++
	return true
}

func (k *told) says(text string) bool {
	numbers := func(m []string) (n []int64) {
		for _, s := range m {
			v, _ := strconv.ParseInt(s, 10, 64) // the state is not one
			n = append(n, v)
		}
		return n
	}
	if m := saysAccepted.FindStringSubmatch(text); m != nil {
		n := numbers(m)
		k.accepted[n[1]] = n[2]
		return true
	}
	if m := saysAsked.FindStringSubmatch(text); m != nil {
		n := numbers(m)
		k.limit[n[1]] = int(n[2])
		return true
	}
	if m := saysEnded.FindStringSubmatch(text); m != nil {
		n := numbers(m)
		k.state[n[1]] = m[2]
		k.ended[n[1]] = bulkhead.Counts{Succeeded: n[3], Failed: n[4], Lost: n[5], Cancelled: n[6]}
		return true
	}
	return false
}

// witness follows a trace, and looks at what a loss of power would leave.
type witness struct {
	*place
	random    *rand.Rand
	disk      *disk
	images    string
	told      *told
	confirmed int
	looks     int
	resumed   int
}

// large is the size of a disk, in bytes, of which fewer variants are looked at.
const large = 8 << 20

func (w *witness) watch(events []event) {
	w.t.Helper()
	for _, e := range events {
		if !e.returned && w.told.hear(e.call) {
			w.confirmed++
			w.look(nil)
			if w.disk.size() < large {
				w.look(w.random)
			}
		}
		if err := w.disk.apply(e); err != nil {
			w.t.Fatal(err)
		}
		// Where nothing is confirmed a disk must be consistent all the same. It is
		// looked at now and then, the more often the cheaper it is.
		if size := w.disk.size(); size > 0 && w.random.IntN(24+size>>12) == 0 {
			w.look(w.random)
		}
		if w.t.Failed() {
			w.t.Fatalf("at %s%.200q", e.name, fmt.Sprint(e.args))
		}
	}
}

// look cuts the power and looks at what is left.
func (w *witness) look(r *rand.Rand) {
	w.t.Helper()
	w.looks++
	dir := filepath.Join(w.images, strconv.Itoa(w.looks))
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := w.disk.survive(dir, r); err != nil {
		w.t.Fatal(err)
	}
	state := filepath.Join(dir, "new", "state")
	if err := w.told.holds(w.t, state); err != nil {
		w.t.Errorf("disk %d (random %t): %v", w.looks, r != nil, err)
	}
	if w.random.IntN(10) == 0 && w.told.accepted[1] > 0 && w.told.ended[1].Total() == 0 {
		w.goOn(dir, state)
	}
}

// holds looks whether the state folder is consistent and has all that was told.
func (k *told) holds(t *testing.T, state string) error {
	st, err := store.Open(t.Context(), state)
	if err != nil {
		return err
	}
	defer st.Close()
	conn, err := sqlite.OpenConn(filepath.Join(state, "bulkhead.db"), sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := whole(conn); err != nil {
		return err
	}
	runs, err := st.Runs(t.Context(), 0)
	if err != nil {
		return err
	}
	known := map[int64]bool{}
	for _, r := range runs {
		known[int64(r.ID)] = true
		if err := k.runHolds(t, st, r); err != nil {
			return fmt.Errorf("run %d: %w: %+v", r.ID, err, r.Counts)
		}
	}
	for run := range k.accepted {
		if !known[run] {
			return fmt.Errorf("run %d was accepted and is gone", run)
		}
	}
	for run := range k.started {
		if !known[run] {
			return fmt.Errorf("scripts of run %d were started and it is gone", run)
		}
	}
	return nil
}

func (k *told) runHolds(t *testing.T, st *store.Store, r *bulkhead.Run) error {
	id := int64(r.ID)
	if r.State == bulkhead.RunAccepting {
		if k.accepted[id] > 0 || len(k.started[id]) > 0 {
			return fmt.Errorf("it was accepted and is accepting")
		}
		return nil
	}
	if n := k.accepted[id]; n > 0 && n != r.Counts.Total() {
		return fmt.Errorf("it was accepted with %d items", n)
	}
	if n := k.limit[id]; n > 0 && n != r.Limit {
		return fmt.Errorf("its limit was set to %d and is %d", n, r.Limit)
	}
	var counts bulkhead.Counts
	attempts, starts := 0, 0
	err := st.Items(t.Context(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		*counts.Of(it.State)++
		n := k.started[id][it.Index]
		if starts += n; it.Attempt.N < n {
			return fmt.Errorf("attempt %d of item %d was started, the store knows of %d", n, it.Index, it.Attempt.N)
		}
		if attempts += it.Attempt.N; it.State == bulkhead.ItemRunning {
			attempts--
		}
		return nil
	})
	if err != nil {
		return err
	}
	if counts != r.Counts {
		return fmt.Errorf("the items are %+v", counts)
	}
	// A worker starts its next script once the result of its last one is kept.
	if attempts < starts-max(r.Limit, r.Spec.Limit) {
		return fmt.Errorf("%d attempts were started, %d at once, and %d have results", starts, r.Limit, attempts)
	}
	if c, ok := k.ended[id]; ok {
		return k.endHolds(t, st, r, c)
	}
	return nil
}

// endHolds looks at a run whose end was told: its result and its output.
func (k *told) endHolds(t *testing.T, st *store.Store, r *bulkhead.Run, c bulkhead.Counts) error {
	if r.Counts != c || r.State.String() != k.state[int64(r.ID)] {
		return fmt.Errorf("it ended as %s with %+v and is %s", k.state[int64(r.ID)], c, r.State)
	}
	if r.ID != 1 {
		return nil // their scripts say nothing
	}
	dir := filepath.Join(st.Dir(), "output", r.ID.String())
	return st.Items(t.Context(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		text := ""
		err := output.Read(dir, output.Attempt{Item: it.Index, N: it.Attempt.N, Ref: it.Attempt.Output}, func(c output.Chunk) error {
			text += string(c.Data)
			return nil
		})
		if want := fmt.Sprintf("output of %d\n", it.Index); err != nil || text != want {
			return fmt.Errorf("output of item %d is %q (%w)", it.Index, text, err)
		}
		return nil
	})
}

// goOn resumes the first run with what is left: what was started before the
// power went must not start again.
func (w *witness) goOn(dir, state string) {
	w.t.Helper()
	w.resumed++
	ran := filepath.Join(dir, "ran")
	p := *w.place
	p.state = state
	cmd := p.command("resume", "1")
	cmd.Env = append(cmd.Env, "RAN="+ran)
	q := p.launch(cmd)
	if code := q.wait(); code != 1 && !strings.Contains(q.says(), "has ended") {
		w.t.Errorf("resume: exit code %d: %s", code, q.says())
	}
	w.said = p.said
	for word := range strings.FieldsSeq(read(w.t, ran)) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			w.t.Fatal(err)
		}
		most := 1
		if w.told.retried[1] && n%4 == 0 { // it failed, and was asked to run again
			most = 2
		}
		if starts := w.told.started[1][n]; starts >= most {
			w.t.Errorf("item %d was started %d times before the power went, and again", n, starts)
		}
	}
}
