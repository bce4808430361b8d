package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

func TestEveryCommandOfTheKubernetesDocumentWorks(t *testing.T) {
	said, _ := lab.Play(t, "../..", "docs/kubernetes.md",
		"PATH="+filepath.Dir(testbed.Binary)+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+t.TempDir())
	for _, want := range []string{"50 succeeded", "one script", "item 42", "pod/scripts-0-0", "networkpolicy.networking.k8s.io/bulkhead-scripts",
		"deployment.apps \"bulkhead\" deleted"} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q:\n%s", want, said)
		}
	}
}
