package packed_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead/cmd/bulkhead/packed"
)

// The tests' own binary is both programs: the carrier, given the file that it
// would carry, and the one that is in there.
const (
	roleEnv = "PACKED_TEST_ROLE"
	fileEnv = "PACKED_TEST_FILE"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "carrier":
		os.Exit(carrier())
	case "carried":
		os.Exit(carried())
	}
	os.Exit(m.Run())
}

func carrier() int {
	program, err := os.ReadFile(os.Getenv(fileEnv))
	if err == nil {
		err = os.Setenv(roleEnv, "carried")
	}
	if err == nil {
		fmt.Println("process", os.Getpid())
		err = packed.Exec(program, os.Args, os.Environ())
	}
	fmt.Println(err)
	return 1
}

// carried tells what it was given.
func carried() int {
	self, err := os.Readlink("/proc/self/exe")
	open := 0 // of the carrier's
	for fd := range 20 {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); to == self {
			open++
		}
	}
	fmt.Println("process", os.Getpid(), os.Args, os.Getenv("GIVEN"), open, "files", err)
	fmt.Fprintln(os.Stderr, self)
	return 7
}

func pack(t *testing.T) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var small bytes.Buffer
	if err := packed.Pack(&small, bytes.NewReader(self)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "packed")
	if err := os.WriteFile(file, small.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// start runs the carrier, after the words of wrapper.
func start(t *testing.T, file string, wrapper, environ []string) (out, errs string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := slices.Concat(wrapper, []string{self, "an argument", ""})
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), append([]string{roleEnv + "=carrier", fileEnv + "=" + file, "GIVEN=given", "GORACE=atexit_sleep_ms=0"}, environ...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit code says it
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// withoutMemory has strace refuse files in memory, as a kernel does that forbids them.
var withoutMemory = []string{"strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null",
	"-e", "trace=memfd_create", "-e", "inject=memfd_create:error=EACCES"}

func TestTheCarrierBecomesTheProgram(t *testing.T) {
	file := pack(t)
	for name, c := range map[string]struct {
		wrapper []string
		temp    string // instead of a new folder
		cache   string // the same
		from    string // what /proc/self/exe begins with
	}{
		"from the cache folder":                                  {from: "CACHE/bulkhead/whole-"},
		"from memory, where there is none":                       {cache: "/dev/null", from: "/memfd:bulkhead (deleted)"},
		"from a temporary file, where that is forbidden as well": {withoutMemory, "", "/dev/null", "TEMP/.bulkhead-"},
	} {
		t.Run(name, func(t *testing.T) {
			temp, cache := t.TempDir(), t.TempDir()
			out, from, code := start(t, file, c.wrapper, []string{"TMPDIR=" + cmp.Or(c.temp, temp), "XDG_CACHE_HOME=" + cmp.Or(c.cache, cache)})
			checkStart(t, out)
			from = strings.NewReplacer(temp, "TEMP", cache, "CACHE").Replace(from)
			if !strings.HasPrefix(from, c.from) || code != 7 {
				t.Errorf("exit code %d, from %s", code, from)
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// checkStart checks that the program was started in place of its carrier, with what
// that was given.
func checkStart(t *testing.T, out string) {
	t.Helper()
	var before, after int
	if _, err := fmt.Sscanf(out, "process %d\nprocess %d", &before, &after); err != nil || before != after {
		t.Errorf("another process: %s", out)
	}
	_, rest, _ := strings.Cut(out, "[")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if want := self + " an argument ] given 0 files <nil>\n"; rest != want {
		t.Errorf("it was given %q instead of %q", rest, want)
	}
}

func TestOneProgramIsKeptAndUsedAgain(t *testing.T) {
	file, cache := pack(t), t.TempDir()
	environ := []string{"TMPDIR=" + t.TempDir(), "XDG_CACHE_HOME=" + cache}
	dir := filepath.Join(cache, "bulkhead")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "whole-1-of-before"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	kept := func() os.FileInfo {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Fatalf("kept: %v %v", entries, err)
		}
		info, err := entries[0].Info()
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	start(t, file, nil, environ)
	first := kept()
	if _, from, code := start(t, file, nil, environ); code != 7 || !strings.HasPrefix(from, dir) || !os.SameFile(first, kept()) {
		t.Errorf("exit code %d, from %s", code, from)
	}
	// What somebody else may change is not started.
	name := filepath.Join(dir, first.Name())
	if err := os.WriteFile(name, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, from, code := start(t, file, nil, environ); code != 7 || !strings.HasPrefix(from, dir) {
		t.Errorf("a file of others: exit code %d, from %s", code, from)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, from, code := start(t, file, nil, environ); code != 7 || !strings.HasPrefix(from, "/memfd:") {
		t.Errorf("a folder of others: exit code %d, from %s", code, from)
	}
}

func TestNothingIsKeptInTheHomeOfSomebodyElse(t *testing.T) {
	home := t.TempDir()
	const somebody = 12345
	from := "/memfd:"
	if err := os.Chown(home, somebody, somebody); err != nil { // only root can: then it is ours
		from = home
	}
	_, program, code := start(t, pack(t), nil, []string{"TMPDIR=" + t.TempDir(), "XDG_CACHE_HOME=" + filepath.Join(home, ".cache")})
	if code != 7 || !strings.HasPrefix(program, from) {
		t.Errorf("exit code %d, from %s, not %s", code, program, from)
	}
	if left, err := os.ReadDir(home); err != nil || from != home && len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestACarrierThatMayNotSaysWhyAndWhatToDo(t *testing.T) {
	out, _, code := start(t, pack(t), withoutMemory, []string{"TMPDIR=/no-such", "XDG_CACHE_HOME=/dev/null"})
	for _, part := range []string{"create a file in memory: permission denied", "/no-such", "/dev/null"} {
		if !strings.Contains(out, part) || code != 1 {
			t.Errorf("no %q in %s", part, out)
		}
	}
}
