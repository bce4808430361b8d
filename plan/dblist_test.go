package plan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func writeLists(t interface{ Fatal(...any) }, dir string, lists map[string]string) {
	for name, text := range lists {
		if err := os.WriteFile(filepath.Join(dir, name+".dblist"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnExpressionOfListsIsReadFromLeftToRight(t *testing.T) {
	dir := t.TempDir()
	writeLists(t, dir, map[string]string{
		"all": "# all of them\nb\na\n\nc # the third\nd\na\n", "s3": "b\nc", "test-wikis": "c\n", "none": "# nothing\n",
	})
	for expression, want := range map[string]string{
		"all": "a b c d", "all.dblist": "a b c d", " all ": "a b c d", "none": "",
		"all - s3": "a d", "all - s3 + test-wikis": "a c d", "all & s3": "b c", "all & s3 - test-wikis": "b",
		"none + s3": "b c", "s3\t-\ttest-wikis": "b", "test-wikis": "c",
	} {
		got, err := plan.DBLists(dir, expression)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v", expression, got, err)
		}
	}
	for expression, want := range map[string]string{
		"": `"" is not the name of a dblist`, "al": "there is no dblist al", "all -": `"all -" is not the name`, "all - ": `"all -" is not the name`,
		"- all": `"- all" is not the name`, "../all": `"../all" is not the name`, "all - /etc/hosts": `"/etc/hosts" is not the name`,
		"all\x00": "is not the name", "all s3": `"all s3" is not the name`, ".": `"." is not the name`,
	} {
		_, err := plan.DBLists(dir, expression)
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", expression, err)
		}
	}
	if _, err := plan.DBLists(filepath.Join(dir, "none"), "all"); bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(bulkhead.HintOf(err), "--dblists") {
		t.Errorf("%v", err)
	}
}

func TestAListOfWhatAreNoNamesIsRefusedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb c\n": "x:2: \"b c\" is not", "a\n--wiki=b": "x:2: ", "a,b": "x:1: ", "../a": "x:1: ", "a\x1b[2J": "x:1: ",
		strings.Repeat("a\n", 4<<20): "x has more than", strings.Repeat("a", 1<<20): "x: ",
	} {
		if _, err := plan.DBList(strings.NewReader(text), "x"); bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestExpressionsAreThoseOfSets(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		wiki := rapid.SampledFrom([]string{"awiki", "bwiki", "cwiki", "dwiki", "ewiki"})
		lists := map[string][]string{}
		for _, name := range []string{"s1", "s2", "s3"} {
			lists[name] = rapid.SliceOf(wiki).Draw(t, name)
			writeLists(t, folder, map[string]string{name: strings.Join(lists[name], "\n")})
		}
		pick := rapid.SampledFrom([]string{"s1", "s2", "s3"})
		expression := pick.Draw(t, "first")
		have := map[string]bool{}
		for _, w := range lists[expression] {
			have[w] = true
		}
		for range rapid.IntRange(0, 4).Draw(t, "terms") {
			op, name := rapid.SampledFrom([]string{"+", "-", "&"}).Draw(t, "operator"), pick.Draw(t, "term")
			expression += " " + op + " " + name
			for _, w := range []string{"awiki", "bwiki", "cwiki", "dwiki", "ewiki"} {
				in := slices.Contains(lists[name], w)
				have[w] = op == "+" && (have[w] || in) || op == "-" && have[w] && !in || op == "&" && have[w] && in
			}
		}
		want := []string{}
		for w, is := range have {
			if is {
				want = append(want, w)
			}
		}
		slices.Sort(want)
		got, err := plan.DBLists(folder, expression)
		if err != nil || !cmp.Equal(want, append([]string{}, got...)) {
			t.Errorf("%s: %q, not %q, %v", expression, got, want, err)
		}
	})
}

func FuzzDBLists(f *testing.F) {
	dir := f.TempDir()
	writeLists(f, dir, map[string]string{"s3": "enwiki\ndewiki\n", "testwikis": "testwiki\n"})
	for _, seed := range []string{"s3 - testwikis", "s3", "& s3", "s3 + ", "\x00", "s3 - - s3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		names, err := plan.DBLists(dir, expression)
		if err != nil && bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Error(err)
		}
		if !slices.IsSorted(names) {
			t.Errorf("%q", names)
		}
	})
}
