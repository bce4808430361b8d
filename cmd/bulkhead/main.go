// Command bulkhead runs maintenance scripts, one or a million, durably and
// within limits. This folder wires the packages together; commands that belong
// together are one file. What they ask of where runs are kept is home.go; that is
// folder.go and owner.go for a state folder, remote.go and follow.go for a server.
// local.go is the engine and the workers of this process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// version is set by the linker.
var version = "dev"

func main() {
	if len(os.Args) > 1 && os.Args[1] == worker.GuardianArg {
		os.Exit(worker.GuardianMain(os.Args[2:]))
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes of every command. A single script's own code takes their place.
const (
	exitOK          = 0
	exitFailed      = 1   // some items failed or were lost
	exitUsage       = 2   // the command line, an input or a run does not allow it; nothing was changed
	exitInterrupted = 3   // cancelled or interrupted
	exitInternal    = 125 // Bulkhead itself could not do it, for example read its state folder
)

// exitError carries an exit code through cobra; its message was printed already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// app is what every command gets.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr *messages
	state  string // folder, from --state
	places places
	reads  string      // how a script gets what is on our standard input; "": as bulkhead run says
	hurry  bool        // a shell waits for completions
	began  bool        // the command line was understood
	raw    atomic.Bool // keys of the terminal are a script's

	signals []os.Signal // that interrupt a run
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// Asked before the worker sets signals right for the scripts.
	a := &app{stdin: stdin, stdout: stdout, stderr: &messages{w: stderr}, signals: heeded()}
	a.places.plugin = filepath.Base(os.Args[0]) == pluginName
	root := a.root()
	if asMWScript() {
		args = append([]string{mwscriptName}, args...)
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.began {
		err = usageError(cmd, args, err)
	}
	return a.report(err)
}

// report prints an error, once, and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	a.tell("bulkhead: %v", err)
	if hint := bulkhead.HintOf(err); hint != "" {
		a.tell("  %s", hint)
	}
	switch bulkhead.CodeOf(err) {
	case bulkhead.CodeInternal, bulkhead.CodeUnavailable:
		return exitInternal
	}
	return exitUsage
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bulkhead",
		Short: "Run maintenance scripts, one or a million, durably and within limits",
		Long: `Run maintenance scripts, one or a million, durably and within limits.

A run is one submission: a command and its input. An item is one invocation of
it. Everything is kept in the state folder and survives a crash: items that
finished keep their results and output, and nothing starts twice. With --server,
or a context, a server keeps the runs instead, and the commands are the same.

Exit codes: 0 all succeeded; 1 some items failed or were lost; 2 the command
line or the run does not allow it, nothing was changed; 3 cancelled or
interrupted; 125 Bulkhead itself failed. A single script (no --each, no --csv)
gives its own exit code, 128+n when signal n ended it.`,
		Example: `  bulkhead run --each wikis.txt --limit 4 -- php maintenance/showSiteStats.php --wiki={}
  bulkhead run -- ./one-script --now
  bulkhead ls
  bulkhead logs 7 --failed`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		// So that --state DIR before a command is the folder, also for items.
		TraverseChildren: true,
		// Misspellings are found by bulkhead.Nearest, which counts swapped letters.
		SuggestionsMinimumDistance: 1,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := unknownCommand(cmd, args); err != nil {
				return err
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringVar(&a.state, "state", "",
		"state `folder` (default $BULKHEAD_STATE, else bulkhead in $XDG_STATE_HOME or ~/.local/state)")
	// It fails only for a flag that the command has not got.
	_ = root.MarkPersistentFlagDirname("state")
	a.places.define(root)
	if a.places.plugin {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl bulkhead"}
	}
	completeNoFiles(root, "server", "kube-context", "server-namespace", "namespace")
	_ = root.RegisterFlagCompletionFunc("context", func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		return completeContexts(cmd, nil, text)
	})
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		a.began = true
		if cmd.Name() == cobra.ShellCompRequestCmd {
			plainDescriptions(root)
		}
	}
	root.AddCommand(a.runCmd(), a.lsCmd(), a.showCmd(), a.itemsCmd(), a.logsCmd(), a.waitCmd(), a.pauseCmd(),
		a.resumeCmd(), a.cancelCmd(), a.attachCmd(), a.retryCmd(), a.limitCmd(), a.exportCmd(), a.rmCmd(), a.classCmd(), a.contextCmd(), a.versionCmd(), a.continueCmd())
	root.AddCommand(a.serveCmd(), a.agentCmd(), a.tokenCmd(), a.copyAgentCmd(), a.mwscriptCmd(), a.installCmd())
	root.AddCommand(a.topCmd(), a.handoverCmd(), a.brakeCmd(), a.planCmd(), a.guardCmd(), a.whyCmd())
	setCompletion(root)
	return root
}

// versionCmd is --version for those who look for a command.
func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Args: exactly(),
		Short: "Print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(a.stdout, "%s version %s\n", cmd.Root().Name(), version)
			return err
		},
	}
}

// stateDir is the state folder to use.
func (a *app) stateDir() (string, error) {
	dir := a.state
	if dir == "" {
		dir = os.Getenv("BULKHEAD_STATE")
	}
	if dir == "" {
		base := os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(base) { // not given, or to be ignored, says the XDG specification
			home, err := os.UserHomeDir()
			if err != nil {
				return "", usage("give one with --state or BULKHEAD_STATE", "no state folder: %v", err)
			}
			base = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(base, "bulkhead")
	}
	return filepath.Abs(dir)
}
