package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead/lab"
)

func TestEveryCommandOfTheKubernetesDocumentWorks(t *testing.T) {
	if why := lab.NodeMissing(); why != "" {
		t.Skip(why) //nolint:forbidigo // as lab.Node does
	}
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of commands; did the fences change?", len(blocks))
	}
	folder := filepath.Join(t.TempDir(), "lab")
	down := exec.Command("go", "run", "./lab/cmd", "--dir", folder, "down")
	down.Dir = "../.."
	t.Cleanup(func() { _ = down.Run() }) // it is down already, unless a command failed
	// What it leaves running when a command fails would keep the test waiting.
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+blocks[0][1])
	cmd.Dir = "../.."
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "BULKHEAD_LAB="+folder, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"),
		"XDG_CONFIG_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"50 succeeded", "one script", "item 42", "pod/scripts-0-0", "networkpolicy.networking.k8s.io/bulkhead-scripts",
		"deployment.apps \"bulkhead\" deleted"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
}
