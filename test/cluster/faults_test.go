package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

// twoWorkers is the class of most tests.
const twoWorkers = "  workers: {max: 2, slots: 2, idleTimeout: 60s}\n"

// later is when something happens that a test can only wait for.
func later(d time.Duration) { <-time.After(d) }

func TestAPodThatIsDeletedInterruptsItsScripts(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 16
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(2), Limit: 4, Grace: 3 * time.Second})
	b.Lab.Kubectl(t, "delete", "pod", "--namespace", b.Namespace, "--wait=false", "scripts-0-0")
	r := b.Over(id)
	b.check(w, r, items, outcome{failed: 2})
	if r.Counts.Failed == 0 {
		t.Error("nothing was interrupted")
	}
	failed := bulkhead.ItemFailed
	err := b.Client.Items(t.Context(), r, bulkhead.ItemQuery{State: &failed}, func(it bulkhead.ItemStatus) error {
		if it.Attempt.How != bulkhead.HowInterrupt {
			t.Errorf("item %d ended by %s", it.Index, it.Attempt.How)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAWorkerThatIsKilledLosesWhatItRan(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 16
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(1), Limit: 4})
	b.Lab.KillProcess(t, b.Namespace, "scripts-0-1", "")
	b.check(w, b.Over(id), items, outcome{lost: 2})
}

func TestANodeThatIsCutOffDeliversLater(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 12
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(2), Limit: 4})
	connect := b.Lab.CutNode(t)
	later(15 * time.Second) // longer than the scripts take, and a connection is thought to live
	if c := b.counts(id); c.Running == 0 {
		t.Errorf("what cannot be known is taken for known: %+v", c)
	}
	connect()
	b.check(w, b.Over(id), items, outcome{failed: 4}) // a script cannot say that it has started meanwhile
}

func (b *bed) counts(id bulkhead.RunID) bulkhead.Counts {
	b.Helper()
	r, err := b.Client.Run(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return r.Counts
}

func TestWithoutAKubeletWorkGoesOn(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 12
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(1), Limit: 4})
	start := b.Lab.KillKubelet(t)
	b.check(w, b.Over(id), items, outcome{})
	start()
}

func TestWithoutAnAPIServerForAMinuteWorkGoesOnAndBrakesWork(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 40
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(1), Limit: 4})
	start := b.Lab.KillAPIServer(t)
	away := time.Now()
	ask := func(kind bulkhead.RequestKind) {
		t.Helper()
		if _, err := b.Client.Ask(t.Context(), bulkhead.Request{Run: id, Kind: kind}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	ask(bulkhead.RequestPause)
	b.Until(id, "at rest", func(r *bulkhead.Run) bool { return r.State == bulkhead.RunPaused && r.Counts.Running == 0 })
	ask(bulkhead.RequestResume)
	b.check(w, b.Over(id), items, outcome{})
	second := b.Submit(4, bulkhead.Spec{Command: w.script(0), Limit: 4}) // the class is still known
	b.Over(second)
	later(time.Minute - time.Since(away))
	start()
	b.ready()
}

// ready waits until the server says that it is.
func (b *bed) ready() {
	b.Helper()
	b.Lab.Eventually(b, "the server is ready", func(ctx context.Context) bool { return b.Get(ctx, "/readyz") == nil })
}

func TestAServerThatIsKilledFindsEverythingAgain(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 40
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(1), Limit: 4})
	for range 3 {
		b.Kill()
		later(2 * time.Second) // scripts end meanwhile
		b.Start()
		was := b.counts(id).Succeeded
		b.Until(id, "further", func(r *bulkhead.Run) bool { return r.Counts.Succeeded > was })
	}
	b.check(w, b.Over(id), items, outcome{})
}

func TestAServerThatIsToldToEndHandsOver(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 16
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(1), Limit: 4})
	b.End()
	b.Start()
	b.check(w, b.Over(id), items, outcome{})
}

func TestASecondServerWaitsForTheFirst(t *testing.T) {
	b := newBed(t, oneWorker)
	var said lockedBuffer
	second := exec.Command(testbed.Binary, append([]string{"serve", "--state", b.State(),
		"--listen", testbed.FreePort(t, "127.0.0.1"), "--classes"}, classFile(t))...)
	second.Stderr = &said
	second.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Process.Kill(); _ = second.Wait() })
	b.Lab.Eventually(t, "the second says that it waits", func(context.Context) bool { return said.has("another server has this state folder") })
	if said.has("msg=serving") {
		t.Error("two serve one state folder")
	}
	b.Kill()
	b.Lab.Eventually(t, "the second serves", func(context.Context) bool { return said.has("msg=serving") })
}

func classFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "classes.yaml")
	text := "apiVersion: bulkhead.dev/v1alpha1\nkind: ScriptClass\nmetadata: {name: local}\nspec: {image: none}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFullEtcdKeepsNobodyFromHisWork(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	b.Over(b.Submit(4, bulkhead.Spec{Command: w.script(0), Limit: 1})) // there is a worker
	empty := b.Lab.FillEtcd(t)
	w = b.witness()
	const items = 16
	id := b.Submit(items, bulkhead.Spec{Command: w.script(0.2), Limit: 4})
	b.check(w, b.Over(id), items, outcome{})
	empty()
	b.check(w, b.Over(id), items, outcome{})
}

func TestADiskThatIsFullHoldsRunsAndLosesNothing(t *testing.T) {
	b := newBed(t, twoWorkers)
	b.End()
	state := b.State()
	if err := os.Rename(state, state+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Kill(); _ = unix.Unmount(state, unix.MNT_DETACH) })
	if out, err := exec.Command("cp", "-a", state+".old/.", state).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.Start()
	w := b.witness()
	const items = 12
	script := []string{"/bin/sh", "-c", "wget -q -O /dev/null http://" + w.addr + "/$0 && echo begin $0 && yes | head -c 3000000; echo end $0", "{}"}
	ballast := filepath.Join(state, "ballast")
	f, err := os.Create(ballast)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, 18<<20)
		_ = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	id := b.Submit(items, bulkhead.Spec{Command: script, Limit: 4})
	b.Until(id, "held", func(r *bulkhead.Run) bool {
		// The output or the store is the first to find it out.
		return r.Held && (strings.Contains(r.Reason, "no space left") || strings.Contains(r.Reason, "disk is full"))
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", state, "", unix.MS_REMOUNT, "size=256m"); err != nil {
		t.Fatal(err)
	}
	r := b.Over(id)
	if r.Counts.Succeeded != items {
		t.Errorf("%+v", r.Counts)
	}
	for item, text := range b.Outputs(id) {
		if want := len(fmt.Sprintf("begin %d\nend %[1]d\n", item)) + 3_000_000; len(text) != want {
			t.Errorf("item %d: %d bytes, not %d", item, len(text), want)
		}
		if w.starts[item] != 1 {
			t.Errorf("item %d ran %d times", item, w.starts[item])
		}
	}
}

func TestAClassThatIsDeletedInterruptsWhatRunsAndTheRestWaits(t *testing.T) {
	b := newBed(t, twoWorkers)
	w := b.witness()
	const items = 16
	id := b.midway(w, items, bulkhead.Spec{Command: w.script(2), Limit: 4, Grace: 2 * time.Second})
	b.Lab.Kubectl(t, "delete", "scriptclass", "--namespace", b.Namespace, "scripts")
	r := b.Until(id, "waiting", func(r *bulkhead.Run) bool { return r.Counts.Running == 0 && strings.Contains(r.Reason, "class") })
	if r.Counts.Queued == 0 {
		t.Fatalf("nothing is left: %+v", r.Counts)
	}
	b.Lab.Eventually(t, "nothing of the class is left", func(context.Context) bool {
		return strings.TrimSpace(b.Lab.Kubectl(t, "get", "pods,networkpolicies,configmaps", "--selector", "bulkhead.dev/class", "--namespace", b.Namespace, "-o", "name")) == ""
	})
	b.Define(testbed.RealNode, twoWorkers)
	b.check(w, b.Over(id), items, outcome{failed: 4, lost: 4})
}

func TestThirtyWikisOfWhichOneIsBroken(t *testing.T) {
	b := newBed(t, "  workers: {max: 2, slots: 2, idleTimeout: 60s}\n")
	b.Lab.MediaWiki(t)
	b.Image = lab.MediaWikiImage
	b.Define(testbed.RealNode, "  command: [php]\n"+twoWorkers)
	b.Lab.Eventually(t, "the server knows the class as it is now", func(ctx context.Context) bool {
		classes, err := b.Client.Classes(ctx)
		return err == nil && len(classes) == 1 && len(classes[0].Command) == 1
	})
	spec := bulkhead.Spec{Command: []string{"maintenance/showSiteStats.php", "--wiki={}"}, Limit: 4}
	id := b.SubmitOf(30, spec, func(i int64) string { return fmt.Sprintf("w%02d", i) })
	r := b.Over(id)
	if r.State != bulkhead.RunFailed || r.Counts.Succeeded != 29 || r.Counts.Failed != 1 {
		t.Errorf("%s %+v: %s", r.State, r.Counts, r.Reason)
	}
	out := b.Outputs(id)
	if text := strings.Join(strings.Fields(out[7]), " "); !strings.Contains(text, "Total pages : 8") {
		t.Errorf("w07 wrote %q", out[7])
	}
	if !strings.Contains(out[13], "database disk image is malformed") {
		t.Errorf("w13 wrote %q", out[13])
	}
}

// lockedBuffer is what a process says, for who looks at it meanwhile.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) has(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.buf.String(), text)
}
