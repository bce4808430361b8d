package rpc_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// only is an Authorizer that allows what is of one class.
type only string

func (o only) Authorize(_ context.Context, _ rpc.Caller, _ rpc.Verb, class string) error {
	if class == string(o) {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "not his"}
}

// counting is a Store that counts how often it is asked for runs.
type counting struct {
	rpc.Store
	asked *atomic.Int64
}

func (c counting) Recent(ctx context.Context, q bulkhead.RunQuery) ([]*bulkhead.Run, error) {
	c.asked.Add(1)
	return c.Store.Recent(ctx, q)
}

func TestPagesHaveNothingOfWhatIsNotHis(t *testing.T) {
	var asked atomic.Int64
	s := newSite(t, nil, func(o *rpc.Options) { o.Authorizer = only("a") })
	o := s.opts
	o.Store, o.Engine, o.Files = counting{s.store, &asked}, engineOf{s.engine, s.store}, s.files
	o.Outputs = outputsOf{s}
	s.web.Config.Handler = rpc.NewServer(o)
	for n := range 300 {
		class := "batch"
		if n%60 < 4 {
			class = "a"
		}
		r := &bulkhead.Run{Spec: bulkhead.Spec{Class: class, Owner: "ann", Name: "n", Command: []string{"x"}, Limit: 1}, Created: s.now()}
		if err := s.store.Submit(t.Context(), r, nil, 1, someHash); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{1, 3, 7, 1000} {
		asked.Store(0)
		var got []string
		for before, more := "0", true; more; {
			code, page := s.post("RunService/ListRuns", userToken, fmt.Sprintf(`{"pageSize": %d, "before": %s}`, size, before))
			runs, _ := page["runs"].([]any)
			if more, _ = page["more"].(bool); code != http.StatusOK && len(got) < 20 || len(runs) > size {
				t.Fatalf("pages of %d: %d %v", size, code, page)
			}
			for _, r := range runs {
				before, _ = r.(map[string]any)["id"].(string)
				got = append(got, before)
			}
			more = more && len(runs) > 0
		}
		want := "244 243 242 241 184 183 182 181 124 123 122 121 64 63 62 61 4 3 2 1"
		if now := strings.Join(got, " "); now != want || asked.Load() > 110 {
			t.Errorf("pages of %d, asked %d times: %s", size, asked.Load(), now)
		}
	}
}
