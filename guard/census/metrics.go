package census

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bulkhead.dev/bulkhead/guard/family"
)

// measured are the API server's own figures of a kind. -1: it does not say.
type measured struct {
	objects int64
	bytes   int64
	how     string
}

const (
	byServer = "only the API server's own count, refreshed once a minute"
	byAsking = "counted once a minute, never watched"
	// metricsTimeout is how long reading the API server's metrics may take.
	metricsTimeout = time.Minute
	// oldMetrics is how long counts are told after they were read: later they would look
	// like something that does not grow.
	oldMetrics = 15 * time.Minute
	// maxLine is how long a line of metrics may be that is read. Those that are read are
	// much shorter.
	maxLine = 4 << 10
	// maxMeasured bounds how many kinds are taken from metrics.
	maxMeasured = 5_000
)

// readMetrics reads the API server's own counts.
func (c *Census) readMetrics(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	found, err := c.scrape(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.trouble = "not seen for now: the API server's metrics cannot be read: " + family.Clean(err.Error(), maxReason)
		if apierrors.IsForbidden(err) {
			c.trouble = "not permitted: grant the verb get on the URL /metrics"
		}
		if c.now().Sub(c.readAt) > oldMetrics { // else what was read before is better than nothing
			c.server = map[string]measured{}
		}
		return
	}
	c.readAt = c.now()
	asked, counted := c.server[events]
	c.trouble, c.server = "", found
	if counted && asked.how == byAsking {
		asked.bytes = found[events].bytes
		c.server[events] = asked
	}
}

func (c *Census) scrape(ctx context.Context) (map[string]measured, error) {
	body, err := c.discovery.RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was read
	return parseMetrics(body)
}

// parseMetrics reads the counts of objects from metrics in Prometheus' text format, a
// line at a time: an API server's metrics are megabytes.
func parseMetrics(from io.Reader) (map[string]measured, error) {
	found := map[string]measured{}
	r := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		whole := err == nil
		for errors.Is(err, bufio.ErrBufferFull) { // not one of ours
			_, err = r.ReadSlice('\n')
		}
		if whole {
			take(found, string(line))
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read metrics: %w", err)
		}
	}
}

// Metrics with the number and the bytes of objects by kind. The one of 1.34 comes
// after the one that it replaces, so that it counts.
const (
	metricPrefix = "apiserver_"
	storageCount = "apiserver_storage_objects"
	objectCount  = "apiserver_resource_objects"
	sizeEstimate = "apiserver_resource_size_estimate_bytes"
)

// take takes from a line what it says of a kind.
func take(found map[string]measured, line string) {
	if !strings.HasPrefix(line, metricPrefix) {
		return
	}
	metric, rest, ok := strings.Cut(line, "{")
	labels, value, ok2 := strings.Cut(rest, "}")
	if !ok || !ok2 || metric != storageCount && metric != objectCount && metric != sizeEstimate {
		return
	}
	name := label(labels, "resource")
	if group := label(labels, "group"); group != "" {
		name += "." + group
	}
	n, err := strconv.ParseFloat(firstField(value), 64)
	m, known := found[name]
	if err != nil || name == "" || n >= 1<<62 || !known && len(found) >= maxMeasured {
		return
	}
	if !known {
		m = measured{objects: -1, bytes: -1, how: byServer}
	}
	switch count := int64(max(n, -1)); {
	case metric == sizeEstimate:
		m.bytes = count
	case count >= 0 || !known:
		m.objects = count
	}
	found[name] = m
}

func firstField(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexByte(s, ' '); i >= 0 {
		return s[:i]
	}
	return s
}

// label is the value of a label of a metric; names of resources need no escapes.
func label(labels, name string) string {
	for pair := range strings.SplitSeq(labels, ",") {
		if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && k == name {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// readEvents asks how many events there are: one of them, and how many remain.
func (c *Census) readEvents(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	total := int64(0)
	namespaces := c.options.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		list, err := c.clients.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: events}).Namespace(namespace).
			List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return // the API server's metrics may say it
		}
		total += int64(len(list.Items))
		if list.RemainingItemCount != nil {
			total += *list.RemainingItemCount
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, known := c.server[events]
	if !known {
		m.bytes = -1
	}
	m.objects, m.how = total, byAsking
	c.server[events] = m
}
