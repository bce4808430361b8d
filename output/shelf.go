package output

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"bulkhead.dev/bulkhead"
)

// Shelf keeps the output of attempts that run elsewhere, of many runs at once, and
// of which it hears in pieces: again, late, or not at all. What a piece is of is
// said by the token of the attempt's lease, and where it belongs by its offset in
// what the attempt wrote. So a piece that comes twice is taken once.
//
// An attempt is known from Begin or Resume to Drop.
type Shelf struct {
	// Dir is the folder of a run's output. Required.
	Dir func(bulkhead.RunID) string

	mu       sync.Mutex
	runs     map[bulkhead.RunID]*shelf
	attempts map[uint64]*shelved
	closing  sync.WaitGroup
	turn     chan struct{} // has room for the run whose output is being sealed
}

// shelf is the output of one run.
type shelf struct {
	log    *Log
	free   []*Writer
	live   int                // attempts that are known
	giveUp context.CancelFunc // ends the closing that is under way
	closed chan struct{}      // is closed when it has ended; nil: it is not
}

// shelved is the output of one attempt.
type shelved struct {
	lease bulkhead.Lease
	most  int64  // bytes to keep
	shelf *shelf // nil as long as w is

	mu    sync.Mutex
	w     *Writer // its alone until Drop; nil: its log could not be opened
	have  int64   // bytes of data that came, kept or not
	ended bool
	ref   bulkhead.OutputRef // once ended
}

// Begin says where the output of a lease will be.
func (s *Shelf) Begin(l bulkhead.Lease, spec *bulkhead.Spec) bulkhead.OutputRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &shelved{lease: l, most: spec.MaxOutput}
	s.add(a)
	if err := s.provide(a); err != nil {
		return bulkhead.OutputRef{} // Write and End try again, and say so
	}
	return a.w.Position()
}

func (s *Shelf) add(a *shelved) {
	if s.attempts == nil {
		s.attempts = map[uint64]*shelved{}
	}
	s.attempts[a.lease.Token] = a
}

// provide gives an attempt a writer, if it has none. The caller holds s.mu.
func (s *Shelf) provide(a *shelved) error {
	if a.w != nil {
		return nil
	}
	sh, err := s.open(a.lease.Run, nil)
	if err != nil {
		return err
	}
	if n := len(sh.free); n > 0 {
		a.w, sh.free = sh.free[n-1], sh.free[:n-1]
	} else {
		a.w = sh.log.Writer()
	}
	a.w.Begin(a.lease.Item.Index, a.lease.Attempt, a.lease.Since, a.most)
	a.shelf = sh
	sh.live++
	return nil
}

// ready is provide for a caller that holds a.mu, and writes what the disk refused
// before: that comes first, or it would pile up here.
func (s *Shelf) ready(a *shelved) error {
	s.mu.Lock()
	err := s.provide(a)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return a.w.Flush()
}

// open returns the shelf of a run; live are segments of attempts that go on.
func (s *Shelf) open(run bulkhead.RunID, live []int64) (*shelf, error) {
	sh := s.runs[run]
	if sh != nil && sh.closed == nil {
		return sh, nil
	}
	if sh != nil {
		sh.giveUp() // sealing can wait
		<-sh.closed
	}
	log, err := OpenLog(Options{Dir: s.Dir(run), Live: live})
	if err != nil {
		return nil, err
	}
	if s.runs == nil {
		s.runs = map[bulkhead.RunID]*shelf{}
	}
	sh = &shelf{log: log}
	s.runs[run] = sh
	return sh, nil
}

// Prepare opens the output of a run of which attempts go on that a former process
// knew, before the first Resume or Begin.
func (s *Shelf) Prepare(run bulkhead.RunID, leases []bulkhead.Lease) error {
	var live []int64
	for _, l := range leases {
		if l.Output.Segment > 0 {
			live = append(live, l.Output.Segment)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.open(run, live)
	return err
}

// Resume goes on with the output of a lease that a former process gave.
func (s *Shelf) Resume(l bulkhead.Lease, spec *bulkhead.Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, err := s.open(l.Run, []int64{l.Output.Segment})
	if err != nil {
		return err
	}
	at := Attempt{Item: l.Item.Index, N: l.Attempt, Ref: l.Output}
	w, ref, ended, err := sh.log.Resume(at, l.Since, spec.MaxOutput)
	if err != nil {
		return err
	}
	a := &shelved{lease: l, most: spec.MaxOutput, shelf: sh, w: w, have: ref.Bytes + ref.Dropped, ended: ended}
	if ended {
		a.ref = ref
	}
	sh.live++
	s.add(a)
	return nil
}

func (s *Shelf) find(token uint64) *shelved {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[token]
}

// Write adds a piece of what an attempt wrote: chunks, the first of which begins
// after offset bytes of data. It returns how much there is now, all of it with the
// kernel; what lies before that need not come again. With an error the same piece
// can be written again. It reports false for an attempt that is not known.
func (s *Shelf) Write(token uint64, offset int64, chunks []bulkhead.Chunk) (have int64, known bool, err error) {
	a := s.find(token)
	if a == nil {
		return 0, false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return a.have, true, nil
	}
	if err := s.ready(a); err != nil {
		return a.have, true, err
	}
	if offset > a.have && len(chunks) > 0 {
		a.w.Skip(offset - a.have) // it was here, and was lost with the power
		a.have = offset
	}
	size := 0
	for _, c := range chunks {
		size += len(c.Data)
	}
	a.w.expect(size)
	for _, c := range chunks {
		data := c.Data
		known := min(max(a.have-offset, 0), int64(len(data)))
		offset += int64(len(data))
		if data = data[known:]; len(data) == 0 {
			continue
		}
		a.have += int64(len(data))
		err = errors.Join(err, a.w.Write(c.Stream, c.At, data))
	}
	if err == nil {
		err = a.w.Flush()
	}
	a.w.trim()
	return a.have, true, err
}

// End ends the output of an attempt, of which so many bytes were not sent because
// they were beyond what may be kept. It may be called again. It reports false for
// an attempt that is not known.
func (s *Shelf) End(token uint64, dropped int64) (ref bulkhead.OutputRef, known bool, err error) {
	a := s.find(token)
	if a == nil {
		return ref, false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return a.ref, true, nil
	}
	if err := s.ready(a); err != nil {
		return ref, true, err
	}
	a.w.top(dropped)
	if a.ref, err = a.w.End(); err != nil {
		return bulkhead.OutputRef{}, true, err
	}
	a.ended = true
	a.w.trim()
	return a.ref, true, nil
}

// Lost ends the output of an attempt that is lost; if the disk does not take the
// end, it is as long as it is.
func (s *Shelf) Lost(l bulkhead.Lease) bulkhead.OutputRef {
	ref, known, err := s.End(l.Token, 0)
	if known && err == nil {
		return ref
	}
	ref, err = Measure(s.Dir(l.Run), Attempt{Item: l.Item.Index, N: l.Attempt, Ref: l.Output})
	if err != nil {
		return bulkhead.OutputRef{}
	}
	return ref
}

// Drop forgets the attempt of a lease, because its result is durable or because
// the lease came to nothing.
func (s *Shelf) Drop(l bulkhead.Lease) {
	s.mu.Lock()
	a := s.attempts[l.Token]
	delete(s.attempts, l.Token)
	s.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.w == nil {
		a.ended = true
		return
	}
	defer s.release(a)
	if !a.ended {
		if _, err := a.w.End(); err != nil {
			return // a writer whose attempt cannot be ended is of no further use
		}
		a.ended = true
	}
	// Only now may the writer have another attempt. Two leases that are live in the
	// store never share a segment: a server that takes over would give each of them
	// a writer, and they would write over each other.
	s.mu.Lock()
	defer s.mu.Unlock()
	a.shelf.free = append(a.shelf.free, a.w)
}

// release notes that an attempt needs its run's output no more.
func (s *Shelf) release(a *shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.shelf.live--
}

// Close closes the output of a run that is finished. It is sealed in the background.
func (s *Shelf) Close(run bulkhead.RunID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.runs[run]
	if sh == nil || sh.live > 0 || sh.closed != nil {
		return
	}
	if s.turn == nil {
		s.turn = make(chan struct{}, 1)
	}
	turn := s.turn
	ctx, cancel := context.WithCancel(context.Background())
	sh.giveUp, sh.closed = cancel, make(chan struct{})
	s.closing.Go(func() {
		defer cancel()
		select {
		case turn <- struct{}{}: // one at a time: it takes a core
			defer func() { <-turn }()
		case <-ctx.Done(): // what waits for us must not wait for another run
		}
		_ = sh.log.Close(ctx) // what cannot be sealed can be read all the same
		close(sh.closed)      // before the lock: open waits for it with the lock
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.runs[run] == sh {
			delete(s.runs, run)
		}
	})
}

// Settle ends the sealing of a run that was closed, so that its output can be
// removed.
func (s *Shelf) Settle(run bulkhead.RunID) {
	s.Close(run) // a run is known to be over before it is closed here
	s.mu.Lock()
	sh := s.runs[run]
	if sh == nil || sh.closed == nil {
		s.mu.Unlock()
		return
	}
	giveUp, closed := sh.giveUp, sh.closed
	s.mu.Unlock()
	giveUp()
	<-closed
}

// CloseAll closes what is open, flushed but not sealed: another process goes on
// with it.
func (s *Shelf) CloseAll() error {
	s.mu.Lock()
	runs := s.runs
	s.runs = nil
	for _, sh := range runs {
		if sh.giveUp != nil {
			sh.giveUp()
		}
	}
	s.mu.Unlock()
	s.closing.Wait()
	var errs []error
	for run, sh := range runs {
		if err := sh.log.Abandon(); err != nil {
			errs = append(errs, fmt.Errorf("output of run %d: %w", run, err))
		}
	}
	return errors.Join(errs...)
}
