package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// brakesOf is the brakes as the server needs them.
type brakesOf struct {
	site    *site
	rulings []bulkhead.Ruling // of the guard
}

func (b brakesOf) Brakes() bulkhead.Brakes { return b.statuses(b.site.engine.Brakes()...) }

func (b brakesOf) statuses(all ...bulkhead.Brake) bulkhead.Brakes {
	var runs []*bulkhead.Run
	for _, st := range b.site.engine.Status(0).Runs {
		runs = append(runs, &st.Run)
	}
	return bulkhead.StatusOfBrakes(all, b.rulings, runs)
}

func (b brakesOf) status(one bulkhead.Brake) bulkhead.BrakeStatus {
	st := b.statuses(one)
	return append(st.Brakes, st.Exemptions...)[0]
}

func (b brakesOf) SetBrake(ctx context.Context, want bulkhead.Brake) (bulkhead.BrakeStatus, bool, error) {
	is, err := b.site.store.AddBrake(ctx, want)
	if err == nil {
		err = b.site.engine.Look(ctx)
	}
	return b.status(is), is.Since.Before(want.Since.Truncate(time.Microsecond)), err
}

func (b brakesOf) LiftBrake(ctx context.Context, id int64, _ string) (bulkhead.BrakeStatus, error) {
	was, err := b.site.store.LiftBrake(ctx, id)
	if err == nil {
		err = b.site.engine.Look(ctx)
	}
	return b.status(was), err
}

// brakeSite is a site with brakes, and without an agent. Its classes are in two
// namespaces and in none.
func brakeSite(t *testing.T, may rpc.Authorizer) *site {
	t.Helper()
	b := &brakesOf{}
	b.site = newSite(t, nil, func(o *rpc.Options) {
		o.Brakes, o.Authorizer = b, may
		o.Classes = classes{{Name: "a", Limit: 20}, {Name: "batch"}, {Name: "ns1/web"}, {Name: "ns2/secret"}}
	})
	return b.site
}

func TestABrakeHoldsAndIsListedAndLifted(t *testing.T) {
	s := brakeSite(t, nil)
	s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1}, "x", "y", "z")
	client := s.client(nil, nil)
	want := bulkhead.BrakeStatus{Brake: bulkhead.Brake{ID: 1, Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: "a"}, Reason: "T1",
		Owner: "ann@host"}, Runs: 1, Items: 3}
	noTimes := cmpopts.IgnoreFields(bulkhead.Brake{}, "Since", "Expires")
	st, changed, err := client.SetBrake(t.Context(), bulkhead.Brake{Scope: want.Scope, Reason: "T1"}, time.Hour)
	if diff := cmp.Diff(want, st, noTimes); diff != "" || changed || err != nil {
		t.Fatalf("%t, %v %s", changed, err, diff)
	}
	if d := st.Expires.Sub(st.Since); d != time.Hour {
		t.Errorf("it is for %s", d)
	}
	// Nothing is leased any more.
	got, err := s.engine.Next(t.Context(), bulkhead.Ask{Agent: bulkhead.Agent{Name: "pod", Process: 1, Kind: bulkhead.Kind{Class: "a"}}, Until: time.Now()})
	if got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	want.Reason, want.Factor = "T2", 0.5
	st, changed, err = client.SetBrake(t.Context(), bulkhead.Brake{Scope: want.Scope, Reason: "T2", Factor: 0.5}, 0)
	if diff := cmp.Diff(want, st, noTimes); diff != "" || !changed || err != nil || !st.Expires.IsZero() {
		t.Fatalf("%t, %v %s", changed, err, diff)
	}
	all, err := client.Brakes(t.Context())
	if diff := cmp.Diff([]bulkhead.BrakeStatus{want}, all.Brakes, noTimes); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	st, err = client.LiftBrake(t.Context(), 1)
	if diff := cmp.Diff(want, st, noTimes); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if all, err := client.Brakes(t.Context()); len(all.Brakes) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = client.LiftBrake(t.Context(), 1)
	if bulkhead.CodeOf(err) != bulkhead.CodeNotFound || bulkhead.HintOf(err) == "" {
		t.Error(err)
	}
}

func TestABrakeThatMakesNoSenseIsRefused(t *testing.T) {
	s := brakeSite(t, nil)
	client := s.client(nil, nil)
	s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1, Class: "batch"}, "x")
	if _, err := client.Ask(t.Context(), bulkhead.Request{Run: 1, Kind: bulkhead.RequestCancel}); err != nil {
		t.Fatal(err)
	}
	set := func(kind bulkhead.ScopeKind, name, reason string, long time.Duration) func() error {
		return func() error {
			_, _, err := client.SetBrake(t.Context(), bulkhead.Brake{Scope: bulkhead.Scope{Kind: kind, Name: name}, Reason: reason}, long)
			return err
		}
	}
	tests := map[string]struct {
		set        func() error
		code, want string
	}{
		"a class that there is not":     {set(bulkhead.ScopeClass, "bach", "T1", 0), bulkhead.CodeNotFound, `there is no class "bach" did you mean batch?`},
		"a namespace without classes":   {set(bulkhead.ScopeNamespace, "ns3", "T1", 0), bulkhead.CodeNotFound, `there is no namespace "ns3"`},
		"a run that there is not":       {set(bulkhead.ScopeRun, "7", "T1", 0), bulkhead.CodeNotFound, "there is no run 7"},
		"a run that has ended":          {set(bulkhead.ScopeRun, "1", "T1", 0), bulkhead.CodeConflict, "run 1 has ended (cancelled)"},
		"no reason":                     {set(bulkhead.ScopeAll, "", "", 0), bulkhead.CodeUsage, "the reason is empty"},
		"a reason that is far too long": {set(bulkhead.ScopeAll, "", strings.Repeat("x", 10_000), 0), bulkhead.CodeUsage, "10000 characters"},
		"a reason that acts":            {set(bulkhead.ScopeAll, "", "a\x1b[2Jb", 0), bulkhead.CodeUsage, "that a line cannot show"},
		"a time that is over":           {set(bulkhead.ScopeAll, "", "T1", -time.Hour), bulkhead.CodeUsage, "a time of -1h0m0s"},
		"a time of centuries":           {set(bulkhead.ScopeAll, "", "T1", 200*365*24*time.Hour), bulkhead.CodeUsage, "more than a year"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.set()
			if got := fmt.Sprint(err, " ", bulkhead.HintOf(err)); bulkhead.CodeOf(err) != tt.code || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %s", bulkhead.CodeOf(err), got)
			}
		})
	}
	if code, got := s.post("BrakeService/SetBrake", userToken, `{"reason": "by mistake"}`); code != 400 {
		t.Errorf("a brake on nothing: %d %v", code, got)
	}
	if all, err := client.Brakes(t.Context()); len(all.Brakes) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// brakeRights are what callers may do with brakes, as VERB NAMESPACE; runs they may see.
type brakeRights map[string]bool

func (brakeRights) Authorize(context.Context, rpc.Caller, rpc.Verb, string) error { return nil }

func (r brakeRights) AuthorizeIn(_ context.Context, _ rpc.Caller, verb rpc.Verb, on rpc.Resource, namespace string) error {
	if what := fmt.Sprintf("%s %s", verb, namespace); r[what] && on == rpc.ResourceBrakes {
		return nil
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("may not %s %s in %q", verb, on, namespace), Hint: "ask"}
}

func TestWhoMayDoWhatWithBrakes(t *testing.T) {
	set := func(kind bulkhead.ScopeKind, name string) func(context.Context, *rpc.Client) error {
		return func(ctx context.Context, c *rpc.Client) error {
			_, _, err := c.SetBrake(ctx, bulkhead.Brake{Scope: bulkhead.Scope{Kind: kind, Name: name}, Reason: "T1"}, 0)
			return err
		}
	}
	lift := func(id int64) func(context.Context, *rpc.Client) error {
		return func(ctx context.Context, c *rpc.Client) error {
			_, err := c.LiftBrake(ctx, id)
			return err
		}
	}
	list := func(want ...int64) func(context.Context, *rpc.Client) error {
		return func(ctx context.Context, c *rpc.Client) error {
			all, err := c.Brakes(ctx)
			var got []int64
			for _, b := range all.Brakes {
				got = append(got, b.ID)
			}
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		}
	}
	// Brake 1 is on ns1/web, 2 on everything, 3 on run 1, which is of ns1/web.
	tests := map[string]struct {
		may brakeRights
		do  func(context.Context, *rpc.Client) error
		no  string // the refusal; "": there is none
	}{
		"a class needs the right in its namespace":       {brakeRights{"create ns1": true}, set(bulkhead.ScopeClass, "ns1/web"), ""},
		"another namespace is not enough":                {brakeRights{"create ns2": true, "create ": true}, set(bulkhead.ScopeClass, "ns1/web"), `may not create brakes in "ns1"`},
		"a namespace needs it there":                     {brakeRights{"create ns1": true}, set(bulkhead.ScopeNamespace, "ns1"), ""},
		"a run needs it in that of its class":            {brakeRights{"create ns1": true}, set(bulkhead.ScopeRun, "1"), ""},
		"a run of another one is not his":                {brakeRights{"create ns2": true}, set(bulkhead.ScopeRun, "1"), `may not create brakes in "ns1"`},
		"everything needs it in the server's own":        {brakeRights{"create ": true}, set(bulkhead.ScopeAll, ""), ""},
		"everything is not for those of a class":         {brakeRights{"create ns1": true}, set(bulkhead.ScopeAll, ""), `may not create brakes in ""`},
		"a pool needs it in the server's own":            {brakeRights{"create ns1": true}, set(bulkhead.ScopePool, "db"), `may not create brakes in ""`},
		"who may not do that learns of no class":         {brakeRights{"create ns1": true}, set(bulkhead.ScopeClass, "ns2/secre"), `may not create brakes in "ns2"`},
		"lifting is another right":                       {brakeRights{"create ns1": true, "list ns1": true}, lift(1), `may not delete brakes in "ns1"`},
		"who has it lifts":                               {brakeRights{"delete ns1": true}, lift(1), ""},
		"that of a run goes by its class":                {brakeRights{"delete ns1": true}, lift(3), ""},
		"who may see nothing does not learn what is not": {brakeRights{}, lift(99), `may not list brakes in ""`},
		"a list has what he may see":                     {brakeRights{"list ns1": true}, list(1, 3), ""},
		"a list of all":                                  {brakeRights{"list ns1": true, "list ": true}, list(1, 2, 3), ""},
		"a list of nothing is a refusal":                 {brakeRights{}, list(), `may not list brakes in ""`},
		"but for those who may see those of some class":  {brakeRights{"list ns2": true}, list(), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := brakeSite(t, tt.may)
			s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1, Class: "ns1/web"}, "x")
			for _, scope := range []bulkhead.Scope{{Kind: bulkhead.ScopeClass, Name: "ns1/web"}, {}, {Kind: bulkhead.ScopeRun, Name: "1"}} {
				b := bulkhead.Brake{Scope: scope, Reason: "T0", Owner: "bob", Since: time.Now()}
				if _, err := s.store.AddBrake(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.engine.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := tt.do(t.Context(), s.client(nil, nil))
			switch {
			case tt.no == "" && err == nil:
			case tt.no == "" || err == nil || bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), tt.no):
				t.Errorf("got %v, want %q", err, tt.no)
			}
		})
	}
}

func TestWhoAuthorizesRunsOnlyLetsNobodyBrake(t *testing.T) {
	s := brakeSite(t, only("a"))
	_, _, err := s.client(nil, nil).SetBrake(t.Context(), bulkhead.Brake{Reason: "T1"}, 0)
	if bulkhead.CodeOf(err) != bulkhead.CodeDenied {
		t.Error(err)
	}
}
