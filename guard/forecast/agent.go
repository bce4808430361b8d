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
	Name   string  // calico-node
	Memory float64 // bytes now; the working set, as the kubelet counts it against the limit
	Limit  float64 // bytes
	Cost   Cost    // learned or known
	Held   Trend   // of what Cost.Of counts
	// Objects are how many objects Held counts in each unit: for rules, 1/90 when a
	// policy has 90 of them. Noun is what they are called. 0 and "" show units.
	Objects float64
	Noun    string
}

// cost is the agent's own: the base is what it has now beside what it holds.
func (a Agent) cost() Cost { return a.Cost.At(a.Memory, a.Held.Now) }

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

// Reach says when its memory is at its limit, as a growth does that reaches a budget.
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
		_, l, _, okLow := a.Held.Reach(dear.At(a.Memory, a.Held.Now).Units(a.Limit))
		_, _, h, okHigh := a.Held.Reach(cheap.At(a.Memory, a.Held.Now).Units(a.Limit))
		if okLow {
			low = min(low, l)
		}
		if high = max(high, h); !okHigh {
			high = Far
		}
	}
	return bulkhead.Reach{Budget: a.Budget(), Now: a.Memory, In: in, Low: low, High: high, Detail: a.Detail()}, true
}

// Budget is its memory as a budget.
func (a Agent) Budget() bulkhead.Budget {
	source := fmt.Sprintf("%s: %s per unit of %s", a.Cost.Source, size(a.Cost.PerUnit), a.Cost.Of)
	if a.Cost.Of == Rules {
		source = fmt.Sprintf("%s: %s per rule", a.Cost.Source, size(a.Cost.PerUnit))
	}
	if a.Cost.Error > 0 {
		source += fmt.Sprintf(" (±%.0f %%)", 100*a.Cost.Error)
	}
	return bulkhead.Budget{Name: a.Name + " memory", Unit: "bytes", Limit: a.Limit, Source: source + ", limit " + mebi(a.Limit)}
}

// Detail says what is known of restarting it, in one line: of calico-node, which can
// still run where it can no longer start. "" of others.
func (a Agent) Detail() string {
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
	who := fmt.Sprintf("at %s %s/h, %s (limit %s, now %s) is full", count(perHour), step, a.Name, mebi(a.Limit), mebi(a.Memory))
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

// mebi is a size as limits are written: 500Mi, 1.5Gi.
func mebi(bytes float64) string {
	if bytes >= 1024*MiB {
		return strconv.FormatFloat(math.Round(bytes/(1024*MiB)*10)/10, 'f', -1, 64) + "Gi"
	}
	return strconv.FormatFloat(math.Round(bytes/MiB), 'f', -1, 64) + "Mi"
}

// size is a small size in decimal units: 1.24 kB.
func size(bytes float64) string {
	if bytes >= kB {
		return strconv.FormatFloat(bytes/kB, 'f', 2, 64) + " kB"
	}
	return strconv.FormatFloat(bytes, 'f', 0, 64) + " B"
}
