package agents_test

import (
	"testing"

	"go.uber.org/goleak"
)

// The lab, which the tests share, ends with their binary, and so do connections that wait
// for another use.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("bulkhead.dev/bulkhead/lab.startKeeper.func2"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}
