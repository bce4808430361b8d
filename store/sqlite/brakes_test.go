package sqlite_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/sqlite"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func web(owner, reason string) bulkhead.Brake {
	return bulkhead.Brake{Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: "web"}, Reason: reason, Owner: owner, Since: noon}
}

func add(t *testing.T, st *sqlite.Store, b bulkhead.Brake) bulkhead.Brake {
	t.Helper()
	b, err := st.AddBrake(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func brakes(t *testing.T, st *sqlite.Store) []bulkhead.Brake {
	t.Helper()
	all, err := st.Brakes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestABrakeIsKeptAndSeenByOthers(t *testing.T) {
	dir := t.TempDir()
	st, other := open(t, dir), open(t, dir)
	if changed, err := other.Changed(); !changed || err != nil {
		t.Fatal(changed, err) // the first look
	}
	b := web("ann", "T1")
	b.Factor, b.Expires = 0.25, noon.Add(time.Hour)
	b = add(t, st, b)
	if changed, err := other.Changed(); !changed || err != nil {
		t.Errorf("another process does not see that there is something: %v", err)
	}
	if diff := cmp.Diff([]bulkhead.Brake{b}, brakes(t, other)); diff != "" || b.ID != 1 {
		t.Error(diff)
	}
	_ = st.Close()
	if diff := cmp.Diff([]bulkhead.Brake{b}, brakes(t, open(t, dir))); diff != "" {
		t.Error(diff)
	}
}

func TestASecondBrakeOfAnOwnerOnAScopeChangesTheFirst(t *testing.T) {
	st := open(t, t.TempDir())
	first := add(t, st, web("ann", "T1"))
	others := add(t, st, web("bob", "T2"))
	again := web("ann", "T3")
	again.Since, again.Factor = noon.Add(time.Minute), 0.5
	again.Expires = noon.Add(time.Hour)
	got := add(t, st, again)
	want := first
	want.Reason, want.Factor, want.Expires = "T3", 0.5, again.Expires
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]bulkhead.Brake{want, others}, brakes(t, st)); diff != "" {
		t.Error(diff)
	}
	// One that has expired is over: the next is another one.
	late := web("ann", "T4")
	late.Since = noon.Add(2 * time.Hour)
	if got := add(t, st, late); got.ID != 3 || !got.Since.Equal(late.Since) {
		t.Errorf("%+v", got)
	}
	if all := brakes(t, st); len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

func TestALiftedBrakeIsGone(t *testing.T) {
	st := open(t, t.TempDir())
	b := add(t, st, web("ann", "T1"))
	if got, err := st.LiftBrake(t.Context(), b.ID); err != nil || got != b {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := st.LiftBrake(t.Context(), b.ID)
	if bulkhead.CodeOf(err) != bulkhead.CodeNotFound || !strings.Contains(err.Error(), "there is no brake 1") {
		t.Error(err)
	}
	if b := add(t, st, web("ann", "T1")); b.ID != 2 {
		t.Errorf("the number of one that was lifted is given again: %d", b.ID)
	}
}

func TestBrakesAreBounded(t *testing.T) {
	st := open(t, t.TempDir())
	for i := range bulkhead.MaxBrakes {
		b := web(fmt.Sprint("user", i), "T1")
		if i < 2 {
			b.Expires = noon.Add(time.Hour)
		}
		add(t, st, b)
	}
	_, err := st.AddBrake(t.Context(), web("ann", "T1"))
	if bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(err.Error(), "64 brakes already") {
		t.Error(err)
	}
	again := add(t, st, web("user5", "T2"))
	if again.ID != 6 {
		t.Errorf("%+v", again)
	}
	// What has expired makes room, as much as is needed.
	late := web("ann", "T1")
	late.Since = noon.Add(2 * time.Hour)
	add(t, st, late)
	if all := brakes(t, st); len(all) != bulkhead.MaxBrakes || all[0].ID != 2 {
		t.Errorf("%d, the first is %d", len(all), all[0].ID)
	}
}
