package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
	"bulkhead.dev/bulkhead/plan"
	"bulkhead.dev/bulkhead/rpc"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
	"bulkhead.dev/bulkhead/worker"
)

// agentFlags are the command line of an agent.
type agentFlags struct {
	dial agentServer
	opts agent.Options

	spoolLimit, filesLimit               string
	idleTimeout, maxAge, deliveryTimeout string

	stopText string
	stopIn   time.Duration // 0: as long as it takes
}

// agentServer is where the agent gets its work.
type agentServer struct{ url, ca, token string }

func (a *app) agentCmd() *cobra.Command {
	f := &agentFlags{}
	who := &f.opts.Agent
	cmd := &cobra.Command{
		Use: "agent --server URL --class NAME", Args: exactly(),
		Short: "Run what a server leases to this machine or pod",
		Long: `Run what a server leases to this machine or pod.

The agent asks the server for items of its class, runs them, and hands in output
and results. While the server is away, scripts go on; output and results are
kept in the spool folder and handed in later, also by the next agent with the
same folder. A script whose lease the server may have given away is ended first.

SIGTERM or Ctrl-C: no new items; scripts get SIGTERM and their grace, and their
results say that they were interrupted. A second one kills them at once.`,
		Example: `  bulkhead agent --server https://bulkhead.example:8443 --ca ca.crt --token-file token --class maintenance --slots 4`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			return a.agent(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dial.url, "server", "", "`URL` of the server")
	flags.StringVar(&f.dial.ca, "ca", "", "`file` with the certificates that may have signed the server's (default: those of the system)")
	flags.StringVar(&f.dial.token, "token-file", "", "`file` with the token of the class; read again when it changes")
	flags.StringVar(&who.Class, "class", "", "`name` of the class whose items to run")
	flags.StringVar(&who.Shape, "shape", "", "`key` of the shape of the class that this worker has (default: the class as it is)")
	flags.StringVar(&who.Name, "name", "", "`name` that no other agent has (default $BULKHEAD_AGENT_NAME, else host and process)")
	flags.IntVar(&who.Slots, "slots", 1, "`number` of items at once")
	flags.StringVar(&f.opts.Spool, "spool", "", "`folder` for what the server cannot take now (default: a temporary one)")
	flags.StringVar(&f.spoolLimit, "spool-limit", "256MiB", "most output in the spool folder, a `size`; then scripts wait")
	flags.StringVar(&f.filesLimit, "files-limit", "1GiB", "most files of runs in the spool folder, a `size`")
	flags.StringVar(&f.idleTimeout, "idle-timeout", "", "`duration` without an item after which to end")
	flags.StringVar(&f.maxAge, "max-age", "", "`duration` after which to end, when what runs has ended")
	flags.Int64Var(&f.opts.MaxItems, "max-items", 0, "`number` of items after which to end")
	flags.StringVar(&f.deliveryTimeout, "delivery-timeout", "10s", "`duration` to try to hand in results after SIGTERM and the grace of the scripts")
	flags.StringVar(&f.stopText, "stop-within", "", "`duration` after SIGTERM in which to be gone: scripts are killed, whatever their grace, while there is time to hand in their results")
	completeNoFiles(cmd, "stop-within", "server", "class", "shape", "name", "slots", "spool-limit", "files-limit", "idle-timeout", "max-age", "max-items", "delivery-timeout")
	_ = cmd.MarkFlagDirname("spool") // it fails only for a flag that the command has not got
	return cmd
}

// complete reads the flags.
func (f *agentFlags) complete() error {
	o := &f.opts
	switch {
	case f.dial.url == "":
		return usage("give its URL with --server", "an agent needs a server")
	case o.Agent.Class == "":
		return usage("give its name with --class", "an agent needs a class")
	case o.Agent.Slots < 1 || o.Agent.Slots > 1000:
		return usage("", "--slots %d is not between 1 and 1000", o.Agent.Slots)
	case o.MaxItems < 0:
		return usage("", "--max-items %d is less than 0", o.MaxItems)
	}
	for _, d := range []struct {
		name, value string
		to          *time.Duration
	}{
		{"idle-timeout", f.idleTimeout, &o.IdleTimeout}, {"max-age", f.maxAge, &o.MaxAge}, {"delivery-timeout", f.deliveryTimeout, &o.Linger},
		{"stop-within", f.stopText, &f.stopIn},
	} {
		if d.value == "" {
			continue
		}
		var err error
		if *d.to, err = plan.ParseDuration(d.value); err != nil {
			return fmt.Errorf("--%s: %w", d.name, err)
		}
	}
	for _, s := range []struct {
		name, value string
		to          *int64
	}{{"spool-limit", f.spoolLimit, &o.SpoolLimit}, {"files-limit", f.filesLimit, &o.FilesLimit}} {
		var err error
		if *s.to, err = plan.ParseSize(s.value); err != nil {
			return fmt.Errorf("--%s: %w", s.name, err)
		}
	}
	if o.Agent.Name == "" {
		o.Agent.Name = os.Getenv("BULKHEAD_AGENT_NAME")
	}
	if o.Agent.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return usage("give one with --name", "no name for the agent: %v", err)
		}
		o.Agent.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	return nil
}

// agent runs an agent until it is not wanted any more.
func (a *app) agent(ctx context.Context, f *agentFlags) (err error) {
	client, url, clientOpts, err := rpc.Dial(rpc.DialOptions{
		URL: f.dial.url, CAFile: f.dial.ca, TokenFile: f.dial.token, UserAgent: "bulkhead-agent/" + version,
	})
	if err != nil {
		return err
	}
	if c, ok := client.(interface{ CloseIdleConnections() }); ok {
		defer c.CloseIdleConnections()
	}
	o := f.opts
	o.Client = bulkheadv1connect.NewAgentServiceClient(client, url, clientOpts...)
	o.Agent.Version, o.API = version, rpc.APIVersion
	o.Log = slog.New(slog.NewTextHandler(a.stderr, nil))
	o.Echo = a.stdout
	o.Environ = newEnviron(withoutOwn(os.Environ())).with
	if o.Spool == "" {
		if o.Spool, err = os.MkdirTemp("", "bulkhead-agent-"); err != nil {
			o.Log.Warn("there is no place for a spool folder: output that the server cannot take makes scripts wait", "error", err)
		} else {
			defer func() {
				if err == nil { // or there may be results in it
					_ = os.RemoveAll(o.Spool)
				}
			}()
		}
	}
	w, err := worker.New(worker.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	o.Runner = agentRunner{w}
	ctx, stop := a.endBySignal(ctx, f.killAfter(), w.Kill)
	defer stop()
	return agent.New(o).Run(ctx)
}

// withoutOwn leaves out what is for the agent itself: where its token is, say.
func withoutOwn(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool { return strings.HasPrefix(v, "BULKHEAD_") })
}

// agentRunner runs attempts of an agent as package worker does.
type agentRunner struct{ worker *worker.Worker }

func (r agentRunner) Run(ctx context.Context, job agent.Job, out agent.Sink) bulkhead.Result {
	j := worker.Job{
		Args: job.Args, Env: job.Env, Dir: job.Dir, Stdin: job.Stdin, StdinFile: job.StdinFile,
		Timeout: job.Timeout, Grace: job.Grace, Watch: job.Watch, Terminal: job.Terminal, Window: job.Window,
	}
	if job.Attach != nil {
		j.Attach = func(c *worker.Console) { job.Attach(c) }
	}
	return r.worker.Run(ctx, j, out)
}

// killAfter is how long after the first signal scripts are killed; 0: never. A
// result that is too late is that of an item that is lost.
func (f *agentFlags) killAfter() time.Duration {
	return f.stopIn - min(f.stopIn/4, f.opts.Linger)
}

// endBySignal returns a context that the first signal ends; the second one kills,
// and so does time, if it is given.
func (a *app) endBySignal(ctx context.Context, after time.Duration, kill func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 8)
	if len(a.signals) > 0 { // none would mean all
		signal.Notify(ch, a.signals...)
	}
	done := make(chan struct{})
	go func() {
		var last os.Signal
		var at time.Time
		var late <-chan time.Time
		for count := 0; ; {
			select {
			case s := <-ch:
				twin := s == last && s != os.Interrupt && time.Since(at) < twinTime
				if last, at = s, time.Now(); twin {
					continue
				}
				if count++; count > 1 {
					kill()
				} else if after > 0 {
					late = time.After(after)
				}
				cancel()
			case <-late:
				kill()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		cancel()
	}
}

// copyAgentCmd is for the init container of a worker pod: it brings this program
// to where the container of the user's image finds it.
func (a *app) copyAgentCmd() *cobra.Command {
	return &cobra.Command{
		Use: "copy-agent DIR", Args: exactly("DIR"), Hidden: true,
		Short: "Copy this program into a folder",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := copySelf(filepath.Join(args[0], "bulkhead")); err != nil {
				return fmt.Errorf("copy the agent: %w", err)
			}
			return nil
		},
	}
}

func copySelf(to string) (err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	temp, err := os.CreateTemp(filepath.Dir(to), ".bulkhead-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = io.Copy(temp, self)
	err = errors.Join(err, temp.Chmod(0o755), temp.Close()) // whatever the umask
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), to)
}
