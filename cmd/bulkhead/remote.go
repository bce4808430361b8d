package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// remote is a server as a home. Somebody always works on its runs: the server.
type remote struct {
	*rpc.Client
	patient *rpc.Client // the same, for who follows: it waits for the server as long as it is away
	app     *app
	http    *http.Client
}

// How often a call is made while the server is away: by somebody who only wants
// to know something, and by who is about to hand over work. See rpc.ClientOptions.
const (
	triesToAsk    = 5
	triesToSubmit = 12
)

// openServer readies calls to a server; the first one connects.
func (a *app) openServer(ctx context.Context, p place, tries int) (*remote, error) {
	client, url, name, err := a.dial(ctx, p)
	if err != nil {
		return nil, err
	}
	opts := rpc.ClientOptions{URL: url, HTTP: client, Owner: me(), Tries: tries, Away: a.away(name)}
	if a.hurry {
		opts.Tries, opts.Timeout, opts.Away = 1, hurryTime, nil
	} else {
		a.warnOfSecret("token", p.server.TokenFile)
	}
	s := &remote{Client: rpc.NewClient(opts), app: a}
	opts.Tries = math.MaxInt
	s.patient = rpc.NewClient(opts)
	s.http, _ = client.(*http.Client)
	return s, nil
}

// dial is the way to a server, and what to call it.
func (a *app) dial(ctx context.Context, p place) (client connect.HTTPClient, url, name string, err error) {
	if p.server.Kubernetes {
		return a.dialCluster(ctx, &p.server)
	}
	client, url, _, err = rpc.Dial(p.server.dialOptions())
	return client, url, url, err
}

// hurryTime is how long a shell's completion may wait for a server.
const hurryTime = 2 * time.Second

// away tells when the server goes and comes back, each once.
func (a *app) away(url string) func(error) {
	var gone atomic.Bool
	return func(err error) {
		switch {
		case err != nil && !gone.Swap(true):
			hint := ""
			if a.raw.Load() {
				hint = "; until it is back, Ctrl-C leaves"
			}
			a.tell("bulkhead: %v; trying again%s", err, hint)
		case err == nil && gone.Swap(false):
			a.tell("bulkhead: server %s is back", url)
		}
	}
}

// noServer is the error of what only a server has.
func noServer(what string) error {
	return usage("say which server: --server URL, or bulkhead context use NAME", "%s, and runs are kept in the state folder of this machine here", what)
}

func (s *remote) where() string { return "at " + s.URL() }

func (s *remote) close() {
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
}

// Owned implements records: the server works on its runs.
func (s *remote) Owned(bulkhead.RunID) (bool, error) { return true, nil }

// aliveEvery is how often who watches is told how the run stands though nothing
// has changed.
const aliveEvery = time.Second

func (s *remote) watch(ctx context.Context, id bulkhead.RunID, look func(r *bulkhead.Run, owned bool) (bool, error)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	news, over := make(chan *bulkhead.Run), make(chan error, 1)
	go func() {
		over <- s.Watch(ctx, id, func(st rpc.Status) error {
			select {
			case news <- &st.Run:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	var last *bulkhead.Run
	for {
		select {
		case last = <-news:
		case <-tick.C:
		case err := <-over:
			return err
		}
		if last == nil {
			continue
		}
		if enough, err := look(last, true); err != nil || enough {
			return err
		}
	}
}

// notOutput is an error of reading output that says nothing of the output.
type notOutput struct{ err error }

func (e notOutput) Error() string { return e.err.Error() }
func (e notOutput) Unwrap() error { return e.err }

// told tells errors of output from those of asking for it: who stopped waiting,
// and a server that does not answer any other question either.
func (s *remote) told(ctx context.Context, id bulkhead.RunID, err error) error {
	if err == nil {
		return nil
	}
	if _, rerr := s.Run(ctx, id); rerr != nil {
		return notOutput{rerr}
	}
	return err
}

func (s *remote) readOutput(ctx context.Context, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error {
	return s.told(ctx, at.Run, s.ReadOutput(ctx, at.Run, at, false, fn))
}

func (s *remote) tailOutput(ctx context.Context, at bulkhead.Attempt, lines int) ([]byte, error) {
	tail, err := s.TailOutput(ctx, at.Run, at, lines)
	return tail, s.told(ctx, at.Run, err)
}

// How often it is asked whether an item has begun another attempt: at first, and
// when it takes long.
const followFirst, followLast = 200 * time.Millisecond, 2 * time.Second

func (s *remote) attemptAfter(ctx context.Context, r *bulkhead.Run, item int64, n int) (now bulkhead.ItemStatus, err error) {
	for pause := followFirst; ; pause = min(pause*3/2, followLast) {
		err := s.patient.Items(ctx, r, bulkhead.ItemQuery{From: item, To: item}, func(it bulkhead.ItemStatus) error {
			now = it
			return nil
		})
		over := now.State != bulkhead.ItemQueued && now.State != bulkhead.ItemRunning
		if err != nil || over || now.Attempt.N > n {
			return now, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

func (s *remote) followAttempt(ctx context.Context, _ *bulkhead.Run, at bulkhead.Attempt, fn func(bulkhead.Chunk) error) error {
	return s.told(ctx, at.Run, s.ReadOutput(ctx, at.Run, at, true, fn))
}

func (s *remote) followRun(ctx context.Context, id bulkhead.RunID, broken func(error), fn func(int64, int, bulkhead.Chunk) error) error {
	return s.FollowOutput(ctx, id, true, broken, fn)
}

func (s *remote) ask(ctx context.Context, r *bulkhead.Run, q bulkhead.Request) error {
	q.Run = r.ID
	_, err := s.Ask(ctx, q)
	return err
}

// resume lets a paused run go on, at the server: there is nothing to take over,
// and the items are as they were accepted.
func (s *remote) resume(ctx context.Context, r *bulkhead.Run, _ resumption) error {
	if r.State == bulkhead.RunAccepting {
		return stillReading(r)
	}
	if err := s.ask(ctx, r, bulkhead.Request{Kind: bulkhead.RequestResume}); err != nil {
		return err
	}
	return s.app.say(ctx, s, r.ID)
}

func (s *remote) retry(ctx context.Context, r *bulkhead.Run, sel bulkhead.Selection, what string, detach bool) error {
	f := following{began: time.Now(), told: true}
	if r.Spec.Single() {
		err := s.Items(ctx, r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
			f.after = it.Attempt.N
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := s.ask(ctx, r, bulkhead.Request{Kind: bulkhead.RequestRetry, Selection: sel}); err != nil {
		return err
	}
	fmt.Fprintf(s.app.stderr, "run %d: %s, limit %d\n", r.ID, what, r.Limit)
	now, err := s.Run(ctx, r.ID)
	if err != nil {
		return err
	}
	if detach || now.State == bulkhead.RunPaused {
		return s.app.sayRetried(ctx, s, r.ID)
	}
	return s.follow(ctx, now, f)
}

func (s *remote) remove(ctx context.Context, r *bulkhead.Run) error {
	if !r.State.Finished() && r.State != bulkhead.RunAccepting {
		return unended(r)
	}
	return s.Delete(ctx, r.ID)
}

// leave says how to come back to a run that goes on without us.
func (a *app) leave(r *bulkhead.Run) error {
	a.tell("\nrun %d goes on at the server:", r.ID)
	hints := []struct{ command, what string }{
		{"wait %d", "waits for its end"}, {"logs %d -f", "follows what it writes"}, {"cancel %d", "ends it"},
	}
	if r.Spec.Interactive {
		hints[0].command, hints[0].what = "attach %d", "comes back to it"
	}
	for _, hint := range hints {
		a.tell("  %-32s %s", a.typed(hint.command, r.ID), hint.what)
	}
	return exitError(exitInterrupted)
}
