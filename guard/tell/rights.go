package tell

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// AgentRules are what a guard needs to measure agents by way of the kubelets. With
// nodes/proxy one may do more than read numbers: where there is a Prometheus it is the
// better way.
func AgentRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes", "pods"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"nodes/proxy"}, Verbs: []string{"get"}},
	}
}

// QuotaRules are what a guard needs to remove the quotas of guard quota when their time
// is over, which all have one name.
func QuotaRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"resourcequotas"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"resourcequotas"}, ResourceNames: []string{"bulkhead-guard"}, Verbs: []string{"delete"}},
	}
}

// Rights are what a guard needs to count kinds, named as the API names them
// (pods, jobs.batch), and to read the API server's own counts. It asks for metadata
// only, but who may list an object may read it: RBAC knows no less.
func Rights(kinds []string) []rbacv1.PolicyRule {
	groups := map[string][]string{}
	var order []string
	for _, kind := range kinds {
		resource, group, _ := strings.Cut(kind, ".")
		if groups[group] == nil {
			order = append(order, group)
		}
		if !slices.Contains(groups[group], resource) {
			groups[group] = append(groups[group], resource)
		}
	}
	var rules []rbacv1.PolicyRule
	for _, group := range order {
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: groups[group], Verbs: []string{"list", "watch"}})
	}
	return append(rules, rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}})
}
