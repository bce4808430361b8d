package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a script waits for what must come.
const patience = 30 * time.Second

// holdScript is a program for items that are to run until the test says so.
const holdScript = `#!/bin/sh
# hold FILE: wait until FILE exists.
n=0
until [ -e "$1" ]; do
	n=$((n + 1))
	[ $n -lt 2000 ] || exit 99
	sleep 0.02
done
`

// TestScripts runs testdata/script: each file is one topic of the command line,
// played by the real binary. Beside testscript's commands they use
//
//	exits CODE PROGRAM [ARG…]         run it, and it must exit with CODE
//	start NAME PROGRAM [ARG…]         run it in the background, into NAME.out and NAME.err;
//	                                  $NAME_pid is its process id
//	send SIGNAL NAME                  send SIGNAL to it
//	ended CODE NAME                   wait for its end; it must have exited with CODE
//	waitfor PATTERN FILE [N]          until FILE has (N lines with) PATTERN
//	until PATTERN PROGRAM [ARG…]      run it until its output has PATTERN
//	field FILE PATH VALUE             the value of a JSON document at a path like 0.counts.failed
//	fields FILE                       print the names of a JSON document's fields, in order
//	serve [FLAG…]                     start a server, or start it again; commands go there
//	found DIR ID NAMESPACE TITLE      let the guard of a state folder have found something
//	work CLASS SLOTS                  start an agent of it under the name of its class
//
// and the program hold, which an item runs to wait for a file.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "start": start, "send": send, "ended": ended,
			"waitfor": waitFor, "until": until, "field": field, "fields": fields, "serve": startServer, "work": startAgent, "found": foundBefore,
		},
	})
}

func setup(env *testscript.Env) error {
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "hold"), []byte(holdScript), 0o755); err != nil {
		return err
	}
	scripts, err := filepath.Glob(filepath.Join(env.WorkDir, "*.sh"))
	if err != nil {
		return err
	}
	for _, s := range scripts {
		if err := os.Chmod(s, 0o755); err != nil { // txtar knows no modes
			return err
		}
	}
	env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
	// By default a program with the race detector waits a second before it exits
	// well, for races of goroutines that it has not got, and only reports races.
	env.Setenv("GORACE", "atexit_sleep_ms=0 halt_on_error=1")
	env.Setenv("BULKHEAD_STATE", filepath.Join(env.WorkDir, "state"))
	for _, name := range []string{"BULKHEAD_SERVER", "BULKHEAD_CA", "BULKHEAD_TOKEN_FILE"} { // see serve
		env.Setenv(name, "")
	}
	all := &started{names: env.Vars, processes: map[string]*process{}}
	env.Values[startedKey{}] = all
	env.Defer(all.end)
	return nil
}

// started is what a script has started.
type started struct {
	names     []string // NAME=value: the variables of the environment; a script may change their values
	processes map[string]*process
}

type process struct {
	*exec.Cmd
	out, err string        // files
	done     chan struct{} // closed when it has ended
}

// end leaves nothing behind, also when the script failed half-way.
func (s *started) end() {
	for _, c := range s.processes {
		_ = c.Process.Kill() // the guardian ends what it ran
		<-c.done
	}
}

// startedKey is where a script keeps its processes.
type startedKey struct{}

func startedOf(ts *testscript.TestScript) *started { return ts.Value(startedKey{}).(*started) }

// process is what was started under a name.
func (s *started) process(ts *testscript.TestScript, name string) *process {
	p := s.processes[name]
	if p == nil {
		ts.Fatalf("nothing was started as %s", name)
	}
	return p
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG…]")
	}
	checkCode(ts, args[0], ts.Exec(args[1], args[2:]...))
}

func checkCode(ts *testscript.TestScript, want string, err error) {
	got := "0"
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = strconv.Itoa(exit.ExitCode()) // -1: ended by a signal
	} else if err != nil {
		got = err.Error()
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM [ARG…]")
	}
	name := args[0]
	p := &process{out: ts.MkAbs(name + ".out"), err: ts.MkAbs(name + ".err"), done: make(chan struct{})}
	out, err := os.Create(p.out)
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(p.err)
	ts.Check(err)
	defer errs.Close()
	p.Cmd = exec.Command("env", args[1:]...) // which looks in the script's PATH, not in ours
	for _, v := range startedOf(ts).names {
		v, _, _ = strings.Cut(v, "=")
		p.Env = append(p.Env, v+"="+ts.Getenv(v))
	}
	p.Dir, p.Stdout, p.Stderr = ts.MkAbs("."), out, errs
	ts.Check(p.Start())
	startedOf(ts).processes[name] = p
	ts.Setenv(name+"_pid", strconv.Itoa(p.Process.Pid))
	go func() {
		defer close(p.done)
		_ = p.Wait() // ended looks at its state
	}()
}

var signals = map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}

func send(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || signals[args[0]] == nil {
		ts.Fatalf("usage: send INT|TERM|HUP|KILL NAME")
	}
	ts.Check(startedOf(ts).process(ts, args[1]).Process.Signal(signals[args[0]]))
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ended CODE NAME")
	}
	p := startedOf(ts).process(ts, args[1])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s has not ended in %s\n[stderr]\n%s", args[1], patience, ts.ReadFile(p.err))
	}
	_, _ = io.WriteString(ts.Stdout(), ts.ReadFile(p.out))
	_, _ = io.WriteString(ts.Stderr(), ts.ReadFile(p.err))
	var err error
	if !p.ProcessState.Success() {
		err = &exec.ExitError{ProcessState: p.ProcessState}
	}
	checkCode(ts, args[0], err)
}

// eventually looks again and again until a condition holds.
func eventually(ts *testscript.TestScript, what func() string, is func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("not in %s: %s", patience, what())
		}
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: waitfor PATTERN FILE [N]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	least := 1
	if len(args) == 3 {
		least, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	var text []byte
	eventually(ts, func() string { return fmt.Sprintf("%d of %q in %s:\n%s", least, args[0], args[1], text) }, func() bool {
		text, err = os.ReadFile(ts.MkAbs(args[1]))
		return err == nil && len(pattern.FindAll(text, least)) == least
	})
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM [ARG…]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	seen := func() string { return ts.ReadFile("stdout") + ts.ReadFile("stderr") }
	eventually(ts, func() string { return fmt.Sprintf("%q from %q:\n%s", args[0], args[1:], seen()) }, func() bool {
		_ = ts.Exec(args[1], args[2:]...) // it may fail until what it looks for is there
		return pattern.MatchString(seen())
	})
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] field FILE PATH VALUE")
	}
	var doc any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	ts.Check(d.Decode(&doc))
	for key := range strings.SplitSeq(args[1], ".") {
		switch at := doc.(type) {
		case map[string]any:
			v, ok := at[key]
			if !ok {
				ts.Fatalf("%s: there is no %q", args[1], key)
			}
			doc = v
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				ts.Fatalf("%s: there is no element %q among %d", args[1], key, len(at))
			}
			doc = at[i]
		default:
			ts.Fatalf("%s: %q of what is neither object nor array", args[1], key)
		}
	}
	got, ok := doc.(string)
	if !ok {
		b, err := json.Marshal(doc)
		ts.Check(err)
		got = string(b)
	}
	if (got == args[2]) == neg {
		ts.Fatalf("%s is %q", args[1], got)
	}
}

// fields prints a line for every field: its path, and what it holds. Array
// elements are one path, and so is each field the first time it is seen.
func fields(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fields FILE")
	}
	d := json.NewDecoder(bytes.NewReader([]byte(ts.ReadFile(args[0]))))
	seen := map[string]bool{}
	say := func(path, what string) {
		if line := path + " " + what + "\n"; path != "" && !seen[line] {
			seen[line] = true
			_, _ = io.WriteString(ts.Stdout(), line)
		}
	}
	ts.Check(walk(d, "", say))
}

func walk(d *json.Decoder, path string, say func(path, what string)) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch v := token.(type) {
	case json.Delim:
		say(path, map[json.Delim]string{'{': "object", '[': "array"}[v])
		for d.More() {
			at := path + "[]"
			if v == '{' {
				name, err := d.Token()
				if err != nil {
					return err
				}
				at = strings.TrimPrefix(fmt.Sprintf("%s.%s", path, name), ".")
			}
			if err := walk(d, at, say); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			say(path, "time")
			return nil
		}
		say(path, "string")
	case float64:
		say(path, "number")
	case nil:
		say(path, "null")
	default:
		say(path, fmt.Sprintf("%T", v))
	}
	return nil
}
