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
	"regexp"
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

// addresses are those of labs, see lab/cmd/components.go.
var addresses = regexp.MustCompile(`10\.21[3-6]\.`)

// remainsOf looks for what there is of the lab in dir, and for links, rules and
// control groups of any: other test binaries have labs at the same time.
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
		if strings.Contains(line, dir) || strings.Contains(line, "/run/netns/cni-") || strings.Contains(line, "/var/lib/cni") {
			r.Mounts = append(r.Mounts, line)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		r.Links = append(r.Links, fmt.Sprintf("%s %d", link.Name, link.Index)) // which is not used again, as the name is
	}
	if out, err := exec.Command("iptables-save").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if addresses.MatchString(line) {
				r.Rules = append(r.Rules, line)
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/bulkhead-lab-*", "/sys/fs/cgroup/*/bulkhead-lab-*"} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range groups {
			if info, err := os.Stat(group); err == nil { // it may be gone
				stat, _ := info.Sys().(*syscall.Stat_t)
				r.Groups = append(r.Groups, fmt.Sprintf("%s %d", group, stat.Ino))
			}
		}
	}
	_, err = os.Stat(dir)
	r.Folder = err == nil
	return r
}

// ofLab is what of r is named after a lab's number, or its folder.
func (r remains) ofLab(number string) remains {
	named := func(all []string, name string) []string {
		return slices.DeleteFunc(all, func(s string) bool { return !strings.Contains(s, name+" ") })
	}
	r.Links, r.Groups = named(r.Links, "bhlab-"+number), named(r.Groups, "bulkhead-lab-"+number)
	return r
}

// still is what of ran, of which there is no more than one of each name at once,
// there is still, and all of what else there is of its folder.
func (r remains) still(ran remains) remains {
	same := func(now, ran []string) []string {
		return slices.DeleteFunc(now, func(s string) bool { return !slices.Contains(ran, s) })
	}
	r.Links, r.Groups = same(r.Links, ran.Links), same(r.Groups, ran.Groups)
	return r
}

func (r remains) nothing() bool {
	return len(r.Processes)+len(r.Mounts)+len(r.Links)+len(r.Rules)+len(r.Groups) == 0
}

// ended waits for a process and fails with what it said.
type owner struct {
	*exec.Cmd
	dir    string
	number string // of the lab
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
	o := &owner{Cmd: exec.Command("/proc/self/exe"), dir: dir}
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
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.number = strings.Split(s.HostIP, ".")[2]
	p := pod("left", "trap '' TERM; : found by "+dir+"; while true; do sleep 1; done")
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
			o := startOwner(t)
			ran := remainsOf(t, o.dir).ofLab(o.number)
			if len(ran.Processes) < 9 || len(ran.Links) != 1 || len(ran.Groups) == 0 {
				t.Fatalf("what runs is not found: %+v", ran)
			}
			c.end(t, o)
			l.Eventually(t, "nothing is left", func(context.Context) bool {
				now := remainsOf(t, o.dir).still(ran)
				if !c.tidy {
					now.Groups, now.Folder = nil, false
				}
				return now.nothing() && !now.Folder
			})
		})
	}
}

func TestWhatAKilledKeeperLeftTheNextOneTakesAway(t *testing.T) {
	l := lab.Start(t)
	killed := startOwner(t)
	left := remainsOf(t, killed.dir).ofLab(killed.number)
	keeper := processOf(t, killed.dir, "keep")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.Eventually(t, "it is dead", func(context.Context) bool { return len(remainsOf(t, killed.dir).Processes) == 0 })
	startOwner(t)
	if now := remainsOf(t, killed.dir).still(left); len(now.Groups) > 0 || now.Folder {
		t.Errorf("%+v", now)
	}
}
