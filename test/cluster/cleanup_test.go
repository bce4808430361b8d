package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

func TestEveryCommandOfTheCleanUpDocumentWorks(t *testing.T) {
	said, _ := lab.Play(t, "../..", "docs/cleanup.md", "PATH="+filepath.Dir(testbed.Binary)+":"+os.Getenv("PATH"))
	for _, want := range []string{"exceeded quota: bulkhead-guard", "Left over: 21 objects of 3 Helm releases", "Deleted 21 objects", "Put back 21 objects",
		"they are suspended"} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q:\n%s", want, said)
		}
	}
}
