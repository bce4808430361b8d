package rpc

import (
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// accepting is a run whose items are on their way.
type accepting struct {
	next int64     // index that comes next
	used time.Time // when somebody last went on with it
}

// A key has 16 to 64 of these; see agentName.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9-]*$`)

// CreateRun implements RunServiceHandler.
func (s *Server) CreateRun(ctx context.Context, req *bulkheadv1.CreateRunRequest) (*bulkheadv1.CreateRunResponse, error) {
	// What has been begun is finished, also when the caller goes: it will ask again.
	ctx = context.WithoutCancel(ctx)
	key := req.GetKey()
	if key != "" && (len(key) < 16 || len(key) > 64 || !keyForm.MatchString(key)) {
		return nil, usage(nil, "make it by chance", "key %s is not 16 to 64 letters, digits and -", bulkhead.Quote(key))
	}
	r, err := s.known(ctx, key)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r, err = s.newRun(ctx, req)
	} else {
		err = s.mayGoOn(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	items := each(req.GetItems(), ItemOf)
	if err := checkItems(&r.Spec, items, req.GetAccept(), req.GetHash()); err != nil {
		return nil, err
	}
	r, existed, err := s.create(ctx, r, items, req)
	if err != nil {
		return nil, err
	}
	if existed {
		if err = s.mayGoOn(ctx, r); err == nil { // somebody else may have been faster with the key
			r, err = s.goOn(ctx, r.ID, items, req)
		}
	} else if req.GetAccept() {
		err = s.add(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.CreateRunResponse{Run: RunMessage(r)}, nil
}

// mayGoOn is the error for a caller who may not go on with submitting a run: whoever
// began may have lost the right since.
func (s *Server) mayGoOn(ctx context.Context, r *bulkhead.Run) error {
	if err := own(ctx, r); err != nil {
		return err
	}
	return s.may(ctx, VerbCreate, r.Spec.Class)
}

// known is the run that was submitted with a key, if there is one.
func (s *Server) known(ctx context.Context, key string) (*bulkhead.Run, error) {
	if key == "" {
		return nil, nil
	}
	return s.opts.Store.ByKey(ctx, key)
}

// create stores a new run, whole or its beginning, unless its key exists.
func (s *Server) create(ctx context.Context, r *bulkhead.Run, items []bulkhead.Item, req *bulkheadv1.CreateRunRequest) (_ *bulkhead.Run, existed bool, err error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	old, err := s.known(ctx, req.GetKey())
	if err != nil || old != nil {
		return old, true, err
	}
	if req.GetAccept() {
		return r, false, s.opts.Store.Submit(ctx, r, items, totalOf(&r.Spec, items), req.GetHash())
	}
	s.mu.Lock()
	n := len(s.accepting)
	s.mu.Unlock()
	if n >= maxAccepting {
		return nil, false, tooMuch("%d runs are being submitted", n)
	}
	if err := s.opts.Store.Create(ctx, r); err != nil {
		return nil, false, err
	}
	s.note(r.ID, &accepting{next: 1, used: s.opts.Now()})
	_, err = s.append(ctx, r, items)
	return r, false, err
}

// goOn is CreateRun for a key that exists: whoever asks did not get the answer.
func (s *Server) goOn(ctx context.Context, id bulkhead.RunID, items []bulkhead.Item, req *bulkheadv1.CreateRunRequest) (*bulkhead.Run, error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := s.opts.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.State == bulkhead.RunAccepting {
		if _, err := s.append(ctx, r, items); err != nil {
			return nil, err
		}
	}
	if !req.GetAccept() {
		return r, nil
	}
	return s.accept(ctx, r, totalOf(&r.Spec, items), req.GetHash())
}

// newRun checks what is asked for and makes of it what will be run.
func (s *Server) newRun(ctx context.Context, req *bulkheadv1.CreateRunRequest) (*bulkhead.Run, error) {
	if n := proto.Size(req.GetSpec()); n > MaxSpecBytes {
		return nil, usage(nil, "give what is long as items, as a file or as standard input", "the spec has %d bytes, more than %d", n, MaxSpecBytes)
	}
	spec, err := SpecOf(req.GetSpec())
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, VerbCreate, spec.Class); err != nil {
		return nil, err
	}
	spec.Owner = ownerOf(ctx, spec.Owner)
	if spec.Name == "" && len(spec.Command) > 0 {
		spec.Name = path.Base(spec.Command[0])
	}
	if spec.MaxOutput == 0 {
		spec.MaxOutput = bulkhead.DefaultMaxOutput
	}
	if spec.Single() {
		spec.Limit = 1
	}
	class, ok := s.opts.Classes.Class(spec.Class)
	if !ok {
		if err := s.opts.Classes.Known(); err != nil {
			return nil, fault(connect.CodeUnavailable, fmt.Errorf("the classes are not known yet: %w", err))
		}
		if err := bulkhead.CheckClassName(spec.Class, s.opts.Classes.Names()); err != nil {
			return nil, err
		}
		return nil, notFound("there is no class %s any more", bulkhead.Quote(spec.Class))
	}
	if spec.Announce && s.opts.NoAdminLog {
		return nil, usage(nil, "leave it out; whoever runs the server can give it one: bulkhead serve --announce-sal",
			"--announce: the server has no admin log")
	}
	if err := class.Accept(spec); err != nil {
		return nil, err
	}
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if err := s.checkFiles(spec); err != nil {
		return nil, err
	}
	return &bulkhead.Run{Spec: *spec, Key: req.GetKey(), Created: s.opts.Now().Truncate(time.Microsecond)}, nil
}

// checkFiles refuses a run whose files are not here.
func (s *Server) checkFiles(spec *bulkhead.Spec) error {
	check := func(what, hash string, size int64) error {
		have, complete, err := s.opts.Files.Stat(hash)
		switch {
		case err != nil:
			return err
		case !complete:
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Hint: "send it first (PutFile)",
				Message: fmt.Sprintf("the server has %d bytes of %s (%s), not all of it", have, what, hash)}
		case size >= 0 && have != size:
			return usage(nil, "", "%s has %d bytes, not %d", what, have, size)
		}
		return nil
	}
	for _, f := range spec.Files {
		if err := check("file "+f.Path, f.SHA256, f.Size); err != nil {
			return err
		}
	}
	if spec.StdinFile == "" {
		return nil
	}
	return check("the file for standard input", spec.StdinFile, -1)
}

// checkItems refuses items that do not belong to the run.
func checkItems(spec *bulkhead.Spec, items []bulkhead.Item, last bool, hash string) error {
	if spec.Single() && len(items) > 0 {
		return usage(nil, "name the columns", "a run without columns has no items")
	}
	if last {
		if err := checkHash(hash); err != nil {
			return err
		}
	}
	if len(items) > 0 && items[0].Index != 1 {
		return usage(nil, "", "the first item is %d, not 1", items[0].Index)
	}
	return checkRows(spec, items)
}

func checkHash(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 {
		return usage(nil, "", "hash %s is not a SHA-256 in hex", bulkhead.Quote(hash))
	}
	return nil
}

// checkRows refuses items that are not one behind the other with a value for each
// column.
func checkRows(spec *bulkhead.Spec, items []bulkhead.Item) error {
	for i, it := range items {
		switch {
		case it.Index < 1 || it.Index != items[0].Index+int64(i):
			return usage(nil, "", "item %d does not come behind item %d", it.Index, items[0].Index+int64(i)-1)
		case it.Index > MaxRunItems:
			return usage(nil, "split it into several runs", "more than %d items: the most that one run may have", MaxRunItems)
		case len(it.Values) != len(spec.Columns):
			return usage(nil, "", "item %d has %d values for %d columns", it.Index, len(it.Values), len(spec.Columns))
		}
	}
	return nil
}

func totalOf(spec *bulkhead.Spec, items []bulkhead.Item) int64 {
	if spec.Single() {
		return 1
	}
	return int64(len(items))
}

// note remembers a run that accepts; nil forgets it.
func (s *Server) note(id bulkhead.RunID, a *accepting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a == nil {
		delete(s.accepting, id)
		return
	}
	s.accepting[id] = a
}

// progress is how far a run has been accepted. After a restart the store knows.
func (s *Server) progress(ctx context.Context, id bulkhead.RunID) (*accepting, error) {
	s.mu.Lock()
	a := s.accepting[id]
	s.mu.Unlock()
	if a == nil {
		a = &accepting{next: 1}
		err := s.opts.Store.Accepted(ctx, id, func(it bulkhead.Item) { a.next = it.Index + 1 })
		if err != nil {
			return nil, err
		}
		s.note(id, a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.used = s.opts.Now()
	return a, nil
}

// append stores those of the items that are new, and returns the index that comes
// next. The caller has the run's lock, or is the only one to know it.
func (s *Server) append(ctx context.Context, r *bulkhead.Run, items []bulkhead.Item) (next int64, err error) {
	a, err := s.progress(ctx, r.ID)
	if err != nil || len(items) == 0 {
		return a.nextOr(), err
	}
	if items[0].Index > a.next {
		return a.next, &bulkhead.Error{Code: bulkhead.CodeConflict,
			Message: fmt.Sprintf("item %d of run %d comes next, not %d", a.next, r.ID, items[0].Index)}
	}
	items = items[min(a.next-items[0].Index, int64(len(items))):]
	if len(items) == 0 {
		return a.next, nil
	}
	if err := s.opts.Store.Append(ctx, r.ID, items); err != nil {
		return a.next, err
	}
	a.next = items[len(items)-1].Index + 1
	return a.next, nil
}

func (a *accepting) nextOr() int64 {
	if a == nil {
		return 0
	}
	return a.next
}

// accept ends accepting, once.
func (s *Server) accept(ctx context.Context, r *bulkhead.Run, total int64, hash string) (*bulkhead.Run, error) {
	if r.State == bulkhead.RunAccepting {
		a, err := s.progress(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		if have := a.next - 1; !r.Spec.Single() && have != total {
			return nil, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d has %d items, not %d", r.ID, have, total)}
		}
		if err := s.opts.Store.Accept(ctx, r, nil, total, hash); err != nil {
			return nil, err
		}
		s.note(r.ID, nil)
	} else if r.Hash != hash {
		return nil, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d was accepted with other items", r.ID)}
	}
	if r.State.Finished() {
		return r, nil
	}
	return r, s.add(ctx, r)
}

// add gives a run to the engine, which changes it from then on: r stays what was
// accepted.
func (s *Server) add(ctx context.Context, r *bulkhead.Run) error {
	own := *r
	return s.opts.Engine.Add(ctx, &own)
}

// AppendItems implements RunServiceHandler.
func (s *Server) AppendItems(ctx context.Context, req *bulkheadv1.AppendItemsRequest) (*bulkheadv1.AppendItemsResponse, error) {
	r, unlock, err := s.locked(ctx, req.GetRun(), VerbCreate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := own(ctx, r); err != nil {
		return nil, err
	}
	if r.State != bulkhead.RunAccepting || r.Spec.Single() {
		return nil, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("run %d takes no more items", r.ID)}
	}
	items := each(req.GetItems(), ItemOf)
	if err := checkRows(&r.Spec, items); err != nil {
		return nil, err
	}
	next, err := s.append(context.WithoutCancel(ctx), r, items)
	if err != nil {
		return nil, err
	}
	return &bulkheadv1.AppendItemsResponse{Next: next}, nil
}

// AcceptRun implements RunServiceHandler.
func (s *Server) AcceptRun(ctx context.Context, req *bulkheadv1.AcceptRunRequest) (*bulkheadv1.AcceptRunResponse, error) {
	if err := checkHash(req.GetHash()); err != nil {
		return nil, err
	}
	r, unlock, err := s.locked(ctx, req.GetRun(), VerbCreate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := own(ctx, r); err != nil {
		return nil, err
	}
	if r, err = s.accept(context.WithoutCancel(ctx), r, req.GetTotal(), req.GetHash()); err != nil {
		return nil, err
	}
	return &bulkheadv1.AcceptRunResponse{Run: RunMessage(r)}, nil
}

// locked is a run with which the caller may do something, and which nobody else
// changes until it is unlocked.
func (s *Server) locked(ctx context.Context, id int64, verb Verb) (r *bulkhead.Run, unlock func(), err error) {
	if _, err := s.run(ctx, id, verb); err != nil {
		return nil, nil, err // who may not is not to make others wait
	}
	return s.lockedAnyway(ctx, id)
}

func (s *Server) lockedAnyway(ctx context.Context, id int64) (r *bulkhead.Run, unlock func(), err error) {
	unlock, err = s.locks.lock(ctx, bulkhead.RunID(id))
	if err != nil {
		return nil, nil, err
	}
	if r, err = s.opts.Store.Run(ctx, bulkhead.RunID(id)); err == nil && !s.ours(r) {
		err = conflict("use bulkhead there, without --server", "run %d was started on the server's own host, by the command line", r.ID)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return r, unlock, nil
}

// ours reports whether a run came through here. The command line may use the same
// state folder, for runs without a class that its own processes look after.
func (s *Server) ours(r *bulkhead.Run) bool {
	if r.Spec.Class != "" {
		return true
	}
	_, ok := s.opts.Classes.Class("")
	return ok
}

// Sweep removes runs that accept items and with which nobody has gone on for an
// hour: nothing of them was promised.
func (s *Server) Sweep(ctx context.Context) error {
	runs, err := s.opts.Store.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("look for runs that nobody goes on with: %w", err)
	}
	for _, r := range runs {
		if r.State != bulkhead.RunAccepting || !s.ours(r) {
			continue
		}
		if err := s.sweep(ctx, r.ID); err != nil {
			return fmt.Errorf("remove run %d, with which nobody goes on: %w", r.ID, err)
		}
	}
	return nil
}

func (s *Server) sweep(ctx context.Context, id bulkhead.RunID) error {
	r, unlock, err := s.lockedAnyway(ctx, int64(id))
	if bulkhead.CodeOf(err) == bulkhead.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if r.State != bulkhead.RunAccepting {
		return nil
	}
	s.mu.Lock()
	a := s.accepting[id]
	young := a != nil && s.opts.Now().Sub(a.used) < acceptingFor
	s.mu.Unlock()
	if a == nil { // from before a restart: its time begins now
		_, err := s.progress(ctx, id)
		return err
	}
	if young {
		return nil
	}
	s.note(id, nil)
	return s.opts.Store.Delete(ctx, id)
}
