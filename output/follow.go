package output

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// DefaultPoll is how often followers look for more. They look rather than
// listen: inotify does not work on every file system that can hold a state
// folder, and output is up to a second behind anyway.
const DefaultPoll = 250 * time.Millisecond

// firstPoll is how long a follower waits for the first time; the wait doubles up to
// DefaultPoll. Most scripts are short, and who follows one waits for its end.
const firstPoll = 10 * time.Millisecond

// Following says how to wait for more output. The zero value waits until the
// context ends.
type Following struct {
	// Poll says when to look again. Default: every DefaultPoll, at first sooner.
	Poll <-chan time.Time
	// Done reports whether nothing more will be written, because the attempt or
	// the run is over. It is asked before each look, so that everything written
	// until then is still read. Default: never.
	Done func() bool
	// Wide bounds what all followers that share it read at once: each reads one
	// segment of a run, and one more for each place that it gets in here. With few
	// segments at once chunks come less exactly in the order in which they were
	// written. Default: a bound for this follower alone.
	Wide chan struct{}
	// Broken is told of a segment that cannot be read, and FollowAll goes on with
	// the others. Default: it ends with that error.
	Broken func(error)
}

// each calls look, now and whenever it is time, until look says that it has
// seen everything or, after Done, has looked once more.
func (f Following) each(ctx context.Context, look func() (over bool, err error)) error {
	wait, timer := time.Duration(0), time.NewTimer(0)
	defer timer.Stop()
	for {
		done := f.Done != nil && f.Done()
		over, err := look()
		if err != nil || over || done {
			return err
		}
		poll := f.Poll
		if poll == nil {
			wait = min(max(2*wait, firstPoll), DefaultPoll)
			timer.Reset(wait)
			poll = timer.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll:
		}
	}
}

// Follow calls fn for every chunk of an attempt's output from its start on, as
// it arrives, and returns when the attempt's end was read, when f.Done says
// that it is over and everything was read, or with the error of fn or of ctx.
// The attempt may be running, or not even have begun. Errors of what it reads
// are those of Read.
func Follow(ctx context.Context, dir string, a Attempt, f Following, fn func(Chunk) error) error {
	if a.Ref.Segment == 0 {
		return nil
	}
	var s *segment
	var c *cursor
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	err := f.each(ctx, func() (bool, error) {
		if s == nil {
			var err error
			if s, err = openSegment(dir, a.Ref.Segment); errors.Is(err, fs.ErrNotExist) {
				return false, nil
			} else if err != nil {
				return false, a.unopened(err)
			}
			c = newCursor(s, a)
		}
		// The open file stays readable when the segment is sealed, and has all of
		// the attempt then.
		err := c.each(fn)
		return c.over || s.sealed, err
	})
	switch {
	case err != nil:
		return err
	case c == nil:
		return a.missing()
	}
	return c.check()
}
