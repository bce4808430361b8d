package main

import (
	"context"

	"bulkhead.dev/bulkhead"
)

// home is where runs are kept and worked on. Commands go through it, so that
// they are the same wherever that is.
type home interface {
	records
	outputs
	controls
	// where says to people which home it is.
	where() string
	close()
}

// records is what became of runs.
type records interface {
	lister
	Run(ctx context.Context, id bulkhead.RunID) (*bulkhead.Run, error)
	// Runs returns up to limit runs, newest first; limit 0 means all.
	Runs(ctx context.Context, limit int) ([]*bulkhead.Run, error)
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

// openHome opens the home that the command line and the environment name.
func (a *app) openHome(ctx context.Context) (home, error) { return a.lookFolder(ctx) }
