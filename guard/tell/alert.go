package tell

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bulkhead.dev/bulkhead"
)

// Bounds of what is told of one finding, in characters and in things.
const (
	wordLength = 100  // of a name
	lineLength = 250  // of a line
	mostLines  = 8    // of each kind: members, facts, pieces of advice
	mostAlerts = 100  // at once; what is less severe is left out
	noteLength = 1000 // bytes of an Event's note: the API server takes 1,024

	commandLength = 1000 // of a command, which is whole or not there
	adviceLength  = 4000 // bytes of all advice
)

// alert is a finding as places tell it: bounded, and harmless to show.
type alert struct {
	ID          string            `json:"id"`
	Severity    bulkhead.Severity `json:"severity"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Since       time.Time         `json:"since"`
	Ended       time.Time         `json:"ended,omitzero"`
}

// Alertname is the label by which alerts of the webhook are told apart from others.
const Alertname = "BulkheadGrowth"

// rank of a severity: the higher, the sooner somebody has to look.
func rank(s bulkhead.Severity) int {
	return slices.Index([]bulkhead.Severity{bulkhead.Notice, bulkhead.Warning, bulkhead.Critical}, s)
}

// alertsOf are the alerts of findings: those that go on before those that have ended,
// the most severe first, mostAlerts at most.
func alertsOf(findings []bulkhead.Finding, now time.Time) []alert {
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b bulkhead.Finding) int {
		if over := compareBool(!a.Ended.IsZero(), !b.Ended.IsZero()); over != 0 {
			return over
		}
		return cmp.Or(rank(b.Severity)-rank(a.Severity), strings.Compare(a.ID, b.ID))
	})
	alerts := make([]alert, 0, min(len(sorted), mostAlerts))
	for i := range sorted[:min(len(sorted), mostAlerts)] {
		alerts = append(alerts, alertOf(&sorted[i], now))
	}
	return alerts
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func word(s string) string { return bulkhead.OneLine(s, wordLength) }

func alertOf(f *bulkhead.Finding, now time.Time) alert {
	a := alert{ID: word(f.ID), Severity: f.Severity, Namespace: word(f.Namespace), Since: f.Since.UTC(), Ended: f.Ended.UTC()}
	a.Labels = map[string]string{"alertname": Alertname, "finding": a.ID, "severity": word(string(f.Severity))}
	for label, value := range map[string]string{"namespace": f.Namespace, "kind": kindOf(f), "client": f.Client} {
		if value != "" {
			a.Labels[label] = word(value)
		}
	}
	a.Annotations = map[string]string{"summary": bulkhead.OneLine(f.Title, lineLength), "description": describe(f, now)}
	if advice := adviceOf(f); advice != "" {
		a.Annotations["advice"] = advice
	}
	return a
}

// kindOf is the kind that hurts first; "" if there is none.
func kindOf(f *bulkhead.Finding) string {
	if len(f.Members) == 0 {
		return ""
	}
	return f.Members[0].Kind
}

// describe says what a finding is, in a few lines.
func describe(f *bulkhead.Finding, now time.Time) string {
	var lines []string
	line := func(format string, args ...any) {
		lines = append(lines, bulkhead.OneLine(fmt.Sprintf(format, args...), lineLength))
	}
	grows := f.PerHour > 0 // otherwise it is about a budget that is reached
	if since := f.Since.UTC().Format("2006-01-02 15:04 UTC"); grows {
		line("since %s: %s an hour", since, number(f.PerHour))
	} else {
		line("since %s, or longer", since)
	}
	for i := range f.Members[:min(len(f.Members), mostLines)] {
		if m := &f.Members[i]; grows {
			line("%s × %s %s: %d there, for example %s", number(m.Ratio), m.Kind, m.Family, m.Objects, m.Example)
		} else {
			line("%s", stock(m))
		}
	}
	if grows || f.Client != "" {
		line("made by %s", cmp.Or(f.Client, "a client that is not known"))
	}
	if len(f.Users) > 0 {
		line("as %s", strings.Join(f.Users[:min(len(f.Users), mostLines)], ", "))
	}
	for _, fact := range f.Facts[:min(len(f.Facts), mostLines)] {
		line("%s: %s (%d objects)", fact.Key, fact.Value, fact.Objects)
	}
	for _, r := range f.Reaches[:min(len(f.Reaches), mostLines)] {
		line("%s", reached(&r))
		if r.Detail != "" {
			line("%s", r.Detail)
		}
	}
	if f.Keeps != "" {
		line("%s", f.Keeps)
	}
	if f.Exempt != nil {
		line("%s", f.Exempt)
	}
	if !f.Ended.IsZero() {
		line("ended %s", f.Ended.UTC().Format("2006-01-02 15:04 UTC"))
	} else if age := now.Sub(f.Since); age > 0 {
		line("it has gone on for %s", span(age))
	}
	return strings.Join(lines, "\n")
}

// stock is how many objects of a family there are of what has reached a budget. A census
// that tells no families has * or a sum, /all.
func stock(m *bulkhead.Member) string {
	text := fmt.Sprintf("%s: %d there", m.Kind, m.Objects)
	if m.Family == "/all" || m.Family == "*" {
		return text
	}
	text = fmt.Sprintf("%s %s in %s: %d there", m.Kind, m.Family, cmp.Or(m.Namespace, "no namespace"), m.Objects)
	if m.Example != "" {
		text += ", for example " + m.Example
	}
	return text
}

func reached(r *bulkhead.Reach) string {
	amount := number
	if r.Budget.Unit == "bytes" {
		amount = bulkhead.Mebibytes
	}
	budget := fmt.Sprintf("%s: %s of %s (%s)", r.Budget.Name, amount(r.Now), amount(r.Budget.Limit), r.Budget.Source)
	switch {
	case r.In <= 0:
		return budget + ", reached"
	case r.Low == r.High:
		return fmt.Sprintf("%s, reached in %s", budget, span(r.In))
	}
	return fmt.Sprintf("%s, reached in %s (%s to %s)", budget, span(r.In), span(r.Low), span(r.High))
}

// adviceOf is what to do now, one thing a line, the safest first. A command is whole or
// not there: somebody copies it, and half of one does something else.
func adviceOf(f *bulkhead.Finding) string {
	var lines []string
	length := 0
	for i, a := range f.Advice {
		text := strconv.Itoa(i+1) + ". " + bulkhead.OneLine(a.Text, lineLength)
		switch {
		case utf8.RuneCountInString(a.Command) > commandLength:
			text += " (too long to show: bulkhead why -o json has the command)"
		case a.Command != "":
			text += ": " + bulkhead.OneLine(a.Command, commandLength)
		}
		if length += len(text); i >= mostLines || length > adviceLength {
			return strings.Join(append(lines, fmt.Sprintf("%d more: bulkhead why", len(f.Advice)-i)), "\n")
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

// number is a figure as people read it: no more digits than it is good for.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// span is a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*24*time.Hour:
		return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// fingerprint says which alert it is. Alertmanager's changes with any label; this one
// leaves out the severity, so that a receiver sees one alert that becomes worse.
func (a *alert) fingerprint() string {
	h := fnv.New64a()
	for _, part := range []string{Alertname, a.ID} {
		_, _ = h.Write([]byte(part))
		_, _ = h.Write([]byte{0xff})
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
