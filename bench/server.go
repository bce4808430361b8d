package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	"bulkhead.dev/bulkhead/bench/table"
	"bulkhead.dev/bulkhead/rpc"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

const (
	// simulated is how many agents the server has, each with a connection of its
	// own as in a cluster. They run in this process, and share the CPUs with it.
	simulated  = 200
	benchClass = "bench"
	// idleFor is how long the server is watched while nobody wants anything.
	idleFor = 20 * time.Second
)

// server is a real server and 200 agents that run nothing, on one machine: what
// is measured is leases and results through TLS, HTTP/2 and the store.
func (b *bench) server() (err error) {
	s, err := b.startServer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	queued, rated := int64(b.items(1_000_000)), int64(b.items(200_000))
	took, id, err := s.submit(queued)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("server, %d simulated agents, %d items queued: ", simulated, queued)
	b.Note(what+"submitted", table.Format(took.Seconds(), " s"), "")
	const mib = 1 << 20
	accepted, err := s.peakMemory()
	if err != nil {
		return err
	}
	agents, err := s.startAgents()
	if err != nil {
		return err
	}
	defer agents.end()
	work, err := s.measure(id, rated)
	if err != nil {
		return err
	}
	peak, err := s.peakMemory()
	if err != nil {
		return err
	}
	if _, err := s.client.Ask(context.Background(), bulkhead.Request{Run: id, Kind: bulkhead.RequestCancel}); err != nil {
		return err
	}
	if err := s.watch(id, func(r *bulkhead.Run) bool { return r.State.Finished() }); err != nil {
		return err
	}
	idle, err := s.busyWhile(func() { <-time.After(idleFor) })
	if err != nil {
		return err
	}
	b.AtLeast(what+"finished", work.perSecond(), 5000, "/s", fmt.Sprintf("of %d;", work.items))
	b.AtMost(what+"peak memory", float64(peak)/mib, 200, " MiB", fmt.Sprintf("%.0f MiB once accepted;", float64(accepted)/mib))
	b.Note(what+"CPU per item", table.Format(work.server.Seconds()*1e6/float64(work.items), " µs"),
		fmt.Sprintf("its agents %.0f µs;", work.agents.Seconds()*1e6/float64(work.items)))
	b.Note(fmt.Sprintf("server, %d idle agents: CPU", simulated), table.Format(100*idle.Seconds()/idleFor.Seconds(), " %"), "of one CPU;")
	return nil
}

// served is a server in a process of its own.
type served struct {
	cmd    *exec.Cmd
	state  string
	url    string
	client *rpc.Client
}

func (b *bench) startServer() (*served, error) {
	s := &served{state: b.state("server")}
	classes := filepath.Join(b.dir, "classes.yaml")
	text := "apiVersion: bulkhead.dev/v1alpha1\nkind: ScriptClass\nmetadata: {name: " + benchClass + "}\nspec: {image: none, workers: {max: 1000}}\n"
	if err := os.WriteFile(classes, []byte(text), 0o600); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s.url = "https://" + addr
	log, err := os.Create(filepath.Join(b.dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"serve", "--state", s.state, "--listen", addr, "--classes", classes}
	if b.pprof != "" {
		args = append(args, "--pprof", b.pprof)
	}
	s.cmd = exec.Command(b.binary, args...)
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.connect(); err != nil {
		said, _ := os.ReadFile(log.Name()) // best effort: the error says the rest
		return nil, errors.Join(fmt.Errorf("%w; it said: %s", err, said), s.end())
	}
	return s, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// connect waits until the server answers.
func (s *served) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.dial(); err == nil {
			if _, err = s.client.Runs(ctx, 1); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the server does not answer")
		}
	}
}

func (s *served) key(name string) string { return filepath.Join(s.state, "keys", name) }

func (s *served) dial() error {
	client, url, _, err := rpc.Dial(rpc.DialOptions{URL: s.url, CAFile: s.key("ca.crt"), TokenFile: s.key("token")})
	if err != nil {
		return err
	}
	s.client = rpc.NewClient(rpc.ClientOptions{URL: url, HTTP: client, Owner: "ann@here", Tries: 1})
	return nil
}

func (s *served) end() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	return s.cmd.Wait()
}

// submit submits a run of n items.
func (s *served) submit(n int64) (time.Duration, bulkhead.RunID, error) {
	r := &bulkhead.Run{Spec: bulkhead.Spec{Class: benchClass, Name: "noop", Command: []string{"noop", "{}"},
		Columns: []string{"1"}, Limit: simulated}}
	at := int64(0)
	next := func() (bulkhead.Item, error) {
		if at++; at > n {
			return bulkhead.Item{}, io.EOF
		}
		return bulkhead.Item{Index: at, Values: []string{"item-" + strconv.FormatInt(at, 10)}}, nil
	}
	begin := time.Now()
	err := s.client.Submit(context.Background(), r, next, func() string { return strings.Repeat("0", 64) })
	return time.Since(begin), r.ID, err
}

// simulation is agents that run nothing.
type simulation struct {
	stop context.CancelFunc
	all  sync.WaitGroup
}

func (s *simulation) end() {
	s.stop()
	s.all.Wait()
}

func (s *served) startAgents() (*simulation, error) {
	token, err := s.agentToken()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	sim := &simulation{stop: stop}
	for n := range simulated {
		client, url, opts, err := rpc.Dial(rpc.DialOptions{URL: s.url, CAFile: s.key("ca.crt"), TokenFile: token})
		if err != nil {
			sim.end()
			return nil, err
		}
		a := agent.New(agent.Options{
			Client: bulkheadv1connect.NewAgentServiceClient(client, url, opts...), Runner: idler{}, API: rpc.APIVersion,
			Agent: bulkhead.Agent{Name: fmt.Sprintf("agent-%d", n), Kind: bulkhead.Kind{Class: benchClass}, Slots: 1},
		})
		sim.all.Go(func() { _ = a.Run(ctx) }) // results that could not be handed in at the end are none that count
	}
	return sim, nil
}

// idler runs attempts that do nothing.
type idler struct{}

func (idler) Run(context.Context, agent.Job, agent.Sink) bulkhead.Result {
	return bulkhead.Result{State: bulkhead.ItemSucceeded, Started: time.Now(), Duration: time.Millisecond, CPU: time.Millisecond, PeakMemory: 2 << 20}
}

// worked is what a number of items took.
type worked struct {
	items          int64
	took           time.Duration
	server, agents time.Duration // CPU
}

func (w worked) perSecond() float64 { return float64(w.items) / w.took.Seconds() }

// measure waits until n more items are finished, once all agents are at work.
func (s *served) measure(id bulkhead.RunID, n int64) (worked, error) {
	var w worked
	finished := func(r *bulkhead.Run) int64 { return r.Counts.Succeeded + r.Counts.Failed + r.Counts.Lost }
	err := s.watch(id, func(r *bulkhead.Run) bool { w.items = finished(r); return w.items >= n/10 })
	if err != nil {
		return w, err
	}
	from, begin, ours := w.items, time.Now(), ownCPU()
	w.server, err = s.busyWhile(func() {
		err = s.watch(id, func(r *bulkhead.Run) bool { w.items = finished(r) - from; return w.items >= n })
		w.took, w.agents = time.Since(begin), ownCPU()-ours
	})
	return w, err
}

// watch follows a run until ok.
func (s *served) watch(id bulkhead.RunID, ok func(*bulkhead.Run) bool) error {
	enough := errors.New("enough")
	err := s.client.Watch(context.Background(), id, func(st rpc.Status) error {
		if ok(&st.Run) {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// busyWhile is the CPU time that the server used during fn.
func (s *served) busyWhile(fn func()) (time.Duration, error) {
	before, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	fn()
	after, err := cpuOf(s.cmd.Process.Pid)
	return after - before, err
}

// peakMemory is the most memory that the server had resident, in bytes.
func (s *served) peakMemory() (int64, error) { return peakMemory(s.cmd.Process.Pid) }

func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kib), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// cpuOf is the CPU time of a process, see proc_pid_stat(5).
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const utime, stime, tick = 11, 12, 10 * time.Millisecond
	if len(fields) <= stime {
		return 0, errors.New("stat is short")
	}
	user, err := strconv.ParseInt(fields[utime], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * tick, err
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
