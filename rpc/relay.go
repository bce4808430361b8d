package rpc

import (
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Relay connects the attempts of interactive runs with who is attached to them. It
// keeps nothing that matters: what was typed is with who types until the script has
// got it, and what the script wrote is with the agent, or where output is kept. So a
// server that restarts loses none of it: both sides come back, the agent says how
// much the script was given, and who types goes on from there.
//
//	who types ──Attach──► session ──Attend──► agent ──► script
//	          ◄──────────  the end ◄──────────
//	who looks on ◄────────  of it
//
// Input goes straight through: who types has at most bulkhead.MaxUntaken bytes under
// way, which the agent has room for. Output is kept for a moment, see
// bulkhead.Recent; who is behind that reads on where it is kept.
type Relay struct {
	opts RelayOptions

	mu       sync.Mutex
	sessions map[bulkhead.RunID]*session
}

// RelayOptions are those of a Relay. The zero value works.
type RelayOptions struct {
	// Stopping is closed when the server is about to stop. Default: never.
	Stopping <-chan struct{}
	// KeepAlive is how often an agent hears something. Default: the constant.
	KeepAlive time.Duration
	// Log is told of bugs. Default: slog.Default.
	Log *slog.Logger
}

// NewRelay returns a relay, for one Server and one Agents.
func NewRelay(opts RelayOptions) *Relay {
	opts.KeepAlive = or(opts.KeepAlive, KeepAlive)
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Relay{opts: opts, sessions: map[bulkhead.RunID]*session{}}
}

// session is a run that somebody attends or is attached to. It is there as long as
// they are.
type session struct {
	relay *Relay
	run   bulkhead.RunID
	users int // under Relay.mu

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something else is to be sent
	agent    *attending    // nil: none is here
	token    uint64        // of the lease of the last agent; 0: there was none
	attempt  int
	recent   bulkhead.Recent
	most     int64             // bytes of output that are kept
	typed    *bulkheadv1.Typed // what the agent said last; nil: nothing
	again    int               // how often it said that input is to be sent again
	attached map[*attached]struct{}
	writer   *attached // nil: nobody types
	window   bulkhead.Window
}

// attending is an agent that is here.
type attending struct {
	out  chan *bulkheadv1.AttendResponse // to it
	gone chan struct{}                   // closed when it has left, or another has come
}

// enter returns the session of a run, for somebody who leaves it again.
func (r *Relay) enter(run bulkhead.RunID) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[run]
	if s == nil {
		s = &session{relay: r, run: run, changed: make(chan struct{}), attached: map[*attached]struct{}{}}
		r.sessions[run] = s
	}
	s.users++
	return s
}

func (s *session) leave() {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(s.relay.sessions, s.run)
	}
}

// lonely reports whether a script waits for somebody to type, or may.
func (r *Relay) lonely(run bulkhead.RunID) bool {
	r.mu.Lock()
	s := r.sessions[run]
	r.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent != nil && s.writer == nil && !s.typed.GetClosed()
}

// tell wakes who sends to the attached. The caller holds mu.
func (s *session) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// attend makes an agent that of the session, which has said first what there is. It
// takes the place of a former one.
func (s *session) attend(token uint64, first *bulkheadv1.AttendRequest) (*attending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent != nil {
		close(s.agent.gone)
	}
	if s.token != token {
		s.token, s.attempt, s.recent, s.typed = token, int(first.GetAttempt()), bulkhead.Recent{}, nil
	}
	s.agent = &attending{out: make(chan *bulkheadv1.AttendResponse), gone: make(chan struct{})}
	return s.agent, s.take(first)
}

func (s *session) unattend(a *attending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent == a {
		close(a.gone)
		s.agent = nil
		s.tell()
	}
}

// greeting is what an agent that has come is to know.
func (s *session) greeting() []*bulkheadv1.AttendResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*bulkheadv1.AttendResponse
	if s.window != (bulkhead.Window{}) {
		out = append(out, &bulkheadv1.AttendResponse{Window: WindowMessage(s.window)})
	}
	if s.writer != nil {
		out = append(out, s.writer.introduction())
	}
	return out
}

// heard takes what an agent says, unless another has come.
func (s *session) heard(a *attending, m *bulkheadv1.AttendRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent != a {
		return nil
	}
	return s.take(m)
}

func (s *session) take(m *bulkheadv1.AttendRequest) error {
	defer s.tell()
	s.most = m.GetMost()
	at := m.GetOffset()
	s.recent.Skip(at)
	for _, cm := range m.GetChunks() {
		c, err := ChunkOf(cm)
		if err != nil {
			return err
		}
		s.recent.Add(at, c)
		at += int64(len(c.Data))
	}
	if t := m.GetTyped(); t != nil {
		s.typed, _ = proto.Clone(t).(*bulkheadv1.Typed)
		if t.GetAgain() {
			s.again++
		}
	}
	return nil
}

// send gives an agent something. What comes while none is here is not kept: who
// types sends it again.
func (s *session) send(m *bulkheadv1.AttendResponse, stop <-chan struct{}) {
	s.mu.Lock()
	a := s.agent
	s.mu.Unlock()
	if a == nil {
		return
	}
	select {
	case a.out <- m:
	case <-a.gone:
	case <-stop:
	}
}
