package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/lab"
)

func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	if why := lab.NodeMissing(); why != "" {
		t.Skip(why) //nolint:forbidigo // as lab.Node does
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of commands; did the fences change?", len(blocks))
	}
	dir := filepath.Join(t.TempDir(), "lab")
	down := exec.Command("go", "run", "./lab/cmd", "--dir", dir, "down")
	down.Dir = ".."
	t.Cleanup(func() {
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", blocks[0][1])
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "BULKHEAD_LAB="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"fake-19 ", "kubelet", "deployment.apps/web created", dir} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the lab's folder is still there: %v", err)
	}
}
