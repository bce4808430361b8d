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

// found is a guard that has found something.
type found struct{ findings []bulkhead.Finding }

func (f found) Findings() (findings []bulkhead.Finding, at, began time.Time) {
	return f.findings, looked, time.Time{}
}
func (found) Census() bulkhead.Census { return bulkhead.Census{} }

// notYet is a guard that has not looked.
type notYet struct{ found }

func (notYet) Findings() (findings []bulkhead.Finding, at, began time.Time) {
	return nil, time.Time{}, time.Time{}
}

// guardSite is a brakeSite with a guard. Findings 1 and 4 are of ns1, and 4 holds
// everybody back; 2 is of ns2, 3 of the whole cluster; 5 has ended, and so has 6, which
// holds back for a while.
func guardSite(t *testing.T, may rpc.Authorizer) *site {
	t.Helper()
	rule := func(finding string, scope bulkhead.Scope) bulkhead.Ruling {
		return bulkhead.Ruling{From: "guard", Finding: finding, Scope: scope, Verdict: bulkhead.Verdict{Level: bulkhead.Stop, Reason: "critical finding " + finding,
			Since: looked, Lifts: "bulkhead brake off " + finding}}
	}
	in := func(ns string) bulkhead.Scope { return bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: ns} }
	b := &brakesOf{rulings: []bulkhead.Ruling{rule("1", in("ns1")), rule("2", in("ns2")), rule("3", bulkhead.Scope{}), rule("4", bulkhead.Scope{}), rule("6", in("ns1"))}}
	b.site = newSite(t, nil, func(o *rpc.Options) {
		o.Brakes, o.Authorizer = b, may
		o.Classes = classes{{Name: "a", Limit: 20}, {Name: "batch"}, {Name: "ns1/web"}, {Name: "ns2/secret"}}
		o.Guard = found{[]bulkhead.Finding{{ID: "1", Namespace: "ns1", Title: "jobs multiply in ns1"}, {ID: "2", Namespace: "ns2", Title: "secrets of ns2"}, {ID: "3"},
			{ID: "4", Namespace: "ns1"}, {ID: "5", Namespace: "ns1", Ended: looked}, {ID: "6", Namespace: "ns1", Ended: looked}}}
	})
	return b.site
}

func exempt(id string, long time.Duration) func(context.Context, *rpc.Client) error {
	return func(ctx context.Context, c *rpc.Client) error {
		_, _, err := c.SetBrake(ctx, bulkhead.Brake{Scope: bulkhead.FindingScope("", id), Reason: "T123: meant"}, long)
		return err
	}
}

func TestAFindingIsExemptIsListedAndObeyedAgain(t *testing.T) {
	s := guardSite(t, nil)
	s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1, Class: "ns1/web"}, "x", "y")
	client := s.client(nil, nil)
	st, changed, err := client.SetBrake(t.Context(), bulkhead.Brake{Scope: bulkhead.FindingScope("", "1"), Reason: "T123: meant"}, 2*time.Hour)
	want := bulkhead.BrakeStatus{Brake: bulkhead.Brake{ID: 1, Scope: bulkhead.FindingScope("ns1", "1"), Reason: "T123: meant", Owner: "ann@host"}, Runs: 1, Items: 2}
	noTimes := cmpopts.IgnoreFields(bulkhead.Brake{}, "Since", "Expires")
	if diff := cmp.Diff(want, st, noTimes); diff != "" || changed || err != nil || st.Expires.Sub(st.Since) != 2*time.Hour {
		t.Fatalf("%t, %v, %+v %s", changed, err, st, diff)
	}
	if _, changed, err := client.SetBrake(t.Context(), bulkhead.Brake{Scope: want.Scope, Reason: "T123: meant"}, time.Hour); !changed || err != nil {
		t.Errorf("the same again, by its whole name: %t, %v", changed, err)
	}
	all, err := client.Brakes(t.Context())
	if err != nil || len(all.Brakes) != 0 || len(all.Rulings) != 5 {
		t.Fatalf("%+v, %v", all, err)
	}
	if diff := cmp.Diff([]bulkhead.BrakeStatus{want}, all.Exemptions, noTimes); diff != "" {
		t.Error(diff)
	}
	r := all.Rulings[0]
	ruling := bulkhead.RulingStatus{Ruling: bulkhead.Ruling{From: "guard", Finding: "1", Scope: bulkhead.Scope{Kind: bulkhead.ScopeNamespace, Name: "ns1"},
		Verdict: bulkhead.Verdict{Level: bulkhead.Stop, Reason: "critical finding 1", Since: looked, Lifts: "bulkhead brake off 1"}}, Runs: 1, Items: 2}
	if diff := cmp.Diff(ruling, r); diff != "" || !all.Exempt(&r) || all.Exempt(&all.Rulings[1]) {
		t.Error(diff)
	}
	if _, err := client.LiftBrake(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if all, err := client.Brakes(t.Context()); len(all.Exemptions) != 0 || err != nil {
		t.Errorf("%+v, %v", all.Exemptions, err)
	}
}

func TestAnExemptionThatMakesNoSenseIsRefused(t *testing.T) {
	tests := map[string]struct {
		do   func(context.Context, *rpc.Client) error
		code string
		want string // in the message and the hint
	}{
		"a finding that there is not":   {exempt("7", time.Hour), bulkhead.CodeNotFound, `there is no finding "7" there is 1 (jobs multiply in ns1), 2 (secrets of ns2)`},
		"one that has ended":            {exempt("5", time.Hour), bulkhead.CodeConflict, `finding "5" has ended`},
		"one that has, and holds still": {exempt("6", time.Hour), "", ""},
		"for ever":                      {exempt("1", 0), bulkhead.CodeUsage, "for how long the finding is meant is missing"},
		"for a year":                    {exempt("1", 365*24*time.Hour), bulkhead.CodeUsage, "is more than 7 days"},
		"a name that acts":              {exempt("\x1b[2J", time.Hour), bulkhead.CodeUsage, "is not the name of a finding"},
	}
	s := guardSite(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.do(t.Context(), s.client(nil, nil))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if got := fmt.Sprint(err, " ", bulkhead.HintOf(err)); bulkhead.CodeOf(err) != tt.code || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %s", bulkhead.CodeOf(err), got)
			}
		})
	}
	s = brakeSite(t, nil)
	if err := exempt("1", time.Hour)(t.Context(), s.client(nil, nil)); bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(err.Error(), "has no guard") {
		t.Errorf("without a guard: %v", err)
	}
	b := &brakesOf{}
	b.site = newSite(t, nil, func(o *rpc.Options) { o.Brakes, o.Guard = b, notYet{} })
	if err := exempt("1", time.Hour)(t.Context(), b.site.client(nil, nil)); bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(err.Error(), "has not looked yet") {
		t.Errorf("before the first look: %v", err)
	}
}

func TestWhoMayExemptWhichFindings(t *testing.T) {
	lift := func(ctx context.Context, c *rpc.Client) error {
		_, err := c.LiftBrake(ctx, 1)
		return err
	}
	list := func(exemptions int, rulings ...string) func(context.Context, *rpc.Client) error {
		return func(ctx context.Context, c *rpc.Client) error {
			all, err := c.Brakes(ctx)
			var got []string
			for _, r := range all.Rulings {
				got = append(got, r.Finding)
			}
			if diff := cmp.Diff(rulings, got); err == nil && (diff != "" || len(all.Exemptions) != exemptions) {
				err = errors.New(diff)
			}
			return err
		}
	}
	// Exemption 1 is of a finding of ns1.
	tests := map[string]struct {
		may brakeRights
		do  func(context.Context, *rpc.Client) error
		no  string // the refusal; "": there is none
	}{
		"one of a namespace needs the right there":           {brakeRights{"create ns1": true}, exempt("1", time.Hour), ""},
		"that of another one is not enough":                  {brakeRights{"create ns2": true, "create ": true}, exempt("1", time.Hour), `may not create brakes in "ns1"`},
		"one of the cluster needs it in the server's own":    {brakeRights{"create ": true}, exempt("3", time.Hour), ""},
		"one of the cluster is not for those of a namespace": {brakeRights{"create ns1": true}, exempt("3", time.Hour), `may not create brakes in ""`},
		"one that holds everybody needs both":                {brakeRights{"create ns1": true, "create ": true}, exempt("4", time.Hour), ""},
		"one of them is not enough":                          {brakeRights{"create ns1": true}, exempt("4", time.Hour), `may not create brakes in ""`},
		"what is not his is not named to him":                {brakeRights{"create ns1": true, "list ns1": true}, exempt("7", time.Hour), "there is 1 (jobs multiply in ns1), 4 ()"},
		"who may see nothing does not learn what is not":     {brakeRights{}, exempt("7", time.Hour), `may not list brakes in ""`},
		"to obey again is another right":                     {brakeRights{"create ns1": true, "list ns1": true}, lift, `may not delete brakes in "ns1"`},
		"who has it does":                                    {brakeRights{"delete ns1": true}, lift, ""},
		"a list has what he may see":                         {brakeRights{"list ns1": true}, list(1, "1", "6"), ""},
		"that of another namespace":                          {brakeRights{"list ns2": true}, list(0, "2"), ""},
		"what holds everybody is seen in the server's own":   {brakeRights{"list ": true}, list(0, "3", "4"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := guardSite(t, tt.may)
			b := bulkhead.Brake{Scope: bulkhead.FindingScope("ns1", "1"), Reason: "T0", Owner: "bob", Since: time.Now(), Expires: time.Now().Add(time.Hour)}
			if _, err := s.store.AddBrake(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if err := s.engine.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := tt.do(t.Context(), s.client(nil, nil))
			got := fmt.Sprint(err, " ", bulkhead.HintOf(err))
			switch {
			case tt.no == "" && err == nil:
			case tt.no == "" || err == nil || !strings.Contains(got, tt.no) || strings.Contains(got, "secrets of ns2"):
				t.Errorf("got %s, want %q", got, tt.no)
			}
		})
	}
}
