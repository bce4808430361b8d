package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"bulkhead.dev/bulkhead/lab"
)

// ownerEnv makes the test binary a process that owns a lab in this folder.
const ownerEnv = "BULKHEAD_LAB_OWNER"

// ownLab starts a lab with a node, says so, and waits to be killed.
func ownLab(dir string) int {
	ctx := context.Background()
	l, err := lab.Launch(ctx, lab.Options{Dir: dir, Log: os.Stderr})
	if err == nil {
		err = l.StartNode(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("up")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// remains is what a lab could leave on its machine.
type remains struct {
	Processes, Mounts, Links, Rules, Groups []string
	Folder                                  bool
}

// remainsOf looks for what there is of the lab in dir; group is its control
// group, if known.
func remainsOf(t *testing.T, dir string) remains {
	t.Helper()
	var r remains
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range procs {
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline")) // it may be gone
		if bytes.Contains(line, []byte(dir)) && filepath.Base(proc) != strconv.Itoa(os.Getpid()) {
			r.Processes = append(r.Processes, filepath.Base(proc)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) || strings.Contains(line, "/run/netns") || strings.Contains(line, "/var/lib/cni") {
			r.Mounts = append(r.Mounts, line)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		r.Links = append(r.Links, link.Name)
	}
	if out, err := exec.Command("iptables-save").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "-A") {
				r.Rules = append(r.Rules, line)
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/bulkhead-lab-*", "/sys/fs/cgroup/*/bulkhead-lab-*"} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		r.Groups = append(r.Groups, groups...)
	}
	_, err = os.Stat(dir)
	r.Folder = err == nil
	return r
}

// less is what r has and before had not.
func (r remains) less(before remains) remains {
	without := func(now, before []string) []string {
		return slices.DeleteFunc(now, func(s string) bool { return slices.Contains(before, s) })
	}
	return remains{
		without(r.Processes, before.Processes), without(r.Mounts, before.Mounts), without(r.Links, before.Links),
		without(r.Rules, before.Rules), without(r.Groups, before.Groups), r.Folder,
	}
}

func (r remains) nothing() bool {
	return len(r.Processes)+len(r.Mounts)+len(r.Links)+len(r.Rules)+len(r.Groups) == 0
}

// ended waits for a process and fails with what it said.
type owner struct {
	*exec.Cmd
	dir string
}

// startOwner starts a process that owns a lab with a node and a pod that runs.
func startOwner(t *testing.T) *owner {
	t.Helper()
	if why := lab.NodeMissing(); why != "" {
		t.Skip(why) //nolint:forbidigo // as lab.Node does
	}
	// Where labs are, so that the next one finds what this one leaves.
	dir, err := os.MkdirTemp("", lab.TempPrefix) //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := &owner{exec.Command("/proc/self/exe"), dir}
	o.Env = append(os.Environ(), ownerEnv+"="+dir)
	var said bytes.Buffer
	o.Stderr = &said
	o.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := o.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := o.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Process.Kill(); _ = o.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		_ = o.Wait()
		t.Fatalf("it said %q and %s", line, said.String())
	}
	l, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := pod("left", "trap '' TERM; while true; do sleep 1; done")
	l.Eventually(t, "a pod can be made", func(ctx context.Context) bool {
		_, err := l.Client().CoreV1().Pods("default").Create(ctx, p, createOptions)
		return err == nil
	})
	waitPhase(t, l, "default", "left", corev1.PodRunning)
	return o
}

// processOf finds the lab's keeper or its process 1, as this machine sees it.
func processOf(t *testing.T, dir, command string) int {
	t.Helper()
	for _, p := range remainsOf(t, dir).Processes {
		pid, line, _ := strings.Cut(p, " ")
		if strings.Contains(line, " "+command+" --dir ") {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s of %s runs", command, dir)
	return 0
}

func TestNothingStaysBehindWhenALabIsStoppedOrKilled(t *testing.T) {
	l := lab.Start(t)
	for _, c := range []struct {
		name string
		end  func(*testing.T, *owner)
		tidy bool // also the folder and the control groups are gone, by itself
	}{
		{"it is stopped", func(t *testing.T, o *owner) {
			other, err := lab.Open(o.dir)
			if err == nil {
				err = other.Stop(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}, true},
		{"its owner is killed", func(t *testing.T, o *owner) {
			if err := o.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"its process 1 is killed", func(t *testing.T, o *owner) {
			if err := syscall.Kill(processOf(t, o.dir, "init"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"owner and keeper are killed", func(t *testing.T, o *owner) {
			keeper := processOf(t, o.dir, "keep")
			if err := o.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := remainsOf(t, "nowhere")
			o := startOwner(t)
			if now := remainsOf(t, o.dir).less(before); len(now.Processes) < 8 || len(now.Links) != 1 || len(now.Groups) == 0 {
				t.Fatalf("what runs is not found: %+v", now)
			}
			c.end(t, o)
			var now remains
			l.Eventually(t, "nothing is left", func(context.Context) bool {
				now = remainsOf(t, o.dir).less(before)
				if !c.tidy {
					now.Groups, now.Folder = nil, false
				}
				return now.nothing() && !now.Folder
			})
		})
	}
	// What the killed keeper left, the next one takes away.
	o := startOwner(t)
	_ = o.Process.Kill()
	l.Eventually(t, "only the shared lab's control groups are left", func(context.Context) bool {
		dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), lab.TempPrefix+"*"))
		return slices.Equal(dirs, []string{l.Dir()})
	})
}
