package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

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
	if l.ports, err = freePorts(l.number, slices.Concat(controlPlane, node, fake)...); err != nil {
		return fmt.Errorf("find free ports: %w", err)
	}
	if err := l.prepare(); err != nil {
		return err
	}
	s := newSupervisor(l)
	return s.serve(ctx)
}

// Ports of lab number n are portsOfLab from firstPort + n*portsOfLab on. These
// are no ports that the kernel gives to connections (from 32768 on, unless it
// was told otherwise), which could take that of a component that is killed for
// a while, nor those of NodePort services (from 30000 on).
const (
	firstPort  = 20_000
	portsOfLab = 100
)

// freePorts finds a port of the loopback for each name that components have.
func freePorts(number int, components ...component) (map[string]int, error) {
	ports := map[string]int{}
	port := firstPort + number*portsOfLab
	end := port + portsOfLab
	for _, c := range components {
		for _, name := range c.ports {
			for ; ports[name] == 0; port++ {
				if port == end {
					return nil, fmt.Errorf("all ports from %d to %d are taken", end-portsOfLab, end-1)
				}
				listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err == nil {
					listener.Close()
					ports[name] = port
				}
			}
		}
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
