package bulkhead

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// PoolUse says that every item of a run takes one slot of a pool while it
// runs. With a key template each key is a pool of its own: `db:{cluster}=4`.
type PoolUse struct {
	Name  string `json:"name"`
	Key   string `json:"key,omitempty"` // template; "" for one pool for all items
	Slots int    `json:"slots"`         // at once; at least 1
}

var poolName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// ParsePool reads NAME[:KEYTEMPLATE]=N. The last "=" counts, so that a key may
// hold others.
func ParsePool(text string) (PoolUse, error) {
	bad := func(what string) (PoolUse, error) {
		return PoolUse{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("pool %q: %s", text, what),
			Hint: "write NAME=N or NAME:KEY=N, for example db:{wiki}=1"}
	}
	at := strings.LastIndexByte(text, '=')
	if at < 0 {
		return bad("no =N")
	}
	n, err := strconv.Atoi(text[at+1:])
	if err != nil || n < 1 {
		return bad(fmt.Sprintf("%q is not a whole number of at least 1", text[at+1:]))
	}
	name, key, keyed := strings.Cut(text[:at], ":")
	if !poolName.MatchString(name) {
		return bad(fmt.Sprintf("%q is not a name of letters, digits, _ - .", name))
	}
	if keyed && key == "" {
		return bad("the key after : is empty")
	}
	return PoolUse{Name: name, Key: key, Slots: n}, nil
}

// PoolStatus is how one pool stands.
type PoolStatus struct {
	Name    string `json:"name"`
	Key     string `json:"key"`     // "": one pool for all items
	Used    int    `json:"used"`    // slots, by items that run
	Slots   int    `json:"slots"`   // of several runs that say something else, the least
	Waiting int64  `json:"waiting"` // items that need it and wait, of those that were read ahead
	// Classes are those of the runs that take part in it.
	Classes []string `json:"-"`
}

// Full reports whether nothing that needs the pool can start.
func (p *PoolStatus) Full() bool { return p.Used >= p.Slots }

// Rate is a number of starts per time. The zero value is unlimited.
type Rate struct {
	Count float64       // starts, > 0
	Per   time.Duration // a second, a minute or an hour
}

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// ParseRate reads N/s, N/m or N/h; a bare N is per second.
func ParseRate(text string) (Rate, error) {
	count, unit, ok := strings.Cut(text, "/")
	if !ok {
		unit = "s"
	}
	per, known := rateUnits[unit]
	n, err := strconv.ParseFloat(count, 64)
	if err != nil || !known || n <= 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return Rate{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("rate %q is not a number per s, m or h", text),
			Hint: "for example 50/s, 30/m or 0.5/s"}
	}
	r := Rate{n, per}
	switch every := r.Interval(); {
	case every > 366*24*time.Hour:
		return Rate{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("rate %q is less than one start a year", text)}
	case every == 0: // it would read as unlimited
		return Rate{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("rate %q is more than one start a nanosecond", text),
			Hint: "leave the rate out for no limit"}
	}
	return r, nil
}

// Interval is the time between two starts, 0 when unlimited.
func (r Rate) Interval() time.Duration {
	if r.Count == 0 {
		return 0
	}
	d := float64(r.Per) / r.Count
	if d > math.MaxInt64/2 {
		return math.MaxInt64 / 2
	}
	return time.Duration(d)
}

func (r Rate) String() string {
	if r.Count == 0 {
		return ""
	}
	count := strconv.FormatFloat(r.Count, 'f', -1, 64)
	for unit, per := range rateUnits {
		if per == r.Per {
			return count + "/" + unit
		}
	}
	return fmt.Sprintf("%s per %s", count, r.Per)
}

// MarshalText and UnmarshalText make a Rate its own text in JSON and YAML. A
// rate that ParseRate would refuse is an error: what is stored can be read.
func (r Rate) MarshalText() ([]byte, error) {
	text := r.String()
	if text != "" {
		if _, err := ParseRate(text); err != nil {
			return nil, err
		}
	}
	return []byte(text), nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*r = Rate{}
		return nil
	}
	*r, err = ParseRate(string(text))
	return err
}

// Halt says when failures end a run early. Failures are items that failed or
// were lost for good. The zero value never halts.
type Halt struct {
	Now     bool    // stop what runs; otherwise only start nothing more ("soon")
	Fail    int64   // this many failures; 0: not by number
	Percent float64 // this share of the finished items, of at least HaltMinFailures failures; 0: not by share
}

// HaltMinFailures keeps the first failure of a run from being 100 % of it. GNU
// parallel needs no such rule, because its percentage is of all jobs; ours is
// of those that finished, which says more the earlier things go wrong.
const HaltMinFailures = 3

// ParseHalt reads soon|now,fail=N or soon|now,fail=N%.
func ParseHalt(text string) (Halt, error) {
	bad := errors.New("")
	h, err := func() (h Halt, _ error) {
		when, cond, _ := strings.Cut(text, ",")
		if h.Now = when == "now"; !h.Now && when != "soon" {
			return h, bad
		}
		val, ok := strings.CutPrefix(cond, "fail=")
		if !ok {
			return h, bad
		}
		if pct, ok := strings.CutSuffix(val, "%"); ok {
			p, err := strconv.ParseFloat(pct, 64)
			if err != nil || math.IsNaN(p) || p <= 0 || p > 100 {
				return h, bad
			}
			h.Percent = p
			return h, nil
		}
		n, err := strconv.ParseInt(val, 10, 64)
		if err != nil || n < 1 {
			return h, bad
		}
		h.Fail = n
		return h, nil
	}()
	if err != nil {
		return Halt{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("halt %q is not understood", text),
			Hint: "write soon,fail=3, now,fail=1 or soon,fail=5%"}
	}
	return h, nil
}

func (h Halt) String() string {
	when := "soon"
	if h.Now {
		when = "now"
	}
	switch {
	case h.Fail > 0:
		return fmt.Sprintf("%s,fail=%d", when, h.Fail)
	case h.Percent > 0:
		return fmt.Sprintf("%s,fail=%s%%", when, strconv.FormatFloat(h.Percent, 'g', -1, 64))
	}
	return ""
}

// MarshalText and UnmarshalText make a Halt its own text in JSON and YAML.
func (h Halt) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Halt) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*h = Halt{}
		return nil
	}
	*h, err = ParseHalt(string(text))
	return err
}

// Reached says why the run should halt at these counts, or "".
func (h Halt) Reached(c Counts) string {
	bad, done := c.Failed+c.Lost, c.Succeeded+c.Failed+c.Lost
	switch {
	case h.Fail > 0 && bad >= h.Fail:
		return fmt.Sprintf("halted (%s): %d failed", h, bad)
	case h.Percent > 0 && bad >= HaltMinFailures && float64(bad)*100 >= h.Percent*float64(done):
		return fmt.Sprintf("halted (%s): %d of %d failed", h, bad, done)
	}
	return ""
}

var (
	_ encoding.TextUnmarshaler = (*Rate)(nil)
	_ encoding.TextUnmarshaler = (*Halt)(nil)
)
