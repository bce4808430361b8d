package kubernetes_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead/bench/table"
	"bulkhead.dev/bulkhead/lab"
	testbed "bulkhead.dev/bulkhead/test/bed"
)

// cost is what a number of invocations took.
type cost struct {
	n     int
	took  time.Duration
	delta lab.Counts
}

func (c cost) perSecond() float64 { return float64(c.n) / c.took.Seconds() }
func (c cost) requests() float64  { return float64(c.delta.Requests.Total()) / float64(c.n) }

// left is how many objects there are more than before, Events not counted, and
// how many Events.
func (c cost) left() (objects, events int) {
	for kind, n := range c.delta.Objects {
		switch {
		case strings.HasPrefix(kind, "events"):
			events += n
		case kind != "leases": // a node's sign of life
			objects += n
		}
	}
	return objects, events
}

func (c cost) String() string {
	objects, events := c.left()
	return fmt.Sprintf("%.3g/s, %.3g requests each, left %.3g objects and %.3g events each", c.perSecond(), c.requests(),
		float64(objects)/float64(c.n), float64(events)/float64(c.n))
}

// measure counts what fn does n times.
func measure(b *testing.B, l *lab.Lab, n int, fn func()) cost {
	b.Helper()
	before, begin := l.Count(b), time.Now()
	fn()
	return cost{n: n, took: time.Since(begin), delta: l.Count(b).Since(before)}
}

const workers = 10

// BenchmarkBatch runs /bin/true many times: as items of one run, and in the ways
// of which each call makes objects of its own.
func BenchmarkBatch(b *testing.B) {
	for b.Loop() {
		batch(newBed(b))
	}
}

func batch(d *bed) {
	d.Lab.Kubectl(d, "version") // the first call of a program costs requests of its own
	items := scaled(10_000, 100)
	ours := measure(d.b, d.Lab, items, func() {
		d.define(fmt.Sprintf("{max: %d, idleTimeout: 10m}", workers), testbed.RealNode)
		d.over(d.submit(int64(items), workers, "/bin/true", "{}"))
	})
	again := measure(d.b, d.Lab, items, func() { d.over(d.submit(int64(items), workers, "/bin/true", "{}")) })
	d.Log("bulkhead:", ours, "\nits workers being there:", again, "\n", byClient(ours.delta.Requests))
	helm := d.helm(scaled(30, 3))
	jobs := d.jobs(scaled(30, 3))
	indexed := d.indexed(scaled(60, 5))

	what := fmt.Sprintf("%d × /bin/true, %d workers: ", items, workers)
	result.AtLeast(what+"items per second, cold", ours.perSecond(), 100, "/s", fmt.Sprintf("warm %.0f/s;", again.perSecond()))
	result.AtMost(what+"requests per item, of everybody", ours.requests(), 0.05, "", fmt.Sprintf("warm %.2g;", again.requests()))
	footprint(d, what, ours, again)
	for _, peer := range []struct {
		name string
		cost cost
	}{{"a Helm release each", helm}, {"kubectl create job each", jobs}, {"one Indexed Job", indexed}} {
		d.Log(peer.name, peer.cost, "\n", byClient(peer.cost.delta.Requests))
		result.Note(fmt.Sprintf("%s, %d times", peer.name, peer.cost.n), table.Format(peer.cost.perSecond(), "/s"), fmt.Sprint(peer.cost))
		result.Note("  Bulkhead's items per second / its", table.Format(ours.perSecond()/peer.cost.perSecond(), "×"), "")
		result.Note("  its requests per item / Bulkhead's", table.Format(peer.cost.requests()/ours.requests(), "×"), "")
	}
}

// footprint looks at what a cold and a warm run left: workers, and what is the class's.
func footprint(d *bed, what string, cold, warm cost) {
	allowed := map[string]int{"pods": workers, "scriptclasses.bulkhead.dev": 1, "configmaps": 1, "networkpolicies": 1}
	more := 0
	for kind, n := range cold.delta.Objects {
		if !strings.HasPrefix(kind, "events") && kind != "leases" {
			more += max(0, n-allowed[kind])
		}
	}
	_, events := cold.left()
	d.Log("left by the cold run:", cold.delta.Objects, "by the warm one:", warm.delta.Objects)
	result.AtMost(what+"objects beyond workers and the class's own", float64(more), 0, "",
		fmt.Sprintf("%d pods, %d Events of their start;", cold.delta.Objects["pods"], events))
	objects, events := warm.left()
	result.AtMost(what+"objects and Events more after the second run", float64(objects+events), 0, "", "")
	written := cold.delta.Requests.Of(func(r lab.Request) bool { return ours(r) && strings.HasPrefix(r.Resource, "events") })
	result.AtMost(what+"Events written by Bulkhead", float64(written), 0, "", "")
}

// byClient are the requests by who made them, most first.
func byClient(r lab.Requests) string {
	by := r.By(func(r lab.Request) string { return r.Client })
	names := slices.SortedFunc(maps.Keys(by), func(a, c string) int { return by[c] - by[a] })
	var out []string
	for _, name := range names {
		out = append(out, fmt.Sprintf("%s %d", name, by[name]))
	}
	return strings.Join(out, ", ")
}

// helm installs releases one after the other, as calls come from a shell.
func (d *bed) helm(n int) cost {
	ns := d.Lab.Namespace(d)
	return measure(d.b, d.Lab, n, func() {
		d.Lab.HelmRelease(d, ns, n)
		d.succeeded(ns, n)
	})
}

// jobs makes Jobs one after the other.
func (d *bed) jobs(n int) cost {
	ns := d.Lab.Namespace(d)
	return measure(d.b, d.Lab, n, func() {
		for i := range n {
			d.Lab.Kubectl(d, "create", "job", fmt.Sprintf("job-%d", i), "--namespace", ns, "--image", lab.BusyboxImage, "--", "/bin/true")
		}
		d.succeeded(ns, n)
	})
}

// indexed makes one Job of as many pods, as many at once as there are workers.
func (d *bed) indexed(n int) cost {
	ns := d.Lab.Namespace(d)
	return measure(d.b, d.Lab, n, func() {
		d.Apply(fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: indexed, namespace: %s}
spec:
  completionMode: Indexed
  completions: %d
  parallelism: %d
  template:
    spec:
      restartPolicy: Never
      containers: [{name: script, image: %q, imagePullPolicy: Never, command: [/bin/true]}]
`, ns, n, workers, lab.BusyboxImage))
		d.succeeded(ns, n)
	})
}

// succeeded waits until so many pods of Jobs have. It watches: asking again and
// again would count as requests of theirs.
func (d *bed) succeeded(ns string, n int) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 5*time.Minute)
	defer cancel()
	jobs := d.Lab.Client().BatchV1().Jobs(ns)
	watch, err := jobs.Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		d.Fatal(err)
	}
	defer watch.Stop()
	done := map[string]int{}
	for event := range watch.ResultChan() {
		job, ok := event.Object.(*batchv1.Job)
		if !ok {
			continue
		}
		done[job.Name] = int(job.Status.Succeeded)
		if sum(done) >= n {
			return
		}
	}
	d.Fatalf("%d of %d pods of Jobs have succeeded", sum(done), n)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}
