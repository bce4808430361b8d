package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

func (a *app) contextCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Say which server keeps the runs, once for all commands",
		Long: `Say which server keeps the runs, once for all commands.

A context is a server under a name. The current one is where commands look,
unless one of these says something else, the first that is given: --server,
--context, --kube-context or --state; BULKHEAD_SERVER (with BULKHEAD_CA and BULKHEAD_TOKEN_FILE)
or BULKHEAD_CONTEXT; BULKHEAD_STATE. Without any, and with the context local,
runs are kept in the state folder of this machine.

Contexts are in bulkhead/config.yaml in $XDG_CONFIG_HOME or ~/.config. A token is
not: only the name of the file that has it. Called as kubectl bulkhead, without
anything that says otherwise, it is the server in the cluster of the kubeconfig.`,
		Example: `  bulkhead context add prod --server https://bulkhead.example.org:8443 --ca ca.crt --token-file token
  bulkhead context use prod
  bulkhead context use local`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.contextAddCmd(), a.contextUseCmd(), a.contextLsCmd(), a.contextShowCmd(), a.contextRmCmd())
	return cmd
}

func (a *app) contextAddCmd() *cobra.Command {
	var use, kubernetes bool
	cmd := &cobra.Command{
		Use:   "add NAME --server URL|--kubernetes [flags]",
		Short: "Store a server under a name",
		Long: `Store a server under a name: one that a URL leads to, with a file that has a
token, or (--kubernetes) one in a cluster. There the kubeconfig says who we are: a
token, a client certificate or a plugin, as for kubectl. The server is reached by a
port-forward, or by its URL if one is given, and trusted because of what it has
published in the cluster.`,
		Example: `  bulkhead context add prod --server https://bulkhead.example.org:8443 --ca ca.crt --token-file token
  bulkhead context add prod --kubernetes --kube-context prod --use`,
		Args: exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			sc, err := a.newContext(c, args[0], kubernetes)
			if err != nil {
				return err
			}
			c.contexts = append(c.contexts, sc)
			if use {
				c.current = sc.name
			}
			if err := c.write(); err != nil {
				return err
			}
			a.warnOfSecret("token", sc.TokenFile)
			if !use {
				fmt.Fprintf(a.stderr, "context %s: %s; `bulkhead context use %[1]s` makes it the current one\n", sc.name, &sc.serverAddress)
				return nil
			}
			return a.sayCurrent(c)
		},
	}
	cmd.Flags().BoolVar(&use, "use", false, "make it the current one, too")
	cmd.Flags().BoolVar(&kubernetes, "kubernetes", false, "the server is in a cluster; see --kube-context, --kubeconfig and --server-namespace")
	return cmd
}

// newContext is the context that the flags describe.
func (a *app) newContext(c *config, name string, kubernetes bool) (serverContext, error) {
	p := &a.places
	if err := checkContextName(name); err != nil {
		return serverContext{}, err
	}
	if old, ok := c.context(name); ok {
		return serverContext{}, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("there is a context %s already: %s", name, &old.serverAddress),
			Hint: fmt.Sprintf("bulkhead context rm %s first, or choose another name", name)}
	}
	sc := serverContext{name, serverAddress{URL: p.server}}
	kube := kubeAddress{kubernetes, p.kubeconfig, p.kubeContext, p.serverNamespace}
	switch {
	case kubernetes && p.tokenFile != "":
		return serverContext{}, usage("the kubeconfig has what the server needs to know us", "--kubernetes and --token-file exclude each other")
	case kubernetes:
		sc.kubeAddress = kube
	case kube != kubeAddress{}:
		return serverContext{}, usage("give it, too", "--kube-context, --kubeconfig and --server-namespace belong to --kubernetes")
	case p.server == "":
		return serverContext{}, usage("write its URL: --server https://HOST:PORT, or --kubernetes for one in a cluster", "--server is missing")
	}
	for _, file := range []struct {
		from string
		to   *string
	}{{p.ca, &sc.CA}, {p.tokenFile, &sc.TokenFile}, {p.kubeconfig, &sc.Kubeconfig}} {
		if file.from == "" {
			continue
		}
		path, err := filepath.Abs(file.from)
		if err != nil {
			return serverContext{}, err
		}
		*file.to = path
	}
	if sc.Kubernetes && sc.URL == "" {
		return sc, nil
	}
	// What cannot be used is better said now.
	_, _, _, err := rpc.Dial(sc.dialOptions())
	return sc, err
}

// dialOptions are how to reach the server.
func (s *serverAddress) dialOptions() rpc.DialOptions {
	return rpc.DialOptions{URL: s.URL, CAFile: s.CA, TokenFile: s.TokenFile, UserAgent: "bulkhead/" + version}
}

// warnOfSecret tells of a file of ours with a secret that everybody on this machine can
// read.
func (a *app) warnOfSecret(what, path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return // an error is told by whoever reads it
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
		fmt.Fprintf(a.stderr, "bulkhead: everybody on this machine can read the %s in %s; `chmod 600 %s` keeps it to you\n", what, path, shellLine([]string{path}))
	}
}

func (a *app) contextUseCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "use NAME|local",
		Short:   "Make a context the current one; local is the state folder of this machine",
		Example: "  bulkhead context use prod\n  bulkhead context use local",
		Args:    exactly("NAME"), ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			if c.current = args[0]; c.current == localContext {
				c.current = ""
			} else if _, err := c.named(c.current); err != nil {
				return err
			}
			if err := c.write(); err != nil {
				return err
			}
			return a.sayCurrent(c)
		},
	}
}

// sayCurrent says where commands look now, also when that is not in the context
// that was just chosen.
func (a *app) sayCurrent(c *config) error {
	sc, _ := c.context(c.current)
	chosen := cmp.Or(c.current, localContext)
	fmt.Fprintf(a.stderr, "the current context is %s", chosen)
	if sc.name != "" {
		fmt.Fprintf(a.stderr, ": %s", &sc.serverAddress)
	}
	fmt.Fprintln(a.stderr)
	for _, name := range []string{"BULKHEAD_SERVER", "BULKHEAD_CONTEXT", "BULKHEAD_STATE"} {
		if os.Getenv(name) != "" && (name != "BULKHEAD_STATE" || sc.name != "") {
			fmt.Fprintf(a.stderr, "  but %s is set, which comes before it; `unset %[1]s`\n", name)
		}
	}
	return nil
}

// contextView is a context in JSON. Its field names are a contract: add, never
// rename.
type contextView struct {
	Name      string `json:"name"`
	Server    string `json:"server"` // empty: the state folder of this machine
	CA        string `json:"ca"`
	TokenFile string `json:"token_file"`
	Current   bool   `json:"current"`

	Kubernetes      bool   `json:"kubernetes"`
	Kubeconfig      string `json:"kubeconfig"`
	KubeContext     string `json:"kube_context"`
	ServerNamespace string `json:"server_namespace"`
}

func (a *app) contextLsCmd() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the contexts",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			views := []contextView{}
			for _, sc := range c.contexts {
				views = append(views, contextView{sc.name, sc.URL, sc.CA, sc.TokenFile, sc.name == c.current,
					sc.Kubernetes, sc.Kubeconfig, sc.KubeContext, sc.ServerNamespace})
			}
			views = append(views, contextView{Name: localContext, Current: c.current == ""})
			if out == "json" {
				return writeJSON(a.stdout, views)
			}
			tw := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(tw, "CURRENT\tNAME\tSERVER\tTOKEN FILE")
			for _, v := range views {
				mark := map[bool]string{true: "*"}[v.Current]
				at := serverAddress{URL: v.Server, kubeAddress: kubeAddress{v.Kubernetes, v.Kubeconfig, v.KubeContext, v.ServerNamespace}}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", mark, v.Name, printable(cmp.Or(at.String(), "(this machine)"), 0), printable(v.TokenFile, 0))
			}
			return tw.Flush()
		},
	}
	outputVar(cmd, &out, "text or json")
	return cmd
}

func (a *app) contextShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:        "show",
		SuggestFor: []string{"current"},
		Short:      "Show where commands look here, and what says so",
		Args:       exactly(),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.findPlace()
			if err != nil {
				return err
			}
			tw := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			line := func(name, value string) {
				if value != "" {
					fmt.Fprintf(tw, "%s:\t%s\n", name, printable(value, 0))
				}
			}
			if !p.remote() {
				dir, err := a.stateDir()
				if err != nil {
					return err
				}
				line("Context", localContext)
				line("State folder", dir)
			} else {
				line("Context", p.context)
				line("Server", p.server.String())
				line("Kubeconfig", p.server.Kubeconfig)
				line("CA", p.server.CA)
				line("Token file", p.server.TokenFile)
			}
			line("Because of", p.why)
			return tw.Flush()
		},
	}
}

func (a *app) contextRmCmd() *cobra.Command {
	return &cobra.Command{
		Use:        "rm NAME",
		SuggestFor: []string{"delete", "remove"},
		Short:      "Forget a context; the server and its runs stay",
		Args:       exactly("NAME"), ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			if err := checkContextName(args[0]); err != nil {
				return err
			}
			if _, err := c.named(args[0]); err != nil {
				return err
			}
			kept := c.contexts[:0]
			for _, sc := range c.contexts {
				if sc.name != args[0] {
					kept = append(kept, sc)
				}
			}
			c.contexts = kept
			was := c.current == args[0]
			if was {
				c.current = ""
			}
			if err := c.write(); err != nil || !was {
				return err
			}
			return a.sayCurrent(c)
		},
	}
}

// completeContexts completes the name of a context, with its server beside it.
func completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := readConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, sc := range c.contexts {
		out = append(out, cobra.CompletionWithDesc(sc.name, sc.String()))
	}
	out = append(out, cobra.CompletionWithDesc(localContext, "this machine"))
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
