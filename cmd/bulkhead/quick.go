//go:build quick

package main

// The quick program starts in a fifth of the time of the whole one, because it
// lacks Kubernetes' libraries: what they set up when a program starts takes longer
// than all of a short run. It carries the whole program inside for the commands
// that need them, so that there is one file to install. See whole.go, and
// `make build`, which puts it there.

import (
	"context"
	_ "embed"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead/cmd/bulkhead/packed"
	"bulkhead.dev/bulkhead/guard/footprint"
)

//go:embed whole.zst
var whole []byte

// serve is `bulkhead serve`, of the whole program.
func (a *app) serve(context.Context, *serveFlags, time.Duration) error { return becomeWhole() }

// classFrom is `bulkhead class from`, of the whole program.
func (a *app) classFrom(context.Context, string, *classFromFlags) error { return becomeWhole() }

// dialCluster and clusterNamespace are the whole program's, which this is by then.
func (a *app) dialCluster(context.Context, *serverAddress) (client connect.HTTPClient, url, name string, err error) {
	return nil, "", "", becomeWhole()
}

func clusterNamespace(*serverAddress) (string, error) { return "", becomeWhole() }

// install is `bulkhead install`, of the whole program.
func (a *app) install(*installFlags) error { return becomeWhole() }

// count is the whole program's, which this is by then.
func (a *app) count(context.Context, []footprint.Count) (map[footprint.Count]int64, error) {
	return nil, becomeWhole()
}

// guardClean, guardRestore and guardQuota are `bulkhead guard clean` and `guard quota`,
// of the whole program.
func (a *app) guardClean(context.Context, *guardCleanFlags) error   { return becomeWhole() }
func (a *app) guardRestore(context.Context, *guardCleanFlags) error { return becomeWhole() }
func (a *app) guardQuota(context.Context, *guardQuotaFlags) error   { return becomeWhole() }

// whyLook is the whole program's.
func (a *app) whyLook(context.Context, *serverAddress, *whyFlags) (answer, error) {
	return answer{}, becomeWhole()
}

// guardWatch, guardRules and guardRBAC are `bulkhead guard` and its guard rules and
// guard rbac, of the whole program.
func (a *app) guardWatch(context.Context, *guardWatchFlags, time.Duration) error {
	return becomeWhole()
}
func (a *app) guardRules() error               { return becomeWhole() }
func (a *app) guardRBAC(*guardRBACFlags) error { return becomeWhole() }

// becomeWhole returns only if it cannot.
func becomeWhole() error { return packed.Exec(whole, arguments, os.Environ()) }

// arguments are those that we were started with: cobra writes into os.Args when it
// completes a command line.
var arguments = slices.Clone(os.Args)
