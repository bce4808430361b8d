package rpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// onlyClass lets users see one class.
type onlyClass string

func (c onlyClass) Authorize(_ context.Context, _ rpc.Caller, verb rpc.Verb, class string) error {
	if verb == rpc.VerbList && class != string(c) {
		return errors.New("not for you")
	}
	return nil
}

func TestPoolsAndRecentRunsOverTheWire(t *testing.T) {
	for who, c := range map[string]struct {
		may  rpc.Authorizer
		want []bulkhead.PoolStatus
		more int
	}{
		"everybody":            {nil, []bulkhead.PoolStatus{{Name: "db", Key: "x", Slots: 1, Waiting: 1}, {Name: "db", Key: "y", Slots: 1, Waiting: 1}}, 1},
		"who may list another": {onlyClass("batch"), nil, 0},
	} {
		t.Run(who, func(t *testing.T) {
			s := newSite(t, nil, func(o *rpc.Options) { o.Authorizer = c.may })
			s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1,
				Pools: []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 1}}}, "x", "y", "z")
			client := s.client(nil, nil)
			if err := s.engine.Look(t.Context()); err != nil { // after a turn of its loop
				t.Fatal(err)
			}
			got, more, err := client.Pools(t.Context(), 2)
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" || more != c.more {
				t.Errorf("%v, %d more, %s", err, more, diff)
			}
		})
	}
	s := newSite(t, nil, nil)
	r := s.accepted(bulkhead.Spec{Command: []string{"x"}, MaxOutput: 1}, "x")
	client := s.client(nil, nil)
	for _, c := range []struct {
		q    bulkhead.RunQuery
		want int
	}{{bulkhead.RunQuery{Unfinished: true}, 1}, {bulkhead.RunQuery{FinishedAfter: time.Unix(1, 0)}, 0}, {bulkhead.RunQuery{Unfinished: true, Before: r.ID}, 0}} {
		if runs, err := client.Recent(t.Context(), c.q); err != nil || len(runs) != c.want {
			t.Errorf("%+v: %d runs, %v", c.q, len(runs), err)
		}
	}
}

func TestHowClassesAndPoolsStandThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := bulkhead.ClassStatus{Name: someText.Draw(t, "name"), Workers: number.Draw(t, "workers"), Blocked: someText.Draw(t, "blocked"),
			Objects: list(rapid.Custom(func(t *rapid.T) bulkhead.ObjectCount {
				return bulkhead.ObjectCount{Kind: someText.Draw(t, "kind"), Count: number.Draw(t, "count")}
			})).Draw(t, "objects")}
		same(t, class, rpc.ClassOf(over(t, rpc.ClassMessage(class))))
		pool := bulkhead.PoolStatus{Name: someText.Draw(t, "name"), Key: someText.Draw(t, "key"), Used: number.Draw(t, "used"),
			Slots: number.Draw(t, "slots"), Waiting: count.Draw(t, "waiting")}
		same(t, pool, rpc.PoolStatusOf(over(t, rpc.PoolStatusMessage(pool))))
	})
}
