package rpc_test

import (
	"context"
	"sync/atomic"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// verdicts are an Authorizer that says the same to everybody.
type verdicts struct {
	refusal atomic.Pointer[bulkhead.Error]
}

func (v *verdicts) Authorize(context.Context, rpc.Caller, rpc.Verb, string) error {
	if e := v.refusal.Load(); e != nil {
		return e
	}
	return nil
}

func TestASubmissionEndsWithTheRightToIt(t *testing.T) {
	rights := &verdicts{}
	s := newSite(t, nil, func(o *rpc.Options) { o.Authorizer = rights })
	body := func(rest string) string {
		return `{"key": "0123456789abcdef", "spec": {"class": "batch", "command": ["true"], "columns": ["wiki"], "limit": 2},
			"items": [{"index": 1, "values": ["ZW53aWtp"]}]` + rest + `}`
	}
	if code, got := s.post("RunService/CreateRun", userToken, body("")); code != 200 {
		t.Fatal(code, got)
	}
	rights.refusal.Store(&bulkhead.Error{Code: bulkhead.CodeDenied, Message: "not any more"})
	code, got := s.post("RunService/CreateRun", userToken, body(`, "accept": true, "hash": "`+someHash+`"`))
	r, err := s.store.Run(t.Context(), 1)
	if code != 403 || err != nil || r.State != bulkhead.RunAccepting {
		t.Errorf("%d %v: the run is %v, %v", code, got, r, err)
	}
}
