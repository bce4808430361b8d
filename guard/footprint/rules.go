package footprint

import "bulkhead.dev/bulkhead/guard/budget"

// RulesOf counts the rules of a network policy that is in a cluster as those of one that
// is planned. content is its JSON.
func RulesOf(kind string, content map[string]any) int64 {
	return rulesOf(kind, object(content).at("spec"))
}

// rulesOf counts the rules of a network policy: peers × ports, of ingress and egress. What
// names no peer or no port is a rule, too.
func rulesOf(kind string, spec object) int64 {
	switch kind {
	case budget.NetworkPolicies:
		return plus(rulesIn(spec.list("ingress"), "from"), rulesIn(spec.list("egress"), "to"))
	case budget.CalicoPolicies, budget.GlobalPolicies:
		return plus(calicoRules(spec.list("ingress")), calicoRules(spec.list("egress")))
	}
	return 0
}

func rulesIn(list []any, peers string) (n int64) {
	for _, entry := range list {
		m, _ := entry.(map[string]any)
		o := object(m)
		n = plus(n, times(some(o.list(peers)), some(o.list("ports"))))
	}
	return n
}

// calicoRules counts a rule of Calico's own for each net and port on either side: Felix
// makes so many of it.
func calicoRules(list []any) (n int64) {
	for _, entry := range list {
		m, _ := entry.(map[string]any)
		rules := int64(1)
		for _, side := range []string{"source", "destination"} {
			o := object(m).at(side)
			rules = times(rules, times(some(o.list("nets")), some(o.list("ports"))))
		}
		n = plus(n, rules)
	}
	return n
}

func some(list []any) int64 { return max(1, int64(len(list))) }
