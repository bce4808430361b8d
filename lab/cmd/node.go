package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"bulkhead.dev/bulkhead/lab"
)

// addNode starts the real node, once: its network, its control groups, the
// container runtime with the lab's images, and the kubelet.
func (s *supervisor) addNode(ctx context.Context) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.network != nil {
		return nil
	}
	if err := s.makeGroups(); err != nil {
		return err
	}
	network, err := s.makeNetwork()
	if err != nil {
		return fmt.Errorf("make the node's network: %w", err)
	}
	s.mu.Lock()
	s.network = network
	s.mu.Unlock()
	if err := s.startAll(ctx, node); err != nil {
		return err
	}
	images, err := filepath.Glob(s.path(lab.ImageFolder, "*.tar"))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := s.importImage(image); err != nil {
			return err
		}
	}
	return nil
}

// addFake starts what plays the nodes that do not exist, once.
func (s *supervisor) addFake(ctx context.Context) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.has("kwok") {
		return nil
	}
	stages, err := s.children.run(s.kubernetes, "kwok-stages")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("config", "kwok.yaml"), append(stages, kwokOptions...), 0o600); err != nil {
		return err
	}
	return s.startAll(ctx, fake)
}

// kwokOptions keep what is for people who look into KWOK, profiles and the like,
// from everybody who can reach the loopback. Where there is such a file the other
// options have no defaults; these are they.
const kwokOptions = `---
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  enableDebuggingHandlers: false
  podPlayStageParallelism: 4
  nodePlayStageParallelism: 4
  nodeLeaseParallelism: 4
  podsOnNodeSyncParallelism: 1
  enablePodsOnNodeSyncListPager: true
`

// importImage gives an OCI archive to the container runtime.
func (s *supervisor) importImage(path string) error {
	// Not for other platforms: an archive has one.
	_, err := s.children.run("ctr", "--address", s.containerd(), "--namespace", "k8s.io", "images", "import", path)
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	return nil
}

// makeGroups makes the control group below which all pods are. The kubelet
// wants it to be there.
func (s *supervisor) makeGroups() error {
	return inHierarchies(func(dir string) error {
		group := filepath.Join(dir, groupName(s.number))
		if err := os.Mkdir(group, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if filepath.Base(dir) != "cpuset" {
			return nil
		}
		// Version 1: a new group has no CPUs, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(group, file), text, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}

// network is the node's network namespace. What holds it is a process; the
// node's programs enter it by that.
type network struct{ holder int }

// enter makes a command line that runs in the network.
func (n *network) enter(program string, args []string) (string, []string) {
	return "/usr/bin/nsenter", append([]string{"--net=/proc/" + strconv.Itoa(n.holder) + "/ns/net", "--", program}, args...)
}
