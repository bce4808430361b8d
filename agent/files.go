package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// files are what runs want beside their attempts, fetched once for all slots.
// A blob is a content under its hash; a folder holds the files of one run as
// hard links to blobs. Both stay until there is no room for others.
//
//	files/blobs/SHA256[.x]     read-only, executable with .x
//	files/runs/RUN-LIST/PATH   LIST is a hash of paths and contents
type files struct {
	agent *Agent
	dir   string
	limit int64
	turn  chan struct{} // held by who fetches

	mu      sync.Mutex
	size    int64 // of all blobs, bytes
	blobs   map[string]*blob
	folders map[string]*folder
}

type blob struct {
	size int64
	uses int // folders, and attempts that read it
}

type folder struct {
	blobs []string
	uses  int // attempts
	last  time.Time
}

const (
	blobsDir = "blobs"
	runsDir  = "runs"
	partial  = "partial" // a blob or folder that is not complete
)

func newFiles(a *Agent, dir string, limit int64) *files {
	return &files{
		agent: a, dir: dir, limit: limit, turn: make(chan struct{}, 1),
		blobs: map[string]*blob{}, folders: map[string]*folder{},
	}
}

// clear removes what a former process has fetched.
func (f *files) clear() error {
	if err := os.RemoveAll(f.dir); err != nil {
		return fmt.Errorf("clear the folder for files: %w", err)
	}
	return nil
}

// want is a blob that an attempt needs.
type want struct {
	sha  string
	exec bool
	size int64 // -1: not known
}

func (w want) key() string {
	if w.exec {
		return w.sha + ".x"
	}
	return w.sha
}

// place readies the files of an attempt. It waits for a server that is away, as
// long as the attempt may be held. Nil files have no folder.
func (f *files) place(t *attempt) (*placed, error) {
	if f == nil {
		return nil, errors.New("this worker has no folder for the files of the run (--spool)")
	}
	if err := checkFiles(t.lease); err != nil {
		return nil, err
	}
	p := &placed{}
	var undo []func()
	p.close = func() {
		if p.stdin != nil {
			p.stdin.Close()
		}
		for _, u := range undo {
			u()
		}
	}
	if list := t.lease.GetFiles(); len(list) > 0 {
		name := folderName(t.lease)
		if err := f.useFolder(t.ctx, name, list); err != nil {
			return nil, err
		}
		undo = append(undo, func() { f.leaveFolder(name) })
		p.dir = filepath.Join(f.dir, runsDir, name)
	}
	if sha := t.lease.GetStdinFile(); sha != "" {
		w := want{sha: sha, size: -1}
		err := f.inTurn(t.ctx, func() error { return f.useBlob(t.ctx, w) })
		if err == nil {
			undo = append(undo, func() { f.leaveBlobs(w.key()) })
			p.stdin, err = os.Open(f.blobPath(w.key()))
		}
		if err != nil {
			p.close()
			return nil, fmt.Errorf("stdin: %w", err)
		}
	}
	return p, nil
}

func (f *files) blobPath(key string) string { return filepath.Join(f.dir, blobsDir, key) }

// folderName is the same for attempts that get the same files of the same run.
func folderName(l *bulkheadv1.Lease) string {
	sum := sha256.New()
	for _, file := range l.GetFiles() {
		fmt.Fprintf(sum, "%q %s %v\n", file.GetPath(), file.GetSha256(), file.GetExecutable())
	}
	return fmt.Sprintf("%d-%s", l.GetRun(), hex.EncodeToString(sum.Sum(nil)[:8]))
}

// checkFiles trusts no server with what it may write here.
func checkFiles(l *bulkheadv1.Lease) error {
	for _, file := range l.GetFiles() {
		if err := bulkhead.CheckFilePath(file.GetPath()); err != nil {
			return err
		}
		if err := bulkhead.CheckFileHash(file.GetSha256()); err != nil {
			return err
		}
	}
	if sha := l.GetStdinFile(); sha != "" {
		return bulkhead.CheckFileHash(sha)
	}
	return nil
}

// inTurn lets one at a time fetch: what several attempts want is fetched once.
func (f *files) inTurn(ctx context.Context, do func() error) error {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-f.turn }()
	return do()
}

// useFolder makes a folder unless it is there.
func (f *files) useFolder(ctx context.Context, name string, list []*bulkheadv1.File) error {
	if f.enter(name) {
		return nil
	}
	return f.inTurn(ctx, func() error {
		if f.enter(name) {
			return nil
		}
		made := &folder{uses: 1}
		err := os.MkdirAll(filepath.Join(f.dir, runsDir), 0o700)
		for _, file := range list {
			if err != nil {
				break
			}
			w := want{sha: file.GetSha256(), exec: file.GetExecutable(), size: file.GetSize()}
			if err = f.useBlob(ctx, w); err != nil {
				err = fmt.Errorf("file %s: %w", bulkhead.Quote(file.GetPath()), err)
				break
			}
			made.blobs = append(made.blobs, w.key())
		}
		if err == nil {
			err = f.fill(name, list, made)
		}
		if err != nil {
			f.leaveBlobs(made.blobs...)
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.folders[name] = made
		return nil
	})
}

// enter reports whether the folder is there, and holds it.
func (f *files) enter(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.folders[name]
	if d != nil {
		d.uses++
	}
	return d != nil
}

func (f *files) leaveFolder(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.folders[name]
	d.uses--
	d.last = time.Now()
}

func (f *files) leaveBlobs(keys ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range keys {
		f.blobs[k].uses--
	}
}

// fill puts the files into the folder, which appears once it is complete. The
// paths were checked; the root is what keeps them where they belong whatever is
// there already.
func (f *files) fill(name string, list []*bulkheadv1.File, made *folder) error {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.RemoveAll(partial); err != nil {
		return err
	}
	for i, file := range list {
		to := path.Join(partial, file.GetPath())
		if err := root.MkdirAll(path.Dir(to), 0o700); err != nil {
			return err
		}
		if err := root.Link(path.Join(blobsDir, made.blobs[i]), to); err != nil {
			return fmt.Errorf("file %s: %w", bulkhead.Quote(file.GetPath()), err)
		}
	}
	if err := root.RemoveAll(path.Join(runsDir, name)); err != nil {
		return err
	}
	return root.Rename(partial, path.Join(runsDir, name))
}

// useBlob fetches a content unless it is there, and holds it.
func (f *files) useBlob(ctx context.Context, w want) error {
	f.mu.Lock()
	b := f.blobs[w.key()]
	if b != nil {
		b.uses++
	}
	f.mu.Unlock()
	if b != nil {
		return nil
	}
	size, err := f.fetch(ctx, w)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size += size
	f.blobs[w.key()] = &blob{size: size, uses: 1}
	return nil
}

// fetch gets a content from the server and checks it.
func (f *files) fetch(ctx context.Context, w want) (size int64, err error) {
	if err := os.MkdirAll(filepath.Join(f.dir, blobsDir), 0o700); err != nil {
		return 0, err
	}
	mode := fs.FileMode(0o444)
	if w.exec {
		mode = 0o555
	}
	name := filepath.Join(f.dir, blobsDir, partial)
	_ = os.Remove(name)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	got := &download{files: f, want: w, to: file, sum: sha256.New()}
	for try := 0; ; try++ {
		before := got.size
		err = got.read(ctx)
		if err == nil || ctx.Err() != nil || !errors.Is(err, errAgain) {
			break
		}
		if got.size > before {
			try = 0
		}
		if !f.agent.link.pause(ctx, try, got.failure, lastWait) {
			break
		}
	}
	if err == nil {
		err = got.check()
	}
	if err == nil {
		err = errors.Join(file.Chmod(mode), os.Rename(name, f.blobPath(w.key())))
	}
	if err != nil {
		_ = os.Remove(name)
		return 0, err
	}
	return got.size, nil
}

// errAgain: the server was away, or there was no room at the moment.
var errAgain = errors.New("to be tried again")

// download is a content on its way; it survives breaks.
type download struct {
	files   *files
	want    want
	to      io.Writer
	sum     hash.Hash
	size    int64
	failure error // of the server, for errAgain
}

// read goes on where the last call ended.
func (d *download) read(ctx context.Context) error {
	a := d.files.agent
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.opts.Client.ReadFile(ctx, &bulkheadv1.ReadFileRequest{Agent: a.self, Sha256: d.want.sha, Offset: d.size})
	if err != nil {
		return d.broken(ctx, err)
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		data := stream.Msg().GetData()
		if d.want.size >= 0 && d.size+int64(len(data)) > d.want.size {
			return fmt.Errorf("it has more than the %d bytes that it should have", d.want.size)
		}
		if err := d.files.makeRoom(d.size+int64(len(data)), max(d.want.size, 0)); err != nil {
			d.failure = nil
			return err
		}
		n, err := d.to.Write(data)
		d.sum.Write(data[:n])
		d.size += int64(n)
		if err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return d.broken(ctx, err)
	}
	a.link.ok()
	return nil
}

// broken sorts out what can be tried again.
func (d *download) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if unwanted(err) {
		return fmt.Errorf("the server does not have it: %w", err)
	}
	d.failure = err
	d.files.agent.link.failed(err)
	return fmt.Errorf("%w: %w", errAgain, err)
}

func (d *download) check() error {
	if d.want.size >= 0 && d.size != d.want.size {
		return fmt.Errorf("it has %d bytes instead of %d", d.size, d.want.size)
	}
	if sum := hex.EncodeToString(d.sum.Sum(nil)); sum != d.want.sha {
		return fmt.Errorf("its content is not what its hash %s says", d.want.sha[:12])
	}
	return nil
}

// makeRoom removes what nobody uses, the oldest first, until there is room for
// a content of that size, or of which that much is known.
func (f *files) makeRoom(size, known int64) error {
	size = max(size, known)
	f.mu.Lock()
	defer f.mu.Unlock()
	if size > f.limit {
		return fmt.Errorf("it is larger than the %d bytes that this worker keeps of files", f.limit)
	}
	for f.size+size > f.limit {
		if !f.evictBlob() && !f.evictFolder() {
			return fmt.Errorf("%w: files of other runs take up the room", errAgain)
		}
	}
	return nil
}

func (f *files) evictBlob() bool {
	for key, b := range f.blobs {
		if b.uses == 0 && os.Remove(f.blobPath(key)) == nil {
			f.size -= b.size
			delete(f.blobs, key)
			return true
		}
	}
	return false
}

// evictFolder lets go of the blobs of the folder that was left first.
func (f *files) evictFolder() bool {
	oldest := ""
	for name, d := range f.folders {
		if d.uses == 0 && (oldest == "" || d.last.Before(f.folders[oldest].last)) {
			oldest = name
		}
	}
	if oldest == "" || os.RemoveAll(filepath.Join(f.dir, runsDir, oldest)) != nil {
		return false
	}
	for _, key := range f.folders[oldest].blobs {
		f.blobs[key].uses--
	}
	delete(f.folders, oldest)
	return true
}
