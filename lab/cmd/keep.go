package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead/lab"
)

// maxLabs is how many labs a machine can have at once: each has a number, and by
// it its addresses, its link and its control group.
const maxLabs = 64

// keepCmd is the keeper: it starts process 1 of the lab, waits for the first
// reason to end, and removes what no namespace holds.
func (p *people) keepCmd() *cobra.Command {
	var kubernetes string
	var attached bool
	cmd := &cobra.Command{
		Use: "keep", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return keep(cmd.Context(), p.dir, kubernetes, attached)
		},
	}
	cmd.Flags().StringVar(&kubernetes, "kubernetes", "", "")
	cmd.Flags().BoolVar(&attached, "attached", false, "end with standard input")
	return cmd
}

func keep(ctx context.Context, dir, kubernetes string, attached bool) error {
	n, held, err := number()
	if err != nil {
		return err
	}
	defer held.Close()
	if err := errors.Join(sweepFolders(os.TempDir()), removeGroups(n), sweepGroups()); err != nil {
		return fmt.Errorf("remove what killed labs left: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if attached {
		go func() {
			_, _ = os.Stdin.Read(make([]byte, 1)) // nothing is ever written: it returns when our owner is gone
			cancel()
		}()
	}
	first, pipe, err := startFirst(dir, kubernetes, n)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- first.Wait() }()
	select {
	case err = <-ended: // asked to end, or a failure that is in our log by now
	case <-ctx.Done():
		err = errors.Join(first.Process.Kill(), waitFor(ended))
	}
	pipe.Close()
	return errors.Join(err, linkGone(n), removeGroups(n), os.RemoveAll(dir))
}

// waitFor waits for a process that was killed, whose error says no more than
// that.
func waitFor(ended <-chan error) error {
	err := <-ended
	if _, killed := errors.AsType[*exec.ExitError](err); killed {
		return nil
	}
	return err
}

// number takes the lowest number that no other lab on this machine has. What
// holds it is a socket in the abstract namespace, which the kernel closes with
// us.
func number() (int, net.Listener, error) {
	var err error
	for n := range maxLabs {
		var held net.Listener
		if held, err = take(n); err == nil {
			return n, held, nil
		}
	}
	return 0, nil, fmt.Errorf("%d labs run on this machine already: %w", maxLabs, err)
}

func take(n int) (net.Listener, error) {
	return net.Listen("unix", fmt.Sprintf("@bulkhead-lab-%d", n))
}

// sweepGroups removes the control groups of labs whose keepers were killed:
// those whose number nobody has.
func sweepGroups() error {
	var errs []error
	for n := range maxLabs {
		if len(groups(n)) == 0 {
			continue
		}
		if held, err := take(n); err == nil {
			errs = append(errs, removeGroups(n), held.Close())
		}
	}
	return errors.Join(errs...)
}

// startFirst starts process 1. It ends when the pipe does, whatever ends us.
func startFirst(dir, kubernetes string, n int) (*exec.Cmd, *os.File, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "init", "--dir", dir, "--kubernetes", kubernetes, "--number", strconv.Itoa(n))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if id := os.Getuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // for good: Pdeathsig is about the thread
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("start process 1 in namespaces of its own: %w", err)
	}
	return cmd, ours, nil
}

// linkName is this machine's end of the link to a node.
func linkName(n int) string { return fmt.Sprintf("bhlab-%d", n) }

// killTime is more than the kernel needs to end what was killed, and its network.
const killTime = 10 * time.Second

// linkGone waits for the kernel to end the node's network, which it does a
// moment after its last process.
func linkGone(n int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	give := time.After(killTime)
	for {
		if _, err := net.InterfaceByName(linkName(n)); err != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-give:
			return fmt.Errorf("link %s is still there", linkName(n))
		}
	}
}

// groupName is the control group under which a lab's pods are.
func groupName(n int) string { return fmt.Sprintf("bulkhead-lab-%d", n) }

const groupRoot = "/sys/fs/cgroup"

// groups are the folders of a lab's control group, one for each hierarchy.
func groups(n int) []string {
	version2, _ := filepath.Glob(filepath.Join(groupRoot, groupName(n)))
	version1, _ := filepath.Glob(filepath.Join(groupRoot, "*", groupName(n)))
	return append(version2, version1...)
}

// removeGroups removes a lab's control groups, whose processes are dead. The
// kernel takes a moment to let go of those.
func removeGroups(n int) error {
	var errs []error
	for _, group := range groups(n) {
		var below []string
		err := filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			return nil
		})
		for _, path := range slices.Backward(below) { // the deepest first
			err = errors.Join(err, removeGroup(path))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeGroup(path string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	give := time.After(killTime)
	for {
		err := unix.Rmdir(path)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		select {
		case <-tick.C:
		case <-give:
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
	}
}

// sweepFolders removes the folders of labs whose keepers were killed: those that
// nobody holds the lock of.
func sweepFolders(tmp string) error {
	dirs, err := filepath.Glob(filepath.Join(tmp, lab.TempPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if err := removeRemains(dir); !errors.Is(err, errHeld) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// errHeld says that a lab is not dead.
var errHeld = errors.New("its lock is held")

// removeRemains removes a lab's folder if all of the lab is dead. One without a
// lock file is just being made, or is none.
func removeRemains(dir string) error {
	lock, err := os.Open(filepath.Join(dir, lab.LockFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // none, or another user's
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w", dir, errHeld)
	}
	return os.RemoveAll(dir)
}

// inHierarchies calls do with the folder of each hierarchy of control groups.
func inHierarchies(do func(dir string) error) error {
	if _, err := os.Stat(filepath.Join(groupRoot, "cgroup.controllers")); err == nil {
		return do(groupRoot) // version 2: there is one
	}
	entries, err := os.ReadDir(groupRoot)
	if err != nil {
		return fmt.Errorf("look for control groups: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), "bulkhead") {
			continue // a link: cpuacct is cpu,cpuacct
		}
		if err := do(filepath.Join(groupRoot, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
