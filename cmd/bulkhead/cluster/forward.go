package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
)

// forwarder connects to the server through the API server, as kubectl port-forward
// does, but without a port on this machine that others here could use.
type forwarder struct {
	client    kubernetes.Interface
	config    *rest.Config
	namespace string
}

// dial implements the dialer of an http.Transport. Each connection looks for the
// server anew: it may be another pod by now.
func (f *forwarder) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	pod, err := f.pod(ctx)
	if err != nil {
		return nil, notDialled(err)
	}
	conn, err := f.connect(ctx, pod)
	if err != nil {
		return nil, notDialled(err)
	}
	return conn, nil
}

// notDialled says that nothing was sent, so that it may be tried again; who is not
// allowed to need not.
func notDialled(err error) error {
	if _, ok := errors.AsType[*bulkhead.Error](err); ok && bulkhead.CodeOf(err) != bulkhead.CodeUnavailable {
		return err
	}
	return &net.OpError{Op: "dial", Net: "port-forward", Err: err}
}

// pod is one of the server's that is ready.
func (f *forwarder) pod(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	list, err := f.client.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: kube.ServerSelector, FieldSelector: "status.phase=Running", Limit: 10,
	})
	if err != nil {
		return "", refused(f.namespace, "list pods", err)
	}
	var ready []string
	for i := range list.Items {
		if isReady(&list.Items[i]) {
			ready = append(ready, list.Items[i].Name)
		}
	}
	if len(ready) == 0 {
		return "", fmt.Errorf("no pod of the server is ready in namespace %s", f.namespace)
	}
	return ready[rand.N(len(ready))], nil
}

func isReady(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// connect opens one connection to the server's port in a pod.
func (f *forwarder) connect(ctx context.Context, pod string) (net.Conn, error) {
	dialer, err := f.dialer(pod)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, refused(f.namespace, "create pods/portforward", r.err)
		}
		conn, err := newConn(r.conn)
		if err != nil {
			_ = r.conn.Close()
			return nil, err
		}
		return conn, nil
	case <-ctx.Done():
		go func() { // the dialer knows no contexts
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// dialer upgrades a request: to a WebSocket, or with older API servers and some
// proxies to SPDY.
func (f *forwarder) dialer(pod string) (httpstream.Dialer, error) {
	url := f.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(f.namespace).Name(pod).SubResource("portforward").URL()
	carrier, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: carrier}, http.MethodPost, url)
	newer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, f.config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(newer, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// conn is a forwarded connection. It knows no deadlines: who waits for it closes it.
type conn struct {
	httpstream.Stream
	over   httpstream.Connection
	failed chan error // what the other side says went wrong, once
	close  sync.Once
}

func newConn(over httpstream.Connection) (*conn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(kube.ServerPort))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	troubles, err := over.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open the stream of errors: %w", err)
	}
	_ = troubles.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := over.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open the stream of data: %w", err)
	}
	c := &conn{Stream: data, over: over, failed: make(chan error, 1)}
	go func() {
		const most = 4 << 10 // bytes of a message
		text, err := io.ReadAll(io.LimitReader(troubles, most))
		if len(text) > 0 {
			err = errors.New(string(text))
		}
		c.failed <- cmp.Or(err, io.EOF)
		if len(text) > 0 {
			_ = data.Reset() // or whoever reads waits for ever
		}
	}()
	return c, nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err != nil && n == 0 {
		select {
		case why := <-c.failed:
			c.failed <- why
			if !errors.Is(why, io.EOF) {
				err = why
			}
		default:
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.close.Do(func() {
		_ = c.Reset()
		_ = c.over.Close()
	})
	return nil
}

// address is where a forwarded connection leads, or comes from: nowhere that has one.
type address struct{}

func (address) Network() string { return "port-forward" }
func (address) String() string  { return "port-forward" }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address{} }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address{} }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
