package audit_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// Connections are the transports', and the lab's helpers have some, too.
	var ignored []goleak.Option
	for _, f := range []string{"net/http.(*http2ClientConn).readLoop", "net/http.(*persistConn).readLoop", "net/http.(*persistConn).writeLoop",
		"golang.org/x/net/http2.(*ClientConn).readLoop", "bulkhead.dev/bulkhead/lab.startKeeper.func2"} {
		ignored = append(ignored, goleak.IgnoreAnyFunction(f))
	}
	if err := goleak.Find(ignored...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
