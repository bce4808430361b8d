package lab_test

import (
	"os"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/lab"
)

func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	said, dir := lab.Play(t, "..", "lab/README.md")
	for _, want := range []string{"fake-19 ", "kubelet", "deployment.apps/web created", dir} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q:\n%s", want, said)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the lab's folder is still there: %v", err)
	}
}
