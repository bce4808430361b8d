package rpc_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// bearer shows a token with every call.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(req)
}

// agents is a client for whoever has the token.
func (s *site) agents(token string) bulkheadv1connect.AgentServiceClient {
	client := &http.Client{Transport: bearer{token, s.web.Client().Transport}}
	return bulkheadv1connect.NewAgentServiceClient(client, s.web.URL)
}

func agentOf(class string) *bulkheadv1.Agent {
	return &bulkheadv1.Agent{Name: "pod", Process: 1, Class: class, Slots: 2, Api: rpc.APIVersion, Version: "test"}
}

// accepted submits a batch of class a.
func (s *site) accepted(spec bulkhead.Spec, values ...string) *bulkhead.Run {
	s.t.Helper()
	if spec.Class == "" {
		spec.Class = "a"
	}
	spec.Columns, spec.Limit = []string{"wiki"}, 10
	r, at := &bulkhead.Run{Spec: spec}, 0
	next := func() (bulkhead.Item, error) {
		if at == len(values) {
			return bulkhead.Item{}, io.EOF
		}
		at++
		return bulkhead.Item{Index: int64(at), Values: []string{values[at-1]}}, nil
	}
	if err := s.client(nil, nil).Submit(s.t.Context(), r, next, func() string { return strings.Repeat("0", 64) }); err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestAnAgentIsRefused(t *testing.T) {
	s := newSite(t, nil, nil)
	token := rpc.Tokens{Secret: userToken}.OfClass("a")
	with := func(change func(*bulkheadv1.Agent)) *bulkheadv1.Agent {
		a := agentOf("a")
		change(a)
		return a
	}
	for name, c := range map[string]struct {
		token string
		agent *bulkheadv1.Agent
		slot  int32
		code  connect.Code
		says  string
	}{
		"that is older than the server can be":     {token, with(func(a *bulkheadv1.Agent) { a.Api = 0 }), 0, connect.CodeFailedPrecondition, "the agent (test) speaks version 0 of the API, the server versions"},
		"that is newer than the server":            {token, with(func(a *bulkheadv1.Agent) { a.Api = rpc.APIVersion + 1 }), 0, connect.CodeFailedPrecondition, "speaks version"},
		"with the token of another class":          {rpc.Tokens{Secret: userToken}.OfClass("b"), agentOf("a"), 0, connect.CodePermissionDenied, `not belong to an agent of class "a"`},
		"with the token of a user":                 {userToken, agentOf("a"), 0, connect.CodeUnauthenticated, "not that of an agent"},
		"with no token that anybody has":           {"x", agentOf("a"), 0, connect.CodeUnauthenticated, "token"},
		"with a name that could be something else": {token, with(func(a *bulkheadv1.Agent) { a.Name = "a b\x1b[2J" }), 0, connect.CodeInvalidArgument, "not a name"},
		"without a process":                        {token, with(func(a *bulkheadv1.Agent) { a.Process = 0 }), 0, connect.CodeInvalidArgument, "process 0"},
		"with a slot that it has not got":          {token, agentOf("a"), 2, connect.CodeInvalidArgument, "slot 2"},
		"that says nothing of itself":              {token, nil, 0, connect.CodeInvalidArgument, "which agent"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.agents(c.token).Exchange(t.Context(), &bulkheadv1.ExchangeRequest{Agent: c.agent, Slot: c.slot})
			if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestALeaseHasAllThatAnAgentMustKnow(t *testing.T) {
	s := newSite(t, nil, nil)
	stdin := "for {wiki}"
	s.accepted(bulkhead.Spec{Command: []string{"x", "--wiki={wiki}"}, Env: []string{"W={wiki}"}, Stdin: &stdin, Dir: "/srv",
		Timeout: time.Hour, Grace: 3 * time.Second, MaxOutput: 100, Retries: 1}, "de\xffwiki")
	res, err := s.agents(rpc.Tokens{Secret: userToken}.OfClass("a")).Exchange(t.Context(), &bulkheadv1.ExchangeRequest{Agent: agentOf("a")})
	if err != nil {
		t.Fatal(err)
	}
	got := res.GetLease()
	want := &bulkheadv1.Lease{Run: 1, Item: 1, Attempt: 1, Token: got.GetToken(),
		Command: [][]byte{[]byte("run-in"), []byte("{"), []byte("x"), []byte("--wiki=de\xffwiki")},
		Env:     [][]byte{[]byte("CLASS=a"), []byte("W=de\xffwiki")}, Stdin: []byte("for de\xffwiki"), Dir: "/srv",
		Timeout: durationpb.New(time.Hour), Grace: durationpb.New(3 * time.Second), MaxOutput: 100,
		Keep: durationpb.New(time.Minute + 6*time.Second), Echo: true}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAResultIsDurableWhenItsExchangeIsAnswered(t *testing.T) {
	s := newSite(t, nil, nil)
	r := s.accepted(bulkhead.Spec{Command: []string{"x"}}, "one")
	agent := s.agents(rpc.Tokens{Secret: userToken}.OfClass("a"))
	res, err := agent.Exchange(t.Context(), &bulkheadv1.ExchangeRequest{Agent: agentOf("a")})
	if err != nil {
		t.Fatal(err)
	}
	l := res.GetLease()
	done := &bulkheadv1.Done{Run: l.GetRun(), Item: l.GetItem(), Token: l.GetToken(),
		Result: rpc.ResultMessage(bulkhead.Result{Started: time.Now(), Duration: time.Second}),
		Rest:   []*bulkheadv1.Chunk{rpc.ChunkMessage(bulkhead.Chunk{Stream: bulkhead.Stdout, At: time.Now(), Data: []byte("hello")})}}
	for range 2 { // the answer of the first was lost
		if _, err := agent.Exchange(t.Context(), &bulkheadv1.ExchangeRequest{Agent: agentOf("a"), Done: done}); err != nil {
			t.Fatal(err)
		}
		now, err := s.store.Run(t.Context(), r.ID)
		if err != nil || now.Counts != (bulkhead.Counts{Succeeded: 1}) {
			t.Errorf("%+v, %v", now.Counts, err)
		}
	}
	late := &bulkheadv1.PushOutputRequest{Agent: agentOf("a"), Outputs: []*bulkheadv1.Output{{Run: 1, Item: 1, Token: l.GetToken(), Chunks: done.GetRest()}}}
	got, err := agent.PushOutput(t.Context(), late)
	if err != nil || !got.GetReceived()[0].GetUnknown() {
		t.Errorf("late output: %v, %v", got, err)
	}
}

func TestARenewalTellsWhatIsToEnd(t *testing.T) {
	s := newSite(t, nil, nil)
	r := s.accepted(bulkhead.Spec{Command: []string{"x"}}, "one")
	agent := s.agents(rpc.Tokens{Secret: userToken}.OfClass("a"))
	res, err := agent.Exchange(t.Context(), &bulkheadv1.ExchangeRequest{Agent: agentOf("a")})
	if err != nil {
		t.Fatal(err)
	}
	l := res.GetLease()
	req := &bulkheadv1.RenewRequest{Agent: agentOf("a"), Held: []*bulkheadv1.Held{
		{Run: l.GetRun(), Item: l.GetItem(), Token: l.GetToken()}, {Run: 99, Item: 1, Token: 7},
	}}
	renew := func(told ...uint64) []uint64 {
		t.Helper()
		again := proto.CloneOf(req)
		again.Told = told
		res, err := agent.Renew(t.Context(), again)
		if err != nil {
			t.Fatal(err)
		}
		return res.GetStop()
	}
	if got := renew(); !cmp.Equal(got, []uint64{7}) {
		t.Errorf("of a lease that there never was: stop %v", got)
	}
	if _, err := s.client(nil, nil).Ask(t.Context(), bulkhead.Request{Run: r.ID, Kind: bulkhead.RequestCancel}); err != nil {
		t.Fatal(err)
	}
	if got := renew(7); !cmp.Equal(got, []uint64{l.GetToken(), 7}) {
		t.Errorf("of a run that was cancelled: stop %v", got)
	}
}
