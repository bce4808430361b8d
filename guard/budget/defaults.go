package budget

import "bulkhead.dev/bulkhead"

// Where the defaults come from.
const (
	// https://github.com/kubernetes/community/blob/master/sig-scalability/configs-and-limits/thresholds.md,
	// for the largest cluster there is; a smaller one holds proportionally less. The rows for
	// objects of a built-in kind, 150,000 but for events, came in April 2026; versions before
	// have but those of single kinds.
	sig = "SIG Scalability thresholds: "
	// That page says TBD for Jobs, ConfigMaps and Secrets. Until one is learned, a cluster
	// has as many as one had that got into trouble: Incidents/2024-10-09 calico-codfw on
	// Wikitech.
	codfw = "no published threshold; a place to start: what Wikimedia had when its agents failed, "
	// "The original design target was 100k endpoints, ~2k policies, and churn of ~1000
	// endpoints/second": https://github.com/projectcalico/calico/blob/master/felix/design/calc-graph.md,
	// of which the older versions had no such page.
	calico = "Calico's design target: about 2,000 policies, each of which every node's agent holds"
	// Felix 3.23.3 of Go 1.18 in a memory cgroup of 500 MiB, 170 MiB of which are others',
	// with real Typha and API server: one policy of 90 rules more every 50 ms. It touches
	// its limit at 2,354 policies (211,860 rules), reads its own program again and again
	// from 2,690 on, and hangs at 2,966; a new one is never ready from 2,700 on.
	felix = "measured: calico-node 3.23 with a limit of 500Mi is full at 211,860 rules; 3.30 and later take a tenth"
)

// Defaults are the budgets of a cluster of which nothing is known. Each says where it is
// from.
func Defaults() []bulkhead.Budget {
	of := func(name, kind, namespace, unit string, limit float64, source string) bulkhead.Budget {
		return bulkhead.Budget{Name: name, Kind: kind, Namespace: namespace, Unit: unit, Limit: limit, Source: source}
	}
	return []bulkhead.Budget{
		of("each kind", Each, "", Objects, 150_000, sig+"150,000 objects of a built-in kind (of custom ones it says nothing: the same)"),
		of("events", Events, "", Objects, 1_000_000, sig+"1,000,000 events"),
		of("pods", Pods, "", Objects, 150_000, sig+"150,000 pods"),
		of("pods per namespace", Pods, Each, Objects, 3_000, sig+"3,000 pods per namespace"),
		of("services", Services, "", Objects, 10_000, sig+"10,000 services"),
		of("services per namespace", Services, Each, Objects, 5_000, sig+"5,000 services per namespace"),
		of("deployments per namespace", Deployments, Each, Objects, 2_000, sig+"2,000 deployments per namespace"),
		of("namespaces", "namespaces", "", Objects, 10_000, sig+"10,000 namespaces"),
		of("nodes", "nodes", "", Objects, 5_000, sig+"5,000 nodes"),
		of("networkpolicies", NetworkPolicies, "", Objects, 2_000, calico),
		of("Calico networkpolicies", CalicoPolicies, "", Objects, 2_000, calico),
		of("Calico globalnetworkpolicies", GlobalPolicies, "", Objects, 2_000, calico),
		of("networkpolicies rules", NetworkPolicies, "", Rules, 200_000, felix),
		of("Calico networkpolicies rules", CalicoPolicies, "", Rules, 200_000, felix),
		of("Calico globalnetworkpolicies rules", GlobalPolicies, "", Rules, 200_000, felix),
		of("jobs", Jobs, "", Objects, 2_000, codfw+"1,791 in one namespace"),
		of("configmaps", ConfigMaps, "", Objects, 12_000, codfw+"about 12,000"),
		of("secrets", Secrets, "", Objects, 20_000, "no published threshold; API servers grew by 20 GB with 19,500 when Typha restarted (projectcalico/typha#637)"),
		of("database", All, "", Bytes, 2<<30, "etcd's default quota of 2 GiB (suggested maximum: 8 GiB)"),
	}
}
