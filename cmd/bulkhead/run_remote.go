package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// defaultRemoteLimit is how many items of a run are run at once at a server that
// was not told: how many processors this machine has says nothing of it.
const defaultRemoteLimit = 10

// upload is a local file that is to be beside every attempt.
type upload struct {
	local, remote string
}

// parseUploads reads LOCAL[:REMOTE] of every --file.
func parseUploads(texts []string) ([]upload, error) {
	var uploads []upload
	for _, text := range texts {
		up := upload{local: text, remote: filepath.Base(text)}
		// A remote path has no colon, so that the last one parts the two.
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			up = upload{local: text[:i], remote: text[i+1:]}
		}
		if up.local == "" {
			return nil, usage("write LOCAL or LOCAL:REMOTE", "--file %s names no file", bulkhead.Quote(text))
		}
		if err := bulkhead.CheckFilePath(up.remote); err != nil {
			return nil, fmt.Errorf("--file %s: %w", bulkhead.Quote(text), err)
		}
		for _, other := range uploads {
			a, b := up.remote, other.remote
			if a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
				return nil, usage("write LOCAL:REMOTE to put one of them elsewhere", "--file %s and --file %s would both be %s", other.local, up.local, min(a, b))
			}
		}
		if err := checkRegular("--file", up.local); err != nil {
			return nil, err
		}
		uploads = append(uploads, up)
	}
	return uploads, nil
}

func checkRegular(flag, path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return usage("", "%s %s: %v", flag, path, errors.Unwrap(err))
	case !info.Mode().IsRegular():
		return usage("", "%s %s is not a regular file", flag, path)
	}
	return nil
}

// atServer completes a spec for a server: nothing of this machine is in it, but
// what was asked for.
func (f *runFlags) atServer(spec *bulkhead.Spec) (err error) {
	if spec.Class == "" {
		return usage("bulkhead class ls shows which there are", "--class is missing: which workers of the server are to run it")
	}
	if spec.Class, err = f.place.className(spec.Class); err != nil {
		return err
	}
	if spec.Dir != "" && !strings.HasPrefix(spec.Dir, "/") {
		return usage("it is a folder where the workers are", "--dir %s is not absolute", spec.Dir)
	}
	if f.uploads, err = parseUploads(f.files); err != nil {
		return err
	}
	if f.stdinFile == "" || f.stdinFile == "-" {
		return nil
	}
	return checkRegular("--stdin-file", f.stdinFile)
}

// onlyAtServer refuses what the state folder of this machine has no use for.
func (f *runFlags) onlyAtServer(spec *bulkhead.Spec) error {
	switch {
	case spec.Class != "":
		return noServer(fmt.Sprintf("--class %s: classes are those of a server", spec.Class))
	case spec.Shape != bulkhead.Shape{}:
		return noServer("--image, --cpu and --memory change the pods of a class")
	case spec.Announce:
		return noServer("--announce: the admin log is that of a server")
	case len(f.files) > 0:
		return usage("scripts read it where it is; --server or a context runs them elsewhere", "--file %s: it is here already", f.files[0])
	case f.stdinFile != "":
		return usage("write bulkhead run … -- COMMAND <FILE, or for a batch sh -c 'COMMAND <FILE'", "--stdin-file is for runs at a server")
	}
	return nil
}

// runRemote has a server run what is asked for, and closes the input.
func (a *app) runRemote(ctx context.Context, p place, f *runFlags, spec *bulkhead.Spec, in *plan.Input) error {
	s, err := a.openServer(ctx, p, triesToSubmit)
	if err != nil {
		in.Close()
		return err
	}
	defer s.close()
	began := time.Now()
	if err := s.send(ctx, f, spec); err != nil {
		in.Close()
		return err
	}
	r, err := s.submit(ctx, spec, in)
	if err != nil {
		return err
	}
	if f.detach {
		return s.detached(r, f.output)
	}
	if spec.Interactive {
		return s.attach(ctx, r, attaching{lines: -1})
	}
	return s.follow(ctx, r, following{began: began})
}

// send makes sure that the server has the files of a run.
func (s *remote) send(ctx context.Context, f *runFlags, spec *bulkhead.Spec) error {
	if spec.Single() && !spec.Interactive && spec.Stdin == nil && f.stdinFile == "" && readable(s.app.stdin) {
		s.app.tell("bulkhead: the script gets nothing to read; %s", cmp.Or(s.app.reads, "-i gives it what is here on standard input, --stdin-file - too, all of it before it starts"))
	}
	ctx, stop := s.app.interruptible(ctx)
	defer stop()
	err := s.sendAll(ctx, f, spec)
	if left(ctx, err) {
		s.app.tell("bulkhead: interrupted while sending files; nothing was accepted")
		return exitError(exitInterrupted)
	}
	return err
}

func (s *remote) sendAll(ctx context.Context, f *runFlags, spec *bulkhead.Spec) error {
	for _, up := range f.uploads {
		file, err := s.PutFile(ctx, spec.Class, up.local)
		if err != nil {
			return err
		}
		file.Path = up.remote
		spec.Files = append(spec.Files, file)
	}
	if f.stdinFile == "" {
		return nil
	}
	path := f.stdinFile
	if path == "-" {
		// Its hash is its name, so all of it is read before any of it is sent.
		spool, err := spooled(s.app.stdin)
		if err != nil {
			return fmt.Errorf("--stdin-file -: %w", err)
		}
		defer os.Remove(spool) //nolint:errcheck // it is a temporary file, of no further use
		path = spool
	}
	file, err := s.PutFile(ctx, spec.Class, path)
	spec.StdinFile = file.SHA256
	return err
}

// spooled puts what comes from a reader into a temporary file.
func spooled(r io.Reader) (path string, err error) {
	f, err := os.CreateTemp("", "bulkhead-stdin-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		_ = os.Remove(f.Name()) // it is a temporary file
		return "", err
	}
	return f.Name(), nil
}

// readable reports whether something waits to be read, as from a pipe.
func readable(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return false
	}
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
	return err == nil && n > 0
}

// submit hands a run over to the server, and closes the input. Until it returns
// nothing was promised.
func (s *remote) submit(ctx context.Context, spec *bulkhead.Spec, in *plan.Input) (*bulkhead.Run, error) {
	r := &bulkhead.Run{Spec: *spec}
	sub := &submitting{app: s.app, report: every(statusEvery)}
	ctx, stop := sub.heed(ctx)
	defer stop()
	var err error
	if spec.Single() {
		sub.read.Store(true)
		in.Close()
		err = s.Submit(ctx, r, nil, in.Hash)
	} else {
		sub.batches = make(chan batch)
		go readBatches(ctx, in, 0, sub.batches)
		err = s.Submit(ctx, r, func() (bulkhead.Item, error) { return sub.next(ctx) }, in.Hash)
	}
	if !left(ctx, err) {
		return r, err
	}
	if !sub.read.Load() {
		s.app.tell("bulkhead: interrupted while reading the input; nothing was accepted")
	} else if said, ok := errors.AsType[*bulkhead.Error](err); ok { // it may have been
		s.app.tell("bulkhead: interrupted: %s\n  %s", said.Message, said.Hint)
	} else {
		s.app.tell("bulkhead: interrupted; nothing was accepted")
	}
	return nil, exitError(exitInterrupted)
}

// submitting is a run on its way to a server.
type submitting struct {
	app     *app
	batches chan batch
	items   []bulkhead.Item // of the last batch, not handed on yet
	last    bool            // it was the last one
	report  func() bool
	read    atomic.Bool // all of the input
}

// heed returns a context that ends with the first interrupt while the input is
// read. Afterwards it takes two: the server may be accepting the run at that
// moment, and who interrupted would not know.
func (s *submitting) heed(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 4)
	if len(s.app.signals) > 0 { // none would mean all
		signal.Notify(ch, s.app.signals...)
	}
	go func() {
		for asked := false; ; asked = true {
			select {
			case <-ch:
			case <-ctx.Done():
				return
			}
			if asked || !s.read.Load() {
				cancel()
				return
			}
			s.app.tell("\nbulkhead: waiting for the server to accept the run; once more does not wait")
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		cancel()
	}
}

// next is the next item of the input. Reading goes on while the server stores
// the last ones; see local.acceptBatches for why it has a goroutine of its own.
func (s *submitting) next(ctx context.Context) (bulkhead.Item, error) {
	for len(s.items) == 0 {
		if s.last {
			s.read.Store(true)
			return bulkhead.Item{}, io.EOF
		}
		select {
		case b := <-s.batches:
			if b.err != nil {
				return bulkhead.Item{}, b.err
			}
			s.items, s.last = b.items, b.last
			if s.report() {
				s.app.tell("reading the input: %d items so far", b.total)
			}
		case <-ctx.Done():
			return bulkhead.Item{}, ctx.Err()
		}
	}
	it := s.items[0]
	s.items = s.items[1:]
	return it, nil
}

// detached says how to come back to a run that nobody here follows.
func (s *remote) detached(r *bulkhead.Run, out outputFlag) error {
	follow := s.app.typed("logs %d -f", r.ID)
	if r.Spec.Interactive {
		follow = s.app.typed("attach %d", r.ID)
	}
	s.app.tell("run %d: %s: %s, at the server; `%s` waits, `%s` follows", r.ID, shownName(r), toGo(r.Counts), s.app.typed("wait %d", r.ID), follow)
	if out == "json" {
		return writeJSON(s.app.stdout, newRunView(r))
	}
	fmt.Fprintln(s.app.stdout, r.ID)
	return nil
}
