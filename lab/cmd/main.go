// Command lab starts a Kubernetes on this machine to look around in, and is the
// inside of every lab: its keeper and its process 1. See package lab.
//
//	go run ./lab/cmd up          # or: make lab-up
//	export KUBECONFIG="$(go run ./lab/cmd kubeconfig)"
//	go run ./lab/cmd kubectl get nodes
//	go run ./lab/cmd down
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead/lab"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == holdArg {
		os.Exit(report(hold()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := report(root().ExecuteContext(ctx))
	stop()
	os.Exit(code)
}

func report(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() // kubectl or helm, which has said why
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	return 1
}

// people holds what the commands for people share.
type people struct {
	dir string
	out io.Writer
}

func root() *cobra.Command {
	p := &people{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "A real Kubernetes on this machine",
		Example: `  lab up --fake-nodes 20
  export KUBECONFIG="$(lab kubeconfig)"
  lab kubectl get nodes
  lab down`,
		SilenceUsage: true, SilenceErrors: true,
		TraverseChildren: true, // --dir before kubectl, which has flags of its own
		Args:             cobra.NoArgs,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&p.dir, "dir", "", "`folder` of the lab (default: $BULKHEAD_LAB, or bulkhead/lab/up in the user's cache folder)")
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		p.out = cmd.OutOrStdout()
		if p.dir == "" {
			p.dir = os.Getenv("BULKHEAD_LAB")
		}
		if p.dir == "" {
			var base string
			if base, err = os.UserCacheDir(); err != nil {
				return fmt.Errorf("find the cache folder: %w; give one with --dir", err)
			}
			p.dir = filepath.Join(base, "bulkhead", "lab", "up")
		}
		p.dir, err = filepath.Abs(p.dir)
		return err
	}
	cmd.AddCommand(p.buildCmd(), p.upCmd(), p.downCmd(), p.statusCmd(), p.kubeconfigCmd(),
		p.programCmd("kubectl", "get pods --all-namespaces"), p.programCmd("helm", "list --all-namespaces"), p.keepCmd(), p.initCmd())
	return cmd
}

func (p *people) buildCmd() *cobra.Command {
	return &cobra.Command{
		Use: "build", Args: cobra.NoArgs,
		Short: "Build Kubernetes, once per machine, so that a lab starts in seconds",
		RunE: func(cmd *cobra.Command, _ []string) error {
			programs, err := lab.Build(cmd.Context(), cmd.ErrOrStderr())
			if err == nil {
				fmt.Fprintln(p.out, programs.Kubernetes)
			}
			return err
		},
	}
}

func (p *people) upCmd() *cobra.Command {
	var noNode bool
	var fake int
	cmd := &cobra.Command{
		Use: "up", Args: cobra.NoArgs,
		Short: "Start a lab and leave it running",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.up(cmd.Context(), cmd.ErrOrStderr(), !noNode, fake)
		},
	}
	cmd.Flags().BoolVar(&noNode, "no-node", false, "without the real node, which needs root and Debian's containerd")
	cmd.Flags().IntVar(&fake, "fake-nodes", 0, "`number` of nodes whose pods only seem to run")
	return cmd
}

func (p *people) up(ctx context.Context, log io.Writer, node bool, fake int) error {
	if fake < 0 {
		return fmt.Errorf("--fake-nodes %d: a lab cannot have fewer than none", fake)
	}
	if why := lab.NodeMissing(); node && why != "" {
		return fmt.Errorf("%s; or leave the real node out with --no-node", why)
	}
	begin := time.Now()
	if err := removeRemains(p.dir); errors.Is(err, errHeld) {
		return fmt.Errorf("there is a lab in %s already; see `lab status`, or end it with `lab down`", p.dir)
	} else if err != nil {
		return err
	}
	l, err := lab.Launch(ctx, lab.Options{Dir: p.dir, Detached: true, Log: log})
	if err != nil {
		return err
	}
	if node {
		fmt.Fprintln(log, "lab: the control plane is ready; starting a node")
		err = l.StartNode(ctx)
	}
	if err == nil && fake > 0 {
		err = l.StartFakeNodes(ctx, fake)
	}
	if err != nil {
		return errors.Join(err, l.Stop(context.WithoutCancel(ctx)))
	}
	fmt.Fprintf(log, "lab: up in %s\n", time.Since(begin).Round(100*time.Millisecond))
	fmt.Fprintf(p.out, "export KUBECONFIG=%s\n", l.Kubeconfig())
	return nil
}

func (p *people) downCmd() *cobra.Command {
	return &cobra.Command{
		Use: "down", Args: cobra.NoArgs,
		Short: "End the lab and everything of it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			return p.down(ctx, cmd.ErrOrStderr())
		},
	}
}

func (p *people) down(ctx context.Context, log io.Writer) error {
	if _, err := os.Stat(filepath.Join(p.dir, lab.LockFile)); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(log, "lab: there is none")
		return nil
	}
	if l, err := lab.Open(p.dir); err == nil {
		if _, err := l.Status(ctx); err == nil {
			return l.Stop(ctx)
		}
	}
	// It has just been killed, keeper and all; or it is just starting.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	give := time.After(killTime)
	for {
		err := removeRemains(p.dir)
		if !errors.Is(err, errHeld) {
			return errors.Join(err, sweepGroups())
		}
		select {
		case <-tick.C:
		case <-give:
			return fmt.Errorf("the lab in %s starts or ends right now: %w", p.dir, err)
		}
	}
}

func (p *people) statusCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "status", Args: cobra.NoArgs,
		Short: "Say what runs; exit code 1 if there is no lab",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("--output %q is not text or json", format)
			}
			l, err := p.open()
			if err != nil {
				return err
			}
			s, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(p.out)
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return p.printStatus(s)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func (p *people) printStatus(s lab.Status) error {
	fmt.Fprintf(p.out, "server      %s\nkubeconfig  %s\nlogs        %s\n\n", s.Server, s.Kubeconfig, filepath.Join(s.Dir, lab.LogFolder))
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tSTATE\tREADY AFTER\tAGE")
	for _, c := range s.Components {
		state, age := "ready", time.Since(c.Started).Round(time.Second).String()
		switch {
		case c.PID == 0 && c.Exit != "":
			state, age = c.Exit, ""
		case c.PID == 0:
			state, age = "stopped", ""
		case !c.Ready:
			state = "starting"
		}
		fmt.Fprintf(w, "%s\t%s\t%.1fs\t%s\n", c.Name, state, c.Took, age)
	}
	return w.Flush()
}

func (p *people) kubeconfigCmd() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Args: cobra.NoArgs,
		Short: "Print the path of an administrator's kubeconfig",
		RunE: func(*cobra.Command, []string) error {
			l, err := p.open()
			if err == nil {
				fmt.Fprintln(p.out, l.Kubeconfig())
			}
			return err
		},
	}
}

// programCmd is kubectl or helm of the lab's version, as the administrator.
func (p *people) programCmd(name, example string) *cobra.Command {
	return &cobra.Command{
		Use: name + " [ARGUMENT…]", DisableFlagParsing: true,
		Short:   "Run " + name + " as the lab's administrator",
		Example: "  lab " + name + " " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := p.open()
			if err != nil {
				return err
			}
			s, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			child := exec.Command(s.Kubernetes, append([]string{name}, args...)...)
			child.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
			child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
			return child.Run()
		},
	}
}

func (p *people) open() (*lab.Lab, error) {
	l, err := lab.Open(p.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no lab in %s; start one with `lab up`", p.dir)
	}
	return l, err
}
