package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead/lab"
)

// supervisor starts, watches and stops the components.
type supervisor struct {
	*layout
	children *children
	probe    *http.Client

	adding sync.Mutex // held while the node is added

	mu      sync.Mutex
	network *network // the node's; nil before there is one
	running map[string]*process
	order   []string // of the first start, for people
}

// process is one component that was started at least once.
type process struct {
	component

	lab.Component
	wanted bool          // nobody has asked to stop it
	gone   chan struct{} // closed when it has ended
}

func newSupervisor(l *layout) *supervisor {
	return &supervisor{
		layout: l, children: newChildren(l.path("run")), running: map[string]*process{},
		probe: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
			// It asks whether anybody answers, and tells nobody a secret.
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
			DisableKeepAlives: true,
		}},
	}
}

// startAll starts components, each once those that it needs are ready, and
// returns when all are.
func (s *supervisor) startAll(ctx context.Context, list []component) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready := map[string]chan struct{}{}
	for _, c := range list {
		ready[c.name] = make(chan struct{})
	}
	var all sync.WaitGroup
	for _, c := range list {
		all.Go(func() {
			for _, need := range c.needs {
				if ready[need] == nil {
					continue // it runs already
				}
				select {
				case <-ready[need]:
				case <-ctx.Done():
					return
				}
			}
			if err := s.start(ctx, c, nil); err != nil {
				cancel(err)
				return
			}
			close(ready[c.name])
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// start starts one component, with more arguments, and waits until it is ready.
func (s *supervisor) start(ctx context.Context, c component, more []string) error {
	p, err := s.spawn(c, more)
	if err != nil {
		return err
	}
	if err := s.await(ctx, p); err != nil {
		return fmt.Errorf("%s: %w; the end of its log:\n%s", c.name, err, s.logEnd(c.name))
	}
	return nil
}

func (s *supervisor) spawn(c component, more []string) (*process, error) {
	program, args := s.kubernetes, append([]string{c.name}, c.args(s.layout)...)
	if c.program != "" {
		var err error
		if program, err = exec.LookPath(c.program); err != nil {
			return nil, err
		}
		args = args[1:]
	}
	args = append(args, more...)
	if c.node {
		program, args = s.network.enter(program, args)
	}
	log, err := os.OpenFile(s.path(lab.LogFolder, c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.running[c.name]; p != nil && p.PID != 0 {
		return nil, fmt.Errorf("%s runs already", c.name)
	}
	p := &process{component: c, wanted: true, gone: make(chan struct{})}
	pid, exit, err := s.children.start(program, args, os.Environ(), log)
	if err != nil {
		return nil, err
	}
	p.Component = lab.Component{Name: c.name, PID: pid, Started: time.Now()}
	s.running[c.name] = p
	if !slices.Contains(s.order, c.name) {
		s.order = append(s.order, c.name)
	}
	go s.bury(p, exit)
	return p, nil
}

// bury notes the end of a component.
func (s *supervisor) bury(p *process, exit <-chan unix.WaitStatus) {
	status := <-exit
	s.mu.Lock()
	defer s.mu.Unlock()
	p.PID, p.Ready = 0, false
	if p.wanted {
		p.Exit = ending(status)
	}
	close(p.gone)
}

// await asks for a component's health until it is well.
func (s *supervisor) await(ctx context.Context, p *process) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.healthy(ctx, p.ready(s.layout))
		if err == nil {
			s.noteReady(p)
			return nil
		}
		select {
		case <-tick.C:
		case <-p.gone:
			return fmt.Errorf("it ended with %s", p.Exit)
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", err)
		}
	}
}

func (s *supervisor) noteReady(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Ready, p.Took = true, time.Since(p.Started).Seconds()
}

// healthy asks a health check, see component.ready.
func (s *supervisor) healthy(ctx context.Context, url string) error {
	if path, ok := strings.CutPrefix(url, "unix://"); ok {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			conn.Close()
		}
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.probe.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

var errUnknown = errors.New("there is no such component")

// termTime is what a component has between SIGTERM and SIGKILL.
const termTime = 10 * time.Second

// stop ends a component, with SIGKILL if hard, and returns when it is gone.
func (s *supervisor) stop(name string, hard bool) error {
	s.mu.Lock()
	p := s.running[name]
	if p == nil {
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", name, errUnknown)
	}
	pid := p.PID
	p.wanted = false
	s.mu.Unlock()
	if pid == 0 {
		return nil
	}
	signal := unix.SIGTERM
	if hard {
		signal = unix.SIGKILL
	}
	_ = unix.Kill(-pid, signal) // it may just have ended
	select {
	case <-p.gone:
	case <-time.After(termTime):
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-p.gone
	}
	return nil
}

// restart starts a component again that was stopped. One that runs already, since
// it was killed twice, say, and is started twice, is only waited for.
func (s *supervisor) restart(ctx context.Context, name string, more []string) error {
	s.mu.Lock()
	p := s.running[name]
	runs := p != nil && p.PID != 0
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", name, errUnknown)
	}
	if runs && len(more) == 0 {
		return s.await(ctx, p)
	}
	return s.start(ctx, p.component, more)
}

func (s *supervisor) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[name] != nil
}

// logLines are enough for the reason of a panic, above its stack.
const logLines = 50

func (s *supervisor) logEnd(name string) string {
	text, err := os.ReadFile(s.path(lab.LogFolder, name+".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}

func (s *supervisor) status() lab.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := lab.Status{
		Dir: s.dir, Kubeconfig: s.kubeconfig("admin"), HostIP: s.hostIP(),
		Server: "https://" + s.loopback("kube-apiserver"), Etcd: "https://" + s.loopback("etcd"),
		EtcdMetrics: "http://" + s.loopback("etcd-metrics") + "/metrics", Kubernetes: s.kubernetes,
	}
	if s.network != nil {
		st.Node, st.NodeIP = s.nodeName(), s.nodeIP()
	}
	for _, name := range s.order {
		st.Components = append(st.Components, s.running[name].Component)
	}
	return st
}
