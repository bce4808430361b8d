package bulkhead_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
)

// fine is a spec that nothing is wrong with.
func fine() *bulkhead.Spec {
	return &bulkhead.Spec{Command: []string{"echo", "{wiki}"}, Columns: []string{"wiki"}, Limit: 1, MaxOutput: 1}
}

const aHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestASpecThatNoRunCanHaveIsRefused(t *testing.T) {
	if err := fine().Check(); err != nil {
		t.Fatal(err)
	}
	text := "x"
	file := func(path string) bulkhead.File { return bulkhead.File{SHA256: aHash, Path: path} }
	for want, change := range map[string]func(*bulkhead.Spec){
		"no command to run":                                  func(s *bulkhead.Spec) { s.Command = nil },
		"no command to run ":                                 func(s *bulkhead.Spec) { s.Command = []string{""} },
		`name "\xff" is not UTF-8`:                           func(s *bulkhead.Spec) { s.Name = "\xff" },
		`"\xff" is not UTF-8`:                                func(s *bulkhead.Spec) { s.Command = []string{"\xff"} },
		`dir "tmp" is not an absolute path`:                  func(s *bulkhead.Spec) { s.Dir = "tmp" },
		"limit 0 is not between 1 and 10000":                 func(s *bulkhead.Spec) { s.Limit = 0 },
		"limit 10001 is not between 1 and 10000":             func(s *bulkhead.Spec) { s.Limit = 10_001 },
		"retries -1 is not between 0 and 1000000":            func(s *bulkhead.Spec) { s.Retries = -1 },
		"canary 1000001 is not between 0 and 1000000":        func(s *bulkhead.Spec) { s.Canary = 1_000_001 },
		"max-output 0 is less than a byte":                   func(s *bulkhead.Spec) { s.MaxOutput = 0 },
		"timeout -1s is less than nothing":                   func(s *bulkhead.Spec) { s.Timeout = -time.Second },
		"grace 24h0m1s is more than 24h0m0s":                 func(s *bulkhead.Spec) { s.Grace = 24*time.Hour + time.Second },
		`env "X" has no name or no =`:                        func(s *bulkhead.Spec) { s.Env = []string{"X"} },
		`column "a b" cannot be a placeholder`:               func(s *bulkhead.Spec) { s.Columns = []string{"a b"} },
		`two columns are named "a"`:                          func(s *bulkhead.Spec) { s.Columns = []string{"a", "a"} },
		`1001 columns are more than 1000`:                    func(s *bulkhead.Spec) { s.Columns = make([]string, 1001) },
		`unknown placeholder {x} in "{x}"`:                   func(s *bulkhead.Spec) { s.Command = []string{"{x}"} },
		`pool "a/b" is not a name of letters, digits, _ - .`: func(s *bulkhead.Spec) { s.Pools = []bulkhead.PoolUse{{Name: "a/b", Slots: 1}} },
		`pool db: 0 is not a whole number of at least 1`:     func(s *bulkhead.Spec) { s.Pools = []bulkhead.PoolUse{{Name: "db"}} },
		`stdin and a file for it exclude each other`:         func(s *bulkhead.Spec) { s.Stdin, s.StdinFile = &text, aHash },
		`"abc" is not a SHA-256 in lower-case hex`:           func(s *bulkhead.Spec) { s.StdinFile = "abc" },
		`two files have the path "a"`:                        func(s *bulkhead.Spec) { s.Files = []bulkhead.File{file("a"), file("a")} },
		`file path "a" is the folder of another file`:        func(s *bulkhead.Spec) { s.Files = []bulkhead.File{file("a"), file("a/b/c")} },
		`cpu "lots" is not a quantity`:                       func(s *bulkhead.Spec) { s.Shape.CPU = "lots" },
		`memory "-1" is not a quantity`:                      func(s *bulkhead.Spec) { s.Shape.Memory = "-1" },
		`memory "0.0Gi" is not more than 0`:                  func(s *bulkhead.Spec) { s.Shape.Memory = "0.0Gi" },
		`image "a b" is not the name of an image`:            func(s *bulkhead.Spec) { s.Shape.Image = "a b" },
	} {
		s := fine()
		change(s)
		err := s.Check()
		if err == nil || bulkhead.CodeOf(err) != bulkhead.CodeUsage || err.Error() != strings.TrimRight(want, " ") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestPathsOfFilesStayInTheirFolder(t *testing.T) {
	for _, ok := range []string{"a", "a/b.c", ".hidden", "A-1_2/..x", "...", strings.Repeat("x", 255)} {
		if err := bulkhead.CheckFilePath(ok); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]string{
		"": "is empty", "/a": "is not relative", "..": "leads out", "../a": "leads out", "a/../b": "leads out", "a/..": "leads out",
		".": "names no file", "./a": "is not clean", "a//b": "is not clean", "a/": "is not clean", "a b": `has a character " "`,
		"a\x00": "has a character", "a\\b": "has a character", "ü": "has a character", strings.Repeat("x", 256): "256 bytes",
	} {
		err := bulkhead.CheckFilePath(path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", path, err, want)
		}
	}
}

func TestATextThatIsNoTemplateStandsForItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SampledFrom([]string{"{", "}", "#", "a", "{}", "{a}", "{{a}", "{#}", "{b}", " "})).Draw(t, "pieces")
		text := strings.Join(pieces, "")
		columns := rapid.SampledFrom([][]string{nil, {"a"}, {"a", "b"}}).Draw(t, "columns")
		parsed, err := bulkhead.ParseTemplate(bulkhead.Literal(text, columns), columns)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.Expand(bulkhead.Item{Index: 7, Values: columns}); got != text {
			t.Fatalf("%q, want %q", got, text)
		}
	})
}

func TestWhatWasAcceptedOfAClassIsWhatRuns(t *testing.T) {
	class := bulkhead.Class{Name: "mw", Command: []string{"php", "{wiki}"}, Env: []string{"A={}"}, Dir: "/srv", Limit: 5, Timeout: time.Minute,
		Pools: []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 4}}}
	s := fine()
	s.Limit, s.Env = 9, []string{"B={wiki}"}
	s.Pools = []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 2}, {Name: "own", Slots: 1}}
	if err := class.Accept(s); err != nil {
		t.Fatal(err)
	}
	want := &bulkhead.Spec{Command: []string{"php", "{{wiki}", "echo", "{wiki}"}, Env: []string{"A={{}", "B={wiki}"}, Dir: "/srv", Limit: 5,
		Timeout: time.Minute, Pools: []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 2}, {Name: "own", Slots: 1}},
		Columns: []string{"wiki"}, MaxOutput: 1}
	if d := cmp.Diff(want, s); d != "" {
		t.Error(d)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if class.Pools[0].Slots != 4 {
		t.Error("the class was changed")
	}
	s = fine()
	s.Dir, s.Timeout = "/own", time.Second
	if err := class.Accept(s); err != nil || s.Dir != "/own" || s.Timeout != time.Second || s.Limit != 1 {
		t.Error(s, err)
	}
	s = fine()
	s.Pools = []bulkhead.PoolUse{{Name: "db", Slots: 2}}
	if err := class.Accept(s); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
	s = fine()
	s.Shape.CPU = "2"
	if err := class.Accept(s); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
}

func TestAClassThatThereIsNotNamesThoseThatThereAre(t *testing.T) {
	var many []string
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		many = append(many, strings.Repeat(string(c), 3))
	}
	for name, k := range map[string]struct {
		class      string
		known      []string
		code, hint string
	}{
		"a wrong letter": {"mediawik", []string{"a/mediawiki", "mediawiki"}, "not_found", "did you mean mediawiki? there are a/mediawiki, mediawiki"},
		"no class":       {"", []string{"a"}, "usage", "--class NAME; there are a"},
		"none there":     {"a", nil, "not_found", "the server has no classes yet"},
		"many":           {"---", many, "not_found", "ttt and 6 more"},
	} {
		err := bulkhead.CheckClassName(k.class, k.known)
		if bulkhead.CodeOf(err) != k.code || !strings.Contains(bulkhead.HintOf(err), k.hint) {
			t.Errorf("%s: %v (%s)", name, err, bulkhead.HintOf(err))
		}
	}
	if err := bulkhead.CheckClassName("a", []string{"a"}); err != nil {
		t.Error(err)
	}
}

func TestARetryThatWouldDoNothingIsRefused(t *testing.T) {
	r := &bulkhead.Run{ID: 7, Counts: bulkhead.Counts{Failed: 2, Succeeded: 3, Cancelled: 1, Queued: 1}}
	item := func(index int64, s bulkhead.ItemState, attempts int) bulkhead.ItemStatus {
		return bulkhead.ItemStatus{Item: bulkhead.Item{Index: index}, State: s, Attempt: bulkhead.Attempt{N: attempts}}
	}
	n, fine, err := bulkhead.CheckRetry(r, bulkhead.Selection{Failed: true},
		[]bulkhead.ItemStatus{item(1, bulkhead.ItemFailed, 1), item(2, bulkhead.ItemSucceeded, 1)})
	if n != 3 || fine != 1 || err != nil {
		t.Error(n, fine, err)
	}
	for want, listed := range map[string]bulkhead.ItemStatus{
		"item 1 of run 7 is queued": item(1, bulkhead.ItemQueued, 0), "item 2 of run 7 never started": item(2, bulkhead.ItemCancelled, 0),
	} {
		if _, _, err := bulkhead.CheckRetry(r, bulkhead.Selection{}, []bulkhead.ItemStatus{listed}); err == nil || err.Error() != want {
			t.Error(err)
		}
	}
	if _, _, err := bulkhead.CheckRetry(r, bulkhead.Selection{Lost: true}, nil); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Error(err)
	}
}
