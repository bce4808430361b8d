package serve

import (
	"context"
	"path/filepath"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// engineOptions wire the engine with what a server has.
func (s *server) engineOptions() engine.Options {
	// So that a full disk still takes the row that says why nothing starts.
	reserve := &sqlite.Reserve{Path: filepath.Join(s.opts.State, "reserve.server")}
	_ = reserve.Take() // without it a full disk is only told of later
	return engine.Options{
		Store: timed{s.store, s.metrics.commit},
		Probe: func() error {
			if err := s.store.InPlace(); err != nil {
				return err
			}
			return reserve.Take()
		},
		Relieve: reserve.Give,
		Rulings: s.rulings,
		Leased:  s.metrics.leased,
		Ended:   s.metrics.ended,
		Began:   s.began,
		Over:    s.over,
		Remote: &engine.Remote{
			Output:   s.shelf,
			Fetch:    s.fetch,
			Changed:  s.tellChanged,
			Finished: s.letGo,
		},
	}
}

// promising is the store as people's calls need it: it confirms nothing that would
// be kept nowhere, because the state folder was removed or replaced.
type promising struct{ *sqlite.Store }

// Create implements rpc.Acceptor.
func (p promising) Create(ctx context.Context, r *bulkhead.Run) error {
	if err := p.InPlace(); err != nil {
		return err
	}
	return p.Store.Create(ctx, r)
}

// Accept implements rpc.Acceptor.
func (p promising) Accept(ctx context.Context, r *bulkhead.Run, rest []bulkhead.Item, total int64, hash string) error {
	if err := p.InPlace(); err != nil {
		return err
	}
	return p.Store.Accept(ctx, r, rest, total, hash)
}

// Submit implements rpc.Acceptor.
func (p promising) Submit(ctx context.Context, r *bulkhead.Run, items []bulkhead.Item, total int64, hash string) error {
	if err := p.InPlace(); err != nil {
		return err
	}
	return p.Store.Submit(ctx, r, items, total, hash)
}

// fetch owns a run of which somebody asks something.
func (s *server) fetch(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error) {
	r, err := s.reader.Run(ctx, id)
	if err != nil || r.Spec.Class == "" {
		return nil, err // of the command line: whoever asked carries it out
	}
	own, err := s.reader.Own(id)
	if err != nil || !own {
		return nil, err
	}
	return s.reader.Run(ctx, id)
}

// letGo is told of a run that is over.
func (s *server) letGo(id bulkhead.RunID) {
	s.shelf.Close(id)
	if err := s.reader.Disown(id); err != nil {
		s.log.Error("a run that is over is still owned", "run", id, "error", err)
	}
}

// tellChanged tells the controller, if it listens: what it has not taken yet it
// will see all the same, because it looks at a class as it is.
func (s *server) tellChanged(class string) {
	if s.controller != nil {
		s.changes.add(class)
	}
}

// usesFile reports whether a run that is not over needs a file.
func (s *server) usesFile(sha256 string) bool {
	runs, err := s.reader.Unfinished(context.Background())
	if err != nil {
		return true
	}
	for _, r := range runs {
		if r.Spec.StdinFile == sha256 {
			return true
		}
		for _, f := range r.Spec.Files {
			if f.SHA256 == sha256 {
				return true
			}
		}
	}
	return false
}
