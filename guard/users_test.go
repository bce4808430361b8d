package guard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

func TestUsersAreThoseWhomTheAuditLogHasSeen(t *testing.T) {
	const controller = "system:serviceaccount:kube-system:job-controller"
	makers := func(m ...guard.Maker) []guard.Maker { return m }
	cases := map[string]struct {
		makers func(key bulkhead.Key) ([]guard.Maker, bool)
		want   []string
		page   string // what its line says
	}{
		"without a log labels say it": {want: []string{"ann"}, page: "made by helm, comment T363966"},
		"a log that knows nothing":    {makers: func(bulkhead.Key) ([]guard.Maker, bool) { return nil, false }, want: []string{"ann"}, page: "made by helm, comment T363966"},
		"a service account that a person uses": {
			makers: func(key bulkhead.Key) ([]guard.Maker, bool) {
				if key.Kind == "pods" {
					return makers(guard.Maker{User: controller, Objects: 1000}), false
				}
				return makers(guard.Maker{User: "system:serviceaccount:ci:deployer", Objects: 98}, guard.Maker{User: "eve", Objects: 2}), true
			},
			want: []string{"system:serviceaccount:ci:deployer (98 %)", "ann (by label)"},
			page: "helm, as system:serviceaccount:ci:deployer (98 %), comment T363966",
		},
		"whom labels name, too": {
			makers: func(key bulkhead.Key) ([]guard.Maker, bool) {
				return makers(guard.Maker{User: "ann", Objects: 90}, guard.Maker{User: "", Objects: 10}), key.Kind != "pods"
			},
			want: []string{"ann (90 %)"}, page: "helm, as ann (90 %), comment T363966",
		},
		"a log that was read for a part of the time": {
			makers: func(key bulkhead.Key) ([]guard.Maker, bool) {
				if key.Kind != "secrets" {
					return nil, false
				}
				return makers(guard.Maker{User: "bob", Objects: 3}), true
			},
			want: []string{"bob (100 % of the 3 seen)", "ann (by label)"}, page: "as bob (100 % of the 3 seen)",
		},
		"names that the log does not have": {
			makers: func(bulkhead.Key) ([]guard.Maker, bool) {
				return makers(guard.Maker{User: "bob", Objects: 300}, guard.Maker{User: "eve\x1b[2J", Objects: 300}), false
			},
			want: []string{"bob (50 % of all made there)", "eve·[2J (50 % of all made there)", "ann (by label)"}, page: "as bob (50 % of all made there)",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := &world{seed: 1, loop: start, perHour: 224}
			o := newWatch(t, w, start.Add(-time.Hour), nil)
			if c.makers != nil {
				o.guard = guard.New(guard.Options{
					Snapshot: func() bulkhead.Census { return w.census(o.now) }, Now: func() time.Time { return o.now },
					Makers: func(key bulkhead.Key, _ time.Time) ([]guard.Maker, bool) { return c.makers(key) },
				})
			}
			if !o.minutes(120, some) {
				t.Fatal("nothing was found")
			}
			o.minutes(30, nil)
			f := o.guard.Findings()[0]
			if diff := cmp.Diff(c.want, f.Users); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
			flat := strings.Join(strings.Fields(o.text()), " ")
			if !strings.Contains(flat, c.page) {
				t.Errorf("the page does not say %q:\n%s", c.page, o.text())
			}
		})
	}
}

func TestWhoMadeTheOwnerCountsAndNotItsController(t *testing.T) {
	key := func(kind, family, origin string) bulkhead.Key {
		return bulkhead.Key{Kind: kind, Namespace: "ci", Family: family, Origin: origin, Manager: "argo"}
	}
	now := start
	var asked []string
	g := guard.New(guard.Options{Now: func() time.Time { return now },
		Snapshot: func() bulkhead.Census {
			n := int64(10 + now.Sub(start)/time.Minute*5)
			return bulkhead.Census{At: now, Kinds: []bulkhead.KindStatus{{Kind: "pods", Objects: n, Exact: true}},
				Tallies: []bulkhead.Tally{{Key: key("pods", "build-*", "workflows.argoproj.io/build-*"), Objects: n, Keeps: bulkhead.Keep{Owned: n}}}}
		},
		Makers: func(key bulkhead.Key, _ time.Time) ([]guard.Maker, bool) {
			asked = append(asked, key.Kind)
			if key.Kind == "pods" {
				return []guard.Maker{{User: "system:serviceaccount:argo:controller", Objects: 500}}, true
			}
			return []guard.Maker{{User: "carol", Objects: 1}}, true
		}})
	for range 180 {
		now = now.Add(time.Minute)
		if err := g.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	findings := g.Findings()
	if len(findings) == 0 {
		t.Fatal("nothing was found")
	}
	if diff := cmp.Diff([]string{"carol (100 %)"}, findings[0].Users); diff != "" {
		t.Errorf("(-want +got; asked %v)\n%s", asked[:1], diff)
	}
}
