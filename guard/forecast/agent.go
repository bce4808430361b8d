package forecast

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// Agent is one kind of agent, as its worst container stands, and the growth of what it
// must hold.
type Agent struct {
	Name string // calico-node
	// Uses is what it takes of its Limit now: bytes of memory (the working set, as the
	// kubelet counts it against the limit), or cores, as Of says.
	Uses, Limit float64
	Of          Resource // default Memory
	Cost        Cost     // learned or known
	Held        Trend    // of what Cost.Of counts
	// Objects are how many objects Held counts in each unit: for rules, 1/90 when a
	// policy has 90 of them. Noun is what they are called. 0 and "" show units.
	Objects float64
	Noun    string
}

// Resource is what an agent may have too little of.
type Resource string

// An agent at its limit of memory hangs or is killed; one at its limit of CPU is only
// throttled.
const (
	Memory Resource = ""
	CPU    Resource = "CPU"
)

// Cores is the unit of a budget that is CPU.
const Cores = "cores"

// cost is the agent's own: the base is what it has now beside what it holds.
func (a Agent) cost() Cost { return a.Cost.At(a.Uses, a.Held.Now) }

// Full is how many objects fill it; infinite when they cost nothing.
func (a Agent) Full() float64 { return a.cost().Units(a.Limit) * a.objects() }

func (a Agent) objects() float64 {
	if a.Objects > 0 {
		return a.Objects
	}
	return 1
}

func (a Agent) noun() string {
	if a.Noun != "" {
		return a.Noun
	}
	return a.Cost.Of
}

// Reach says when its memory or CPU is at its limit, as a growth does that reaches a budget.
// It is not ok when there is no limit, or no growth that will reach it.
func (a Agent) Reach() (bulkhead.Reach, bool) {
	if a.Limit <= 0 || a.Cost.PerUnit <= 0 {
		return bulkhead.Reach{}, false
	}
	in, low, high, ok := a.Held.Reach(a.cost().Units(a.Limit))
	if !ok {
		return bulkhead.Reach{}, false
	}
	if a.Cost.Error > 0 {
		dear, cheap := a.Cost, a.Cost
		dear.PerUnit *= 1 + a.Cost.Error
		cheap.PerUnit *= max(0.1, 1-a.Cost.Error)
		_, l, _, okLow := a.Held.Reach(dear.At(a.Uses, a.Held.Now).Units(a.Limit))
		_, _, h, okHigh := a.Held.Reach(cheap.At(a.Uses, a.Held.Now).Units(a.Limit))
		if okLow {
			low = min(low, l)
		}
		if high = max(high, h); !okHigh {
			high = Far
		}
	}
	return bulkhead.Reach{Budget: a.Budget(), Now: a.Uses, In: in, Low: low, High: high, Detail: a.Detail()}, true
}

// Budget is its memory or CPU as a budget.
func (a Agent) Budget() bulkhead.Budget {
	b := bulkhead.Budget{Name: a.Name + " memory", Unit: "bytes", Limit: a.Limit}
	each, limit := size(a.Cost.PerUnit)+" per unit of "+a.Cost.Of, bulkhead.Mebibytes(a.Limit)
	if a.Cost.Of == Rules {
		each = size(a.Cost.PerUnit) + " per rule"
	}
	if a.Of == CPU {
		b.Name, b.Unit = a.Name+" CPU", Cores
		each, limit = fmt.Sprintf("%.2g cores per 1,000 %s", 1000*a.Cost.PerUnit, a.Cost.Of), CoresText(a.Limit)
	}
	if a.Cost.Error > 0 {
		each += fmt.Sprintf(" (±%.0f %%)", 100*a.Cost.Error)
	}
	b.Source = fmt.Sprintf("%s: %s, limit %s", a.Cost.Source, each, limit)
	if full := a.Full(); a.Of == Memory && a.Uses < a.Limit && !math.IsInf(full, 1) {
		b.Source = fmt.Sprintf("full at %s %s; %s", count(math.Round(full/10)*10), a.noun(), b.Source)
	}
	return b
}

// CoresText is a number of cores for people: 1, 0.62, 0.005.
func CoresText(cores float64) string {
	digits := 2
	if cores < 0.1 {
		digits = 3
	}
	text := strconv.FormatFloat(cores, 'f', digits, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// Detail says what its limit means, in one line. Of memory it is what is known of restarting
// it: of calico-node, which can still run where it can no longer start; "" of others.
func (a Agent) Detail() string {
	if a.Of == CPU {
		text := fmt.Sprintf("%s (CPU limit %s, now %s) is throttled", a.Name, CoresText(a.Limit), CoresText(a.Uses))
		if full := a.Full(); a.Uses < a.Limit && !math.IsInf(full, 1) {
			text += fmt.Sprintf(" from %s %s on", round(full), a.noun())
		}
		return text + ": slower, not killed"
	}
	if a.Name != "calico-node" || a.Limit <= 0 || a.Cost.PerUnit <= 0 {
		return ""
	}
	safe := a.cost().Thresholds(a.Limit).Restart * a.objects()
	if math.IsInf(safe, 1) {
		return ""
	}
	now := a.Held.Now * a.objects()
	if now > safe {
		return fmt.Sprintf("do not restart %s: it holds %s %s, and above %s it does not become ready again; raise the limit first",
			a.Name, count(now), a.noun(), round(safe))
	}
	return fmt.Sprintf("restarting %s is safe up to %s %s; above that raise the limit first", a.Name, round(safe), a.noun())
}

// Sentence says when it is full, in one line. step is what the growth is made of and
// perHour how many of it: at 224 releases/h, calico-node (limit 500Mi, now 410Mi) is
// full in 3 h 50 min (3 h 10 – 4 h 40), at 1,690 policies. "" when it will not be.
func (a Agent) Sentence(perHour float64, step string) string {
	r, ok := a.Reach()
	if !ok {
		return ""
	}
	who := fmt.Sprintf("at %s %s/h, %s (limit %s, now %s) is full", count(perHour), step, a.Name, bulkhead.Mebibytes(a.Limit), bulkhead.Mebibytes(a.Uses))
	if a.Of == CPU {
		who = fmt.Sprintf("at %s %s/h, %s (CPU limit %s, now %s) is throttled", count(perHour), step, a.Name, CoresText(a.Limit), CoresText(a.Uses))
	}
	if r.In == 0 {
		return who + " now"
	}
	high := "later"
	if r.High < Far {
		high = Span(r.High, false)
	}
	return fmt.Sprintf("%s in %s (%s – %s), at %s %s", who, Span(r.In, true), Span(r.Low, false), high, count(math.Round(a.Full()/10)*10), a.noun())
}

// Span is a duration as people say it, exact enough: 3 h 50 min, or 3 h 50 without the
// unit at its end; 45 min; 3 d 4 h.
func Span(d time.Duration, unit bool) string {
	switch {
	case d >= Far:
		return "never"
	case d >= 48*time.Hour:
		h := int(d.Round(time.Hour) / time.Hour)
		return fmt.Sprintf("%d d %d h", h/24, h%24)
	case d < time.Hour-30*time.Second:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute)/time.Minute))
	}
	m := int(d.Round(10*time.Minute) / time.Minute)
	if m%60 == 0 {
		return fmt.Sprintf("%d h", m/60)
	}
	s := fmt.Sprintf("%d h %d", m/60, m%60)
	if unit {
		s += " min"
	}
	return s
}

// round is a number with two digits that count.
func round(v float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(max(v, 1)))-1))
	return count(math.Round(v/unit) * unit)
}

// count is a whole number with its thousands apart.
func count(v float64) string {
	s := strconv.FormatInt(int64(math.Round(v)), 10)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// size is a small size in decimal units: 1.24 kB.
func size(bytes float64) string {
	if bytes >= kB {
		return strconv.FormatFloat(bytes/kB, 'f', 2, 64) + " kB"
	}
	return strconv.FormatFloat(bytes, 'f', 0, 64) + " B"
}
