package history_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/history"
)

var start = time.Date(2024, 10, 8, 20, 0, 0, 0, time.UTC)

func open(t *testing.T, path string, o history.Options) *history.Store {
	t.Helper()
	s, err := o.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func key(name string) bulkhead.Key {
	return bulkhead.Key{Kind: "configmaps", Namespace: "mw-script", Family: name, Origin: "release/*", Manager: "helm"}
}

// look is a census of families of one kind, by their names.
func look(at time.Time, counts map[string]int64) bulkhead.Census {
	c := bulkhead.Census{At: at, Kinds: []bulkhead.KindStatus{{Kind: "configmaps", Exact: true}}}
	for name, n := range counts {
		c.Tallies = append(c.Tallies, bulkhead.Tally{Key: key(name), Objects: n, Rules: n / 2})
	}
	return c
}

func add(t *testing.T, s *history.Store, c bulkhead.Census) {
	t.Helper()
	if err := s.Append(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// points are those of a family, as minutes from the start and objects.
func points(t *testing.T, s *history.Store, name string) (out [][2]int64) {
	t.Helper()
	series, err := s.Series(t.Context(), start.Add(-1000*time.Hour), start.Add(10000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range series {
		if one.Key == key(name) {
			for _, p := range one.Points {
				out = append(out, [2]int64{int64(p.At.Sub(start) / time.Minute), p.Objects})
			}
		}
	}
	return out
}

func equal(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func minute(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }

func TestAPointIsKeptWhereSomethingChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	s := open(t, path, history.Options{})
	for i, n := range []int64{3, 3, 4, 4, 0, 0, 2} {
		add(t, s, look(minute(i), map[string]int64{"a": n, "b": 1}))
	}
	want := [][2]int64{{0, 3}, {2, 4}, {4, 0}, {6, 2}}
	equal(t, want, points(t, s, "a"))
	equal(t, [][2]int64{{0, 1}}, points(t, s, "b"))
	// A family that a look lacks has none left.
	add(t, s, look(minute(7), map[string]int64{"a": 2}))
	equal(t, [][2]int64{{0, 1}, {7, 0}}, points(t, s, "b"))

	_ = s.Close()
	s = open(t, path, history.Options{})
	equal(t, want, points(t, s, "a"))
	add(t, s, look(minute(8), map[string]int64{"a": 2}))
	equal(t, want, points(t, s, "a"))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestOfAKindThatIsNotCountedExactlyNothingIsKnown(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), history.Name), history.Options{})
	add(t, s, look(minute(0), map[string]int64{"a": 3}))
	c := look(minute(1), nil)
	c.Kinds[0].Exact = false
	add(t, s, c)
	equal(t, [][2]int64{{0, 3}}, points(t, s, "a"))
	// A kind that is gone has none.
	c.At, c.Kinds = minute(2), nil
	add(t, s, c)
	equal(t, [][2]int64{{0, 3}, {2, 0}}, points(t, s, "a"))
}

func TestAGapIsNotTakenForUnchanged(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), history.Name), history.Options{})
	for _, m := range []int{0, 1, 2, 60, 61} {
		add(t, s, look(minute(m), map[string]int64{"a": 1}))
	}
	spans, err := s.Spans(t.Context(), start, minute(100))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, []bulkhead.Span{{From: minute(0), To: minute(2)}, {From: minute(60), To: minute(61)}}, spans)
	equal(t, [][2]int64{{0, 1}}, points(t, s, "a"))
}

func TestAClockThatJumpsBackDamagesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	s := open(t, path, history.Options{})
	for m := range 10 {
		add(t, s, look(minute(m), map[string]int64{"a": int64(m)}))
	}
	// A little: the look is left out.
	add(t, s, look(minute(5), map[string]int64{"a": 50}))
	add(t, s, look(minute(9), map[string]int64{"a": 50}))
	equal(t, [][2]int64{{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}, {8, 8}, {9, 9}}, points(t, s, "a"))
	// It was a day ahead, and is set right: what it said then goes.
	add(t, s, look(minute(1440), map[string]int64{"a": 100}))
	add(t, s, look(minute(10), map[string]int64{"a": 10, "b": 1}))
	equal(t, [2]int64{10, 10}, points(t, s, "a")[9])
	equal(t, 10, len(points(t, s, "a")))
	_ = s.Close()
	s = open(t, path, history.Options{})
	add(t, s, look(minute(11), map[string]int64{"a": 10, "b": 2}))
	equal(t, [][2]int64{{10, 1}, {11, 2}}, points(t, s, "b"))
}

func TestOldPointsAreCoarser(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), history.Name), history.Options{Keep: 5 * 24 * time.Hour})
	const days = 6
	for m := range days * 1440 {
		add(t, s, look(minute(m), map[string]int64{"a": int64(m + 1), "b": 7}))
	}
	got := points(t, s, "a")
	last := int64(days*1440 - 1)
	fine, steps, hours, old := 0, 0, 0, 0
	for i, p := range got {
		if p[1] != p[0]+1 {
			t.Fatalf("point %v is not what was counted then", p)
		}
		if i > 0 && p[0] <= got[i-1][0] {
			t.Fatalf("points %v, %v are not in order", got[i-1], p)
		}
		switch age := last - p[0]; {
		case age <= 360:
			fine++
		case age <= 3*1440:
			steps++
		case age <= 5*1440:
			hours++
		default:
			old++
		}
	}
	if fine != 361 || steps < 395 || steps > 398 || hours < 47 || hours > 50 || old != 1 {
		t.Errorf("%d by the minute, %d in steps, %d by the hour, %d older", fine, steps, hours, old)
	}
	equal(t, int64(7), points(t, s, "b")[0][1])
}

func TestTheNumberOfSeriesIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), history.Name), history.Options{Series: 10})
	counts := map[string]int64{"large": 5000, "growing": 5}
	for i := range 8 {
		counts[fmt.Sprintf("still-%d", i)] = 3
	}
	add(t, s, look(minute(0), counts))
	for m := 1; m < 5; m++ {
		counts["growing"]++
		// Small ones that come and go do not take turns.
		add(t, s, look(minute(m), with(counts, fmt.Sprintf("passing-%d", m), 2)))
	}
	add(t, s, look(minute(5), with(counts, "new", 40)))
	series, err := s.Series(t.Context(), start, minute(9))
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for _, one := range series {
		kept[one.Family] = true
	}
	if len(kept) != 10 || !kept["large"] || !kept["growing"] || !kept["new"] || kept["passing-1"] {
		t.Errorf("kept are %v", kept)
	}
}

func with(counts map[string]int64, name string, n int64) map[string]int64 {
	out := maps.Clone(counts)
	out[name] = n
	return out
}

func TestASecondGuardReadsAndTakesOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	first, second := open(t, path, history.Options{}), open(t, path, history.Options{})
	add(t, first, look(minute(0), map[string]int64{"a": 1}))
	if err := second.Append(t.Context(), look(minute(0), map[string]int64{"a": 99})); !errors.Is(err, history.ErrOther) {
		t.Fatalf("the second one writes: %v", err)
	}
	if first.Writes() != true || second.Writes() != false || !second.Written() {
		t.Error("it is not the first one that writes")
	}
	equal(t, [][2]int64{{0, 1}}, points(t, second, "a"))
	reader, err := history.Read(path)
	if err != nil || !reader.Written() {
		t.Fatalf("%v", err)
	}
	_ = first.Close()
	if reader.Written() {
		t.Error("nobody writes it")
	}
	_ = reader.Close()
	add(t, second, look(minute(1), map[string]int64{"a": 2}))
	equal(t, [][2]int64{{0, 1}, {1, 2}}, points(t, second, "a"))
}

func TestThereIsNothingToReadBeforeAGuardWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	if _, err := history.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := history.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if found, err := s.Findings(t.Context(), true); len(found) > 0 || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	_ = open(t, path, history.Options{}).Close()
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteTransient(c, "PRAGMA user_version = 9", nil); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, do := range []func(string) (*history.Store, error){history.Open, history.Read} {
		_, err = do(path)
		if bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(err.Error(), "format 9") {
			t.Errorf("%v", err)
		}
	}
}

func TestAFileThatIsRemovedWhileInUseIsToldOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	s := open(t, path, history.Options{})
	add(t, s, look(minute(0), map[string]int64{"a": 1}))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), look(minute(1), map[string]int64{"a": 2})); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("%v", err)
	}
}

func TestFindingsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	s := open(t, path, history.Options{})
	f := bulkhead.Finding{ID: "1", Title: "jobs multiply", Since: start, Severity: bulkhead.Warning,
		Members: []bulkhead.Member{{Key: key("a"), Objects: 3, Ratio: 1}}, Reaches: []bulkhead.Reach{{In: time.Hour, Budget: bulkhead.Budget{Name: "jobs"}}}}
	old := bulkhead.Finding{ID: "2", Since: start, Ended: minute(9)}
	for range 2 {
		if err := s.Keep(t.Context(), []bulkhead.Finding{f, old}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	s = open(t, path, history.Options{})
	for all, want := range map[bool][]bulkhead.Finding{false: {f}, true: {f, old}} {
		got, err := s.Findings(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, want, got)
	}
}

// What is read is what was counted, whatever was counted, also when the file is
// closed and opened in between.
func TestAnyCountsAreReadAsTheyWere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), history.Name)
		s := open(t, path, history.Options{})
		names := []string{"a", "b", "c", "d"}
		want := map[string][][2]int64{}
		for m := range rapid.IntRange(1, 30).Draw(rt, "looks") {
			counts := map[string]int64{}
			for _, name := range names {
				n := rapid.SampledFrom([]int64{0, 0, 1, 300, math.MaxInt64}).Draw(rt, name)
				if n > 0 {
					counts[name] = n
				}
				old := want[name]
				if last := len(old) - 1; last < 0 && n > 0 || last >= 0 && old[last][1] != n {
					want[name] = append(old, [2]int64{int64(m), n})
				}
			}
			add(t, s, look(minute(m), counts))
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				_ = s.Close()
				s = open(t, path, history.Options{})
			}
		}
		for _, name := range names {
			if diff := cmp.Diff(want[name], points(t, s, name)); diff != "" {
				rt.Fatalf("%s, -want +got:\n%s", name, diff)
			}
		}
		_ = s.Close()
	})
}
