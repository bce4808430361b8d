package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	zombiezen "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// submit stores a run of three items.
func submit(t *testing.T, st *sqlite.Store) *bulkhead.Run {
	t.Helper()
	r := &bulkhead.Run{Spec: bulkhead.Spec{Command: []string{"true"}, Columns: []string{"1"}, Limit: 1}, Created: time.Now()}
	items := []bulkhead.Item{{Index: 1, Values: []string{"a"}}, {Index: 2, Values: []string{"b"}}, {Index: 3, Values: []string{"c"}}}
	if err := st.Submit(t.Context(), r, items, 3, "hash"); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOnlyTheOwnerMayReadTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	submit(t, open(t, dir))
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	_ = open(t, dir).Close()
	conn, err := zombiezen.OpenConn(filepath.Join(dir, "bulkhead.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sqlitex.ExecuteTransient(conn, "PRAGMA user_version = 99", nil), conn.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), dir)
	if bulkhead.CodeOf(err) != bulkhead.CodeConflict || !strings.Contains(bulkhead.HintOf(err), "newer bulkhead") {
		t.Errorf("%v", err)
	}
}

// The first format is made out of the present one by taking away what has been
// added since.
func TestAFolderOfTheFirstFormatIsMigrated(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := &bulkhead.Run{Spec: bulkhead.Spec{Command: []string{"true"}, Limit: 1}, Created: time.Unix(1, 0)}
	if err := errors.Join(s.Submit(t.Context(), r, nil, 1, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	conn, err := zombiezen.OpenConn(filepath.Join(dir, "bulkhead.db"))
	if err != nil {
		t.Fatal(err)
	}
	old := `PRAGMA user_version = 1; DROP INDEX runs_key; DROP INDEX runs_unfinished; DROP INDEX runs_finished; DROP TABLE brakes; ALTER TABLE runs DROP COLUMN key;
		ALTER TABLE leases DROP COLUMN worker; ALTER TABLE leases DROP COLUMN process;`
	for _, column := range []string{"succeeded", "failed", "lost"} {
		old += "ALTER TABLE runs DROP COLUMN forgiven_" + column + ";"
	}
	if err := errors.Join(sqlitex.ExecuteScript(conn, old, nil), conn.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, dir).Run(t.Context(), r.ID)
	if err != nil || got.Counts.Queued != 1 || got.Forgiven != (bulkhead.Counts{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAFileThatIsNotOursIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bulkhead.db")
	const text = "this is a letter to my aunt, and it is long enough to be taken for a header of a database, which it is not"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), dir); err == nil {
		t.Error("it was opened")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("%v %q", err, got)
	}
}

// Locks of open file descriptions tell two stores of one process apart just as
// they do two processes.
func TestARunHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	one, other := open(t, dir), open(t, dir)
	is := func(what string, got bool, err error, want bool) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %v, want %v: %v", what, got, want, err)
		}
	}
	own := func(st *sqlite.Store, run bulkhead.RunID, want bool) {
		t.Helper()
		got, err := st.Own(run)
		is("own", got, err, want)
	}
	own(one, 1, true)
	own(other, 1, false)
	own(other, 2, true)
	owned, err := other.Owned(1)
	is("owned by the other", owned, err, true)
	owned, err = one.Owned(1)
	is("owned by another", owned, err, false)
	if err := one.Disown(1); err != nil {
		t.Fatal(err)
	}
	own(other, 1, true)
	_ = other.Close() // as its death would
	own(one, 1, true)
	own(one, 2, true)
}

func TestAResultWithoutItsLeaseIsRefusedWithAllThatCameWithIt(t *testing.T) {
	st := open(t, t.TempDir())
	r := submit(t, st)
	lease := func(item int64) bulkhead.Lease {
		return bulkhead.Lease{Run: r.ID, Item: bulkhead.Item{Index: item}, Attempt: 1, Token: 7, Since: time.Now()}
	}
	ended := func(item int64) bulkhead.Attempt {
		return bulkhead.Attempt{Run: r.ID, Item: item, N: 1, Final: true, Result: bulkhead.Result{Started: time.Now()}}
	}
	r.Counts = bulkhead.Counts{Queued: 2, Running: 1}
	if err := st.Commit(t.Context(), &bulkhead.Batch{Runs: []*bulkhead.Run{r}, Leases: []bulkhead.Lease{lease(1)}}); err != nil {
		t.Fatal(err)
	}
	wrong := *r
	wrong.Counts = bulkhead.Counts{Succeeded: 3}
	err := st.Commit(t.Context(), &bulkhead.Batch{
		Runs: []*bulkhead.Run{&wrong}, Ended: []bulkhead.Attempt{ended(1), ended(2)}, Leases: []bulkhead.Lease{lease(3)},
	})
	if err == nil || !strings.Contains(err.Error(), "item 2 attempt 1 has no lease") {
		t.Errorf("%v", err)
	}
	leases, err := st.Leases(t.Context(), r.ID)
	if err != nil || len(leases) != 1 || leases[0].Item.Index != 1 {
		t.Errorf("%+v %v", leases, err)
	}
	stored, err := st.Run(t.Context(), r.ID)
	if diff := cmp.Diff(r.Counts, stored.Counts); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	r.Counts = bulkhead.Counts{Queued: 2, Succeeded: 1}
	if err := st.Commit(t.Context(), &bulkhead.Batch{Runs: []*bulkhead.Run{r}, Ended: []bulkhead.Attempt{ended(1)}}); err != nil {
		t.Error(err)
	}
}

func TestAStoreWhoseFileIsGoneSaysSo(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			if err := os.Rename(path, path+".old"); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			st, err := sqlite.Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if _, err := st.Changed(); err != nil {
				t.Fatal(err)
			}
			if err := replace(filepath.Join(dir, "bulkhead.db")); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Changed(); err == nil || !strings.Contains(err.Error(), "was "+name) {
				t.Errorf("Changed: %v, want that the file was %s", err, name)
			}
		})
	}
}

func TestRecentRunsAreThoseThatAreAskedFor(t *testing.T) {
	st := open(t, t.TempDir())
	at := time.Unix(1_700_000_000, 0)
	for _, ended := range []time.Duration{0, time.Hour, 2 * time.Hour, 0} { // 0: not over
		r := submit(t, st)
		if ended > 0 {
			r.State, r.Finished = bulkhead.RunFailed, at.Add(ended)
		}
		if err := st.Commit(t.Context(), &bulkhead.Batch{Runs: []*bulkhead.Run{r}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		q    bulkhead.RunQuery
		want []bulkhead.RunID
	}{
		"all":                        {bulkhead.RunQuery{}, []bulkhead.RunID{4, 3, 2, 1}},
		"not over":                   {bulkhead.RunQuery{Unfinished: true}, []bulkhead.RunID{4, 1}},
		"ended since":                {bulkhead.RunQuery{FinishedAfter: at.Add(time.Hour)}, []bulkhead.RunID{3}},
		"either":                     {bulkhead.RunQuery{Unfinished: true, FinishedAfter: at}, []bulkhead.RunID{4, 3, 2, 1}},
		"either, after the newest":   {bulkhead.RunQuery{Unfinished: true, FinishedAfter: at, Before: 4, Limit: 2}, []bulkhead.RunID{3, 2}},
		"since long before the time": {bulkhead.RunQuery{FinishedAfter: time.Unix(-1, 0)}, []bulkhead.RunID{3, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			runs, err := st.Recent(t.Context(), c.q)
			if err != nil {
				t.Fatal(err)
			}
			var got []bulkhead.RunID
			for _, r := range runs {
				got = append(got, r.ID)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The runs that are kept are many; a look at the last hours must not read them all.
func TestRecentRunsAreFoundByIndex(t *testing.T) {
	dir := t.TempDir()
	_ = open(t, dir)
	conn, err := zombiezen.OpenConn(filepath.Join(dir, "bulkhead.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	plan := ""
	for _, where := range []string{"1 AND state IN (1, 2, 3)", "finished > 0 AND finished > 5"} {
		err = sqlitex.ExecuteTransient(conn, "EXPLAIN QUERY PLAN SELECT id FROM runs WHERE "+where, &sqlitex.ExecOptions{
			ResultFunc: func(stmt *zombiezen.Stmt) error { plan += stmt.ColumnText(3) + "\n"; return nil }})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(plan, "runs_unfinished") || !strings.Contains(plan, "runs_finished") {
		t.Errorf("it does not use the indexes:\n%s", plan)
	}
}
