package rpc

import (
	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

var scopeKinds = map[bulkheadv1.ScopeKind]bulkhead.ScopeKind{
	bulkheadv1.ScopeKind_SCOPE_KIND_ALL:       bulkhead.ScopeAll,
	bulkheadv1.ScopeKind_SCOPE_KIND_NAMESPACE: bulkhead.ScopeNamespace,
	bulkheadv1.ScopeKind_SCOPE_KIND_CLASS:     bulkhead.ScopeClass,
	bulkheadv1.ScopeKind_SCOPE_KIND_POOL:      bulkhead.ScopePool,
	bulkheadv1.ScopeKind_SCOPE_KIND_RUN:       bulkhead.ScopeRun,
	bulkheadv1.ScopeKind_SCOPE_KIND_FINDING:   bulkhead.ScopeFinding,
}

// ScopeMessage makes a message of a scope.
func ScopeMessage(s bulkhead.Scope) *bulkheadv1.Scope {
	m := &bulkheadv1.Scope{Name: text(s.Name)}
	for wire, kind := range scopeKinds {
		if kind == s.Kind {
			m.Kind = wire
		}
	}
	return m
}

// ScopeOf is the inverse of ScopeMessage. A scope that says nothing is none: nobody is
// to stop everything by leaving something out.
func ScopeOf(m *bulkheadv1.Scope) (bulkhead.Scope, error) {
	if m.GetKind() == bulkheadv1.ScopeKind_SCOPE_KIND_UNSPECIFIED {
		return bulkhead.Scope{}, usage(nil, "everything is SCOPE_KIND_ALL", "the scope of the brake is missing")
	}
	kind, ok := scopeKinds[m.GetKind()]
	if !ok {
		return bulkhead.Scope{}, unknown("kind of scope", int32(m.GetKind()))
	}
	return bulkhead.Scope{Kind: kind, Name: m.GetName()}, nil
}

// BrakeMessage makes a message of a brake.
func BrakeMessage(b bulkhead.BrakeStatus) *bulkheadv1.Brake {
	return &bulkheadv1.Brake{Id: b.ID, Scope: ScopeMessage(b.Scope), Reason: text(b.Reason), Factor: b.Factor, Owner: text(b.Owner),
		Since: timeMessage(b.Since), Expires: timeMessage(b.Expires), Runs: int32Of(b.Runs), Items: b.Items}
}

// BrakeOf is the inverse of BrakeMessage.
func BrakeOf(m *bulkheadv1.Brake) (bulkhead.BrakeStatus, error) {
	scope, err := ScopeOf(m.GetScope())
	if err != nil {
		return bulkhead.BrakeStatus{}, err
	}
	return bulkhead.BrakeStatus{Brake: bulkhead.Brake{ID: m.GetId(), Scope: scope, Reason: m.GetReason(), Factor: m.GetFactor(),
		Owner: m.GetOwner(), Since: timeOf(m.GetSince()), Expires: timeOf(m.GetExpires())}, Runs: int(m.GetRuns()), Items: m.GetItems()}, nil
}

// RulingMessage makes a message of a ruling of the guard. Its texts come from a cluster.
func RulingMessage(r bulkhead.RulingStatus) *bulkheadv1.Ruling {
	return &bulkheadv1.Ruling{Finding: text(r.Finding), Scope: ScopeMessage(r.Scope), Reason: text(r.Verdict.Reason), Factor: r.Verdict.Factor,
		Since: timeMessage(r.Verdict.Since), Lifts: text(r.Verdict.Lifts), Runs: int32Of(r.Runs), Items: r.Items}
}

// RulingOf is the inverse of RulingMessage.
func RulingOf(m *bulkheadv1.Ruling) (bulkhead.RulingStatus, error) {
	scope, err := ScopeOf(m.GetScope())
	if err != nil {
		return bulkhead.RulingStatus{}, err
	}
	v := bulkhead.Verdict{Level: bulkhead.Stop, Reason: m.GetReason(), Factor: m.GetFactor(), Since: timeOf(m.GetSince()), Lifts: m.GetLifts()}
	if v.Factor > 0 {
		v.Level = bulkhead.Slow
	}
	return bulkhead.RulingStatus{Ruling: bulkhead.Ruling{Scope: scope, Verdict: v, From: bulkhead.FromGuard, Finding: m.GetFinding()},
		Runs: int(m.GetRuns()), Items: m.GetItems()}, nil
}
