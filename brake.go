package bulkhead

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of brakes. A reason is shown in a line with other things, and every
// decision looks at every brake.
const (
	MaxBrakes      = 64
	MaxBrakeReason = 200 // characters
	MaxBrakeTime   = 366 * 24 * time.Hour
	maxScopeName   = 400 // bytes: two names of Kubernetes and more
)

// Check says what is wrong with a brake that somebody wants.
func (b *Brake) Check() error {
	usage := func(hint, format string, args ...any) error {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	if err := b.Scope.Check(); err != nil {
		return err
	}
	switch n := utf8.RuneCountInString(b.Reason); {
	case strings.TrimSpace(b.Reason) == "":
		return usage("it is shown to everybody who waits: what is wrong, and whom to ask", "the reason is empty")
	case n > MaxBrakeReason:
		return usage("say it in one line, and link to the rest", "the reason has %d characters, more than %d", n, MaxBrakeReason)
	case OneLine(b.Reason, MaxBrakeReason) != b.Reason:
		return usage("write plain text, in one line", "the reason %s has characters that a line cannot show", Quote(b.Reason))
	case !(b.Factor >= 0 && b.Factor < 1): // NaN, too
		return usage("0.5 is half as many at once; a brake without a factor lets nothing start", "factor %v is not between 0 and 1", b.Factor)
	}
	if b.Scope.Kind == ScopeFinding {
		return b.checkExemption()
	}
	switch d := b.Expires.Sub(b.Since); {
	case b.Expires.IsZero():
	case d <= 0:
		return usage("for example 2h", "a time of %s is not more than 0", d)
	case d > MaxBrakeTime:
		return usage("without a time it stays until it is lifted", "a time of %s is more than a year", d)
	}
	return nil
}

// Check says what is wrong with a scope. It does not know which names there are.
func (s Scope) Check() error {
	bad := func(hint, format string, args ...any) error {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	known := []ScopeKind{ScopeAll, ScopeNamespace, ScopeClass, ScopePool, ScopeRun, ScopeFinding}
	switch {
	case !slices.Contains(known, s.Kind):
		return bad("one of namespace, class, pool and run, or none for everything", "%s is not a kind of scope", Quote(string(s.Kind)))
	case s.Kind == ScopeAll && s.Name != "":
		return bad("", "everything has no name, and %s is one", Quote(s.Name))
	case s.Kind == ScopeAll:
		return nil
	case s.Name == "":
		return bad("", "the name of the %s is empty", s.Kind)
	case len(s.Name) > maxScopeName || OneLine(s.Name, maxScopeName) != s.Name || strings.TrimSpace(s.Name) != s.Name:
		return bad("", "%s is not the name of a %s", Quote(s.Name), s.Kind)
	}
	switch pool, key, keyed := strings.Cut(s.Name, ":"); {
	case s.Kind == ScopePool && (!poolName.MatchString(pool) || keyed && key == ""):
		return bad("NAME, or NAME:KEY for one key of it", "%s is not the name of a pool", Quote(s.Name))
	case s.Kind == ScopeNamespace && strings.Contains(s.Name, "/"):
		return bad("", "%s is not the name of a namespace", Quote(s.Name))
	case s.Kind == ScopeFinding && strings.Count(s.Name, "/") > 1:
		return bad("bulkhead brake ls shows those that hold something", "%s is not the id of a finding", Quote(s.Name))
	case s.Kind == ScopeRun && !isRunID(s.Name):
		return bad("bulkhead ls shows the runs and their numbers", "%s is not the number of a run", Quote(s.Name))
	}
	return nil
}

func isRunID(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && n > 0 && RunID(n).String() == text
}

// Keyed reports whether it is one key of a pool: then it says nothing about runs,
// of which other items may need other keys.
func (s Scope) Keyed() bool { return s.Kind == ScopePool && strings.Contains(s.Name, ":") }

// ScopesOf are the scopes that a run is in, but for keys of pools: those of its
// items differ.
func ScopesOf(id RunID, spec *Spec) []Scope {
	out := append(make([]Scope, 0, 4+len(spec.Pools)), Scope{}, Scope{ScopeRun, id.String()})
	if spec.Class != "" {
		out = append(out, Scope{ScopeClass, spec.Class})
	}
	if ns := NamespaceOf(spec.Class); ns != "" {
		out = append(out, Scope{ScopeNamespace, ns})
	}
	for _, p := range spec.Pools {
		out = append(out, Scope{ScopePool, p.Name})
	}
	return out
}

// Covers reports whether a run is in a scope: of one key of a pool, whether it uses
// the pool.
func (s Scope) Covers(id RunID, spec *Spec) bool {
	if s.Kind == ScopePool {
		s.Name, _, _ = strings.Cut(s.Name, ":")
	}
	return slices.Contains(ScopesOf(id, spec), s)
}

// Verdict is what a brake says, with who says so and until when: for whom it holds
// back that is the reason.
func (b *Brake) Verdict() Verdict {
	if _, exempt := b.Exempts(); exempt {
		return Verdict{Since: b.Since}
	}
	v := Verdict{Level: Stop, Since: b.Since, Lifts: fmt.Sprintf("bulkhead brake off %d", b.ID)}
	if b.Factor > 0 {
		v.Level, v.Factor = Slow, b.Factor
	}
	on := ""
	if b.Scope.Kind != ScopeAll {
		on = " on " + b.Scope.String()
	}
	until := ""
	if !b.Expires.IsZero() {
		until = " until " + b.Until()
		v.Past = fmt.Sprintf("brake %d%s by %s: %s", b.ID, on, b.Owner, b.Reason)
	}
	v.Reason = fmt.Sprintf("brake %d%s by %s%s: %s", b.ID, on, b.Owner, until, b.Reason)
	return v
}

// Until is when it expires, for people: in UTC, because who reads it may be anywhere.
// "": it stays until it is lifted.
func (b *Brake) Until() string {
	switch {
	case b.Expires.IsZero():
		return ""
	case b.Expires.Sub(b.Since) < 10*time.Minute:
		return b.Expires.UTC().Format("15:04:05 UTC")
	case b.Expires.Sub(b.Since) < 24*time.Hour:
		return b.Expires.UTC().Format("15:04 UTC")
	}
	return b.Expires.UTC().Format("2006-01-02 15:04 UTC")
}

// Ruling is the verdict with its scope.
func (b *Brake) Ruling() Ruling { return Ruling{Scope: b.Scope, Verdict: b.Verdict(), From: FromBrake} }

// Who gives rulings.
const (
	FromBrake = "brake"
	FromGuard = "guard"
)

// joinedReasons is how many reasons are said; the others are counted.
const joinedReasons = 2

// Strongest is the one verdict that several rulings come to: any single one is
// enough to stop, and of those that slow the one that leaves least counts. Its reason
// has those of the rulings of the same level, the oldest first, and from is who gives
// the first of them. Without rulings it allows.
func Strongest(rulings []Ruling) (v Verdict, from string) {
	var same []Ruling
	for _, r := range rulings {
		switch {
		case r.Verdict.Level == Allow || r.Verdict.Level < v.Level:
			continue
		case r.Verdict.Level > v.Level:
			same, v = same[:0:0], Verdict{Level: r.Verdict.Level, Factor: r.Verdict.Factor}
		}
		same = append(same, r)
		v.Factor = min(v.Factor, r.Verdict.Factor)
	}
	if len(same) == 0 {
		return Verdict{}, ""
	}
	slices.SortStableFunc(same, func(a, b Ruling) int { return a.Verdict.Since.Compare(b.Verdict.Since) })
	v.Since, v.Lifts = same[0].Verdict.Since, same[0].Verdict.Lifts
	v.Reason = joined(same, func(v Verdict) string { return v.Reason })
	if v.Past = joined(same, func(v Verdict) string { return cmp.Or(v.Past, v.Reason) }); v.Past == v.Reason {
		v.Past = ""
	}
	return v, same[0].From
}

func joined(rulings []Ruling, text func(Verdict) string) string {
	var reasons []string
	for _, r := range rulings {
		if reason := text(r.Verdict); !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	all := strings.Join(reasons[:min(len(reasons), joinedReasons)], "; ")
	if more := len(reasons) - joinedReasons; more > 0 {
		all += fmt.Sprintf("; and %d more", more)
	}
	return all
}

// Slowed is what is left of a limit, at least 1. A factor that is none leaves that.
func (v Verdict) Slowed(limit int) int {
	switch {
	case v.Level != Slow || v.Factor >= 1:
		return limit
	case v.Factor > 0:
		return max(min(int(float64(limit)*v.Factor), limit), min(limit, 1))
	}
	return min(limit, 1)
}

// BrakeStatus is a brake and what it holds back.
type BrakeStatus struct {
	Brake
	Runs  int   // in its scope that have items that wait
	Items int64 // of them that wait
}

// StatusOfBrake counts what waits among runs.
func StatusOfBrake(b Brake, runs []*Run) BrakeStatus {
	st := BrakeStatus{Brake: b}
	st.Runs, st.Items = waiting(runs, b.Scope)
	return st
}

// waiting counts what waits in any of some scopes.
func waiting(all []*Run, in ...Scope) (runs int, items int64) {
	for _, r := range all {
		covered := func(s Scope) bool { return s.Covers(r.ID, &r.Spec) }
		if r.State == RunRunning && r.Ending == 0 && r.Counts.Queued > 0 && slices.ContainsFunc(in, covered) {
			runs++
			items += r.Counts.Queued
		}
	}
	return runs, items
}
