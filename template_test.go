package bulkhead_test

import (
	"regexp"
	"strings"
	"testing"

	"bulkhead.dev/bulkhead"
)

func TestTemplateExpandsToOneText(t *testing.T) {
	type one struct {
		text    string
		columns []string
		values  []string
		want    string
	}
	wiki, two := []string{"wiki"}, []string{"wiki", "key-1.x"}
	tests := map[string]one{
		"text without braces stays":                      {"plain", wiki, []string{"v"}, "plain"},
		"no text stays none":                             {"", wiki, []string{"v"}, ""},
		"{} is the only value":                           {"{}", wiki, []string{"v"}, "v"},
		"{} within text":                                 {"--wiki={}!", wiki, []string{"v"}, "--wiki=v!"},
		"{#} is the index":                               {"n{#}", wiki, []string{"v"}, "n42"},
		"{#} alone":                                      {"{#}", two, []string{"v", "w"}, "42"},
		"a name is its column":                           {"{key-1.x}/{wiki}", two, []string{"v", "w"}, "w/v"},
		"a placeholder may be repeated":                  {"{}{}{wiki}", wiki, []string{"v"}, "vvv"},
		"an unnamed column is its number":                {"{2}{1}", []string{"1", "2"}, []string{"v", "w"}, "wv"},
		"a value is not expanded again":                  {"{}", wiki, []string{"{#}{wiki}"}, "{#}{wiki}"},
		"a value may be any bytes":                       {"<{}>", wiki, []string{"\xff\x00\n"}, "<\xff\x00\n>"},
		"text may be any bytes":                          {"\xff{}\x00", wiki, []string{"v"}, "\xffv\x00"},
		"an empty value leaves nothing":                  {"a{}b", wiki, []string{""}, "ab"},
		"{{ before a name is one brace":                  {"{{wiki}", wiki, []string{"v"}, "{wiki}"},
		"{{ before } is one brace":                       {"{{}", wiki, []string{"v"}, "{}"},
		"{{ before #} is one brace":                      {"{{#}", wiki, []string{"v"}, "{#}"},
		"{{ before an unknown name is one brace":         {"{{print}", wiki, []string{"v"}, "{print}"},
		"of three braces the first is text":              {"{{{wiki}", wiki, []string{"v"}, "{{wiki}"},
		"{{ before anything else is two":                 {"{{ x }}", wiki, []string{"v"}, "{{ x }}"},
		"a second closing brace is text":                 {"{wiki}}", wiki, []string{"v"}, "v}"},
		"an opening brace at the end is text":            {"a{", wiki, []string{"v"}, "a{"},
		"a name that is not closed is text":              {"{wiki", wiki, []string{"v"}, "{wiki"},
		"{# that is not closed is text":                  {"{#", wiki, []string{"v"}, "{#"},
		"a name begins at the last brace":                {"{a{wiki}", wiki, []string{"v"}, "{av"},
		"a space makes no name":                          {"{ print }", wiki, []string{"v"}, "{ print }"},
		"a letter outside ASCII makes no name":           {"{wïki}", wiki, []string{"v"}, "{wïki}"},
		"JSON needs no care":                             {`{"id":{},"n":[{#}]}`, wiki, []string{"7"}, `{"id":7,"n":[42]}`},
		"shell needs no care":                            {`echo ${HOME:-x} $((1)) ${#a[@]}`, wiki, []string{"v"}, `echo ${HOME:-x} $((1)) ${#a[@]}`},
		"without columns nothing is replaced":            {"{} {#} {x}", nil, nil, "{} {#} {x}"},
		"without columns even {{ stays":                  {"{{} {{x}", nil, nil, "{{} {{x}"},
		"a name may look like a number or punctuation":   {"{-}{.}", []string{"-", "."}, []string{"v", "w"}, "vw"},
		"${} of a shell is a placeholder like any other": {"${}", wiki, []string{"v"}, "$v"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tpl, err := bulkhead.ParseTemplate(tt.text, tt.columns)
			if err != nil {
				t.Fatal(err)
			}
			if got := tpl.Expand(bulkhead.Item{Index: 42, Values: tt.values}); got != tt.want {
				t.Errorf("%q expands to %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestTemplateRefusesWhatIsNotClear(t *testing.T) {
	tests := map[string]struct {
		text    string
		columns []string
		message string
		hint    string
	}{
		"an unknown name lists the known ones": {
			"a {foo}", []string{"wiki", "key"},
			`unknown placeholder {foo} in "a {foo}"`,
			"known are {#}, {wiki}, {key}; {{foo} writes {foo} itself"},
		"with one column {} is known too": {
			"{foo}", []string{"wiki"},
			`unknown placeholder {foo} in "{foo}"`,
			"known are {}, {#}, {wiki}; {{foo} writes {foo} itself"},
		"a near miss is offered": {
			"{wkii}", []string{"wiki", "key"},
			`unknown placeholder {wkii} in "{wkii}"`,
			"did you mean {wiki}? known are {#}, {wiki}, {key}; {{wkii} writes {wkii} itself"},
		"upper case is a near miss": {
			"{WIKI}", []string{"wiki"},
			`unknown placeholder {WIKI} in "{WIKI}"`,
			"did you mean {wiki}? known are {}, {#}, {wiki}; {{WIKI} writes {WIKI} itself"},
		"{} of two columns names both": {
			"x={}", []string{"wiki", "key"},
			`{} in "x={}" is not clear: there are 2 columns`,
			"write one of {wiki}, {key}; {{} writes {} itself"},
		"a long text is cut": {
			strings.Repeat("é", 100) + "{}", []string{"1", "2"},
			`{} in "` + strings.Repeat("é", 60) + `"… is not clear: there are 2 columns`,
			"write one of {1}, {2}; {{} writes {} itself"},
		"many columns are cut": {
			"{}", strings.Fields(strings.Repeat("c ", 30)),
			`{} in "{}" is not clear: there are 30 columns`,
			"write one of " + strings.Repeat("{c}, ", 19) + "{c} and 10 more; {{} writes {} itself"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := bulkhead.ParseTemplate(tt.text, tt.columns)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if got := bulkhead.CodeOf(err); got != bulkhead.CodeUsage {
				t.Errorf("code %q", got)
			}
			if err.Error() != tt.message {
				t.Errorf("message %s\n   want %s", err, tt.message)
			}
			if got := bulkhead.HintOf(err); got != tt.hint {
				t.Errorf("hint %s\nwant %s", got, tt.hint)
			}
		})
	}
}

func TestTemplateKnowsWhetherItIsConstant(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "x": true, "{{x}": true, "{ }": true, "{x}": false, "{#}": false, "a{}": false,
	} {
		tpl, err := bulkhead.ParseTemplate(text, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		if tpl.Constant() != want {
			t.Errorf("%q: constant is %v", text, tpl.Constant())
		}
	}
	tpl, err := bulkhead.ParseTemplate("{x}", nil)
	if err != nil || !tpl.Constant() {
		t.Errorf("without columns {x} is constant; got %v, %v", tpl.Constant(), err)
	}
}

func TestExpandAllocatesOnce(t *testing.T) {
	tpl, err := bulkhead.ParseTemplate("--wiki={wiki} --n={#} --key={key}", []string{"wiki", "key"})
	if err != nil {
		t.Fatal(err)
	}
	item := bulkhead.Item{Index: 123456, Values: []string{"enwiki", "144p.mjpeg.mov"}}
	if n := testing.AllocsPerRun(100, func() { tpl.Expand(item) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestNearestOffersOnlyWhatIsNear(t *testing.T) {
	known := []string{"limit", "rate", "retry-delay", "max-output", "canary", "quota", "f"}
	for word, want := range map[string]string{
		"limt": "limit", "lmiit": "limit", "LIMIT": "limit", "limits": "limit", "rat": "rate", "rtae": "rate",
		"retry_delay": "retry-delay", "retryDelay": "retry-delay", "maxoutput": "max-output",
		"quto": "quota", "qoat": "", "otua": "",
		"x": "", "": "", "F": "f", "concurrency": "", "tear": "", strings.Repeat("limit", 1000): "",
	} {
		if got := bulkhead.Nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

var escapable = regexp.MustCompile(`\{(#|[A-Za-z0-9_.-]*)\}`)

// FuzzTemplate: no text makes it panic, text without braces is kept, and every
// text can be written so that it stands for itself.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "{}", "{#}", "{a}", "{b.c-d_1}", "{{a}", "{{{a}", "{{{{#}}}}", "{", "}", "{{", "{#", "{a{a}",
		"{wïki}", "\xff{a}\x00", `{"a":{a}}`, "{}{}{}", "{unknown}",
	} {
		f.Add(seed, "v{a}")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		item := bulkhead.Item{Index: 7, Values: []string{value, "w"}}
		for _, columns := range [][]string{nil, {"a"}, {"a", "b.c-d_1"}} {
			tpl, err := bulkhead.ParseTemplate(text, columns)
			if err != nil {
				if bulkhead.CodeOf(err) != bulkhead.CodeUsage || bulkhead.HintOf(err) == "" {
					t.Fatalf("%q: %v has no code or hint", text, err)
				}
				continue
			}
			got := tpl.Expand(item)
			if (columns == nil || !strings.Contains(text, "{")) && got != text {
				t.Fatalf("%q expands to %q", text, got)
			}
			if tpl.Constant() && got != tpl.Expand(bulkhead.Item{Index: 8, Values: []string{"x", "y"}}) {
				t.Fatalf("%q is not constant", text)
			}
		}
		escaped := escapable.ReplaceAllString(text, "{$0")
		tpl, err := bulkhead.ParseTemplate(escaped, []string{"a"})
		if err != nil {
			t.Fatalf("%q: %v", escaped, err)
		}
		if got := tpl.Expand(item); got != text || !tpl.Constant() {
			t.Fatalf("%q, escaped as %q, expands to %q", text, escaped, got)
		}
	})
}

func BenchmarkExpand(b *testing.B) {
	tpl, err := bulkhead.ParseTemplate("--wiki={wiki} --n={#}", []string{"wiki"})
	if err != nil {
		b.Fatal(err)
	}
	item := bulkhead.Item{Index: 123456, Values: []string{"enwiki"}}
	b.ReportAllocs()
	for b.Loop() {
		tpl.Expand(item)
	}
}
