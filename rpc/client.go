package rpc

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// OwnerHeader says on whose behalf a call is made, as user@host. The server
// believes it of whoever has its token.
const OwnerHeader = "Bulkhead-Owner"

// ClientOptions say which server, and as whom.
type ClientOptions struct {
	// URL of the server, https://HOST:PORT.
	URL string
	// HTTP carries the calls; see Dial. Default: http.DefaultClient.
	HTTP connect.HTTPClient
	// Token is what the server knows us by.
	Token string
	// Owner is who asks, user@host.
	Owner string
	// Away is told when the server cannot be reached and the call is made again,
	// once for each time that it goes, and with nil when it is back. It may be
	// called from several goroutines. Default: nobody is told.
	Away func(err error)
	// Tries is how often a call that may be repeated is made before its error is
	// returned. Following a run has no such bound. Default: 10, which takes about 20
	// seconds.
	Tries int
	// Backoff is the wait before the second try. It doubles up to 50 times as
	// much, and a random half of it is left out. Default: 100 ms.
	Backoff time.Duration
	// Timeout of one try of a call that is not a stream. Default: a minute.
	Timeout time.Duration
	// Quiet is how long a stream may bring nothing at all before the server is
	// taken for gone. Servers send something every KeepAlive. Default: a minute.
	Quiet time.Duration
}

// Client is a server as its users see it. Its methods have the words of package
// bulkhead on their sides, and its errors are those of the handlers; those that
// a person must do something about are *bulkhead.Error. While the server is
// away, what may be repeated is.
//
// Its methods may be called from any goroutine.
type Client struct {
	opts   ClientOptions
	runs   bulkheadv1connect.RunServiceClient
	brakes bulkheadv1connect.BrakeServiceClient
	guard  bulkheadv1connect.GuardServiceClient
	isAway atomic.Bool
}

// NewClient returns a client. It does not call the server yet.
func NewClient(opts ClientOptions) *Client {
	if opts.HTTP == nil {
		opts.HTTP = http.DefaultClient
	}
	if opts.Away == nil {
		opts.Away = func(error) {}
	}
	if opts.Tries == 0 {
		opts.Tries = 10
	}
	if opts.Backoff == 0 {
		opts.Backoff = 100 * time.Millisecond
	}
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute
	}
	if opts.Quiet == 0 {
		opts.Quiet = time.Minute
	}
	opts.URL = strings.TrimRight(opts.URL, "/")
	with := []connect.ClientOption{connect.WithInterceptors(credentials{opts.Token, opts.Owner}), connect.WithReadMaxBytes(maxMessage)}
	return &Client{opts: opts, runs: bulkheadv1connect.NewRunServiceClient(opts.HTTP, opts.URL, with...),
		brakes: bulkheadv1connect.NewBrakeServiceClient(opts.HTTP, opts.URL, with...),
		guard:  bulkheadv1connect.NewGuardServiceClient(opts.HTTP, opts.URL, with...)}
}

// URL is the server's.
func (c *Client) URL() string { return c.opts.URL }

// Run returns one run.
func (c *Client) Run(ctx context.Context, id bulkhead.RunID) (r *bulkhead.Run, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.runs.GetRun(ctx, &bulkheadv1.GetRunRequest{Run: int64(id)})
		if err != nil {
			return err
		}
		r, err = RunOf(res.GetRun())
		return err
	})
	return r, err
}

// Runs returns up to limit runs, newest first; limit 0 means all.
func (c *Client) Runs(ctx context.Context, limit int) ([]*bulkhead.Run, error) {
	return c.Recent(ctx, bulkhead.RunQuery{Limit: limit})
}

// Recent returns the runs of a query, newest first.
func (c *Client) Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error) {
	var runs []*bulkhead.Run
	for more, before := true, int64(q.Before); more && (q.Limit <= 0 || len(runs) < q.Limit); {
		size := maxRunsPage
		if q.Limit > 0 {
			size = min(size, q.Limit-len(runs))
		}
		err := c.call(ctx, func(ctx context.Context) error {
			res, err := c.runs.ListRuns(ctx, &bulkheadv1.ListRunsRequest{PageSize: int32Of(size), Before: before,
				Unfinished: q.Unfinished, FinishedAfter: timeMessage(q.FinishedAfter)})
			if err != nil {
				return err
			}
			page, err := eachOf(res.GetRuns(), RunOf)
			if err != nil {
				return err
			}
			runs, more = append(runs, page...), res.GetMore() && len(page) > 0
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(runs) > 0 {
			before = int64(runs[len(runs)-1].ID)
		}
	}
	return runs, nil
}

// Attempts returns every attempt of one item that has ended, in order.
func (c *Client) Attempts(ctx context.Context, run bulkhead.RunID, item int64) (out []bulkhead.Attempt, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.runs.ListAttempts(ctx, &bulkheadv1.ListAttemptsRequest{Run: int64(run), Item: item})
		if err != nil {
			return err
		}
		out, err = eachOf(res.GetAttempts(), func(m *bulkheadv1.Attempt) (bulkhead.Attempt, error) {
			return AttemptOf(run, item, m)
		})
		return err
	})
	return out, err
}

// Classes says which classes the server has and how they stand.
func (c *Client) Classes(ctx context.Context) (out []bulkhead.ClassStatus, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.runs.ListClasses(ctx, &bulkheadv1.ListClassesRequest{})
		out = each(res.GetClasses(), ClassOf)
		return err
	})
	return out, err
}

// Pools says how up to so many pools of the server stand, and how many more there
// are.
func (c *Client) Pools(ctx context.Context, limit int) (out []bulkhead.PoolStatus, more int, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.runs.ListPools(ctx, &bulkheadv1.ListPoolsRequest{PageSize: int32Of(limit)})
		out, more = each(res.GetPools(), PoolStatusOf), int(res.GetMore())
		return err
	})
	return out, more, err
}

// Delete removes a finished run with its output.
func (c *Client) Delete(ctx context.Context, id bulkhead.RunID) error {
	tries := 0
	return c.call(ctx, func(ctx context.Context) error {
		_, err := c.runs.DeleteRun(ctx, &bulkheadv1.DeleteRunRequest{Run: int64(id)})
		if tries++; tries > 1 && connect.CodeOf(err) == connect.CodeNotFound {
			return nil // the answer to an earlier try did not arrive
		}
		return err
	})
}

// Ask asks something of a run and returns how it stands once that is done; who
// asks and when is for the server to say.
func (c *Client) Ask(ctx context.Context, q bulkhead.Request) (r *bulkhead.Run, err error) {
	try := func(ctx context.Context) error {
		m, err := c.ask(ctx, q)
		if err != nil {
			return err
		}
		r, err = RunOf(m)
		return err
	}
	if q.Kind == bulkhead.RequestRetry {
		// Items that were queued again may have failed again by now: a second retry
		// would be more than was asked for.
		return r, c.callOnce(ctx, try)
	}
	return r, c.call(ctx, try)
}

func (c *Client) ask(ctx context.Context, q bulkhead.Request) (*bulkheadv1.Run, error) {
	run := int64(q.Run)
	switch q.Kind {
	case bulkhead.RequestPause:
		res, err := c.runs.PauseRun(ctx, &bulkheadv1.PauseRunRequest{Run: run})
		return res.GetRun(), err
	case bulkhead.RequestResume:
		res, err := c.runs.ResumeRun(ctx, &bulkheadv1.ResumeRunRequest{Run: run})
		return res.GetRun(), err
	case bulkhead.RequestCancel:
		res, err := c.runs.CancelRun(ctx, &bulkheadv1.CancelRunRequest{Run: run})
		return res.GetRun(), err
	case bulkhead.RequestLimit:
		res, err := c.runs.LimitRun(ctx, &bulkheadv1.LimitRunRequest{Run: run, Limit: int32Of(q.Limit)})
		return res.GetRun(), err
	}
	s := q.Selection
	res, err := c.runs.RetryRun(ctx, &bulkheadv1.RetryRunRequest{Run: run, Failed: s.Failed, Lost: s.Lost, Cancelled: s.Cancelled, Items: s.Items})
	return res.GetRun(), err
}

// call makes a call that may be repeated, and repeats it while the server is away.
func (c *Client) call(ctx context.Context, fn func(context.Context) error) error {
	return c.repeat(ctx, fn, transient)
}

// callOnce makes a call that must not be repeated once it may have arrived.
func (c *Client) callOnce(ctx context.Context, fn func(context.Context) error) error {
	return c.repeat(ctx, fn, unsent)
}

func (c *Client) repeat(ctx context.Context, fn func(context.Context) error, again func(error) bool) error {
	b := c.backoff()
	for try := 1; ; try++ {
		err := c.try(ctx, fn)
		if err == nil {
			c.back()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if try == c.opts.Tries || !again(err) {
			return Error(c.opts.URL, err)
		}
		c.away(err)
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
}

func (c *Client) try(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	return fn(ctx)
}

// away tells that the server is away, unless that is known.
func (c *Client) away(err error) {
	if !c.isAway.Swap(true) {
		c.opts.Away(Error(c.opts.URL, err))
	}
}

// back tells that the server is back.
func (c *Client) back() {
	if c.isAway.Load() && c.isAway.Swap(false) {
		c.opts.Away(nil)
	}
}

// backoff is a wait that grows.
type backoff struct{ next, most time.Duration }

func (c *Client) backoff() *backoff { return &backoff{c.opts.Backoff, 50 * c.opts.Backoff} }

// wait waits the longer the more often it was called, and returns early with the
// error of ctx. Its length is partly by chance, so that those who lost the server
// at the same time do not return at the same time.
func (b *backoff) wait(ctx context.Context) error {
	t := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer t.Stop()
	b.next = min(2*b.next, b.most)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// credentials says with each call who makes it.
type credentials struct{ token, owner string }

func (c credentials) set(h http.Header) {
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
	if c.owner != "" {
		h.Set(OwnerHeader, c.owner)
	}
}

// WrapUnary is connect.Interceptor.
func (c credentials) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c.set(req.Header())
		return next(ctx, req)
	}
}

// WrapStreamingClient is connect.Interceptor.
func (c credentials) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		c.set(conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler is connect.Interceptor.
func (c credentials) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

var errQuiet = errors.New("nothing came from the server for too long")
