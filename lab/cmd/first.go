package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead/lab"
)

// initCmd is process 1 of a lab's process namespace.
func (p *people) initCmd() *cobra.Command {
	l := &layout{}
	cmd := &cobra.Command{
		Use: "init", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l.dir = p.dir
			return first(cmd.Context(), l)
		},
	}
	cmd.Flags().StringVar(&l.kubernetes, "kubernetes", "", "")
	cmd.Flags().IntVar(&l.number, "number", 0, "")
	return cmd
}

// first is what process 1 does until it is told to end or its keeper is gone.
// Its end is the end of everything in the namespace, so nothing is stopped.
func first(ctx context.Context, l *layout) error {
	if os.Getpid() != 1 {
		return errors.New("init is not for people; see `lab up`")
	}
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // returns when the keeper is gone
		os.Exit(1)                            //nolint:forbidigo // process 1 has nothing to tidy up
	}()
	if err := mounts(l.dir); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	var err error
	if l.ports, err = freePorts("etcd", "etcd-peer", "etcd-metrics", "kube-apiserver", "kube-controller-manager",
		"kube-scheduler", "kwok"); err != nil {
		return fmt.Errorf("find free ports: %w", err)
	}
	if err := l.prepare(); err != nil {
		return err
	}
	s := newSupervisor(l)
	return s.serve(ctx)
}

// freePorts finds a free port of the loopback for each name. Another process may
// take one before we do; then a component says so and the lab does not start.
func freePorts(names ...string) (map[string]int, error) {
	ports := map[string]int{}
	var listeners []net.Listener
	defer func() { // not before all are found
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
		addr, _ := listener.Addr().(*net.TCPAddr)
		ports[name] = addr.Port
	}
	return ports, nil
}

// mounts gives the lab its own view of what is the machine's: its processes, and
// folders in which the kubelet, containerd and network plugins leave things
// whatever they are told.
func mounts(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if os.Getuid() != 0 || lab.NodeMissing() != "" {
		return nil // without a node nobody writes there
	}
	for _, path := range []string{"/run", "/var/log", "/var/lib/cni"} {
		if rel, err := filepath.Rel(path, dir); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("a lab's folder cannot be below %s", path)
		}
		if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // as Debian's packages make it
			return err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=256m,mode=0755"); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
