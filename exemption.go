package bulkhead

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxExemption is how long a finding can be exempt before somebody has to say again
// that it is meant.
const MaxExemption = 7 * 24 * time.Hour

// An exemption is a brake the other way round: runs go on in spite of what the guard
// says because of one finding, for a time, because somebody knows that it is meant. It
// is kept and numbered as a brake is, so that it survives what a brake survives.

// FindingScope is what an exemption of a finding is on. Whose rights count for it is
// told by the namespace; "": those of the whole cluster, for it is about that, or holds
// everybody back.
func FindingScope(namespace, id string) Scope {
	if namespace != "" {
		id = namespace + "/" + id
	}
	return Scope{Kind: ScopeFinding, Name: id}
}

// Exempts is the id of the finding that a brake is an exemption of.
func (b *Brake) Exempts() (finding string, ok bool) {
	return b.Scope.Name[strings.LastIndexByte(b.Scope.Name, '/')+1:], b.Scope.Kind == ScopeFinding
}

// Excuses reports whether a brake is an exemption from a ruling. One in a namespace is not
// from what holds everybody back: who may brake there cannot let all go on, also not by
// saying it before the finding is about all.
func (b *Brake) Excuses(r *Ruling) bool {
	finding, ok := b.Exempts()
	return ok && r.Finding != "" && finding == r.Finding && (r.Scope.Kind != ScopeAll || finding == b.Scope.Name)
}

// checkExemption is the part of Check that is other than for brakes.
func (b *Brake) checkExemption() error {
	usage := func(hint, format string, args ...any) error {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	switch d := b.Expires.Sub(b.Since); {
	case b.Factor != 0:
		return usage("leave it out: what the guard says of a finding is obeyed, or it is not", "factor %v has no meaning for a finding", b.Factor)
	case b.Expires.IsZero():
		return usage("for example 2h: then the guard is obeyed again", "for how long the finding is meant is missing")
	case d <= 0:
		return usage("for example 2h", "a time of %s is not more than 0", d)
	case d > MaxExemption:
		return usage("say it again then, if it is still meant", "a time of %s is more than %s", d, days(MaxExemption))
	}
	return nil
}

func days(d time.Duration) string { return fmt.Sprintf("%d days", d/(24*time.Hour)) }

// Exemption is who lets runs go on in spite of a finding.
type Exemption struct {
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

func (e Exemption) String() string {
	b := Brake{Since: e.Since, Expires: e.Until}
	return fmt.Sprintf("not obeyed until %s, by %s: %s", b.Until(), e.Owner, e.Reason)
}

// ExemptionOf is that of a finding among brakes which are in force, the one that ends
// last; nil: there is none.
func ExemptionOf(brakes []Brake, finding string) *Exemption {
	var last *Exemption
	for i := range brakes {
		b := &brakes[i]
		if id, ok := b.Exempts(); ok && id == finding && (last == nil || b.Expires.After(last.Until)) {
			last = &Exemption{Owner: b.Owner, Reason: b.Reason, Since: b.Since, Until: b.Expires}
		}
	}
	return last
}

// RulingStatus is a ruling and what it holds back.
type RulingStatus struct {
	Ruling
	Runs  int   // in its scope that have items that wait
	Items int64 // of them that wait
}

// Brakes is what holds work back, and what would.
type Brakes struct {
	Brakes     []BrakeStatus  // oldest first
	Exemptions []BrakeStatus  // likewise; what they count waits in the scope of what is not obeyed
	Rulings    []RulingStatus // of the guard, also those that are not obeyed
}

// StatusOfBrakes counts what waits among runs for brakes, exemptions among them, and
// for rulings of the guard.
func StatusOfBrakes(brakes []Brake, rulings []Ruling, runs []*Run) (out Brakes) {
	for _, b := range brakes {
		if _, exempt := b.Exempts(); !exempt {
			out.Brakes = append(out.Brakes, StatusOfBrake(b, runs))
			continue
		}
		var scopes []Scope
		for _, r := range rulings {
			if b.Excuses(&r) {
				scopes = append(scopes, r.Scope)
			}
		}
		st := BrakeStatus{Brake: b}
		st.Runs, st.Items = waiting(runs, scopes...)
		out.Exemptions = append(out.Exemptions, st)
	}
	for _, r := range rulings {
		st := RulingStatus{Ruling: r}
		st.Runs, st.Items = waiting(runs, r.Scope)
		out.Rulings = append(out.Rulings, st)
	}
	return out
}

// Exempt reports whether a ruling is not obeyed.
func (b *Brakes) Exempt(r *RulingStatus) bool {
	return slices.ContainsFunc(b.Exemptions, func(st BrakeStatus) bool {
		return st.Excuses(&r.Ruling)
	})
}
