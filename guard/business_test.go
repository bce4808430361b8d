package guard_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
)

// business is what clusters do beside that for reasons of their own: it is much in the
// morning, or once, and nothing is wrong with it.
type business struct {
	at  time.Time
	add func(bulkhead.Tally)
}

func (b *business) tally(kind, namespace, family, origin, manager string, n float64, rules int64) {
	keep := bulkhead.Keep{Nothing: int64(n)}
	if origin != "" && manager == "kube-controller-manager" {
		keep = bulkhead.Keep{Owned: int64(n)}
	}
	b.add(bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: namespace, Family: family, Origin: origin, Manager: manager},
		Objects: int64(n), Rules: rules * int64(n), Keeps: keep, Example: bulkhead.Example{Name: family + "x", Created: b.at}})
}

// ramp is 0 before from, 1 after to, and between them in proportion.
func ramp(hour, from, to float64) float64 { return min(max((hour-from)/(to-from), 0), 1) }

// workday is how much of the day's work goes on: it begins from eight to ten, and ends
// from six in the evening to eight, but for Saturdays and Sundays.
func workday(at time.Time) float64 {
	if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
		return 0
	}
	hour := at.Sub(at.Truncate(24 * time.Hour)).Hours()
	return ramp(hour, 8, 10) - ramp(hour, 18, 20)
}

// scaled are Deployments with an autoscaler.
func (b *business) scaled() {
	for i, most := range []float64{40, 120, 400} {
		ns := fmt.Sprintf("shop-%d", i)
		pods := math.Round(most/5 + most*4/5*workday(b.at))
		b.tally("pods", ns, "front-*", "deployments.apps/front", "kube-controller-manager", pods, 0)
		b.tally("ciliumendpoints.cilium.io", ns, "front-*", "deployments.apps/front", "cilium-agent", pods, 0)
		b.tally("endpointslices.discovery.k8s.io", ns, "front-*", "services/front", "kube-controller-manager", math.Ceil(pods/100), 0)
	}
}

// nodes are those that an autoscaler adds for them, with what each has.
func (b *business) nodes() {
	nodes := math.Round(212 + 60*workday(b.at.Add(-10*time.Minute)))
	for _, agent := range []string{"cilium", "node-exporter", "csi-node", "fluent-bit", "kube-proxy"} {
		b.tally("pods", "kube-system", agent+"-*", "daemonsets.apps/"+agent, "kube-controller-manager", nodes, 0)
	}
	b.tally("ciliumnodes.cilium.io", "", "node-*", "nodes/*", "cilium-agent", nodes, 0)
	b.tally("machines.cluster.x-k8s.io", "fleet", "pool-*", "machinesets.cluster.x-k8s.io/pool-*", "manager", nodes, 0)
	b.tally("secrets", "fleet", "pool-*", "machinesets.cluster.x-k8s.io/pool-*", "manager", nodes, 0) // the chain goes on
}

// previews are namespaces of pull requests: 20 on each workday, deleted three days later.
func (b *business) previews() {
	opened := func(at time.Time) (n int) { // since 1970
		days := int(at.Unix() / 86400)
		workdays := (days+3)/7*5 + min((days+3)%7, 5) // 1970 began on a Thursday
		hour := at.Sub(at.Truncate(24 * time.Hour)).Hours()
		if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
			return 20 * workdays
		}
		return 20*workdays + int(20*ramp(hour, 8, 18))
	}
	// A census has them together, see manyNamespaces.
	n := float64(opened(b.at) - opened(b.at.Add(-72*time.Hour)))
	b.tally("configmaps", "pr-*", "preview-*", "release/preview", "helm", 8*n, 0)
	b.tally("secrets", "pr-*", "sh.helm.release.v1.preview.v*", "release/preview", "helm", n, 0)
	b.tally("serviceaccounts", "pr-*", "preview", "release/preview", "helm", n, 0)
	b.tally("networkpolicies.networking.k8s.io", "pr-*", "preview-*", "release/preview", "helm", 3*n, 4)
	b.tally("pods", "pr-*", "preview-*", "deployments.apps/preview", "kube-controller-manager", 4*n, 0)
}

// certificates are renewed within forty minutes, once, each with a request that stays and
// a key, a challenge and a pod that do not.
func (b *business) certificates(began time.Time) {
	const all = 200
	minutes := b.at.Sub(began).Minutes() - 52*60
	renewed := all * ramp(minutes, 0, 40)
	going := renewed - all*ramp(minutes, 3, 43)
	b.tally("certificaterequests.cert-manager.io", "web", "site-*", "certificates.cert-manager.io/site-*", "cert-manager", all+renewed, 0)
	b.tally("orders.acme.cert-manager.io", "web", "site-*", "certificates.cert-manager.io/site-*", "cert-manager", all+renewed, 0)
	b.tally("challenges.acme.cert-manager.io", "web", "site-*", "certificates.cert-manager.io/site-*", "cert-manager", going, 0)
	b.tally("secrets", "web", "site-*-tls", "", "cert-manager", all, 0)
	b.tally("secrets", "web", "site-*-tls-*", "certificates.cert-manager.io/site-*", "cert-manager", going, 0)
	b.tally("pods", "web", "cm-acme-http-solver-*", "certificates.cert-manager.io/site-*", "cert-manager", going, 0)
}

// upgrades of charts add policies, once each: what one has more of, and what many have one
// more of, one after the other.
func (b *business) upgrades(began time.Time) {
	hours := b.at.Sub(began).Hours()
	b.tally("networkpolicies.networking.k8s.io", "mesh", "allow-*", "release/mesh", "helm", 12+30*math.Floor(ramp(hours, 39.99, 40)), 6)
	for i := range 25 {
		there := 1 + math.Floor(ramp(hours, 99.99+float64(i)/20, 100+float64(i)/20))
		b.tally("networkpolicies.networking.k8s.io", fmt.Sprintf("team-%c", 'a'+i), "default-*", "release/base", "helm", there, 3)
	}
}

func TestAWeekOfBusinessHasNoFinding(t *testing.T) {
	w := &world{quiet: true, also: func(at time.Time, add func(bulkhead.Tally)) {
		b := &business{at, add}
		b.scaled()
		b.nodes()
		b.previews()
		b.certificates(start)
		b.upgrades(start)
	}}
	o := newWatch(t, w, start, nil)
	if o.minutes(7*24*60, some) {
		t.Errorf("at %s:\n%s", o.now, o.text())
	}
}
