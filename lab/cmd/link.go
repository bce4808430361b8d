package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The node's network is linked to this machine's by a pair of virtual
// interfaces. Both ends go when the namespace does. Beyond it there is nothing:
// neither forwarding nor address translation is asked of this machine.

const holdArg = "hold"

// makeNetwork makes the namespace and the link, and lets the API server, which
// listens on the loopback, be reached from the node.
func (s *supervisor) makeNetwork() (*network, error) {
	holder, err := s.startHolder()
	if err != nil {
		return nil, err
	}
	n := &network{holder: holder}
	link := linkName(s.number)
	for _, step := range []struct {
		inside bool
		args   string
	}{
		{false, "link add " + link + " type veth peer name eth0 netns " + strconv.Itoa(holder)},
		{false, "address add " + s.hostIP() + "/24 dev " + link},
		{false, "link set " + link + " up"},
		{true, "link set lo up"},
		{true, "address add " + s.nodeIP() + "/24 dev eth0"},
		{true, "link set eth0 up"},
		{true, "route add default via " + s.hostIP()},
	} {
		program, args := "ip", strings.Fields(step.args)
		if step.inside {
			program, args = n.enter(program, args)
		}
		if _, err := s.children.run(program, args...); err != nil {
			return nil, err
		}
	}
	return n, s.forward(fmt.Sprintf("%s:%d", s.hostIP(), s.ports["kube-apiserver"]), s.loopback("kube-apiserver"))
}

// startHolder starts a process in a network namespace of its own, which hold
// has made a router.
func (s *supervisor) startHolder() (pid int, err error) {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ready := s.path("run", "network")
	pid, exit, err := s.children.start(unshare, []string{"--net", "--", self, holdArg, ready}, os.Environ(), os.Stderr)
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := os.Stat(ready); err == nil {
				return pid, nil
			}
		case status := <-exit:
			return 0, fmt.Errorf("the process that holds it: %s", ending(status))
		}
	}
}

// hold is the process that holds the network: it lets packets of pods through
// and waits.
func hold() error {
	if len(os.Args) != 3 {
		return errors.New("hold is not for people; see `lab up`")
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(os.Args[2], nil, 0o600); err != nil {
		return err
	}
	for {
		if err := unix.Pause(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// setLink cuts the node off, or connects it again.
func (s *supervisor) setLink(state string) error {
	if state != "up" && state != "down" {
		return fmt.Errorf("a link is up or down, not %q", state)
	}
	if s.status().Node == "" {
		return errors.New("there is no node")
	}
	_, err := s.children.run("ip", "link", "set", linkName(s.number), state)
	return err
}

// forward passes connections on.
func (s *supervisor) forward(from, to string) error {
	listener, err := net.Listen("tcp", from)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, "lab: forward:", err)
				return
			}
			go pass(conn, to)
		}
	}()
	return nil
}

// pass copies both ways until both ends are done. A connection that cannot be
// passed on is refused as well as it can be: by a reset.
func pass(conn net.Conn, to string) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	one := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src) // the other way ends with it
		if half, ok := dst.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go one(server, conn)
	go one(conn, server)
	<-done
	<-done
}
