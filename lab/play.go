package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// commands are a document's commands.
var commands = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// Play runs the commands of a document, its one block of sh, in the folder of the
// module, as somebody would who starts a lab with them and ends it. It returns what
// they said, and the folder that the lab was in. The document is relative to the
// module's folder, env is what is set besides what this process has.
func Play(t testing.TB, module, document string, env ...string) (said, folder string) {
	t.Helper()
	if why := NodeMissing(); why != "" {
		t.Skip(why) //nolint:forbidigo // as Node does
	}
	text, err := os.ReadFile(filepath.Join(module, document))
	if err != nil {
		t.Fatal(err)
	}
	blocks := commands.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("%s has %d blocks of commands; did the fences change?", document, len(blocks))
	}
	folder = filepath.Join(t.TempDir(), "lab")
	down := exec.Command("go", "run", "./lab/cmd", "--dir", folder, "down")
	down.Dir = module
	t.Cleanup(func() { // it is down already, unless a command failed
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	// What it leaves running when a command fails would keep the test waiting.
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+blocks[0][1])
	cmd.Dir, cmd.WaitDelay = module, 10*time.Second
	cmd.Env = append(append(os.Environ(), "BULKHEAD_LAB="+folder), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out), folder
}
