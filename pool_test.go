package bulkhead_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
)

func TestParsePoolReadsNameKeyAndSlots(t *testing.T) {
	for text, want := range map[string]bulkhead.PoolUse{
		"db=1":                 {Name: "db", Slots: 1},
		"db.main_1-x=12":       {Name: "db.main_1-x", Slots: 12},
		"db:{wiki}=1":          {Name: "db", Key: "{wiki}", Slots: 1},
		"db:{a}:{b}=3":         {Name: "db", Key: "{a}:{b}", Slots: 3},
		"db:k=v=2":             {Name: "db", Key: "k=v", Slots: 2},
		"9=9":                  {Name: "9", Slots: 9},
		"db: =1":               {Name: "db", Key: " ", Slots: 1},
		"db:s{#} of {{wiki}=1": {Name: "db", Key: "s{#} of {{wiki}", Slots: 1},
	} {
		got, err := bulkhead.ParsePool(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

func TestParsePoolSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "no =N",
		"db":                      "no =N",
		"db=":                     `"" is not a whole number`,
		"db=0":                    "of at least 1",
		"db=-1":                   "of at least 1",
		"db=1.5":                  `"1.5" is not a whole number`,
		"db=99999999999999999999": "is not a whole number",
		"db:x=y":                  `"y" is not a whole number`,
		"=1":                      `"" is not a name`,
		":x=1":                    `"" is not a name`,
		"-db=1":                   `"-db" is not a name`,
		"d b=1":                   `"d b" is not a name`,
		"dé=1":                    `"dé" is not a name`,
		"db:=1":                   "the key after : is empty",
	} {
		_, err := bulkhead.ParsePool(text)
		wantUsage(t, text, err, want)
	}
}

func TestParseRateReadsCountAndUnit(t *testing.T) {
	for text, want := range map[string]struct {
		rate  bulkhead.Rate
		every time.Duration
		shown string
	}{
		"50/s":     {bulkhead.Rate{Count: 50, Per: time.Second}, 20 * time.Millisecond, "50/s"},
		"50":       {bulkhead.Rate{Count: 50, Per: time.Second}, 20 * time.Millisecond, "50/s"},
		"30/m":     {bulkhead.Rate{Count: 30, Per: time.Minute}, 2 * time.Second, "30/m"},
		"0.5/h":    {bulkhead.Rate{Count: 0.5, Per: time.Hour}, 2 * time.Hour, "0.5/h"},
		"1e6/s":    {bulkhead.Rate{Count: 1e6, Per: time.Second}, time.Microsecond, "1000000/s"},
		"1e9/s":    {bulkhead.Rate{Count: 1e9, Per: time.Second}, time.Nanosecond, "1000000000/s"},
		"0.0002/h": {bulkhead.Rate{Count: 0.0002, Per: time.Hour}, 5000 * time.Hour, "0.0002/h"},
	} {
		got, err := bulkhead.ParseRate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got != want.rate || got.Interval() != want.every || got.String() != want.shown {
			t.Errorf("%s is %+v, every %v, shown as %s", text, got, got.Interval(), got)
		}
	}
}

func TestParseRateSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"": "not a number", "x": "not a number", "/s": "not a number", "0": "not a number", "-1/s": "not a number",
		"5/d": "per s, m or h", "5/": "per s, m or h", "5/s/s": "per s, m or h", "5 /s": "not a number",
		"inf/s": "not a number", "nan": "not a number", "1e400/s": "not a number",
		"0.0001/h": "less than one start a year", "1e-300/s": "less than one start a year",
		"1e10/s": "more than one start a nanosecond", "1e300": "more than one start a nanosecond",
	} {
		_, err := bulkhead.ParseRate(text)
		wantUsage(t, text, err, want)
	}
}

func TestUnlimitedRateIsEmptyText(t *testing.T) {
	var r bulkhead.Rate
	if r.String() != "" || r.Interval() != 0 {
		t.Errorf("zero rate is %q, every %v", r, r.Interval())
	}
	if err := r.UnmarshalText(nil); err != nil || r != (bulkhead.Rate{}) {
		t.Errorf("empty text is %v, %v", r, err)
	}
}

func TestRateThatCannotBeReadIsNotWritten(t *testing.T) {
	for _, r := range []bulkhead.Rate{{Count: 5, Per: 10 * time.Second}, {Count: 1e300, Per: time.Hour}, {Count: -1, Per: time.Second}} {
		if text, err := r.MarshalText(); err == nil {
			t.Errorf("%+v is written as %s", r, text)
		}
		if r.String() == "" {
			t.Errorf("%+v shows as nothing", r)
		}
	}
	if got := (bulkhead.Rate{Count: 1e-300, Per: time.Second}).Interval(); got != math.MaxInt64/2 {
		t.Errorf("a rate of almost nothing is every %v", got)
	}
}

func TestParseHaltReadsBothConditions(t *testing.T) {
	for text, want := range map[string]bulkhead.Halt{
		"soon,fail=3":    {Fail: 3},
		"now,fail=1":     {Now: true, Fail: 1},
		"soon,fail=5%":   {Percent: 5},
		"now,fail=0.25%": {Now: true, Percent: 0.25},
		"now,fail=100%":  {Now: true, Percent: 100},
	} {
		got, err := bulkhead.ParseHalt(text)
		if err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%s shows as %s", text, got)
		}
	}
}

func TestParseHaltSaysWhatIsWrong(t *testing.T) {
	for _, text := range []string{
		"", "soon", "now", "now,", "later,fail=1", "fail=1", "soon,fail=", "soon,fail=0", "soon,fail=-1", "soon,fail=1.5",
		"soon,fail=0%", "soon,fail=101%", "soon,fail=-5%", "soon,fail=nan%", "soon,fail=%", "soon,success=1",
		"soon,fail=3,fail=4", "soon, fail=3", "SOON,fail=3",
	} {
		_, err := bulkhead.ParseHalt(text)
		wantUsage(t, text, err, "halt ")
	}
}

func TestHaltIsReachedAtItsCondition(t *testing.T) {
	three, five, all := bulkhead.Halt{Fail: 3}, bulkhead.Halt{Percent: 5}, bulkhead.Halt{Now: true, Percent: 100}
	tests := map[string]struct {
		halt   bulkhead.Halt
		counts bulkhead.Counts
		want   string
	}{
		"the zero value never halts":            {bulkhead.Halt{}, bulkhead.Counts{Failed: 1e9}, ""},
		"two of three failures go on":           {three, bulkhead.Counts{Failed: 2}, ""},
		"three failures halt":                   {three, bulkhead.Counts{Failed: 3}, "halted (soon,fail=3): 3 failed"},
		"lost items count as failures":          {three, bulkhead.Counts{Failed: 1, Lost: 2}, "halted (soon,fail=3): 3 failed"},
		"cancelled items do not count":          {three, bulkhead.Counts{Cancelled: 9}, ""},
		"a share needs three failures":          {five, bulkhead.Counts{Failed: 2}, ""},
		"a share below goes on":                 {five, bulkhead.Counts{Failed: 3, Succeeded: 58}, ""},
		"a share that is met halts":             {five, bulkhead.Counts{Failed: 3, Succeeded: 57}, "halted (soon,fail=5%): 3 of 60 failed"},
		"queued items are no part of the share": {five, bulkhead.Counts{Failed: 3, Queued: 1e6}, "halted (soon,fail=5%): 3 of 3 failed"},
		"all failed is a hundred percent":       {all, bulkhead.Counts{Lost: 4}, "halted (now,fail=100%): 4 of 4 failed"},
		"one success keeps it below a hundred":  {all, bulkhead.Counts{Failed: 1e6, Succeeded: 1}, ""},
		"a share of a very large run does not overflow": {five, bulkhead.Counts{Failed: math.MaxInt64 / 4, Succeeded: math.MaxInt64 / 4},
			"halted (soon,fail=5%): 2305843009213693951 of 4611686018427387902 failed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.halt.Reached(tt.counts); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSpecSurvivesJSON(t *testing.T) {
	stdin := "{wiki}\n"
	want := bulkhead.Spec{
		Command: []string{"./x", "{wiki}"}, Dir: "/", Stdin: &stdin, Columns: []string{"wiki"},
		Inputs: []bulkhead.Source{{Name: "wiki", Values: []string{"a,b", ""}}, {From: "-"}},
		Pools:  []bulkhead.PoolUse{{Name: "db", Key: "{wiki}", Slots: 1}},
		Limit:  4, Rate: bulkhead.Rate{Count: 0.5, Per: time.Minute}, Halt: bulkhead.Halt{Now: true, Percent: 2.5},
	}
	for _, spec := range []bulkhead.Spec{want, {Command: []string{"x"}, Dir: "/", Limit: 1}} {
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var got bulkhead.Spec
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(spec, got); diff != "" {
			t.Errorf("through %s (-want +got)\n%s", data, diff)
		}
	}
}

// FuzzLimits: what ParsePool, ParseRate and ParseHalt accept can be shown and
// read again as the same.
func FuzzLimits(f *testing.F) {
	for _, seed := range []string{"db:{wiki}=1", "50/s", "1e-3/h", "0x1p4", "3.3333333333333333/m", "soon,fail=3", "now,fail=0x1p-4%", "soon,fail=1e-300%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := bulkhead.ParsePool(text); err == nil && (p.Slots < 1 || p.Name == "") {
			t.Fatalf("pool %q is %+v", text, p)
		}
		if r, err := bulkhead.ParseRate(text); err == nil {
			shown, err := r.MarshalText()
			var again bulkhead.Rate
			if err != nil || again.UnmarshalText(shown) != nil || again != r || r.Interval() <= 0 {
				t.Fatalf("rate %q, shown as %s, is %+v, then %+v: %v", text, shown, r, again, err)
			}
		}
		if h, err := bulkhead.ParseHalt(text); err == nil {
			shown, err := h.MarshalText()
			var again bulkhead.Halt
			if err != nil || again.UnmarshalText(shown) != nil || again != h || h == (bulkhead.Halt{}) {
				t.Fatalf("halt %q, shown as %s, is %+v, then %+v: %v", text, shown, h, again, err)
			}
		}
	})
}

func wantUsage(t *testing.T, text string, err error, want string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%q was accepted", text)
	case bulkhead.CodeOf(err) != bulkhead.CodeUsage || !strings.Contains(err.Error(), want):
		t.Errorf("%q: %v (%s), want a usage error with %q", text, err, bulkhead.CodeOf(err), want)
	}
}
