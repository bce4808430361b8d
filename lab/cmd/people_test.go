package main

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead/lab"
)

// run runs the command and returns what it says and whether it failed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv(binEnv), "lab"), args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const binEnv = "LAB_TEST_BIN"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lab-cmd-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "lab"), ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		if err := os.Setenv(binEnv, dir); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

func TestWithoutALabTheCommandsSayHowToStartOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	for _, command := range []string{"status", "kubeconfig", "kubectl", "helm"} {
		out, err := run(t, "--dir", dir, command)
		if err == nil || !strings.Contains(out, "no lab in "+dir) || !strings.Contains(out, "lab up") {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
	if out, err := run(t, "--dir", dir, "down"); err != nil || !strings.Contains(out, "there is none") {
		t.Errorf("down: %v: %s", err, out)
	}
}

func TestMistakesAreToldAndStartNothing(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--dir", full, "up", "--no-node"}, "is not empty"},
		{[]string{"--dir", long, "up", "--no-node"}, "choose a shorter folder"},
		{[]string{"up", "--nonode"}, "unknown flag: --nonode"},
		{[]string{"up", "--no-node", "--fake-nodes", "-3"}, "fewer than none"},
		{[]string{"statu"}, `unknown command "statu"`},
		{[]string{"up", "now"}, `unknown command "now"`},
		{[]string{"status", "-o", "xml"}, `--output "xml" is not text or json`},
		{[]string{"init"}, "not for people"},
		{[]string{"hold"}, "not for people"},
	} {
		out, err := run(t, c.args...)
		if err == nil || !strings.Contains(out, c.says) {
			t.Errorf("%q: %v: %s", c.args, err, out)
		}
	}
	if entries, err := os.ReadDir(full); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestAKilledLabIsNoObstacle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	t.Cleanup(func() { _, _ = run(t, "--dir", dir, "down") })
	up := func() {
		if out, err := run(t, "--dir", dir, "up", "--no-node"); err != nil {
			t.Fatalf("up: %v: %s", err, out)
		}
	}
	kill := func() {
		text, err := exec.Command("pgrep", "--full", "keep --dir "+dir).Output()
		if err != nil {
			t.Fatal("find the keeper:", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal("kill the keeper:", err)
		}
	}
	up()
	if out, err := run(t, "--dir", dir, "up", "--no-node"); err == nil || !strings.Contains(out, "there is a lab in "+dir) {
		t.Errorf("up twice: %v: %s", err, out)
	}
	kill()
	if out, err := run(t, "--dir", dir, "down"); err != nil {
		t.Errorf("down: %v: %s", err, out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its folder after down: %v", err)
	}
	up()
	kill()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for give := time.After(10 * time.Second); ; { // until the kernel has ended it
		lock, err := os.Open(filepath.Join(dir, lab.LockFile))
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
			lock.Close()
		}
		if err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-give:
			t.Fatal("it lives:", err)
		}
	}
	up()
	if out, err := run(t, "--dir", dir, "down"); err != nil {
		t.Errorf("down: %v: %s", err, out)
	}
}

func TestWhatIsOfNoUseToOthersIsNotForThem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if out, err := run(t, "--dir", dir, "up", "--no-node", "--fake-nodes", "1"); err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := run(t, "--dir", dir, "down"); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	kwok := listener(t, dir, "--server-address=")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // a stranger
	for _, url := range []string{
		listener(t, dir, "--listen-peer-urls=") + "/members", listener(t, dir, "--listen-client-urls=") + "/version",
		"http://" + kwok + "/debug/pprof/", "http://" + kwok + "/containerLogs/default/a/b",
	} {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		if err == nil && resp.StatusCode < 400 {
			t.Errorf("%s: %s", url, resp.Status)
		}
	}
	resp, err := client.Get("http://" + kwok + "/healthz")
	if err != nil {
		t.Fatal(err) // so it was the right port
	}
	resp.Body.Close()
}

// listener is the value of an argument of one of the lab's programs.
func listener(t *testing.T, dir, argument string) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may be gone
		if !strings.Contains(string(text), dir) {
			continue
		}
		for arg := range strings.SplitSeq(string(text), "\x00") {
			if value, ok := strings.CutPrefix(arg, argument); ok {
				return value
			}
		}
	}
	t.Fatalf("nothing has an argument %s", argument)
	return ""
}

func TestAnOrdinaryUserHasAControlPlane(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("so are we; all other tests show it")
		return
	}
	// The folders of root are not for others to read: they get copies, and the
	// inside of `up`, which needs nothing to build with.
	home, err := os.MkdirTemp("/tmp", "lab-user-") //nolint:usetesting // t.TempDir is below a folder of root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	kubernetes, err := run(t, "build")
	if err != nil {
		t.Fatal(err, kubernetes)
	}
	for from, to := range map[string]string{strings.TrimSpace(kubernetes): "kubernetes", filepath.Join(os.Getenv(binEnv), "lab"): "lab"} {
		if out, err := exec.Command("install", "--mode=755", from, filepath.Join(home, to)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	keep := exec.Command("./lab", "keep", "--dir", filepath.Join(home, "up"), "--kubernetes", filepath.Join(home, "kubernetes"), "--attached")
	var said bytes.Buffer
	keep.Stdout, keep.Stderr = &said, &said
	keep.Dir, keep.Env = home, []string{"HOME=" + home, "PATH=/usr/bin:/bin"}
	keep.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	stdin, err := keep.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, "up"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(home, "up"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := keep.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- keep.Wait() }()
	ready := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for give := time.After(time.Minute); ready < 4; {
		select {
		case <-tick.C:
			out, _ := run(t, "--dir", filepath.Join(home, "up"), "status") // until there is one
			ready = strings.Count(out, " ready ")
		case err := <-ended:
			t.Fatalf("it ended: %v: %s", err, said.String())
		case <-give:
			t.Fatalf("%d of 4 components are ready: %s", ready, said.String())
		}
	}
	stdin.Close() // its owner is gone
	if err := <-ended; err != nil {
		t.Errorf("its end: %v: %s", err, said.String())
	}
	if _, err := os.Stat(filepath.Join(home, "up")); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
}

// nobody is the user without rights, in Debian and elsewhere.
const nobody = 65534
