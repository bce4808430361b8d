package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// spool is the folder where what the server cannot take now waits for it. Names
// of files are tokens of attempts:
//
//	TOKEN.out    output that is not in memory, see backlog
//	TOKEN.done   result, with the output that was in memory
//	lock         held by the agent that uses the folder
//	files/       see files
type spool struct {
	dir   string
	limit int64
	used  atomic.Int64 // bytes of output
	lock  *os.File
}

const (
	outSuffix  = ".out"
	doneSuffix = ".done"
	tempSuffix = ".tmp"
	filesDir   = "files"
)

func (a *Agent) openSpool() error {
	if a.opts.Spool == "" {
		return nil
	}
	dir, err := filepath.Abs(a.opts.Spool)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the spool folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the spool folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Err: err,
			Message: fmt.Sprintf("spool folder %s is used by another agent", bulkhead.Quote(dir)),
			Hint:    "give each agent a folder of its own"}
	}
	a.spool = &spool{dir: dir, limit: a.opts.SpoolLimit, lock: lock}
	a.files = newFiles(a, filepath.Join(dir, filesDir), a.opts.FilesLimit)
	return a.files.clear()
}

// close lets go of the folder. A nil spool has none.
func (s *spool) close() {
	if s != nil {
		s.lock.Close()
	}
}

func (s *spool) path(name string) string { return filepath.Join(s.dir, name) }

// reserve takes room for n bytes of output, if there is that much.
func (s *spool) reserve(n int64) bool {
	if s.used.Add(n) > s.limit {
		s.used.Add(-n)
		return false
	}
	return true
}

func (s *spool) release(n int64) { s.used.Add(-n) }

// create makes the file for an attempt's output.
func (s *spool) create(name string) (*os.File, error) {
	return os.OpenFile(s.path(name+outSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (s *spool) remove(f *os.File, size int64) {
	_ = os.Remove(f.Name())
	f.Close()
	s.release(size)
}

// A saved result begins with the position in the file of output where that
// which was not in memory begins, and with how much there was in all; then comes
// the ExchangeRequest that would have handed it in.
const savedHead = 16

// save keeps a result for the next process in this folder, durably.
func (s *spool) save(t *attempt) error {
	if s == nil || t.saved {
		return nil
	}
	req, position, err := t.freeze()
	if err != nil {
		return err
	}
	data := binary.LittleEndian.AppendUint64(nil, uint64(position))
	data = binary.LittleEndian.AppendUint64(data, uint64(t.out.kept))
	if data, err = (proto.MarshalOptions{}).MarshalAppend(data, req); err != nil {
		return err
	}
	name := s.path(t.name() + doneSuffix)
	if err := writeDurably(name, data); err != nil {
		return fmt.Errorf("keep a result in the spool folder: %w", err)
	}
	t.saved = true
	return nil
}

// forget removes what was kept of an attempt.
func (s *spool) forget(t *attempt) {
	if s != nil && t.saved {
		_ = os.Remove(s.path(t.name() + doneSuffix))
	}
	t.out.close()
}

func writeDurably(name string, data []byte) error {
	temp := name + tempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// leftovers are the results that former processes could not hand in. All else
// that they left is of scripts whose end nobody saw: the server finds out by
// itself that those are lost.
func (s *spool) leftovers() (list []*attempt, err error) {
	if s == nil {
		return nil, nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the spool folder: %w", err)
	}
	used := map[string]bool{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), doneSuffix)
		if !ok {
			continue
		}
		t, rerr := s.recover(name)
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", e.Name(), rerr))
			continue
		}
		used[name] = true
		list = append(list, t)
	}
	for _, e := range entries {
		name, isOut := strings.CutSuffix(e.Name(), outSuffix)
		if isOut && !used[name] || strings.HasSuffix(e.Name(), tempSuffix) {
			_ = os.Remove(s.path(e.Name()))
		}
	}
	return list, err
}

// recover reads back what save wrote.
func (s *spool) recover(name string) (*attempt, error) {
	data, err := os.ReadFile(s.path(name + doneSuffix))
	if err != nil {
		return nil, err
	}
	if len(data) < savedHead {
		return nil, errors.New("it is too short")
	}
	req := &bulkheadv1.ExchangeRequest{}
	if err := proto.Unmarshal(data[savedHead:], req); err != nil {
		return nil, err
	}
	done := req.GetDone()
	t := &attempt{
		self: req.GetAgent(), slot: req.GetSlot(), saved: true,
		lease:  &bulkheadv1.Lease{Run: done.GetRun(), Item: done.GetItem(), Token: done.GetToken()},
		result: done.GetResult(), out: newBacklog(s, name, -1, outputWindow),
	}
	b := t.out
	b.base, b.frozen = done.GetOffset(), true
	b.kept = int64(binary.LittleEndian.Uint64(data[8:]))
	b.lost = b.kept - done.GetResult().GetOutputBytes()
	t.cut = done.GetResult().GetOutputDropped() - b.lost
	for _, c := range done.GetRest() {
		b.remember(c)
	}
	return t, b.reopen(int64(binary.LittleEndian.Uint64(data)))
}

// reopen opens the file that a former process has left, if there is one.
func (b *backlog) reopen(position int64) error {
	b.filePos = position
	b.fileData = max(b.kept-b.base-b.memData, 0)
	f, err := os.OpenFile(b.spool.path(b.name+outSuffix), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		b.giveUp()
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	b.file, b.fileSize = f, info.Size()
	b.spool.used.Add(b.fileSize)
	return nil
}
