package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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
