package output_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/output"
)

// shelfIn is a shelf whose runs are in a folder; the test ends it.
func shelfIn(t *testing.T, dir string) *output.Shelf {
	t.Helper()
	s := &output.Shelf{Dir: func(id bulkhead.RunID) string { return filepath.Join(dir, id.String()) }}
	t.Cleanup(func() {
		if err := s.CloseAll(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// leaseOf is a lease of run 1; the token says which.
func leaseOf(token uint64) bulkhead.Lease {
	return bulkhead.Lease{Run: 1, Item: bulkhead.Item{Index: int64(token)}, Attempt: 1, Token: token, Since: time.Unix(1, 0)}
}

var anySpec = &bulkhead.Spec{}

// lend gives the lease its place.
func lend(s *output.Shelf, token uint64) bulkhead.Lease {
	l := leaseOf(token)
	l.Output = s.Begin(l, anySpec)
	return l
}

func put(t *testing.T, s *output.Shelf, l bulkhead.Lease, offset int64, text string) int64 {
	t.Helper()
	have, known, err := s.Write(l.Token, offset, []bulkhead.Chunk{{Stream: bulkhead.Stdout, At: time.Unix(2, 0), Data: []byte(text)}})
	if err != nil || !known {
		t.Fatalf("write: known %v, %v", known, err)
	}
	return have
}

func finish(t *testing.T, s *output.Shelf, l bulkhead.Lease) bulkhead.OutputRef {
	t.Helper()
	ref, known, err := s.End(l.Token, 0)
	if err != nil || !known {
		t.Fatalf("end: known %v, %v", known, err)
	}
	return ref
}

func kept(t *testing.T, dir string, l bulkhead.Lease, ref bulkhead.OutputRef) string {
	t.Helper()
	var b strings.Builder
	at := output.Attempt{Item: l.Item.Index, N: l.Attempt, Ref: ref}
	err := output.Read(filepath.Join(dir, "1"), at, func(c output.Chunk) error {
		b.Write(c.Data)
		if c.Dropped > 0 {
			fmt.Fprintf(&b, "[%d cut]", c.Dropped)
		}
		return nil
	})
	if err != nil {
		t.Errorf("item %d: %v", l.Item.Index, err)
	}
	return b.String()
}

func TestAPieceThatComesTwiceIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	l := lend(s, 1)
	put(t, s, l, 0, "abc")
	put(t, s, l, 0, "abc")
	put(t, s, l, 1, "bcdef")
	if have := put(t, s, l, 6, "g"); have != 7 {
		t.Errorf("have %d", have)
	}
	if got := kept(t, dir, l, finish(t, s, l)); got != "abcdefg" {
		t.Errorf("kept %q", got)
	}
}

func TestAGapIsSaidToBeOne(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	l := lend(s, 1)
	put(t, s, l, 0, "abc")
	put(t, s, l, 5, "f")
	if got := kept(t, dir, l, finish(t, s, l)); got != "abc[2 cut]f" {
		t.Errorf("kept %q", got)
	}
}

func TestWhatIsOverOrUnknownTakesNothing(t *testing.T) {
	s := shelfIn(t, t.TempDir())
	l := lend(s, 1)
	put(t, s, l, 0, "a")
	ref := finish(t, s, l)
	put(t, s, l, 1, "late")
	if again := finish(t, s, l); again != ref {
		t.Errorf("%+v, then %+v", ref, again)
	}
	s.Drop(l)
	if _, known, err := s.Write(1, 0, nil); known || err != nil {
		t.Error("it is still known")
	}
}

// A server that is killed between the end of an attempt's output and its result
// has both this attempt and the slot's next one as live leases.
func TestLeasesThatAreLiveNeverShareASegment(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	first := lend(s, 1)
	put(t, s, first, 0, "first")
	finish(t, s, first)
	second := lend(s, 2)
	put(t, s, second, 0, "sec")
	s = takeOver(t, s, dir, first, second)
	third := lend(s, 3)
	put(t, s, third, 0, "third")
	put(t, s, second, 3, "ond")
	for l, want := range map[*bulkhead.Lease]string{&first: "first", &second: "second", &third: "third"} {
		if got := kept(t, dir, *l, finish(t, s, *l)); got != want {
			t.Errorf("item %d kept %q, not %q", l.Item.Index, got, want)
		}
	}
}

// takeOver is what another server does that finds these leases.
func takeOver(t *testing.T, was *output.Shelf, dir string, leases ...bulkhead.Lease) *output.Shelf {
	t.Helper()
	if err := was.CloseAll(); err != nil {
		t.Fatal(err)
	}
	s := shelfIn(t, dir)
	if err := s.Prepare(1, leases); err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if err := s.Resume(l, anySpec); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestAnAttemptThatWroteNothingYetGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	quiet := lend(s, 1)
	s = takeOver(t, s, dir, quiet)
	other := lend(s, 2)
	put(t, s, other, 0, "other")
	put(t, s, quiet, 0, "at last")
	if got := kept(t, dir, quiet, finish(t, s, quiet)); got != "at last" {
		t.Errorf("kept %q", got)
	}
	if got := kept(t, dir, other, finish(t, s, other)); got != "other" {
		t.Errorf("kept %q", got)
	}
}

func TestARunThatIsClosedCanGoOn(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	one := lend(s, 1)
	put(t, s, one, 0, "one")
	ref := finish(t, s, one)
	s.Drop(one)
	s.Close(1)
	two := lend(s, 2) // items of it were retried
	put(t, s, two, 0, "two")
	if got := kept(t, dir, two, finish(t, s, two)); got != "two" {
		t.Errorf("kept %q", got)
	}
	if got := kept(t, dir, one, ref); got != "one" {
		t.Errorf("kept %q", got)
	}
}

func TestOutputWhoseFolderCannotBeReadWaits(t *testing.T) {
	dir := t.TempDir()
	s := shelfIn(t, dir)
	place := filepath.Join(dir, "1")
	if err := os.WriteFile(place, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	l := lend(s, 1)
	if _, known, err := s.Write(l.Token, 0, nil); !known || err == nil {
		t.Errorf("known %v, %v", known, err)
	}
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	put(t, s, l, 0, "at last")
	if got := kept(t, dir, l, finish(t, s, l)); got != "at last" {
		t.Errorf("kept %q", got)
	}
}
