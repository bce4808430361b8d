package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// home is where runs are kept and worked on. Commands go through it, so that
// they are the same wherever that is.
type home interface {
	records
	outputs
	controls
	// where says to people where that is: "in FOLDER", "at URL".
	where() string
	close()
}

// records is what became of runs.
type records interface {
	lister
	Run(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error)
	// Runs returns up to limit runs, newest first; limit 0 means all.
	Runs(ctx context.Context, limit int) ([]*bulkhead.Run, error)
	// Recent returns the runs of a query, newest first.
	Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error)
	// Attempts returns the attempts of an item that have ended.
	Attempts(ctx context.Context, run bulkhead.RunID, item int64) ([]bulkhead.Attempt, error)
	// Owned reports whether somebody else works on a run, or reads its input.
	Owned(run bulkhead.RunID) (bool, error)
	// watch calls look with a run again and again, until it says that it has seen
	// enough. A run that is not owned goes on only when somebody takes it over.
	watch(ctx context.Context, id bulkhead.RunID, look func(r *bulkhead.Run, owned bool) (enough bool, err error)) error
}

// lister reads the items of runs.
type lister interface {
	// Items calls fn for every item that the query asks for, in input order.
	Items(ctx context.Context, r *bulkhead.Run, q bulkhead.ItemQuery, fn func(bulkhead.ItemStatus) error) error
}

// outputs is what scripts wrote.
type outputs interface {
	// readOutput calls fn for every chunk of an attempt's output that is there.
	readOutput(ctx context.Context, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error
	// tailOutput returns the last lines of an attempt's output, both streams in
	// order of arrival.
	tailOutput(ctx context.Context, at bulkhead.Attempt, lines int) ([]byte, error)
	// attemptAfter waits until an item has an attempt above n, or will have none, and
	// returns the item as it is then.
	attemptAfter(ctx context.Context, r *bulkhead.Run, item int64, n int) (bulkhead.ItemStatus, error)
	// followAttempt is readOutput until the attempt has ended.
	followAttempt(ctx context.Context, r *bulkhead.Run, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error
	// followRun calls fn for the output of all items, until the run is over.
	// Broken is told of what cannot be read.
	followRun(ctx context.Context, id bulkhead.RunID, broken func(error), fn func(item int64, attempt int, c bulkhead.Chunk) error) error
}

// controls changes runs. Each returns once it is done, and says how the run
// stands.
type controls interface {
	// ask pauses or cancels a run, or changes its limit.
	ask(ctx context.Context, r *bulkhead.Run, q bulkhead.Request) error
	resume(ctx context.Context, r *bulkhead.Run, how resumption) error
	// retry queues items again. What says which, for people.
	retry(ctx context.Context, r *bulkhead.Run, sel bulkhead.Selection, what string, detach bool) error
	remove(ctx context.Context, r *bulkhead.Run) error
}

// resumption is how to go on with a run.
type resumption struct {
	detach   bool
	accepted bool // the input is not compared
}

// place is which home is meant.
type place struct {
	server  serverAddress // zero: the state folder of this machine
	classes string        // namespace of classes in a cluster; "": that of the kubeconfig
	context string        // its name, if it has one
	why     string        // what said so; "" if nothing did
}

// className is the full name of a class: in a cluster it has a namespace.
func (p *place) className(name string) (string, error) {
	if !p.server.Kubernetes || name == "" || strings.Contains(name, "/") {
		return name, nil
	}
	namespace := p.classes
	if namespace == "" {
		var err error
		if namespace, err = clusterNamespace(&p.server); err != nil {
			return "", err
		}
	}
	return namespace + "/" + name, nil
}

// remote reports whether it is a server.
func (p *place) remote() bool { return p.server != (serverAddress{}) }

// pluginName is what kubectl looks for when it is called as kubectl bulkhead.
const pluginName = "kubectl-bulkhead"

// places are what may say where runs are, as flags. See app.place.
type places struct {
	server, ca, tokenFile, context           string
	kubeconfig, kubeContext, serverNamespace string
	namespace                                string
	plugin                                   bool // we are kubectl bulkhead

	given func(flag string) bool
}

// define gives all commands the flags.
func (p *places) define(root *cobra.Command) {
	fl := root.PersistentFlags()
	fl.StringVar(&p.server, "server", "", "`URL` of a Bulkhead server that keeps the runs (default $BULKHEAD_SERVER, else the current context)")
	fl.StringVar(&p.ca, "ca", "", "with --server: `file` with the certificates that may have signed the server's")
	fl.StringVar(&p.tokenFile, "token-file", "", "with --server: `file` with the token to show it")
	fl.StringVar(&p.context, "context", "", "`name` of a server that bulkhead context add has stored; local is this machine")
	fl.StringVar(&p.kubeContext, "kube-context", "", "`name` of a context of the kubeconfig, in whose cluster the server is; \"\" is the current one")
	fl.StringVar(&p.kubeconfig, "kubeconfig", "", "with --kube-context: kubeconfig `file` (default as kubectl)")
	fl.StringVar(&p.serverNamespace, "server-namespace", "", "with --kube-context: `namespace` of the server (default bulkhead)")
	fl.StringVar(&p.namespace, "namespace", "", "with a server in a cluster: `namespace` of classes that are named without one (default that of the kubeconfig)")
	p.given = fl.Changed
}

// place says which home is meant: flags come before the environment, and that
// before the current context. A state folder that was named is one of this
// machine, so that a script that names one never reaches a server by accident.
func (a *app) place() (place, error) {
	p, err := a.findPlace()
	if err != nil || !p.server.Kubernetes {
		if err == nil && a.places.namespace != "" {
			err = usage("write it before the name of the class: NAMESPACE/NAME", "--namespace is of use with a server in a cluster only")
		}
		return p, err
	}
	p.classes = a.places.namespace
	// The whole program can go there.
	return p, becomeWhole()
}

func (a *app) findPlace() (place, error) {
	p := &a.places
	var flags []string
	for _, name := range []string{"server", "context", "kube-context"} {
		if p.given(name) {
			flags = append(flags, "--"+name)
		}
	}
	if a.state != "" {
		flags = append(flags, "--state")
	}
	env := serverAddress{URL: os.Getenv("BULKHEAD_SERVER"), CA: os.Getenv("BULKHEAD_CA"), TokenFile: os.Getenv("BULKHEAD_TOKEN_FILE")}
	envContext := os.Getenv("BULKHEAD_CONTEXT")
	switch {
	case len(flags) > 1:
		return place{}, usage("each says where the runs are", "%s and %s exclude each other", flags[0], flags[1])
	case p.given("server") && p.server == "":
		return place{}, usage("write its URL, https://HOST:PORT", "--server is empty")
	case !p.given("server") && (p.ca != "" || p.tokenFile != ""):
		return place{}, usage("a context has its own, see bulkhead context add", "--ca and --token-file belong to --server")
	case !p.given("kube-context") && (p.kubeconfig != "" || p.serverNamespace != ""):
		return place{}, usage("a context has its own, see bulkhead context add; --kube-context '' is the current one", "--kubeconfig and --server-namespace belong to --kube-context")
	case p.given("server"):
		return place{server: serverAddress{URL: p.server, CA: p.ca, TokenFile: p.tokenFile}, why: "--server"}, nil
	case p.given("kube-context"):
		return place{server: serverAddress{kubeAddress: kubeAddress{true, p.kubeconfig, p.kubeContext, p.serverNamespace}}, why: "--kube-context"}, nil
	case p.given("context"):
		return contextPlace(p.context, "--context")
	case a.state != "":
		return place{why: "--state"}, nil
	case env.URL != "" && envContext != "":
		return place{}, usage("unset one of them", "BULKHEAD_SERVER and BULKHEAD_CONTEXT exclude each other")
	case env.URL != "":
		return place{server: env, why: "BULKHEAD_SERVER"}, nil
	case envContext != "":
		return contextPlace(envContext, "BULKHEAD_CONTEXT")
	case os.Getenv("BULKHEAD_STATE") != "":
		return place{why: "BULKHEAD_STATE"}, nil
	}
	at, err := currentPlace()
	if err == nil && at == (place{}) && p.plugin {
		return place{server: serverAddress{kubeAddress: kubeAddress{Kubernetes: true}}, why: "kubectl"}, nil
	}
	return at, err
}

// contextPlace is the place of a context, and why it is meant.
func contextPlace(name, why string) (place, error) {
	if name == localContext {
		return place{why: why}, nil
	}
	c, err := readConfig()
	if err != nil {
		return place{}, err
	}
	sc, err := c.named(name)
	if err != nil {
		return place{}, fmt.Errorf("%s: %w", why, err)
	}
	return place{server: sc.serverAddress, context: name, why: why}, nil
}

// currentPlace is the place of the current context.
func currentPlace() (place, error) {
	c, err := readConfig()
	if err != nil {
		return place{}, err
	}
	sc, ok := c.context(c.current)
	if !ok {
		return place{}, nil
	}
	return place{server: sc.serverAddress, context: sc.name, why: "the current context"}, nil
}

// typed is a command for people to copy. It says where to look, if that was said
// with a flag and not in a way that holds for the next command, too.
func (a *app) typed(format string, args ...any) string {
	words := []string{"bulkhead"}
	if a.places.plugin {
		words = []string{"kubectl", "bulkhead"}
	}
	flag := func(name, value string) {
		if value != "" {
			words = append(words, name, shellLine([]string{value}))
		}
	}
	flag("--context", a.places.context)
	flag("--server", a.places.server)
	flag("--ca", a.places.ca)
	flag("--token-file", a.places.tokenFile)
	if a.places.given("kube-context") {
		words = append(words, "--kube-context", shellLine([]string{a.places.kubeContext}))
	}
	flag("--kubeconfig", a.places.kubeconfig)
	flag("--server-namespace", a.places.serverNamespace)
	return strings.Join(append(words, fmt.Sprintf(format, args...)), " ")
}

// openHome opens the home that the command line, the environment and the
// configuration say.
func (a *app) openHome(ctx context.Context) (home, error) {
	p, err := a.place()
	if err != nil {
		return nil, err
	}
	if !p.remote() {
		return a.lookFolder(ctx)
	}
	return a.openServer(ctx, p, triesToAsk)
}
