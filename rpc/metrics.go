package rpc

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// Metrics counts calls. It is a prometheus.Collector; its labels are the
// procedures and codes that there are, and nothing that a caller could invent.
type Metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	streams *prometheus.GaugeVec
}

// NewMetrics returns metrics, which are not registered anywhere.
func NewMetrics() *Metrics {
	return &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulkhead_rpc_calls_total",
			Help: "Calls that have ended, streams included."}, []string{"procedure", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bulkhead_rpc_call_seconds",
			Help: "How long calls of users took that are no streams.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"procedure"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "bulkhead_rpc_streams",
			Help: "Streams that are open."}, []string{"procedure"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.calls.Describe(ch)
	m.seconds.Describe(ch)
	m.streams.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.calls.Collect(ch)
	m.seconds.Collect(ch)
	m.streams.Collect(ch)
}

// procedure is Service/Method without what they all begin with.
func procedure(spec connect.Spec) string {
	return strings.TrimPrefix(spec.Procedure, "/bulkhead.v1.")
}

// ended counts a call.
func (m *Metrics) ended(spec connect.Spec, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	m.calls.WithLabelValues(procedure(spec), code).Inc()
}

// refused counts a call that was not let in.
func (m *Metrics) refused(spec connect.Spec, err error) { m.ended(spec, err) }

// watched counts the calls of a service.
type watched struct{ metrics *Metrics }

// WrapUnary is connect.Interceptor.
func (w watched) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		begin := time.Now()
		res, err := next(ctx, req)
		w.metrics.ended(req.Spec(), err)
		// Most calls of agents wait for work: how long says nothing.
		if !strings.Contains(req.Spec().Procedure, bulkheadv1connect.AgentServiceName) {
			w.metrics.seconds.WithLabelValues(procedure(req.Spec())).Observe(time.Since(begin).Seconds())
		}
		return res, err
	}
}

// WrapStreamingHandler is connect.Interceptor.
func (w watched) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		open := w.metrics.streams.WithLabelValues(procedure(conn.Spec()))
		open.Inc()
		defer open.Dec()
		err := next(ctx, conn)
		w.metrics.ended(conn.Spec(), err)
		return err
	}
}

// WrapStreamingClient is connect.Interceptor.
func (w watched) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
