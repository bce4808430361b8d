package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A smaller relative of what is promised: kill -9 at a random instant, resume,
// and no script has run twice; what ran is succeeded, failed or lost.
func TestNothingRunsTwiceAfterKill9(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bulkhead")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		crashOnce(t, bin, time.Duration(random.IntN(500))*time.Millisecond)
	}
}

func crashOnce(t *testing.T, bin string, after time.Duration) {
	dir := t.TempDir()
	bulkhead := func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "BULKHEAD_STATE="+filepath.Join(dir, "state"), "BULKHEAD_SERVER=", "BULKHEAD_CONTEXT=")
		return cmd
	}
	cmd := bulkhead("run", "--each", "1..60", "--limit", "3", "--", "sh", "-c", `echo "$1" >> ran`, "x", "{}")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-time.After(after) // the instant is the point of the test
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	out, err := bulkhead("ls", "-o", "json").Output()
	var runs []runView
	if err != nil || json.Unmarshal(out, &runs) != nil {
		t.Fatalf("ls: %v\n%s", err, out)
	}
	if len(runs) == 0 {
		return // nothing was accepted
	}
	resumed, _ := bulkhead("resume", "1").CombinedOutput() // exits 1 when items were lost, 2 when it had ended
	if out, err = bulkhead("show", "1", "-o", "json").Output(); err != nil {
		t.Fatal(err)
	}
	var run runView
	if err := json.Unmarshal(out, &run); err != nil {
		t.Fatal(err)
	}
	ran, _ := os.ReadFile(filepath.Join(dir, "ran")) // none may have run
	seen := map[string]bool{}
	for line := range strings.Lines(string(ran)) {
		if seen[line] {
			t.Errorf("item %s ran twice", strings.TrimSpace(line))
		}
		seen[line] = true
	}
	c := run.Counts
	if c.Total() != 60 || c.Queued+c.Running+c.Failed+c.Cancelled > 0 || c.Lost > 3 ||
		int64(len(seen)) < c.Succeeded || int64(len(seen)) > c.Succeeded+c.Lost {
		t.Errorf("killed after %s: %+v, %s items ran\n%s", after, c, strconv.Itoa(len(seen)), resumed)
	}
}
