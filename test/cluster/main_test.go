package cluster_test

import (
	"flag"
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	testbed "bulkhead.dev/bulkhead/test/bed"
)

func TestMain(m *testing.M) {
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	os.Exit(testbed.Main(m))
}

// bed is a server on this machine that runs scripts in the lab, as long as the test.
type bed struct{ *testbed.Bed }

// newBed starts a server and defines its class "scripts", which spec describes, as
// YAML that is indented by two.
func newBed(t testing.TB, spec string, args ...string) *bed {
	t.Helper()
	b := &bed{testbed.New(t, args...)}
	b.Define(testbed.RealNode, spec)
	return b
}
