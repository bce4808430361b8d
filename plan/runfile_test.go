package plan_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

func TestRunFileSaysWhatTheFlagsSay(t *testing.T) {
	const text = `
name: requeue
comment: T363966   # why
announce: true
each:
  - wiki=wikis.txt
  - key: ["144p.mjpeg.mov", "a,b", "", 0..9]
  - part: 01..10
    shard: [07, no, 1e3, 2024-10-09, ~x]
csv: users.csv
command:
  - ./requeue
  - --wiki={wiki}
  - "{key}"
  - 'n={#}'
  - 007
  - no
  - ""
env:
  ZED: "{wiki}"
  A: 1=2
dir: ../work
stdin: |
  {key}
pool:
  - db:{wiki}=1
  - "api=20"
limit: 4
rate: 50/s
timeout: 1d 30m
grace: 5
retries: 2
retry-delay: 1s
halt: soon,fail=5%
canary: 10
priority: -3
max-output: 64MiB
class: wikis/mediawiki
image: registry.example/mediawiki:1.43
cpu: 500m
memory: 2Gi
stdin-file: in.txt
file:
  - wikis.json:conf/wikis.json
  - "a b.txt:ab.txt"
`
	stdin := "{key}\n"
	want := plan.File{
		Class: "wikis/mediawiki", Shape: bulkhead.Shape{Image: "registry.example/mediawiki:1.43", CPU: "500m", Memory: "2Gi"},
		StdinFile: "in.txt", Files: []string{"wikis.json:conf/wikis.json", "a b.txt:ab.txt"},
		Name: "requeue", Comment: "T363966", Announce: true, CSV: "users.csv", Dir: "../work", Stdin: &stdin,
		Each: []bulkhead.Source{
			{Name: "wiki", From: "wikis.txt"},
			{Name: "key", Values: []string{"144p.mjpeg.mov", "a,b", "", "0..9"}},
			{Name: "part", From: "01..10"},
			{Name: "shard", Values: []string{"07", "no", "1e3", "2024-10-09", "~x"}},
		},
		Command: []string{"./requeue", "--wiki={wiki}", "{key}", "n={#}", "007", "no", ""},
		Env:     []string{"ZED={wiki}", "A=1=2"},
		Pools:   []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 1}, {Name: "api", Slots: 20}},
		Limit:   4, Rate: bulkhead.Rate{Count: 50, Per: time.Second}, Timeout: 24*time.Hour + 30*time.Minute,
		Grace: 5 * time.Second, Retries: 2, RetryDelay: time.Second, Halt: bulkhead.Halt{Percent: 5}, Canary: 10,
		Priority: -3, MaxOutput: 64 << 20,
	}
	got, err := plan.ParseFile(strings.NewReader(text), "run.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("file (-want +got)\n%s", diff)
	}
	wantSpec := bulkhead.Spec{
		Name: want.Name, Comment: want.Comment, Command: want.Command, Env: want.Env, Dir: want.Dir, Stdin: want.Stdin,
		Inputs: append([]bulkhead.Source{{From: "users.csv", CSV: true}}, want.Each...), Pools: want.Pools,
		Limit: 4, Rate: want.Rate, Timeout: want.Timeout, Grace: want.Grace, Retries: 2, RetryDelay: want.RetryDelay,
		Halt: want.Halt, Canary: 10, Priority: -3, MaxOutput: want.MaxOutput,
		Class: want.Class, Shape: want.Shape, Announce: true,
	}
	if diff := cmp.Diff(wantSpec, got.Spec()); diff != "" {
		t.Errorf("spec (-want +got)\n%s", diff)
	}
}

func TestRunFileTakesSourcesInSeveralForms(t *testing.T) {
	for each, want := range map[string][]bulkhead.Source{
		"[w=a.txt, -, 'x,y']":       {{Name: "w", From: "a.txt"}, {From: "-"}, {From: "x,y"}},
		"{b: a.txt, a: [x, 'y,z']}": {{Name: "b", From: "a.txt"}, {Name: "a", Values: []string{"x", "y,z"}}},
		"[{b: a.txt}, {a: [1, 2], c: -}]": {{Name: "b", From: "a.txt"}, {Name: "a", Values: []string{"1", "2"}},
			{Name: "c", From: "-"}},
		"[]": nil,
	} {
		f, err := plan.ParseFile(strings.NewReader("command: [x]\neach: "+each), "run.yaml")
		if err != nil {
			t.Errorf("%s: %v", each, err)
		}
		if diff := cmp.Diff(want, f.Each); diff != "" {
			t.Errorf("%s (-want +got)\n%s", each, diff)
		}
	}
}

func TestRunFileMistakesNameTheLine(t *testing.T) {
	const command = `for example command: [php, maintenance/showSiteStats.php, "--wiki={}"]`
	const fields = "known are name, comment, announce, each, csv, command, env, dir, stdin, stdin-file, file, class, image, cpu, memory, pool, limit, rate, timeout, grace, retries, retry-delay, halt, canary, priority, max-output"
	const each = `write a list of [NAME=]SOURCE, of NAME: SOURCE or of NAME: [value, …]`
	const syntax = `it must be YAML; text with any of { } [ ] : # * & ! in it is quoted: "--wiki={}"`
	const duration = "for example 90s, 5m, 1h30m or 2d; a bare number is seconds"
	for name, tt := range map[string]struct{ text, message, hint string }{
		"nothing":                {"", "run.yaml is empty: it needs at least a command", command},
		"only a comment":         {"# later\n", "run.yaml is empty: it needs at least a command", command},
		"null":                   {"~\n", "run.yaml is empty: it needs at least a command", command},
		"a list":                 {"- x\n", "run.yaml:1: it is not a map", "write field: value lines"},
		"one word":               {"php\n", "run.yaml:1: it is not a map", "write field: value lines"},
		"no command":             {"name: x\n", "run.yaml:1: the command is missing", command},
		"an unknown field":       {"command: [x]\n\nconcurrency: 4\n", `run.yaml:3: unknown field "concurrency"`, fields},
		"a misspelt field":       {"comand: [x]\n", `run.yaml:1: unknown field "comand"`, "did you mean command? " + fields},
		"a field as in JSON":     {"maxOutput: 5\n", `run.yaml:1: unknown field "maxOutput"`, "did you mean max-output? " + fields},
		"a merge":                {"<<: {name: x}\n", `run.yaml:1: unknown field "<<"`, fields},
		"a field twice":          {"command: [x]\nlimit: 1\nlimit: 2\n", "run.yaml:3: limit is given twice, first in line 2", "keep one of them"},
		"a field without value":  {"name:\ncommand: [x]\n", "run.yaml:1: name: it has no value", `leave it out, or write "" for an empty text`},
		"a text as command":      {"command: php x.php --wiki={}\n", `run.yaml:1: command: "php x.php --wiki={}" is one text, and the command is a list`, `write a list, one element for each argument: ["php", "x.php", "--wiki={}"]; for a shell line [sh, -c, …]`},
		"an empty command":       {"command: []\n", "run.yaml:1: command: there is no program to start", command},
		"an empty program":       {"command: ['', x]\n", "run.yaml:1: command: there is no program to start", command},
		"a command without list": {"command:\n", "run.yaml:1: command: it is not a list", command},
		"a command as map":       {"command: {a: b}\n", "run.yaml:1: command: it is not a list", command},
		"a bare {}":              {"command:\n  - echo\n  - {}\n", "run.yaml:3: command: text that begins with { is a map in YAML", `quote it: "{}", "{name}"`},
		"a bare {wiki}":          {"command: [echo, {wiki}]\n", "run.yaml:1: command: text that begins with { is a map in YAML", `quote it: "{}", "{name}"`},
		"a bare colon":           {"command:\n  - echo\n  - a: b\n", "run.yaml:3: command: it takes one text, and this is a map", `text with ": " in it must be quoted`},
		"a nested list":          {"command: [[x]]\n", "run.yaml:1: command: it takes one text, and this is a list", ""},
		"an empty argument":      {"command: [x, ]\nname: null\n", "run.yaml:2: name: it has no value", `leave it out, or write "" for an empty text`},
		"a null argument":        {"command: [x, null]\n", "run.yaml:1: command: it has no value", `leave it out, or write "" for an empty text`},
		"a binary":               {"command: [!!binary aGk=]\n", "run.yaml:1: command: tag !!binary is not understood", "leave the tag out"},
		"a tag of one's own":     {"name: !secret x\n", "run.yaml:1: name: tag !secret is not understood", "leave the tag out"},
		"a limit of none":        {"limit: 0\n", "run.yaml:1: limit: 0 is less than 1", ""},
		"a limit in words":       {"limit: many\n", `run.yaml:1: limit: "many" is not a whole number`, ""},
		"a limit with a point":   {"limit: 1.5\n", `run.yaml:1: limit: "1.5" is not a whole number`, ""},
		"a limit too large":      {"limit: 99999999999999999999\n", `run.yaml:1: limit: "99999999999999999999" is not a whole number`, ""},
		"a limit as list":        {"limit: [1]\n", "run.yaml:1: limit: it takes one text, and this is a list", ""},
		"negative retries":       {"retries: -1\n", "run.yaml:1: retries: -1 is less than 0", ""},
		"a rate":                 {"rate: fast\n", `run.yaml:1: rate: rate "fast" is not a number per s, m or h`, "for example 50/s, 30/m or 0.5/s"},
		"a halt":                 {"halt: fail=3\n", `run.yaml:1: halt: halt "fail=3" is not understood`, "write soon,fail=3, now,fail=1 or soon,fail=5%"},
		"a timeout":              {"timeout: 5min\n", `run.yaml:1: timeout: duration "5min" is not understood`, duration},
		"a grace of nothing":     {"grace: 0s\n", `run.yaml:1: grace: "0s" is 0`, "leave the line out for the default, or write 1ms"},
		"a delay of nothing":     {"retry-delay: 0\n", `run.yaml:1: retry-delay: "0" is 0`, "leave the line out for the default, or write 1ms"},
		"no output":              {"max-output: 0MiB\n", `run.yaml:1: max-output: "0MiB" is 0`, "leave the line out for the default, or write 1"},
		"a size":                 {"max-output: big\n", `run.yaml:1: max-output: size "big" is not understood`, "for example 1000, 10M (powers of 1000) or 64MiB (powers of 1024)"},
		"a pool":                 {"pool: [db=1, 'db:{wiki}']\n", `run.yaml:1: pool: pool "db:{wiki}": no =N`, "write NAME=N or NAME:KEY=N, for example db:{wiki}=1"},
		"a file":                 {"file: a.txt\n", "run.yaml:1: file: it is not a list", `write a list of LOCAL or LOCAL:REMOTE: ["wikis.json:conf/wikis.json"]`},
		"a map as a file":        {"file: [{a.txt: b.txt}]\n", "run.yaml:1: file: text that begins with { is a map in YAML", `quote it: "{}", "{name}"`},
		"one pool":               {"pool: db=1\n", "run.yaml:1: pool: it is not a list", `write a list: ["db:{wiki}=1"]`},
		"a source":               {"each: ['#=a,b']\n", `run.yaml:1: each: source "#=a,b": # cannot be a column name`, "{#} is the index of the item; choose another name"},
		"one source":             {"each: a.txt\n", "run.yaml:1: each: it is not a list", each},
		"sources left out":       {"each:\n", "run.yaml:1: each: it is not a list", each},
		"a list as source":       {"each: [[a, b]]\n", "run.yaml:1: each: it takes one text, and this is a list", ""},
		"a source name":          {"each:\n- a b: x,y\n", `run.yaml:2: each: "a b" cannot be a column name`, "a name is made of letters, digits, _ - ."},
		"a source twice":         {"each:\n  w: x,y\n  w: z,\n", "run.yaml:3: each: w is given twice, first in line 2", "keep one of them"},
		"an empty source":        {"each: {w: ''}\n", "run.yaml:1: each: the source of w is empty", "write a file, -, a list a,b,c, a range 0..99 or glob:PATTERN"},
		"a source left out":      {"each:\n- w:\n", "run.yaml:2: each: it has no value", `leave it out, or write "" for an empty text`},
		"an empty list":          {"each: {w: []}\n", "run.yaml:1: each: the list of w has no elements", ""},
		"a null in a list":       {"each: {w: [a, ~]}\n", "run.yaml:1: each: it has no value", `leave it out, or write "" for an empty text`},
		"a map as source":        {"each: {w: {a: b}}\n", "run.yaml:1: each: text that begins with { is a map in YAML", `quote it: "{}", "{name}"`},
		"env as list":            {"env: [A=1]\n", "run.yaml:1: env: it is not a map", "write NAME: value lines"},
		"env without value":      {"env:\n  A:\n", "run.yaml:2: env: it has no value", `leave it out, or write "" for an empty text`},
		"env with =":             {"env: {A=B: c}\n", `run.yaml:1: env: "A=B" cannot be the name of a variable`, ""},
		"env without name":       {"env: {'': c}\n", `run.yaml:1: env: "" cannot be the name of a variable`, ""},
		"env twice":              {"env:\n  A: 1\n  A: 2\n", "run.yaml:3: env: A is given twice, first in line 2", "keep one of them"},
		"an alias":               {"name: &n x\ncomment: *n\n", "run.yaml:2: comment: aliases such as *n are not supported", `write the value again; text that begins with * is quoted: "*"`},
		"an alias of a list":     {"each: {a: &n [x]}\ncommand: *n\n", "run.yaml:2: command: aliases such as *n are not supported", `write the value again; text that begins with * is quoted: "*"`},
		"an alias as a key":      {"&n name: x\n*n : y\n", "run.yaml:2: aliases such as *n are not supported", `write the value again; text that begins with * is quoted: "*"`},
		"an unknown alias":       {"command: [ls, *.txt]\n", "run.yaml: did not find expected alphabetic or numeric character", syntax},
		"a bare brace in a list": {"command: [x, --wiki={}]\n", "run.yaml:1: did not find expected ',' or ']'", syntax},
		"a tab":                  {"command:\n\t- x\n", "run.yaml:2: found character that cannot start any token", syntax},
		"not UTF-8":              {"name: \xff\n", "run.yaml:1: the text is not UTF-8", "save the file as UTF-8"},
		"a second document":      {"command: [x]\n---\ncommand: [y]\n", "run.yaml:2: a second document begins", "write one file for each run"},
		"a broken second":        {"command: [x]\n---\n}\n", "run.yaml:3: did not find expected node content", syntax},
		"a very deep one":        {strings.Repeat("[", 20000), "run.yaml: exceeded max depth of 10000", syntax},
		"a very large one":       {"name: " + strings.Repeat("x", plan.MaxFile), "run.yaml is larger than 1 MiB", "put the input into files of its own and name them in each or csv"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plan.ParseFile(strings.NewReader(tt.text), "run.yaml")
			wantUsage(t, err, tt.message, tt.hint)
		})
	}
	t.Run("a file that cannot be read", func(t *testing.T) {
		_, err := plan.ParseFile(iotest.ErrReader(iotest.ErrTimeout), "run.yaml")
		if err == nil || err.Error() != "read run.yaml: timeout" {
			t.Error(err)
		}
	})
}

func TestABombOfAliasesIsHarmless(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := byte('0'); i < '9'; i++ {
		b.WriteString("a" + string(i+1) + ": &a" + string(i+1) + " [*a" + strings.Repeat(string(i)+",*a", 8) + string(i) + "]\n")
	}
	_, err := plan.ParseFile(strings.NewReader(b.String()+"command: *a9\n"), "run.yaml")
	if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
	_, err = plan.ParseFile(strings.NewReader(strings.Replace(b.String(), "a0: ", "command: ", 1)), "run.yaml")
	if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Error(err)
	}
}

func TestValuesOfARunFileSurviveTheStore(t *testing.T) {
	f, err := plan.ParseFile(strings.NewReader("command: [x]\neach: {w: [\"a,b\", '', \"\\xff\"], n: 1..3}\n"), "run.yaml")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(f.Spec())
	if err != nil {
		t.Fatal(err)
	}
	var again bulkhead.Spec
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	before, n, err := plan.HashOf(f.Spec().Inputs, plan.Options{}, -1)
	if err != nil || n != 9 {
		t.Fatal(n, err)
	}
	if after, _, err := plan.HashOf(again.Inputs, plan.Options{}, -1); err != nil || after != before {
		t.Errorf("the hash was %s and is %s, %v", before, after, err)
	}
}
