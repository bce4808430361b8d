package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Options of Follow. Users is needed.
type Options struct {
	Users *Users
	// Now is the time that counts. Default: time.Now.
	Now func() time.Time
	// Tail is how many bytes of the end are read of a log that is there already.
	// Default: 64 MiB, some tens of thousands of requests.
	Tail int64
	// Count is told how many lines of a result were read. Default: nobody is.
	Count func(result Result, n int)
	// State is told when the log can be read (nil), and when it cannot (why); each once,
	// until it changes. Default: nobody is.
	State func(err error)
}

const (
	defaultTail = 64 << 20
	// piece is what is read at once, and pieceTime the least time for it: 32 MiB a second,
	// more than any API server writes, and little of a core.
	piece     = 256 << 10
	pieceTime = 8 * time.Millisecond
	// poll is how often it is looked whether there is more. A log on a network's folder
	// has no other way to say so.
	poll = time.Second
	// behind is how many tails a log may be ahead, before the next piece of it that is read is
	// its end: who was away for days need not know all of it.
	behind = 2
	// gone is for how many polls there may be no file between one and the next.
	gone = 10
	// unlogged is how many lines have to be events of none before that is said.
	unlogged = 100
)

// ErrEnded is what State is told when a pipe has been closed at its other end.
var ErrEnded = errors.New("it has ended: who makes objects from now on is not known from it")

// ErrNoEvents is what State is told of a file that is no audit log.
var ErrNoEvents = errors.New("its lines are no events of audit.k8s.io in JSON: is it the API server's audit log, with --audit-log-format=json?")

// report tells Options what is read.
type report struct {
	Options

	told           bool
	said           string
	events, others int
}

func newReport(o Options) *report {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tail <= 0 {
		o.Tail = defaultTail
	}
	if o.Count == nil {
		o.Count = func(Result, int) {}
	}
	if o.State == nil {
		o.State = func(error) {}
	}
	return &report{Options: o}
}

// count notes lines of a result.
func (r *report) count(result Result, n int) {
	if n == 0 {
		return
	}
	if result == Invalid {
		r.others += n
	} else {
		r.events += n
	}
	r.Count(result, n)
}

// state says how it is, if that is new.
func (r *report) state(err error) {
	if err == nil && r.events == 0 && r.others >= unlogged {
		err = ErrNoEvents
	}
	if text := fmt.Sprint(err); !r.told || r.said != text {
		r.told, r.said = true, text
		r.State(err)
	}
}

// Follow reads the log at path until ctx ends: its end, what is written to it, and the
// one that takes its place when it is rotated. What cannot be read is tried again.
func Follow(ctx context.Context, path string, o Options) {
	f := newFollower(path, o)
	defer f.close()
	for first := true; ctx.Err() == nil; first = false {
		if !first && !pause(ctx, poll) {
			return
		}
		err := f.more(ctx)
		if ctx.Err() == nil {
			f.report.state(err)
		}
		if err != nil {
			f.close()
		}
	}
}

// follower reads a file.
type follower struct {
	report *report
	path   string
	lines  lines
	buffer []byte

	file    *os.File
	info    os.FileInfo
	offset  int64
	live    bool // all that there was has been read
	missing int  // polls in which there was no file of that name
}

func newFollower(path string, o Options) *follower {
	r := newReport(o)
	return &follower{report: r, path: path, lines: lines{report: r}, buffer: make([]byte, piece)}
}

// open opens the file that is there, and begins near its end.
func (f *follower) open() error {
	// A named pipe that nobody writes to would not open otherwise.
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return plain(err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("it is a folder")
	}
	if err != nil {
		_ = file.Close()
		return plain(err)
	}
	f.file, f.info = file, info
	f.begin(max(0, info.Size()-f.report.Tail))
	return nil
}

// begin goes on at a place of the file.
func (f *follower) begin(offset int64) {
	f.offset = offset
	f.lines.forget(offset > 0)
	f.live = false
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
}

// more reads what was written since it was read last, and goes over to another file at
// the end of this one, if that has its name now.
func (f *follower) more(ctx context.Context) error {
	if f.file == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if !f.info.Mode().IsRegular() { // a named pipe
		return f.report.pipe(ctx, f.file)
	}
	// First the name, then the end: what comes after that is in the other file.
	named, missing := os.Stat(f.path)
	if err := f.readOn(ctx); err != nil {
		return plain(err)
	}
	if missing != nil {
		if f.missing++; f.missing < gone {
			return nil // there may be none between one and the next
		}
		return plain(missing)
	}
	f.missing = 0
	if os.SameFile(named, f.info) {
		return nil
	}
	f.close()
	was := f.live
	if err := f.open(); err != nil {
		return err
	}
	f.live = was && f.offset == 0 // it began while somebody looked
	return f.readOn(ctx)
}

// readOn reads up to the end.
func (f *follower) readOn(ctx context.Context) error {
	now, err := f.file.Stat()
	if err != nil {
		return err
	}
	switch size := now.Size(); {
	case size < f.offset: // it was emptied: copytruncate
		f.offset = 0
		f.lines.forget(false)
	case size-f.offset > behind*f.report.Tail:
		f.begin(size - f.report.Tail)
	}
	for {
		began := time.Now()
		n, err := f.file.ReadAt(f.buffer, f.offset)
		f.offset += int64(n)
		f.lines.take(f.buffer[:n], f.live)
		if errors.Is(err, io.EOF) {
			f.live = true
			return nil
		}
		if err != nil {
			return err
		}
		if !pause(ctx, pieceTime-time.Since(began)) {
			return nil
		}
	}
}

// plain is an error without the path, which who asked knows.
func plain(err error) error {
	if of, ok := errors.AsType[*os.PathError](err); ok {
		return of.Err
	}
	return err
}

// Last reads the end of the log at path, once.
func Last(ctx context.Context, path string, o Options) error {
	f := newFollower(path, o)
	defer f.close()
	err := f.open()
	if err == nil && !f.info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err == nil {
		err = plain(f.readOn(ctx))
	}
	if err == nil && f.report.events == 0 && f.report.others > 0 {
		err = ErrNoEvents
	}
	return cmp.Or(err, ctx.Err())
}

// waited is how long it takes for a pipe to bring more, when what comes is new.
const waited = 2 * time.Second

// FollowReader reads a log from a pipe, until that ends or ctx does. The reader is read
// by another goroutine, which goes on until a read of it returns.
func FollowReader(ctx context.Context, from io.Reader, o Options) {
	r := newReport(o)
	if err := r.pipe(ctx, from); ctx.Err() == nil {
		r.state(err)
	}
}

// pipe reads a pipe. Its error says why there is no more.
func (r *report) pipe(ctx context.Context, from io.Reader) error {
	read, more := make(chan []byte), make(chan struct{})
	defer close(more)
	go func() {
		defer close(read)
		buffer := make([]byte, piece)
		for {
			n, err := from.Read(buffer)
			select {
			case read <- buffer[:n]:
			case <-more:
				return
			}
			if _, open := <-more; !open || err != nil {
				return
			}
		}
	}()
	l, live, seen := lines{report: r}, false, false
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case got, open := <-read:
			if !open {
				return ErrEnded
			}
			// Before the first piece one waits for who sends it to log in, not for what is new.
			live = live || seen && time.Since(began) > waited
			seen = seen || len(got) > 0
			l.take(got, live)
			if len(got) > 0 {
				r.state(nil)
			}
			more <- struct{}{}
			if !pause(ctx, pieceTime-time.Since(began)) {
				return nil
			}
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
