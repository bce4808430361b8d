package rpc

import (
	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// FindingMessage makes a message of a finding. Its texts come from a cluster.
func FindingMessage(f *bulkhead.Finding) *bulkheadv1.Finding {
	m := &bulkheadv1.Finding{
		Id: text(f.ID), Severity: text(string(f.Severity)), Title: text(f.Title), Namespace: text(f.Namespace), Since: timeMessage(f.Since),
		PerHour: f.PerHour, Client: text(f.Client), Users: each(f.Users, text), Facts: each(f.Facts, factMessage), Keeps: text(f.Keeps),
		Ended: timeMessage(f.Ended), Class: text(f.Class),
	}
	if e := f.Exempt; e != nil {
		m.Exempt = &bulkheadv1.Exemption{Owner: text(e.Owner), Reason: text(e.Reason), Since: timeMessage(e.Since), Until: timeMessage(e.Until)}
	}
	for i := range f.Members {
		b := &f.Members[i]
		m.Members = append(m.Members, &bulkheadv1.Member{Key: familyKeyMessage(b.Key), Objects: b.Objects, Rules: b.Rules, PerHour: b.PerHour,
			Ratio: b.Ratio, Example: text(b.Example)})
	}
	for i := range f.Reaches {
		r := &f.Reaches[i]
		m.Reaches = append(m.Reaches, &bulkheadv1.Reach{
			Budget: &bulkheadv1.Budget{Name: text(r.Budget.Name), Kind: text(r.Budget.Kind), Namespace: text(r.Budget.Namespace),
				Unit: text(r.Budget.Unit), Limit: r.Budget.Limit, Source: text(r.Budget.Source)},
			Now: r.Now, In: durationMessage(r.In), Low: durationMessage(r.Low), High: durationMessage(r.High), Detail: text(r.Detail)})
	}
	for _, a := range f.Advice {
		m.Advice = append(m.Advice, &bulkheadv1.Advice{Text: text(a.Text), Command: text(a.Command)})
	}
	return m
}

// FindingOf is the inverse of FindingMessage.
func FindingOf(m *bulkheadv1.Finding) bulkhead.Finding {
	f := bulkhead.Finding{
		ID: m.GetId(), Severity: bulkhead.Severity(m.GetSeverity()), Title: m.GetTitle(), Namespace: m.GetNamespace(), Since: timeOf(m.GetSince()),
		PerHour: m.GetPerHour(), Client: m.GetClient(), Users: m.GetUsers(), Facts: each(m.GetFacts(), factOf), Keeps: m.GetKeeps(),
		Ended: timeOf(m.GetEnded()), Class: m.GetClass(),
	}
	if e := m.GetExempt(); e != nil {
		f.Exempt = &bulkhead.Exemption{Owner: e.GetOwner(), Reason: e.GetReason(), Since: timeOf(e.GetSince()), Until: timeOf(e.GetUntil())}
	}
	for _, b := range m.GetMembers() {
		f.Members = append(f.Members, bulkhead.Member{Key: familyKeyOf(b.GetKey()), Objects: b.GetObjects(), Rules: b.GetRules(),
			PerHour: b.GetPerHour(), Ratio: b.GetRatio(), Example: b.GetExample()})
	}
	for _, r := range m.GetReaches() {
		b := r.GetBudget()
		f.Reaches = append(f.Reaches, bulkhead.Reach{
			Budget: bulkhead.Budget{Name: b.GetName(), Kind: b.GetKind(), Namespace: b.GetNamespace(), Unit: b.GetUnit(), Limit: b.GetLimit(),
				Source: b.GetSource()},
			Now: r.GetNow(), In: durationOf(r.GetIn()), Low: durationOf(r.GetLow()), High: durationOf(r.GetHigh()), Detail: r.GetDetail()})
	}
	for _, a := range m.GetAdvice() {
		f.Advice = append(f.Advice, bulkhead.Advice{Text: a.GetText(), Command: a.GetCommand()})
	}
	return f
}

func familyKeyMessage(k bulkhead.Key) *bulkheadv1.FamilyKey {
	return &bulkheadv1.FamilyKey{Kind: text(k.Kind), Namespace: text(k.Namespace), Family: text(k.Family), Origin: text(k.Origin), Manager: text(k.Manager)}
}

func familyKeyOf(m *bulkheadv1.FamilyKey) bulkhead.Key {
	return bulkhead.Key{Kind: m.GetKind(), Namespace: m.GetNamespace(), Family: m.GetFamily(), Origin: m.GetOrigin(), Manager: m.GetManager()}
}

func factMessage(f bulkhead.Fact) *bulkheadv1.Fact {
	return &bulkheadv1.Fact{Key: text(f.Key), Value: text(f.Value), Objects: f.Objects}
}

func factOf(m *bulkheadv1.Fact) bulkhead.Fact {
	return bulkhead.Fact{Key: m.GetKey(), Value: m.GetValue(), Objects: m.GetObjects()}
}

// TallyMessage makes a message of what is known of a family.
func TallyMessage(t *bulkhead.Tally) *bulkheadv1.Tally {
	m := &bulkheadv1.Tally{
		Key: familyKeyMessage(t.Key), Objects: t.Objects, Rules: t.Rules, Bytes: t.Bytes, Created: t.Created, Deleted: t.Deleted,
		Facts: each(t.Facts, factMessage), Example: text(t.Example.Name), ExampleCreated: timeMessage(t.Example.Created),
		Keeps: &bulkheadv1.Keep{Owned: t.Keeps.Owned, Ttl: durationMessage(t.Keeps.TTL), Nothing: t.Keeps.Nothing},
	}
	for _, b := range t.Born {
		m.Born = append(m.Born, &bulkheadv1.Birth{At: timeMessage(b.At), Objects: b.Objects})
	}
	return m
}

// TallyOf is the inverse of TallyMessage.
func TallyOf(m *bulkheadv1.Tally) bulkhead.Tally {
	t := bulkhead.Tally{
		Key: familyKeyOf(m.GetKey()), Objects: m.GetObjects(), Rules: m.GetRules(), Bytes: m.GetBytes(), Created: m.GetCreated(),
		Deleted: m.GetDeleted(), Facts: each(m.GetFacts(), factOf),
		Example: bulkhead.Example{Name: m.GetExample(), Created: timeOf(m.GetExampleCreated())},
		Keeps:   bulkhead.Keep{Owned: m.GetKeeps().GetOwned(), TTL: durationOf(m.GetKeeps().GetTtl()), Nothing: m.GetKeeps().GetNothing()},
	}
	for _, b := range m.GetBorn() {
		t.Born = append(t.Born, bulkhead.Birth{At: timeOf(b.GetAt()), Objects: b.GetObjects()})
	}
	return t
}

func kindStatusMessage(k bulkhead.KindStatus) *bulkheadv1.KindStatus {
	return &bulkheadv1.KindStatus{Kind: text(k.Kind), Objects: k.Objects, Bytes: k.Bytes, Exact: k.Exact, Reason: text(k.Reason)}
}

func kindStatusOf(m *bulkheadv1.KindStatus) bulkhead.KindStatus {
	return bulkhead.KindStatus{Kind: m.GetKind(), Objects: m.GetObjects(), Bytes: m.GetBytes(), Exact: m.GetExact(), Reason: m.GetReason()}
}
