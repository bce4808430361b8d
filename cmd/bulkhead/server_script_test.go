package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/history"
)

// testClass is a class as scripts have it. What it says of pods means nothing to
// an agent that is no pod.
const testClass = `apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata: {name: %s}
spec: {image: none, command: [%s]}
`

// testMediaWiki is a class whose scripts say how they were called. Those that are
// called fail… do, and read… write what they read.
const testMediaWiki = `apiVersion: bulkhead.dev/v1alpha1
kind: ScriptClass
metadata: {name: mediawiki}
spec:
  image: none
  command: [sh, -c, 'echo "$0 $*"; case "$0 $*" in fail*) exit 3;; read*) cat;; *sv*) echo oh >&2; exit 1;; esac']
`

// startServer starts a server in the background, as start does, and waits until it
// serves. The first time it chooses a port, and tells the commands of the script
// where the server is and how to trust it. Its classes are plain, shell, whose
// commands begin with sh -c, and mediawiki.
func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: serve [FLAG…]")
	}
	state, classes := ts.MkAbs("server"), ts.MkAbs("classes.yaml")
	if ts.Getenv("BULKHEAD_SERVER") == "" {
		// Nobody else is likely to take the port between here and there.
		l, err := net.Listen("tcp", "localhost:0")
		ts.Check(err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Check(l.Close())
		ts.Setenv("port", port)
		ts.Setenv("BULKHEAD_SERVER", "https://localhost:"+port)
		ts.Setenv("BULKHEAD_CA", filepath.Join(state, "keys", "ca.crt"))
		ts.Setenv("BULKHEAD_TOKEN_FILE", filepath.Join(state, "keys", "token"))
		text := fmt.Sprintf(testClass, "plain", "") + "---\n" + fmt.Sprintf(testClass, "shell", "sh, -c") + "---\n" + testMediaWiki
		ts.Check(os.WriteFile(classes, []byte(text), 0o600))
	}
	command := []string{"server", "bulkhead", "serve", "--state", state, "--classes", classes, "--listen", "localhost:" + ts.Getenv("port")}
	start(ts, false, append(command, args...))
	waitFor(ts, false, []string{"msg=serving", "server.err"})
}

// startAgent starts an agent of the server in the background, as start does, under the
// name of its class, for so many items at once.
func startAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: work CLASS SLOTS")
	}
	class := args[0]
	if _, err := strconv.Atoi(args[1]); err != nil {
		ts.Fatalf("%v", err)
	}
	token := ts.MkAbs(class + ".token")
	ts.Check(ts.Exec("bulkhead", "--state", ts.MkAbs("server"), "token", class))
	ts.Check(os.WriteFile(token, []byte(ts.ReadFile("stdout")), 0o600))
	start(ts, false, []string{class, "bulkhead", "agent", "--server", ts.Getenv("BULKHEAD_SERVER"), "--ca", ts.Getenv("BULKHEAD_CA"),
		"--token-file", token, "--class", class, "--slots", args[1], "--spool", ts.MkAbs(class + ".spool")})
}

// foundBefore writes what a guard would.
func foundBefore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: found DIR ID NAMESPACE TITLE")
	}
	h, err := history.Open(filepath.Join(ts.MkAbs(args[0]), history.Name))
	ts.Check(err)
	f := bulkhead.Finding{ID: args[1], Namespace: args[2], Title: args[3], Severity: bulkhead.Critical, Since: time.Now()}
	ts.Check(h.Keep(context.Background(), []bulkhead.Finding{f}))
	ts.Check(h.Close())
}
