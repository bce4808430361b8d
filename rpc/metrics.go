package rpc

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// Metrics counts calls. Procedures are Service/Method and codes those of Connect:
// those that there are, and nothing that a caller could invent.
type Metrics interface {
	// Ended counts a call that has ended, or was not let in.
	Ended(procedure, code string)
	// Took says how long a call of a user took that is no stream.
	Took(procedure string, d time.Duration)
	// Streams adds to the streams that are open, or takes from them.
	Streams(procedure string, n int)
}

// uncounted is the metrics of a server whose calls nobody counts.
type uncounted struct{}

func (uncounted) Ended(string, string)       {}
func (uncounted) Took(string, time.Duration) {}
func (uncounted) Streams(string, int)        {}

// procedure is Service/Method without what they all begin with.
func procedure(spec connect.Spec) string {
	return strings.TrimPrefix(spec.Procedure, "/bulkhead.v1.")
}

// count counts a call.
func count(m Metrics, spec connect.Spec, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	m.Ended(procedure(spec), code)
}

// watched counts the calls of a service.
type watched struct{ metrics Metrics }

// WrapUnary is connect.Interceptor.
func (w watched) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		begin := time.Now()
		res, err := next(ctx, req)
		count(w.metrics, req.Spec(), err)
		// Most calls of agents wait for work: how long says nothing.
		if !strings.Contains(req.Spec().Procedure, bulkheadv1connect.AgentServiceName) {
			w.metrics.Took(procedure(req.Spec()), time.Since(begin))
		}
		return res, err
	}
}

// WrapStreamingHandler is connect.Interceptor.
func (w watched) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		w.metrics.Streams(procedure(conn.Spec()), 1)
		defer w.metrics.Streams(procedure(conn.Spec()), -1)
		err := next(ctx, conn)
		count(w.metrics, conn.Spec(), err)
		return err
	}
}

// WrapStreamingClient is connect.Interceptor.
func (w watched) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
