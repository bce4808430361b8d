// Package serve is the wiring of a server: an engine and its store here, its
// workers elsewhere, and the API between them.
//
//	serve.go    how a server begins and ends
//	engine.go   what the engine is given
//	web.go      what listens: the API, health, metrics, profiles
//	cluster.go  classes and worker pods of a Kubernetes cluster
//	classes.go  classes of files, and how classes stand
//	access.go   who callers are, and what they may do
//	brakes.go   brakes, and what they hold
//	guard.go    the guard of the cluster, and what it holds
//	keys.go     certificates and tokens
//	metrics.go  what it counts of itself
//	announce.go who is told which runs start and end
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/announce"
	"bulkhead.dev/bulkhead/cmd/bulkhead/lookout"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/files"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// Options of Run. State, Log and Version are required, and one of Classes and Cluster.
type Options struct {
	// State is the state folder.
	State string
	// Listen is the address to listen on.
	Listen string
	// Names are what the server is called by, besides this host's own.
	Names []string
	// Classes are files with ScriptClasses.
	Classes []string
	// Cluster is the one whose ScriptClasses are served; nil: none.
	Cluster *Cluster
	// Guard watches the cluster; nil: nobody does. Its Config, State, Log and Looked are
	// the server's.
	Guard *lookout.Options
	// Advise: what the guard finds is told, and holds no run.
	Advise bool
	// Announce says where it is told which runs start and end, besides the log.
	Announce Announce
	// Pprof is the address on which to serve profiles; "": none.
	Pprof   string
	Version string
	Log     *slog.Logger
}

// mergedSegments bounds how many segments of output are read at once for all who follow
// runs together, beyond one for each of them.
const mergedSegments = 512

// server is the server setting: an engine and its store here, workers elsewhere.
type server struct {
	opts    Options
	log     *slog.Logger
	keys    *keys
	store   *sqlite.Store // of the engine
	reader  *sqlite.Store // of everybody else, who must not make the engine wait
	shelf   *output.Shelf
	wide    chan struct{} // see output.Following
	files   *files.Store
	engine  *engine.Engine
	classes classes
	metrics *metrics
	news    *announce.Announcer
	ready   chan struct{}

	controller *kube.Controller // nil: there is no cluster
	reviews    *kube.Reviews    // nil, too
	cluster    *rest.Config     // nil, too
	changes    *changes
	watching   sync.WaitGroup                  // the guard's
	guard      atomic.Pointer[lookout.Lookout] // nil: there is none, or not yet
}

// Run is the life of a server, which ends with ctx.
func Run(ctx context.Context, o Options) error {
	s, err := newServer(ctx, o)
	if err != nil {
		return err
	}
	defer s.close()
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return usage("--listen says where", "cannot listen on %s: %v", o.Listen, err)
	}
	fail := make(chan error, 5) // has room for whatever can fail by itself
	web := s.serveWeb(listener, fail)
	defer web.end()
	if is, err := s.become(ctx); err != nil || !is {
		return err
	}
	// Only the server of the state folder announces: the journal is in it.
	if err := s.openAnnouncer(ctx); err != nil {
		return err
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	end := func() { cancel(); s.watching.Wait() }
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- s.engine.Run(working) }()
	if err := s.takeUp(ctx); err != nil {
		end()
		return errors.Join(err, quiet(<-ended))
	}
	s.startClasses(working, fail)
	if err := s.startGuard(working, fail); err != nil {
		end()
		return errors.Join(err, quiet(<-ended))
	}
	go s.keepKeys(working)
	close(s.ready)
	s.log.Info("serving", "url", "https://"+listener.Addr().String(), "state", o.State, "version", o.Version)
	select {
	case <-ctx.Done():
		s.log.Info("stopping: scripts go on in their agents")
	case err = <-fail:
	case err = <-ended:
		ended <- err
	}
	if err != nil {
		s.log.Error("stopping", "error", err)
	}
	web.drain()
	end()
	return errors.Join(err, quiet(<-ended))
}

// quiet is an error, unless it only says that we ended something.
func quiet(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// newServer opens what the server works with.
func newServer(ctx context.Context, o Options) (_ *server, err error) {
	if o.Cluster != nil {
		o.Cluster.complete()
	}
	s := &server{opts: o, log: o.Log, changes: newChanges(), ready: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.store, err = sqlite.Open(ctx, o.State); err != nil {
		return nil, err
	}
	if s.reader, err = sqlite.Open(ctx, o.State); err != nil {
		return nil, err
	}
	if s.keys, err = openKeys(o.State, o.allNames()); err != nil {
		return nil, err
	}
	if s.files, err = files.Open(files.Options{Dir: filepath.Join(o.State, "files"), Used: s.usesFile}); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s)
	if err := s.openClasses(); err != nil {
		return nil, err
	}
	s.shelf, s.wide = &output.Shelf{Dir: s.outputDir}, make(chan struct{}, mergedSegments)
	if err := s.checkAnnounce(); err != nil {
		return nil, err
	}
	s.engine = engine.New(s.engineOptions())
	return s, nil
}

func (s *server) openClasses() (err error) {
	o := &s.opts
	switch {
	case o.Cluster != nil && len(o.Classes) > 0:
		return usage("", "--kubernetes and --classes exclude each other")
	case o.Cluster != nil:
		s.controller, err = s.newController()
		s.classes = s.controller
	case len(o.Classes) == 0:
		err = usage("", "no classes: give --classes FILE, or --kubernetes")
	default:
		s.classes, err = readClasses(o.Classes)
	}
	return err
}

// allNames are the names in the server's certificate.
func (o *Options) allNames() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1", kube.ServerName}, o.Names...)
	if o.Cluster != nil {
		names = append(names, o.Cluster.names()...)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	if host, _, err := net.SplitHostPort(o.Listen); err == nil && host != "" {
		names = append(names, host)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *server) outputDir(id bulkhead.RunID) string {
	return filepath.Join(s.opts.State, "output", id.String())
}

func (s *server) close() {
	if s.news != nil {
		s.news.Close()
	}
	if s.shelf != nil {
		if err := s.shelf.CloseAll(); err != nil {
			s.log.Error("output is not closed", "error", err)
		}
	}
	for _, st := range []*sqlite.Store{s.reader, s.store} {
		if st != nil {
			_ = st.Close()
		}
	}
}

// become waits until this process is the server of the state folder; false if ctx
// ends first.
func (s *server) become(ctx context.Context) (bool, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		is, err := s.reader.Serve()
		if err != nil || is {
			return is, err
		}
		if !told {
			s.log.Info("waiting: another server has this state folder", "state", s.opts.State)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, nil
		}
	}
}

// takeUp gives the engine the runs that are not over.
func (s *server) takeUp(ctx context.Context) error {
	runs, err := s.reader.Unfinished(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, r := range runs {
		if r.Spec.Class == "" || r.State == bulkhead.RunAccepting {
			continue // of the command line; of somebody who still sends items
		}
		own, err := s.reader.Own(r.ID)
		if err != nil {
			return err
		}
		if !own {
			s.log.Warn("a run is worked on by another process", "run", r.ID)
			continue
		}
		if err := s.engine.Add(ctx, r); err != nil {
			return fmt.Errorf("take up run %d: %w", r.ID, err)
		}
		n++
	}
	s.log.Info("took up runs that are not over", "runs", n)
	return s.engine.Look(ctx) // at the brakes, also when there are no runs
}
