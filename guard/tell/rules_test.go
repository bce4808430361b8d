package tell_test

import (
	"os/exec"
	"testing"
)

// promtool is Prometheus' own, pinned like the other tools. The first run on a machine
// builds it, which takes minutes.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"tool", "-modfile=../../tools/go.mod", "promtool"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestAlertRulesFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
	promtool(t, "test", "rules", "testdata/rules.test.yaml")
}
