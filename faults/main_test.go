package faults_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is three processes. The outer one builds bulkhead and owns the
// temporary folder. The second is process 1 of a process and mount namespace:
// the kernel ends everything in it when it ends, and it ends with the first,
// even when that is killed. The third runs the tests. So nothing stays behind
// when a test hangs, panics or is interrupted, and a test that does leave a
// process behind is told of.
const (
	stageEnv = "BULKHEAD_FAULTS_STAGE"
	binEnv   = "BULKHEAD_FAULTS_BIN" // folder of the binaries
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random choices; 0: a random one")

func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "":
		os.Exit(outside())
	case "init":
		os.Exit(initProcess())
	}
	flag.Parse()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func outside() int {
	// Under nohup a hang-up would be ignored by all that is started here. What is
	// caught, if by nobody who listens, is the default again after exec.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	tmp, err := os.MkdirTemp("", "bulkhead-faults-")
	if err != nil {
		return complain("make a temporary folder", err)
	}
	defer os.RemoveAll(tmp)
	if err := build(tmp); err != nil {
		return complain("build bulkhead", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"=init", binEnv+"="+tmp, "TMPDIR="+tmp)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if id := os.Getuid(); id != 0 { // become root of a user namespace, to mount
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return complain("enter namespaces (as root, or where users may)", err)
	}
	return cmd.ProcessState.ExitCode()
}

// build makes the binary that users get and one that looks for data races.
func build(dir string) error {
	race := exec.Command("go", "build", "-buildvcs=false", "-race", "-o", filepath.Join(dir, "bulkhead-race"), "bulkhead.dev/bulkhead/cmd/bulkhead")
	race.Env = append(os.Environ(), "CGO_ENABLED=1")
	for _, cmd := range []*exec.Cmd{exec.Command("make", "-C", "..", "build", "BIN="+filepath.Join(dir, "bulkhead")), race} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return nil
}

// initProcess is process 1: it takes care of orphans.
func initProcess() int {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return complain("make mounts private", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return complain("mount /proc", err)
	}
	env := slices.Concat([]string{stageEnv + "=tests"}, slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, stageEnv+"=")
	}))
	tests, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
	if err != nil {
		return complain("start the tests", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if pid != tests || err != nil {
			continue
		}
		code := status.ExitStatus() // -1: by a signal
		if left := leftovers(); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "processes were left behind:\n%s\n", strings.Join(left, "\n"))
			code = 1
		}
		return code
	}
}

// leftovers are the processes that remain after some patience.
func leftovers() (left []string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-tick.C {
		for pid := 1; pid > 0; {
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
		if left = processes(func(pid int, _ string) bool { return pid != 1 }); len(left) == 0 {
			return nil
		}
	}
	return left
}

// processes lists, as "PID COMMAND", those for which want says so.
func processes(want func(pid int, command string) bool) (found []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		command := strings.ReplaceAll(string(text), "\x00", " ")
		if err == nil && want(pid, command) {
			found = append(found, fmt.Sprintf("%d %s", pid, command))
		}
	}
	return found
}

func complain(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", doing, err)
	return 1
}
