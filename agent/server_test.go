package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// server keeps the promises of a server that agents rely on, in memory, over
// real HTTP/2 and TLS, and breaks whatever a server may break.
type server struct {
	bulkheadv1connect.UnimplementedAgentServiceHandler

	http *httptest.Server
	// fault says what happens to a call of a method; nil: nothing. It may look at
	// the server, which waits for it.
	fault func(method string) fault
	calls map[string]int // of each method

	mu       sync.Mutex
	changed  chan struct{} // closed at every change
	queue    []*bulkheadv1.Lease
	attempts map[uint64]*record
	files    map[string][]byte
	slots    map[slotKey]uint64 // token that was given to it and is not over
	stop     []uint64
	leave    bool
	deaf     bool // keeps no output
	refuse   error
	asked    int // Exchanges that are waiting
	exchange int // Exchanges that there were
	renewals int
	left     map[slotKey]bool
	over     int           // results that counted
	pushed   int64         // bytes that came with PushOutput
	poll     time.Duration // of Renew
}

type slotKey struct {
	agent   string
	process uint64
	slot    int32
}

// record is what the server has of an attempt.
type record struct {
	lease   *bulkheadv1.Lease
	holder  slotKey
	given   int
	output  []byte
	lost    int64
	result  *bulkheadv1.Result
	results int // that counted
}

type fault int

const (
	none    fault = iota
	refused       // 503, without a trace
	dropped       // carried out, and the answer is lost
	slow          // the answer takes a while
)

func newServer(t testing.TB) *server {
	s := &server{
		changed: make(chan struct{}), calls: map[string]int{}, attempts: map[uint64]*record{}, files: map[string][]byte{},
		slots: map[slotKey]uint64{}, left: map[slotKey]bool{}, poll: time.Second,
	}
	mux := http.NewServeMux()
	mux.Handle(bulkheadv1connect.NewAgentServiceHandler(s, connect.WithCompressMinBytes(1024)))
	s.http = httptest.NewUnstartedServer(s.faulty(mux))
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

func (s *server) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := none
		method := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		s.set(func() {
			s.calls[method]++
			if s.fault != nil {
				kind = s.fault(method)
			}
		})
		switch kind {
		case none:
			next.ServeHTTP(w, r)
		case slow:
			next.ServeHTTP(w, r) // which does not flush before it returns
			<-time.After(300 * time.Millisecond)
		case refused:
			w.WriteHeader(http.StatusServiceUnavailable)
		case dropped:
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
	})
}

// client has a connection of its own, as every agent has.
func (s *server) client() (_ bulkheadv1connect.AgentServiceClient, end func()) {
	roots := x509.NewCertPool()
	roots.AddCert(s.http.Certificate())
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	client := bulkheadv1connect.NewAgentServiceClient(&http.Client{Transport: transport}, s.http.URL)
	return client, transport.CloseIdleConnections
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.change()
}

func (s *server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits for something to be true of the server.
func (s *server) until(t testing.TB, what string, is func() bool) {
	t.Helper()
	give := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		ok, changed := is(), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-give:
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// add queues items; a zero token gets one.
func (s *server) add(leases ...*bulkheadv1.Lease) {
	s.set(func() {
		for _, l := range leases {
			for l.Token == 0 {
				l.Token = rand.Uint64()
			}
			if l.Run == 0 {
				l.Run, l.Item, l.Attempt = 1, int64(len(s.attempts)+1), 1
			}
			if l.Keep == nil {
				l.Keep = durationpb.New(time.Minute)
			}
			s.attempts[l.Token] = &record{lease: l}
			s.queue = append(s.queue, l)
		}
	})
}

func lease(command ...string) *bulkheadv1.Lease {
	l := &bulkheadv1.Lease{Grace: durationpb.New(time.Second)}
	for _, arg := range command {
		l.Command = append(l.Command, []byte(arg))
	}
	return l
}

func (s *server) addFile(text string) string {
	sum := sha256.Sum256([]byte(text))
	name := hex.EncodeToString(sum[:])
	s.set(func() { s.files[name] = []byte(text) })
	return name
}

// finished counts the attempts with a result.
func (s *server) finished() (n int) {
	for _, r := range s.attempts {
		if r.result != nil {
			n++
		}
	}
	return n
}

func (s *server) Exchange(ctx context.Context, req *bulkheadv1.ExchangeRequest) (*bulkheadv1.ExchangeResponse, error) {
	key := slotKey{req.GetAgent().GetName(), req.GetAgent().GetProcess(), req.GetSlot()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchange++
	defer s.change()
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.done(key, req.GetDone())
	s.change()
	if req.GetLeaving() {
		s.left[key] = true
	}
	poll := time.NewTimer(2 * time.Second)
	defer poll.Stop()
	for {
		l := s.next(key, req.GetLeaving())
		if l != nil || req.GetLeaving() || s.leave {
			return &bulkheadv1.ExchangeResponse{Lease: l, Leave: s.leave}, nil
		}
		if !s.wait(ctx, poll.C) {
			return &bulkheadv1.ExchangeResponse{}, ctx.Err()
		}
	}
}

// wait gives up the lock until something changes; false: not any more.
func (s *server) wait(ctx context.Context, poll <-chan time.Time) bool {
	changed := s.changed
	s.asked++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.asked--
	}()
	select {
	case <-changed:
		return true
	case <-poll:
	case <-ctx.Done():
	}
	return false
}

func (s *server) done(key slotKey, d *bulkheadv1.Done) {
	if d == nil {
		return
	}
	r := s.attempts[d.GetToken()]
	if r == nil || r.holder != key || r.result != nil {
		return
	}
	r.take(d.GetOffset(), d.GetRest())
	r.result = d.GetResult()
	r.results++
	s.over++
	delete(s.slots, key)
}

// take adds output, where it belongs.
func (r *record) take(offset int64, chunks []*bulkheadv1.Chunk) {
	if gap := offset - int64(len(r.output)); gap > 0 && len(chunks) > 0 {
		r.output = append(r.output, bytes.Repeat([]byte{0}, int(gap))...) // it was lost
		r.lost += gap
	}
	for _, c := range chunks {
		data := c.GetData()
		if skip := int64(len(r.output)) - offset; skip > 0 {
			data = data[min(skip, int64(len(data))):]
		}
		r.output = append(r.output, data...)
		offset += int64(len(c.GetData()))
	}
}

func (s *server) next(key slotKey, leaving bool) *bulkheadv1.Lease {
	if token, ok := s.slots[key]; ok {
		s.attempts[token].given++
		return s.attempts[token].lease // the answer that brought it was lost
	}
	if leaving || len(s.queue) == 0 {
		return nil
	}
	l := s.queue[0]
	s.queue = s.queue[1:]
	r := s.attempts[l.GetToken()]
	r.holder = key
	r.given++
	s.slots[key] = l.GetToken()
	return l
}

func (s *server) Renew(ctx context.Context, req *bulkheadv1.RenewRequest) (*bulkheadv1.RenewResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals++
	s.change()
	if s.refuse != nil {
		return nil, s.refuse
	}
	poll := time.NewTimer(s.poll)
	defer poll.Stop()
	for {
		if !slices.Equal(req.GetTold(), s.stop) || s.leave || !s.wait(ctx, poll.C) {
			return &bulkheadv1.RenewResponse{Stop: s.stop, Leave: s.leave}, ctx.Err()
		}
	}
}

func (s *server) PushOutput(_ context.Context, req *bulkheadv1.PushOutputRequest) (*bulkheadv1.PushOutputResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.change()
	res := &bulkheadv1.PushOutputResponse{}
	for _, o := range req.GetOutputs() {
		r := s.attempts[o.GetToken()]
		if r == nil || r.result != nil {
			res.Received = append(res.Received, &bulkheadv1.Received{Unknown: true})
			continue
		}
		if !s.deaf {
			before := len(r.output)
			r.take(o.GetOffset(), o.GetChunks())
			s.pushed += int64(len(r.output) - before)
		}
		res.Received = append(res.Received, &bulkheadv1.Received{Have: int64(len(r.output))})
	}
	return res, nil
}

func (s *server) ReadFile(_ context.Context, req *bulkheadv1.ReadFileRequest, stream *connect.ServerStream[bulkheadv1.ReadFileResponse]) error {
	s.mu.Lock()
	text, ok := s.files[req.GetSha256()]
	s.mu.Unlock()
	if !ok {
		return connect.NewError(connect.CodeNotFound, errors.New("no such file"))
	}
	text = text[req.GetOffset():]
	for len(text) > 0 {
		n := min(len(text), 7)
		if err := stream.Send(&bulkheadv1.ReadFileResponse{Data: text[:n]}); err != nil {
			return err
		}
		text = text[n:]
		if len(text) > 0 && strings.HasPrefix(string(text), "BREAK") {
			return connect.NewError(connect.CodeUnavailable, errors.New("a break"))
		}
	}
	return nil
}
