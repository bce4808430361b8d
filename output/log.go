package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultSegmentSize is 8 MiB: a million items of 1 KiB are some 130 files.
	DefaultSegmentSize = 8 << 20
	// DefaultFlushEvery leaves a tenth of the promised second to the write.
	DefaultFlushEvery = 900 * time.Millisecond
)

// Options say where and how a run's output is kept.
type Options struct {
	// Dir is the run's folder. It is created with the first byte of output,
	// parents included, for its owner only. Required.
	Dir string
	// SegmentSize is the size in bytes from which a segment is full. A segment
	// can be larger by one attempt. Default: DefaultSegmentSize.
	SegmentSize int64
	// FlushEvery is how long output may stay in memory, and as long again until
	// it is synced. Default: DefaultFlushEvery.
	FlushEvery time.Duration
	// Live are the segments of attempts that go on, see Log.Resume: they are not
	// sealed, and their numbers are not given again.
	Live []int64
}

// Log is the output of one run, owned by one process at a time. Its goroutines
// exist only while there is something to flush, sync or seal.
type Log struct {
	dir         string
	segmentSize int64
	every       time.Duration

	sealing context.Context // ends when Close is told not to wait
	giveUp  context.CancelFunc
	stop    chan struct{} // closed by Close
	wg      sync.WaitGroup
	encoder *encoder                // of whoever seals: the sealer, or Close after it
	before  func(step string) error // tests only, see step

	making sync.Mutex // held while the folder is made
	made   bool       // under making

	abandoned bool // Close seals nothing

	mu       sync.Mutex
	closed   bool
	next     int64 // segment number
	writers  []*Writer
	dirty    []*Writer // have something to flush or sync
	unsynced []unsynced
	created  bool    // a file whose name is not durable
	full     []int64 // segments to seal
	unsealed []int64 // segments that could not be sealed

	flushRuns, syncRuns, sealRuns bool // the goroutine exists
}

// unsynced is a file that was written since it was last synced.
type unsynced struct {
	file    *os.File
	writer  *Writer
	retired bool // nobody else closes it
}

// OpenLog opens the output of a run, new or existing. What a process that died
// left behind is sealed in the background; numbers go on after the highest.
func OpenLog(o Options) (*Log, error) {
	if o.Dir == "" {
		return nil, errors.New("open output: no folder given")
	}
	l := &Log{dir: o.Dir, segmentSize: o.SegmentSize, every: o.FlushEvery, stop: make(chan struct{})}
	if l.segmentSize <= 0 {
		l.segmentSize = DefaultSegmentSize
	}
	if l.every <= 0 {
		l.every = DefaultFlushEvery
	}
	l.sealing, l.giveUp = context.WithCancel(context.Background())
	if err := l.adopt(o.Live); err != nil {
		l.giveUp()
		return nil, fmt.Errorf("open output: %w", err)
	}
	return l, nil
}

// adopt takes over what an earlier owner left.
func (l *Log) adopt(live []int64) error {
	found, err := list(l.dir)
	if err != nil {
		return err
	}
	l.next = found.last() + 1
	for _, n := range live {
		l.next = max(l.next, n+1)
	}
	for _, n := range found.temp {
		if err := os.Remove(tempPath(l.dir, n)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = slices.DeleteFunc(found.raw, func(n int64) bool { return slices.Contains(live, n) })
	l.startSealer()
	return nil
}

// Writer returns a new writer, for one worker slot. It is of no use after Close.
func (l *Log) Writer() *Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &Writer{log: l, segment: l.number()}
	l.writers = append(l.writers, w)
	return w
}

func (l *Log) number() int64 {
	n := l.next
	l.next++
	return n
}

// create makes the file of a segment.
func (l *Log) create(n int64) (*os.File, error) {
	if err := l.makeFolder(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(rawPath(l.dir, n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created = true
	return f, nil
}

// makeFolder makes the run's folder for the first segment. The others wait until
// it is durable: one that found it there, just made, could be synced before it.
func (l *Log) makeFolder() error {
	l.making.Lock()
	defer l.making.Unlock()
	if l.made {
		return nil
	}
	err := makeDir(l.dir)
	l.made = err == nil
	return err
}

// touch makes sure that w is flushed and synced soon. The caller holds w.mu.
func (l *Log) touch(w *Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = append(l.dirty, w)
	l.startFlusher()
}

// retire takes a full segment over from its writer and returns the number of
// the writer's next one.
func (l *Log) retire(n int64, f *os.File) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced = append(l.unsynced, unsynced{file: f, retired: true})
	l.full = append(l.full, n)
	l.startFlusher()
	l.startSealer()
	return l.number()
}

// startFlusher is called with l.mu held, as are startSyncer and startSealer.
func (l *Log) startFlusher() {
	if !l.flushRuns && !l.closed {
		l.flushRuns = true
		l.wg.Go(l.flushLoop)
	}
}

// flushLoop lives until nothing was written for a whole interval.
func (l *Log) flushLoop() {
	t := time.NewTicker(l.every)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		if !l.flushDirty() {
			return
		}
	}
}

// flushDirty flushes what is dirty and has it synced, by a goroutine of its
// own: on a slow disk a sync takes longer than the next flush can wait. It
// reports whether there was anything.
func (l *Log) flushDirty() bool {
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = nil
	if len(dirty) == 0 && len(l.unsynced) == 0 && !l.syncRuns {
		l.flushRuns = false
		l.mu.Unlock()
		return false
	}
	l.mu.Unlock()
	var files []unsynced
	for _, w := range dirty {
		if f := w.tick(); f != nil {
			files = append(files, unsynced{file: f, writer: w})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced = append(l.unsynced, files...)
	if !l.syncRuns && len(l.unsynced) > 0 && !l.closed {
		l.syncRuns = true
		l.wg.Go(l.syncAll)
	}
	return true
}

// syncAll makes durable what was flushed.
func (l *Log) syncAll() {
	l.mu.Lock()
	files, created := l.unsynced, l.created
	l.unsynced, l.created = nil, false
	l.mu.Unlock()
	for _, u := range files {
		err := l.step("sync data")
		if err == nil {
			err = datasync(u.file)
		}
		if u.retired {
			err = errors.Join(err, u.file.Close())
		}
		// A file that was closed meanwhile was retired: it is in the list again. And
		// one that was retired gets its second chance when it is sealed.
		if err != nil && u.writer != nil && !errors.Is(err, os.ErrClosed) {
			u.writer.syncFailed(err)
		}
	}
	if created {
		_ = syncDir(l.dir) // not the output's: if the name is lost, so was power
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncRuns = false
}

// step tells a test which operation comes next; its error is the operation's.
func (l *Log) step(name string) error {
	if l.before == nil {
		return nil
	}
	return l.before(name)
}

// Abandon is Close for a log whose attempts go on, see Resume: everything is
// flushed, and nothing is sealed.
func (l *Log) Abandon() error {
	l.abandoned = true
	l.giveUp()
	return l.Close(context.Background())
}

// Close flushes every writer and seals every segment that is left, which may
// take a moment. When ctx ends it stops sealing and says so; segments that are
// not sealed can be read all the same, and the next OpenLog seals them. A full
// disk while sealing is not an error, for the same reason.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.stop)
	writers := l.writers
	l.mu.Unlock()
	defer l.giveUp()
	defer context.AfterFunc(ctx, l.giveUp)()

	var left []int64
	var errs []error
	for _, w := range writers {
		n, err := w.close()
		errs = append(errs, err)
		if n != 0 {
			left = append(left, n)
		}
	}
	l.wg.Wait()
	// From here on nobody else looks at l.
	for _, u := range l.unsynced {
		if u.retired {
			errs = append(errs, datasync(u.file), u.file.Close())
		}
	}
	if l.created {
		errs = append(errs, syncDir(l.dir))
	}
	left = slices.Concat(left, l.full, l.unsealed)
	slices.Sort(left)
	if !l.abandoned {
		errs = append(errs, l.sealAll(ctx, left))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close output: %w", err)
	}
	return nil
}
