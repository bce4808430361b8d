package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulkhead.dev/bulkhead/rpc"
)

// serveFlags is the command line of a server.
type serveFlags struct {
	listen, pprof  string
	names, classes []string

	// Of the cluster whose classes it serves.
	kubernetes                                       bool
	kubeconfig, ownNamespace, image, pullPolicy, url string
	namespaces                                       []string
	podsPerSecond                                    float64

	announce announceFlags

	guard, advise bool
	watch         watchFlags // of the guard
}

// announceFlags say where starts and ends of runs are told.
type announceFlags struct {
	webhook, webhookFile, tokenFile, ca, sal string

	all bool
}

func (f *announceFlags) define(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.webhook, "announce-webhook", "", "`URL` to post starts and ends of all runs to, as JSON; for one that is a secret there is --announce-webhook-file")
	fl.StringVar(&f.webhookFile, "announce-webhook-file", "", "`file` with that URL, for one that is a secret, as those of chats are: everybody can list arguments")
	fl.StringVar(&f.tokenFile, "announce-webhook-token-file", "", "`file` with a token for the webhook, or with a header NAME: VALUE")
	fl.StringVar(&f.ca, "announce-webhook-ca", "", "`file` with the certificates that may have signed the webhook's (default: the system's)")
	fl.StringVar(&f.sal, "announce-sal", "", "server admin log: a `file` to add to, or tcp://HOST:PORT of a bot; gets the runs with --announce")
	fl.BoolVar(&f.all, "announce-sal-all", false, "write all runs into the admin log")
	completeNoFiles(cmd, "announce-webhook")
}

// check refuses flags that exclude each other, or go with others.
func (f *announceFlags) check() error {
	switch {
	case f.webhook != "" && f.webhookFile != "":
		return usage("give one of them; the file, if the URL is a secret", "--announce-webhook and --announce-webhook-file exclude each other")
	case f.webhook == "" && f.webhookFile == "" && (f.tokenFile != "" || f.ca != ""):
		return usage("give one of these, too", "--announce-webhook-token-file and --announce-webhook-ca are of use with --announce-webhook or --announce-webhook-file only")
	}
	return nil
}

// guardPrefix is that of the guard's flags.
const guardPrefix = "guard-"

// checkGuard refuses flags of a guard that there is not, or for which there is no cluster.
func (f *serveFlags) checkGuard(cmd *cobra.Command) (every time.Duration, err error) {
	if f.guard {
		if !f.kubernetes {
			return 0, usage("without one, run `bulkhead guard` beside the server", "--guard watches the cluster of --kubernetes, which is not given")
		}
		return f.watch.check(guardPrefix)
	}
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if strings.HasPrefix(flag.Name, guardPrefix) {
			err = usage("give that, too", "--%s is of use with --guard only", flag.Name)
		}
	})
	return 0, err
}

// clusterFlags are those that say something of the cluster.
var clusterFlags = []string{"kubeconfig", "namespace", "own-namespace", "worker-image", "worker-image-pull-policy", "worker-url", "pods-per-second"}

func (a *app) serveCmd() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Be a server: keep runs, and lease their items to agents",
		Long: `Be a server: keep runs in the state folder, and lease their items to agents,
which run them. People and programs use it with the commands that they use
without one, and --server; see bulkhead context.

The first start makes the keys in the folder keys of the state folder: ca.crt,
which callers need to trust the server, and token, which users need. bulkhead
token CLASS prints that of the agents of a class.

Classes come from files (--classes), or from the ScriptClasses of a cluster
(--kubernetes), where the server also keeps the worker pods. Then the cluster says
who its users are and what they may do (RBAC on runs.bulkhead.dev in the namespace
of a class), and agents are worker pods with tokens of the cluster; the token in
the state folder is an administrator's, which works when the cluster does not.

With --guard it also watches its cluster for objects that multiply, whoever makes
them, and holds back runs while something does: docs/guard.md, bulkhead why.

Without authentication it answers /livez, /readyz (503 until it is the server of
its state folder) and /metrics. Its log has a line for each run that starts and
ends; --announce-webhook and --announce-sal tell others. A second server of the same state folder waits
until the first one ends. SIGTERM ends it within seconds: scripts go on in their
agents, which bring what became of them to the next server.`,
		Example: `  bulkhead serve --state /var/lib/bulkhead --classes classes.yaml
  bulkhead serve --kubernetes --name bulkhead.bulkhead.svc \
    --worker-image registry.example/bulkhead --worker-url https://bulkhead.bulkhead.svc:8443
  bulkhead serve --classes classes.yaml --announce-sal tcp://logbot.example.org:9200 \
    --announce-webhook https://chat.example.org/hooks --announce-webhook-token-file hook.token
  bulkhead serve --kubernetes --guard --guard-kinds -secrets --guard-events`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range clusterFlags {
				if !f.kubernetes && cmd.Flags().Changed(name) {
					return usage("give that, too", "--%s is of use with --kubernetes only", name)
				}
			}
			if err := f.announce.check(); err != nil {
				return err
			}
			every, err := f.checkGuard(cmd)
			if err != nil {
				return err
			}
			f.watch.warn(a)
			a.warnOfSecret("webhook's URL", f.announce.webhookFile)
			a.warnOfSecret("webhook's token", f.announce.tokenFile)
			return a.serve(cmd.Context(), f, every)
		},
	}
	f.define(cmd)
	return cmd
}

// define gives the command its flags.
func (f *serveFlags) define(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "localhost:8443", "`address` to listen on")
	fl.StringArrayVar(&f.names, "name", nil, "host `name` or address that the server is called by, besides this host's; repeat")
	fl.StringArrayVar(&f.classes, "classes", nil, "YAML `file` with ScriptClasses; repeat")
	fl.StringVar(&f.pprof, "pprof", "", "`address` of this machine on which to serve profiles, for example localhost:6060")
	fl.BoolVar(&f.kubernetes, "kubernetes", false, "take classes from the ScriptClasses of a cluster, and keep its worker pods")
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` with the cluster to use (default: the one that the server runs in, else as kubectl)")
	fl.StringArrayVar(&f.namespaces, "namespace", nil, "serve the ScriptClasses of this `namespace` only; repeat")
	fl.StringVar(&f.ownNamespace, "own-namespace", "", "`namespace` that the server itself is in, where it publishes whom its users trust (default: that of its pod, if it has one)")
	fl.StringVar(&f.image, "worker-image", "", "`image` with this binary at /bulkhead, from which worker pods take it")
	fl.StringVar(&f.pullPolicy, "worker-image-pull-policy", "", "when nodes pull it: `Always`, IfNotPresent or Never")
	fl.StringVar(&f.url, "worker-url", "", "`URL` by which worker pods reach this server (default: the address of Service bulkhead, in a pod)")
	fl.Float64Var(&f.podsPerSecond, "pods-per-second", 5, "worker pods started per second, of all classes together")
	f.announce.define(cmd)
	fl.BoolVar(&f.guard, "guard", false, "watch the cluster for objects that multiply, and hold back runs while something does")
	fl.BoolVar(&f.advise, guardPrefix+"advise", false, "only tell what it finds, and hold back no run")
	f.watch.define(cmd, guardPrefix)
	completeNoFiles(cmd, "listen", "name", "pprof", "namespace", "own-namespace", "worker-image", "worker-url", "pods-per-second")
	completeFlag(cmd, "worker-image-pull-policy", "Always", "IfNotPresent", "Never")
}

func (a *app) tokenCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "token CLASS",
		Short: "Print the token of the agents of a class, from the server's state folder",
		Long: `Print the token of the agents of a class. It is made of that in the state folder
of a server, so it is a command for whoever may read that. Who has it can lease
items of that class, and nothing else.`,
		Example: "  bulkhead token wikis --state /var/lib/bulkhead > agent.token",
		Args:    exactly("CLASS"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.stateDir()
			if err != nil {
				return err
			}
			token, err := os.ReadFile(filepath.Join(dir, "keys", "token"))
			if err != nil {
				return usage("bulkhead serve makes it when it first starts", "no token of a server: %v", err)
			}
			tokens := rpc.Tokens{Secret: strings.TrimSpace(string(token))}
			_, err = fmt.Fprintln(a.stdout, tokens.OfClass(args[0]))
			return err
		},
	}
}
