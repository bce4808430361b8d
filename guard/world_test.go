package guard_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

var start = time.Date(2024, 10, 8, 20, 0, 0, 0, time.UTC)

// world is a cluster in accelerated time: what a census would count in it at a time.
type world struct {
	seed     uint64
	quiet    bool      // there is no background
	loop     time.Time // when the operator's loop begins; zero: never
	loopEnds time.Time
	perHour  float64
	other    string // kind that is not known yet
	before   int64  // releases that were made within two minutes before the loop
	uneven   bool   // the loop is faster and slower by 14 % in turn, for ten minutes each
	born     bool   // the census says when objects were created
	// In this time one release is gone, but for its pod.
	dip, dipEnds time.Time
	// Objects of these kinds name this class, those that were made since classFrom.
	class     string
	classed   []string
	classFrom time.Time
	// also is what else there is.
	also func(at time.Time, add func(bulkhead.Tally))
}

// noise is a random number of a name and a time: the same each time it is asked for.
func (w *world) noise(name string, at int64) *rand.Rand {
	h := w.seed
	for _, c := range name {
		h = h*1099511628211 + uint64(c)
	}
	return rand.New(rand.NewPCG(h, uint64(at)))
}

func (w *world) census(at time.Time) bulkhead.Census {
	c := bulkhead.Census{At: at}
	add := func(t bulkhead.Tally) {
		if t.Objects > 0 {
			c.Tallies = append(c.Tallies, t)
		}
	}
	if !w.quiet {
		w.healthy(at, add)
	}
	if !w.loop.IsZero() && (at.After(w.loop) || w.before > 0) {
		w.incident(at, add)
	}
	if w.also != nil {
		w.also(at, add)
	}
	totals := map[string]int64{}
	for _, t := range c.Tallies {
		totals[t.Kind] += t.Objects
	}
	for _, kind := range []string{"pods", "jobs.batch", "configmaps", "secrets", "networkpolicies.networking.k8s.io", "events",
		"replicasets.apps", "serviceaccounts", "leases.coordination.k8s.io", "rolebindings.rbac.authorization.k8s.io", "endpointslices.discovery.k8s.io"} {
		c.Kinds = append(c.Kinds, bulkhead.KindStatus{Kind: kind, Objects: totals[kind], Exact: kind != w.other})
	}
	return c
}

// healthy is a cluster in which much goes on and nothing is wrong.
func (w *world) healthy(at time.Time, add func(bulkhead.Tally)) {
	minute := at.Unix() / 60
	day := 1 + 0.1*math.Sin(2*math.Pi*float64(minute%1440)/1440)
	tally := func(kind, namespace, family, origin, manager string, n float64, keeps bulkhead.Keep) {
		add(bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: namespace, Family: family, Origin: origin, Manager: manager},
			Objects: int64(n), Keeps: keeps, Example: bulkhead.Example{Name: family + "x", Created: at}})
	}
	owned := func(n float64) bulkhead.Keep { return bulkhead.Keep{Owned: int64(n)} }
	none := func(n float64) bulkhead.Keep { return bulkhead.Keep{Nothing: int64(n)} }
	for i := range 3 {
		ns := fmt.Sprintf("web-%d", i)
		pods := float64(40+300*i) * day
		// A rolling deploy every seven hours: for ten minutes a quarter more.
		if into := (minute + int64(37*i)) % 420; into < 10 {
			pods *= 1.25 - 0.02*math.Abs(float64(into-5))
		}
		origin := "deployments.apps/web"
		tally("pods", ns, "web-*-*", origin, "kube-controller-manager", pods, owned(pods))
		tally("replicasets.apps", ns, "web-*", origin, "kube-controller-manager", math.Min(11, 3+float64(minute-start.Unix()/60)/420), owned(11))
		tally("endpointslices.discovery.k8s.io", ns, "web-*", "services/web", "kube-controller-manager", math.Ceil(pods/100), owned(8))
		tally("configmaps", ns, "web-*", "release/web", "helm", 12, none(12))
		// A deploy each seven hours adds a release record, of which ten are kept.
		tally("secrets", ns, "sh.helm.release.v1.web.v*", "release/web", "helm", math.Min(10, float64(minute-start.Unix()/60)/420), none(10))
		tally("networkpolicies.networking.k8s.io", ns, "web", "release/web", "helm", 3, none(3))
		// CronJobs keep three that succeeded and one that failed.
		jobs := 3 + float64(w.noise("cron"+ns, minute/5).IntN(2))
		tally("jobs.batch", ns, "backup-*", "cronjobs.batch/backup", "kube-controller-manager", jobs, owned(jobs))
		tally("pods", ns, "backup-*-*", "cronjobs.batch/backup", "kube-controller-manager", jobs, owned(jobs))
		// What somebody starts by hand goes an hour after its end.
		byHand := 0.0
		for ago := range int64(60) {
			if w.noise("hand"+ns, minute-ago).Float64() < 0.3 {
				byHand++
			}
		}
		tally("jobs.batch", ns, "import-*", "", "kubectl-create", byHand, bulkhead.Keep{TTL: time.Hour})
		tally("events", ns, "*", "", "kubelet", 300*day+float64(w.noise("events"+ns, minute).IntN(80)), bulkhead.Keep{TTL: time.Hour})
	}
	// A namespace of a test comes each hour, and goes after half of it.
	if hour, into := minute/60, minute%60; into < 30 {
		ns := fmt.Sprintf("ci-%d", hour)
		there := math.Min(float64(into+1)*30, 90)
		if into > 27 {
			there = 20
		}
		for _, kind := range []string{"configmaps", "secrets", "serviceaccounts", "rolebindings.rbac.authorization.k8s.io", "pods"} {
			tally(kind, ns, "test-*", "", "terraform", there, none(there))
		}
	}
	tally("leases.coordination.k8s.io", "kube-node-lease", "node-*", "nodes/node-*", "kubelet", 212, owned(212))
}

// incident is what the loop of 2024-10-09 leaves behind.
func (w *world) incident(at time.Time, add func(bulkhead.Tally)) {
	until := at
	if !w.loopEnds.IsZero() && at.After(w.loopEnds) {
		until = w.loopEnds
	}
	hours := until.Sub(w.loop).Hours()
	all := w.before + int64(w.made(max(0, hours))+0.5*w.noise("loop", at.Unix()/60).Float64())
	if all == 0 {
		return
	}
	n := all
	if at.After(w.dip) && at.Before(w.dipEnds) {
		n--
	}
	release := fmt.Sprintf("%08x", w.noise("release", n).Uint32())
	tally := func(kind, family, example, origin, manager string, rules int64, keeps bulkhead.Keep) {
		t := bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: "mw-script", Family: family, Origin: origin, Manager: manager},
			Objects: n, Rules: rules * n, Keeps: keeps, Example: bulkhead.Example{Name: example, Created: at}}
		if w.born {
			t.Born = w.births(at, n)
		}
		for i := range min(n, 5) {
			t.Facts = append(t.Facts, bulkhead.Fact{Key: "meta.helm.sh/release-name", Value: fmt.Sprintf("%08x", w.noise("release", n-i).Uint32()), Objects: 1})
		}
		if kind == "jobs.batch" {
			t.Facts = append(t.Facts, bulkhead.Fact{Key: "comment", Value: "T363966", Objects: n})
		}
		if kind == "jobs.batch" || kind == "pods" || kind == "configmaps" {
			t.Facts = append(t.Facts, bulkhead.Fact{Key: "username", Value: "ann", Objects: n},
				bulkhead.Fact{Key: "script", Value: "requeueTranscodes.php", Objects: n})
		}
		if w.class != "" && slices.Contains(w.classed, kind) && at.After(w.classFrom) {
			since := n
			if !w.classFrom.IsZero() {
				since = n - int64(w.made(w.classFrom.Sub(w.loop).Hours()))
			}
			t.Facts = append(t.Facts, bulkhead.Fact{Key: bulkhead.ClassKey, Value: w.class, Objects: since})
		}
		add(t)
	}
	none := bulkhead.Keep{Nothing: n}
	tally("jobs.batch", "mediawiki-*", "mediawiki-"+release, "release/mediawiki-*", "helm", 0, bulkhead.Keep{TTL: 7 * 24 * time.Hour})
	tally("networkpolicies.networking.k8s.io", "mediawiki-*", "mediawiki-"+release, "release/mediawiki-*", "helm", 90, none)
	for _, what := range []string{"apache", "php", "mail", "mcrouter", "envoy", "geoip", "wikis"} {
		tally("configmaps", "mediawiki-*-"+what+"-config", "mediawiki-"+release+"-"+what+"-config", "release/mediawiki-*", "helm", 0, none)
	}
	tally("secrets", "sh.helm.release.v1.*.v1", "sh.helm.release.v1."+release+".v1", "release/mediawiki-*", "helm", 0, none)
	n = all
	tally("pods", "mediawiki-*-*", "mediawiki-"+release+"-x7k2p", "jobs.batch/mediawiki-*", "kube-controller-manager", 0, bulkhead.Keep{Owned: all})
}

// made are the releases of so many hours.
func (w *world) made(hours float64) float64 {
	n := hours * w.perHour
	if w.uneven {
		phase := float64(w.seed)
		n += 0.14 * w.perHour / (6 * math.Pi) * (math.Cos(phase) - math.Cos(6*math.Pi*hours+phase))
	}
	return n
}

// births are when the releases were made, in steps of a quarter of an hour.
func (w *world) births(at time.Time, n int64) []bulkhead.Birth {
	first := w.loop.Add(-95 * time.Second).Truncate(15 * time.Minute)
	out := []bulkhead.Birth{{At: first, Objects: w.before}}
	for _, b := range births(w.loop, at, n-w.before) {
		if b.At.Equal(first) {
			out[0].Objects += b.Objects
		} else if b.Objects > 0 {
			out = append(out, b)
		}
	}
	return out
}
