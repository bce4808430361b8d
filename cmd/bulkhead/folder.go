package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
	"bulkhead.dev/bulkhead/store/sqlite"
)

// folder is the state folder as a home: what is kept there anybody may read, and
// a run goes on in the process that owns it.
type folder struct {
	*sqlite.Store // nil: there is no such folder, so that there are no runs
	app           *app
	dir           string
}

// openFolder opens the state folder, and makes it if it is not there.
func (a *app) openFolder(ctx context.Context) (*folder, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	st, err := sqlite.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &folder{Store: st, app: a, dir: dir}, nil
}

// lookFolder opens the state folder for a command that only looks or asks, which
// makes none.
func (a *app) lookFolder(ctx context.Context) (*folder, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) { // what else is wrong with it, opening it says
		return &folder{app: a, dir: dir}, nil
	}
	return a.openFolder(ctx)
}

func (f *folder) where() string { return "in " + f.dir }

func (f *folder) close() {
	if f.Store != nil {
		_ = f.Close()
	}
}

func (f *folder) Run(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error) {
	if f.Store == nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no run %d: there is no state folder %s", id, f.dir),
			Hint: "give another one with --state or BULKHEAD_STATE"}
	}
	return f.Store.Run(ctx, id)
}

func (f *folder) Runs(ctx context.Context, limit int) ([]*bulkhead.Run, error) {
	if f.Store == nil {
		return nil, nil
	}
	return f.Store.Runs(ctx, limit)
}

func (f *folder) Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error) {
	if f.Store == nil {
		return nil, nil
	}
	return f.Store.Recent(ctx, q)
}

// watchEvery is how often a run is looked at while it is watched.
const watchEvery = 100 * time.Millisecond

func (f *folder) watch(ctx context.Context, id bulkhead.RunID, look func(r *bulkhead.Run, owned bool) (bool, error)) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		// The lock first: an owner that ends stores how before it lets go.
		owned, err := f.Owned(id)
		if err != nil {
			return err
		}
		r, err := f.Run(ctx, id)
		if err != nil {
			return err
		}
		if enough, err := look(r, owned); err != nil || enough {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outputDir is where the output of a run is kept.
func outputDir(st *sqlite.Store, id bulkhead.RunID) string {
	return filepath.Join(st.Dir(), "output", id.String())
}

// of says where the output of an attempt is.
func of(at bulkhead.Attempt) output.Attempt {
	return output.Attempt{Item: at.Item, N: at.N, Ref: at.Output}
}

func (f *folder) readOutput(_ context.Context, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error {
	return output.Read(outputDir(f.Store, at.Run), of(at), fn)
}

func (f *folder) tailOutput(_ context.Context, at bulkhead.Attempt, lines int) ([]byte, error) {
	return output.Tail(outputDir(f.Store, at.Run), of(at), lines)
}

func (f *folder) followAttempt(ctx context.Context, r *bulkhead.Run, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error {
	ended := func() bool { return at.State != bulkhead.ItemRunning || f.ended(ctx, r, at) }
	return output.Follow(ctx, outputDir(f.Store, at.Run), of(at), output.Following{Done: ended}, fn)
}

// followEvery is how often it is looked whether an item has begun another attempt.
const followEvery = 250 * time.Millisecond

func (f *folder) attemptAfter(ctx context.Context, r *bulkhead.Run, item int64, n int) (now bulkhead.ItemStatus, err error) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		over := f.over(ctx, r.ID, item)
		err := f.Items(ctx, r, bulkhead.ItemQuery{From: item, To: item}, func(it bulkhead.ItemStatus) error {
			now = it
			return nil
		})
		if err != nil || over || now.Attempt.N > n {
			return now, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// over reports whether nothing of a run, or of one item of it, will be written
// any more. It looks at the store, so it is asked rarely.
func (f *folder) over(ctx context.Context, id bulkhead.RunID, item int64) bool {
	r, err := f.Run(ctx, id)
	if err != nil || r.State.Finished() {
		return true
	}
	if owned, err := f.Owned(r.ID); err != nil || !owned {
		return true // nobody writes
	}
	if item == 0 {
		return false
	}
	q, over := bulkhead.ItemQuery{From: item, To: item}, true
	err = f.Items(ctx, r, q, func(it bulkhead.ItemStatus) error {
		over = it.State != bulkhead.ItemQueued && it.State != bulkhead.ItemRunning
		return nil
	})
	return err != nil || over
}

// ended reports whether an attempt that ran is over.
func (f *folder) ended(ctx context.Context, r *bulkhead.Run, at bulkhead.Attempt) bool {
	if owned, err := f.Owned(at.Run); err != nil || !owned {
		return true
	}
	over := true
	err := f.Items(ctx, r, bulkhead.ItemQuery{From: at.Item, To: at.Item}, func(it bulkhead.ItemStatus) error {
		over = it.Attempt.N != at.N || it.State != bulkhead.ItemRunning
		return nil
	})
	return err != nil || over
}

func (f *folder) followRun(ctx context.Context, id bulkhead.RunID, broken func(error), fn func(int64, int, bulkhead.Chunk) error) error {
	following := output.Following{Done: func() bool { return f.over(ctx, id, 0) }, Broken: broken}
	return output.FollowAll(ctx, outputDir(f.Store, id), following, fn)
}

func (f *folder) remove(ctx context.Context, r *bulkhead.Run) error {
	if !r.State.Finished() && r.State != bulkhead.RunAccepting {
		return unended(r)
	}
	if ok, err := f.Own(r.ID); err != nil {
		return err
	} else if !ok {
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d is in use by another process", r.ID)}
	}
	// Somebody may have gone on with it since we looked.
	if now, err := f.Run(ctx, r.ID); err != nil {
		return err
	} else if now.State != r.State {
		return f.remove(ctx, now)
	}
	if err := os.RemoveAll(outputDir(f.Store, r.ID)); err != nil {
		return fmt.Errorf("remove output: %w", err)
	}
	return f.Delete(ctx, r.ID)
}
