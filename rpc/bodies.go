package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
)

const (
	// maxUnread bounds what has come of requests that are not whole yet, in bytes: of
	// all together, and of one caller. Who may call at all can begin as many as he
	// likes, and take his time over each.
	maxUnread, maxUnreadEach = 512 << 20, 64 << 20
	// unreadLeast is what a request counts at least, in bytes.
	unreadLeast = 16 << 10
)

// bodies counts what has come of requests.
type bodies struct {
	most, each int64

	mu  sync.Mutex
	all int64
	of  map[string]int64 // by caller
}

func (b *bodies) take(caller string, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all+n > b.most || caller != "" && b.of[caller]+n > b.each {
		return tooMuch("%d bytes of requests under way, %d of them yours", b.all, b.of[caller])
	}
	b.all += n
	b.of[caller] += n
	return nil
}

func (b *bodies) give(caller string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.of[caller] -= n; b.of[caller] == 0 {
		delete(b.of, caller)
	}
}

// body is the body of a request: counted from when the gate has let its caller in
// until it is whole, or given up.
type body struct {
	io.ReadCloser
	in      *bodies
	counted bool
	caller  string // "": bounded with all only
	held    int64
}

type bodyKey struct{}

// counting gives a request a body that counts. What it returns ends that.
func (b *bodies) counting(r *http.Request) (_ *http.Request, end func()) {
	own := &body{ReadCloser: r.Body, in: b}
	r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, own))
	r.Body = own
	return r, own.whole
}

// countBody has the body of a call counted. Messages of a stream are small, and come
// one by one.
func countBody(ctx context.Context, spec connect.Spec, caller string) {
	b, ok := ctx.Value(bodyKey{}).(*body)
	if ok && spec.StreamType&connect.StreamTypeClient == 0 {
		b.counted, b.caller = true, caller
	}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !b.counted {
		return n, err
	}
	if errors.Is(err, io.EOF) {
		b.whole()
		return n, err
	}
	more := int64(n)
	if b.held == 0 {
		more += unreadLeast
	}
	if full := b.in.take(b.caller, more); full != nil {
		return 0, full
	}
	b.held += more
	return n, err
}

func (b *body) whole() {
	if b.held > 0 {
		b.in.give(b.caller, b.held)
		b.held = 0
	}
}
