package rpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// lookout is a guard that has found something in two namespaces, and in none.
type lookout struct{}

var looked = time.Date(2026, 11, 25, 5, 1, 0, 0, time.UTC)

func (lookout) Findings() ([]bulkhead.Finding, time.Time, time.Time) {
	return []bulkhead.Finding{{ID: "1", Namespace: "a"}, {ID: "2", Namespace: "b"}, {ID: "3"}}, looked, looked.Add(-7 * time.Minute)
}

func (lookout) Census() bulkhead.Census {
	c := bulkhead.Census{At: looked, Kinds: []bulkhead.KindStatus{{Kind: "pods", Objects: 3010, Exact: true}}}
	for i := range 3000 {
		c.Tallies = append(c.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: "pods", Namespace: "a", Family: fmt.Sprintf("%d-*", i)}, Objects: int64(i)})
	}
	c.Tallies = append(c.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: "pods", Namespace: "b", Family: "few"}, Objects: 10})
	return c
}

// sight lets everybody list the findings of some namespaces; "" is the server's own.
type sight []string

func (sight) Authorize(context.Context, rpc.Caller, rpc.Verb, string) error { return nil }

func (r sight) AuthorizeIn(_ context.Context, _ rpc.Caller, verb rpc.Verb, on rpc.Resource, namespace string) error {
	for _, may := range r {
		if may == namespace && verb == rpc.VerbList && on == rpc.ResourceFindings {
			return nil
		}
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("no %s %s in %q", verb, on, namespace)}
}

func guarded(t *testing.T, r sight) *rpc.Client {
	t.Helper()
	s := newSite(t, nil, func(o *rpc.Options) {
		o.Guard, o.Authorizer, o.Classes = lookout{}, r, classes{{Name: "a/scripts"}, {Name: "plain"}}
	})
	return s.client(nil, nil)
}

func TestACallerSeesTheFindingsOfTheNamespacesThatHeMaySee(t *testing.T) {
	for name, c := range map[string]struct {
		sight
		namespace string
		want      string // ids
		refusal   string
	}{
		"all of the cluster":                      {sight: sight{""}, want: "1 2 3"},
		"one namespace of all":                    {sight: sight{""}, namespace: "b", want: "2"},
		"his own namespace":                       {sight: sight{"a"}, want: "1"},
		"his own, by name":                        {sight: sight{"a"}, namespace: "a", want: "1"},
		"another's":                               {sight: sight{"a"}, namespace: "b", refusal: `no list findings in "b"`},
		"nothing":                                 {refusal: `no list findings in ""`},
		"nothing where there is a class of ours":  {sight: sight{"c"}, refusal: `no list findings in ""`},
		"nothing is there, which he may see":      {sight: sight{"", "c"}, namespace: "c"},
		"what is in no namespace, only with most": {sight: sight{"a", "b"}, want: "1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			got, at, began, err := guarded(t, c.sight).Findings(t.Context(), c.namespace)
			if c.refusal != "" {
				if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), c.refusal) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			var ids []string
			for _, f := range got {
				ids = append(ids, f.ID)
			}
			if strings.Join(ids, " ") != c.want || err != nil || !at.Equal(looked) || at.Sub(began) != 7*time.Minute {
				t.Errorf("%v at %v, %v", ids, at, err)
			}
		})
	}
}

func TestTheCensusIsTheLargestFamilies(t *testing.T) {
	c := guarded(t, sight{""})
	got, families, err := c.Census(t.Context(), "", 3)
	if err != nil || families != 3001 || len(got.Tallies) != 3 || got.Tallies[0].Objects != 2999 || len(got.Kinds) != 1 || !got.At.Equal(looked) {
		t.Errorf("%d families, %+v, %v", families, got, err)
	}
	if got, _, err = c.Census(t.Context(), "", 0); err != nil || len(got.Tallies) != 1000 {
		t.Errorf("%d tallies, %v", len(got.Tallies), err)
	}
	if got, families, err = c.Census(t.Context(), "b", 0); err != nil || families != 1 || got.Tallies[0].Family != "few" || len(got.Kinds) != 0 {
		t.Errorf("%d families, %+v, %v", families, got, err)
	}
	c = guarded(t, sight{"b"})
	if _, families, err = c.Census(t.Context(), "b", 0); err != nil || families != 1 {
		t.Errorf("of one's own namespace: %d, %v", families, err)
	}
	for _, namespace := range []string{"", "a"} {
		if _, _, err = c.Census(t.Context(), namespace, 0); bulkhead.CodeOf(err) != bulkhead.CodeDenied {
			t.Errorf("of %q: %v", namespace, err)
		}
	}
}

func TestAServerWithoutAGuardSaysSo(t *testing.T) {
	_, _, _, err := newSite(t, nil, nil).client(nil, nil).Findings(t.Context(), "")
	if bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(bulkhead.HintOf(err), "--guard") {
		t.Error(err)
	}
}

var (
	someKey = rapid.Custom(func(t *rapid.T) bulkhead.Key {
		s := func() string { return someText.Draw(t, "text") }
		return bulkhead.Key{Kind: s(), Namespace: s(), Family: s(), Origin: s(), Manager: s()}
	})
	someFact = rapid.Custom(func(t *rapid.T) bulkhead.Fact {
		return bulkhead.Fact{Key: someText.Draw(t, "key"), Value: someText.Draw(t, "value"), Objects: count.Draw(t, "objects")}
	})
	aPeriod    = rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64Range(-1<<40, 1<<60).Draw(t, "ns")) })
	someMember = rapid.Custom(func(t *rapid.T) bulkhead.Member {
		return bulkhead.Member{Key: someKey.Draw(t, "key"), Objects: count.Draw(t, "objects"), Rules: count.Draw(t, "rules"),
			PerHour: rapid.Float64().Draw(t, "per hour"), Ratio: rapid.Float64().Draw(t, "ratio"), Example: someText.Draw(t, "example")}
	})
	someReach = rapid.Custom(func(t *rapid.T) bulkhead.Reach {
		s, f := func() string { return someText.Draw(t, "text") }, func() float64 { return rapid.Float64().Draw(t, "f") }
		p := func() time.Duration { return aPeriod.Draw(t, "p") }
		return bulkhead.Reach{Budget: bulkhead.Budget{Name: s(), Kind: s(), Namespace: s(), Unit: s(), Limit: f(), Source: s()},
			Now: f(), In: p(), Low: p(), High: p(), Detail: s()}
	})
	someAdvice = rapid.Custom(func(t *rapid.T) bulkhead.Advice {
		return bulkhead.Advice{Text: someText.Draw(t, "text"), Command: someText.Draw(t, "command")}
	})
	someBirth = rapid.Custom(func(t *rapid.T) bulkhead.Birth {
		return bulkhead.Birth{At: someTime.Draw(t, "at"), Objects: count.Draw(t, "objects")}
	})
)

func TestFindingsAndTalliesArriveAsTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, n := func() string { return someText.Draw(t, "text") }, func() int64 { return count.Draw(t, "n") }
		want := bulkhead.Finding{
			ID: s(), Severity: bulkhead.Severity(s()), Title: s(), Namespace: s(), Since: someTime.Draw(t, "since"),
			PerHour: rapid.Float64().Draw(t, "per hour"), Client: s(), Users: list(someText).Draw(t, "users"), Facts: list(someFact).Draw(t, "facts"),
			Keeps: s(), Ended: someTime.Draw(t, "ended"), Members: list(someMember).Draw(t, "members"), Reaches: list(someReach).Draw(t, "reaches"),
			Advice: list(someAdvice).Draw(t, "advice"), Class: s(),
		}
		if rapid.Bool().Draw(t, "exempt") {
			want.Exempt = &bulkhead.Exemption{Owner: s(), Reason: s(), Since: someTime.Draw(t, "from"), Until: someTime.Draw(t, "until")}
		}
		same(t, want, rpc.FindingOf(over(t, rpc.FindingMessage(&want))))

		tally := bulkhead.Tally{
			Key: someKey.Draw(t, "key"), Objects: n(), Rules: n(), Bytes: n(), Created: n(), Deleted: n(), Facts: list(someFact).Draw(t, "facts"),
			Born: list(someBirth).Draw(t, "born"), Example: bulkhead.Example{Name: s(), Created: someTime.Draw(t, "created")},
			Keeps: bulkhead.Keep{Owned: n(), TTL: aPeriod.Draw(t, "ttl"), Nothing: n()},
		}
		same(t, tally, rpc.TallyOf(over(t, rpc.TallyMessage(&tally))))
	})
}

func TestTextsThatAreNoUTF8AreShownAllTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := bulkhead.Finding{ID: anyBytes.Draw(t, "id"), Members: []bulkhead.Member{{Example: anyBytes.Draw(t, "example")}},
			Facts: []bulkhead.Fact{{Value: anyBytes.Draw(t, "value")}}}
		got := rpc.FindingOf(over(t, rpc.FindingMessage(&f)))
		if diff := cmp.Diff(strings.ToValidUTF8(f.ID, "\uFFFD"), got.ID); diff != "" {
			t.Error(diff)
		}
	})
}
