package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// pod is a worker of the class "c" as it is; how changes it.
func pod(ordinal int, how ...func(*worker)) worker {
	w := worker{name: workerName("c", "", ordinal), ordinal: ordinal, created: noon.Add(-time.Second)}
	for _, f := range how {
		f(&w)
	}
	return w
}

func with(busy int) func(*worker) {
	return func(w *worker) { w.started, w.agent = true, &AgentStatus{Slots: 1, Busy: busy, Connected: true} }
}

func of(shape string) func(*worker) {
	return func(w *worker) { w.shape, w.name = shape, workerName("c", shape, w.ordinal) }
}

func outdated(w *worker)  { w.outdated = true }
func started(w *worker)   { w.started = true }
func ended(w *worker)     { w.ended, w.final, w.started = true, true, true }
func deleted(w *worker)   { w.leaving = true }
func old(w *worker)       { w.created = noon.Add(-time.Hour) }
func going(w *worker)     { w.agent.Leaving = true }
func forgotten(w *worker) { w.ended, w.started = true, true }
func crashed(w *worker)   { w.crashed, w.trouble = true, trouble{"CrashLoopBackOff", "bad token"} }

func demands(slots ...int) []bulkhead.Demand {
	var all []bulkhead.Demand
	for i, n := range slots {
		d := bulkhead.Demand{Slots: n}
		if i > 0 {
			d.Shape = fmt.Sprint("s", i)
		}
		all = append(all, d)
	}
	return all
}

func TestDecisions(t *testing.T) {
	for name, test := range map[string]struct {
		max, slots, shapes             int
		workers                        []worker
		demand                         []bulkhead.Demand
		released                       bool
		foreign                        []string
		backoff                        backoff
		create, remove, retire, isGone string
	}{
		"nothing is asked for, nothing is made":     {},
		"one pod for one slot":                      {demand: demands(1), create: "c-0-0"},
		"no more than max":                          {max: 2, demand: demands(9), create: "c-0-0 c-0-1"},
		"a pod has several slots":                   {slots: 4, demand: demands(9), create: "c-0-0 c-0-1 c-0-2"},
		"the lowest ordinals that are free":         {demand: demands(4), workers: []worker{pod(1, with(1)), pod(3, with(1))}, create: "c-0-0 c-0-2"},
		"a name that somebody else has is left out": {demand: demands(2), foreign: []string{"c-0-0"}, create: "c-0-1 c-0-2"},
		"ten before any has started":                {max: 100, demand: demands(100), create: "c-0-0 c-0-1 c-0-2 c-0-3 c-0-4 c-0-5 c-0-6 c-0-7 c-0-8 c-0-9"},
		"a pod that is going still has its place": {max: 2, demand: demands(2),
			workers: []worker{pod(0, deleted), pod(1, with(1), going)}},
		"the items of a worker that goes need no other": {demand: demands(3),
			workers: []worker{pod(0, with(1), going), pod(1, with(1))}, create: "c-0-2"},
		"an idle worker ends by itself":                  {workers: []worker{pod(0, with(0))}},
		"a pod that ended is removed, its agent is gone": {workers: []worker{pod(0, ended)}, remove: "c-0-0", isGone: "c-0-0"},
		"one whose end nobody saw is not called gone":    {workers: []worker{pod(0, forgotten)}, remove: "c-0-0"},
		"one that is being deleted is not deleted again": {workers: []worker{pod(0, ended, deleted)}, isGone: "c-0-0"},
		"an outdated worker is let go":                   {demand: demands(1), workers: []worker{pod(0, with(1), outdated)}, retire: "c-0-0"},
		"once":                                           {demand: demands(1), workers: []worker{pod(0, with(1), outdated, going)}},
		"an outdated pod that has not started is removed": {demand: demands(1), workers: []worker{pod(0, outdated)},
			remove: "c-0-0", create: "c-0-1"},
		"one that started is not, though its agent is not connected": {demand: demands(0), workers: []worker{pod(0, started, outdated)}},
		"a pod that starts and is not needed is kept for a while":    {workers: []worker{pod(0)}},
		"not for ever": {workers: []worker{pod(0, old)}, remove: "c-0-0"},
		"one whose agent crashes and holds nothing is not missed": {workers: []worker{pod(0, old, started, crashed)}, remove: "c-0-0"},
		"one whose agent crashes and holds an item is":            {workers: []worker{pod(0, old, with(1), crashed)}},
		"shapes get the same":                                     {max: 4, shapes: 1, demand: demands(9, 9), create: "c-0-0 c-0-1 c-s1-0 c-s1-1"},
		"a shape that wants little gets it":                       {max: 4, shapes: 1, demand: demands(9, 1), create: "c-0-0 c-0-1 c-0-2 c-s1-0"},
		"no more shapes than may be":                              {shapes: 1, demand: demands(0, 1, 1), create: "c-s1-0"},
		"a shape that has pods keeps its place": {shapes: 1, demand: demands(0, 1, 1),
			workers: []worker{pod(0, of("s2"), with(1))}},
		"the idle make room for another shape": {max: 2, shapes: 1, demand: demands(9, 9),
			workers: []worker{pod(0, with(0)), pod(1, with(1))}, retire: "c-0-0"},
		"what has not started makes room first": {max: 2, shapes: 1, demand: demands(9, 9),
			workers: []worker{pod(0, with(0)), pod(1)}, remove: "c-0-1"},
		"a place that becomes free is room": {max: 3, shapes: 1, demand: demands(9, 9),
			workers: []worker{pod(0, with(1)), pod(1, with(1)), pod(2, with(1), going)}},
		"beside a pod that cannot start, one more": {demand: demands(5), workers: []worker{pod(0, started, crashed)}, create: "c-0-1"},
		"not before its time": {demand: demands(5), workers: []worker{pod(0, started, crashed)},
			backoff: backoff{until: noon.Add(time.Second)}},
		"where there was room when one was refused, there is room again": {demand: demands(5), workers: []worker{pod(0, with(1))},
			backoff: backoff{trouble: trouble{"QuotaExceeded", "q"}, until: noon.Add(time.Minute), pods: 3}, create: "c-0-1 c-0-2"},
		"a shape that cannot start does not hold up others": {max: 40, shapes: 1, demand: demands(2, 9), workers: []worker{pod(0, of("s1"), crashed)},
			backoff: backoff{}, create: "c-0-0 c-0-1 c-s1-1"},
		"nor one that is tried no more for now": {max: 40, shapes: 1, demand: demands(9, 2), workers: []worker{pod(0, crashed)},
			backoff: backoff{until: noon.Add(time.Minute)}, create: "c-s1-0 c-s1-1"},
		"nor the pods of one that wait": {max: 40, shapes: 1, demand: demands(2, 20), create: "c-0-0 c-0-1",
			workers: []worker{pod(0, of("s1")), pod(1, of("s1")), pod(2, of("s1")), pod(3, of("s1")), pod(4, of("s1")), pod(5, of("s1")),
				pod(6, of("s1")), pod(7, of("s1")), pod(8, of("s1")), pod(9, of("s1"))}},
		"a class that is gone makes none and lets go what was left": {released: true, demand: demands(5),
			workers: []worker{pod(0, with(1)), pod(1), pod(2, with(1), deleted)}, retire: "c-0-0", remove: "c-0-1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &snapshot{class: "c", max: max(test.max, 0), slots: max(test.slots, 1), shapes: test.shapes, workers: test.workers,
				demand: test.demand, now: noon, released: test.released, foreign: test.foreign,
				backoffs: map[string]backoff{"": test.backoff}}
			if test.max == 0 {
				s.max = 10
			}
			d := decide(s)
			var create, remove []string
			for _, x := range d.create {
				create = append(create, x.name)
			}
			for _, w := range d.remove {
				remove = append(remove, w.name)
			}
			got := []string{strings.Join(create, " "), strings.Join(remove, " "), strings.Join(d.retire, " "), strings.Join(d.gone, " ")}
			if diff := cmp.Diff([]string{test.create, test.remove, test.retire, test.isGone}, got); diff != "" {
				t.Errorf("create, remove, retire, gone (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecisionsKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &snapshot{class: "c", max: rapid.IntRange(1, 20).Draw(t, "max"), slots: rapid.IntRange(1, 3).Draw(t, "slots"),
			shapes: rapid.IntRange(0, 2).Draw(t, "shapes"), now: noon, demand: demands(rapid.SliceOfN(rapid.IntRange(0, 30), 0, 4).Draw(t, "demand")...)}
		changes := []func(*worker){outdated, started, ended, deleted, old, forgotten, with(0), with(1), of("s1"), of("s2")}
		for i := range rapid.IntRange(0, s.max).Draw(t, "pods") {
			s.workers = append(s.workers, pod(i, rapid.SliceOfN(rapid.SampledFrom(changes), 0, 3).Draw(t, "how")...))
		}
		d := decide(s)
		names := map[string]bool{}
		for _, w := range s.workers {
			names[w.name] = true
		}
		for _, x := range d.create {
			if names[x.name] {
				t.Fatalf("%s is there already", x.name)
			}
			names[x.name] = true
		}
		if len(s.workers)+len(d.create) > s.max {
			t.Fatalf("%d pods and %d more, of %d", len(s.workers), len(d.create), s.max)
		}
		for _, w := range d.remove {
			if !w.ended && !w.free() {
				t.Fatalf("%s may be running a script", w.name)
			}
		}
	})
}

func TestAPlaceThatIsNotGivenBackIsMissed(t *testing.T) {
	lingers := func(w *worker) { w.leaving, w.trouble = true, trouble{codeLingers, "gone?"} }
	s := &snapshot{class: "c", max: 2, slots: 1, now: noon, demand: demands(5), workers: []worker{pod(0, lingers), pod(1, with(1))}}
	d := decide(s)
	if got, want := d.says(&memory{}, 2), (trouble{codeLingers, "1 of 2 workers cannot start: gone?"}); got != want {
		t.Errorf("%+v", got)
	}
	s.demand = demands(1)
	d = decide(s)
	if got := d.says(&memory{}, 1); got != (trouble{}) {
		t.Errorf("nobody misses it: %+v", got)
	}
}

func TestSharesAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wanted := rapid.SliceOf(rapid.IntRange(0, 10)).Draw(t, "wanted")
		n := rapid.IntRange(0, 40).Draw(t, "n")
		got := fair(wanted, n)
		total, asked := 0, 0
		for i := range got {
			total, asked = total+got[i], asked+wanted[i]
			if got[i] > wanted[i] {
				t.Fatalf("%v of %v", got, wanted)
			}
			if got[i] < wanted[i] && slices.Max(got) > got[i]+1 {
				t.Fatalf("%v of %v: somebody has more than one that wants more", got, wanted)
			}
		}
		if total != min(n, asked) {
			t.Fatalf("%v of %v: %d of %d are used", got, wanted, total, n)
		}
	})
}

func TestTroubles(t *testing.T) {
	created := metav1.NewTime(noon.Add(-10 * time.Second))
	long := metav1.NewTime(noon.Add(-10 * time.Minute))
	waiting := func(name, reason, message string) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: name,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}}
	}
	loop := waiting("script", "CrashLoopBackOff", "back-off 5m0s restarting failed container")
	loop.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error", Message: "the server refuses\nthe token"}
	runs := func(since metav1.Time) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "script",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: since}}}}}
	}
	for name, test := range map[string]struct {
		created   metav1.Time
		status    corev1.PodStatus
		connected bool
		deleted   time.Duration // ago; 0: not
		listening time.Time
		code      string
		text      string
		again     bool
	}{
		"it is being made":                           {created: created, status: waiting("script", "PodInitializing", ""), again: true},
		"that takes long":                            {created: long, status: waiting("script", "ContainerCreating", ""), code: "SlowStart", text: "kubectl describe pod -n ns p may say why"},
		"it waits for its agent":                     {created: created, status: runs(created), again: true},
		"the agent is silent":                        {created: long, status: runs(long), code: "NotConnected", text: "its agent has not connected"},
		"the agent is silent, but so was the server": {created: long, status: runs(long), listening: noon.Add(-time.Second), again: true},
		"it was to be gone":                          {created: long, deleted: 2 * time.Minute, connected: true, code: "NotDeleted", text: "pod p was deleted, and node n has not said that it is gone"},
		"it has its grace":                           {created: long, deleted: time.Second, again: true},
		"the agent is connected":                     {created: long, status: runs(long), connected: true},
		"the image is not there": {created: created, status: waiting("script", "ImagePullBackOff", `Back-off pulling image "x"`),
			code: "ImagePullBackOff", text: `pod p: container script: ImagePullBackOff: Back-off pulling image "x"`},
		"the image runs as root": {created: created, status: waiting("script", "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
			code: "CreateContainerConfigError", text: "image will run as root"},
		"the agent crashes, and says why": {created: created, status: loop, code: "CrashLoopBackOff",
			text: "pod p: container script ended with code 2: the server refuses the token"},
		"no node takes it": {created: created, status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled,
			Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}},
			code: "Unschedulable", text: "no node takes pod p: 0/3 nodes are available"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", CreationTimestamp: test.created}, Status: test.status, Spec: corev1.PodSpec{NodeName: "n"}}
			if test.deleted > 0 {
				p.DeletionTimestamp = &metav1.Time{Time: noon.Add(-test.deleted)}
			}
			got, again := troubleOf(p, test.connected, test.listening, noon)
			if got.Code != test.code || !strings.Contains(got.Text, test.text) || (again > 0) != test.again {
				t.Errorf("%+v, again %s", got, again)
			}
		})
	}
}

func TestBackOffGrowsAndEnds(t *testing.T) {
	var b backoff
	refused := trouble{"QuotaExceeded", "q"}
	for _, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		b.refused(refused, 5, noon, 0.5)
		if got := b.until.Sub(noon); got != time.Duration(seconds)*time.Second {
			t.Errorf("waits %s, not %d s", got, seconds)
		}
	}
	b.made(4)
	if b.trouble != refused {
		t.Error("a pod in the place of another one is no proof that there may be more")
	}
	b.made(5)
	if b != (backoff{}) {
		t.Errorf("one more could be made: %+v", b)
	}

	b.failed(trouble{"OutOfcpu", "x"}, noon, 0)
	b.made(9)
	b.settle([]worker{pod(0, with(1))}, false)
	if b == (backoff{}) {
		t.Error("that a pod can be made does not prove that it can begin")
	}
	later := pod(0, with(1))
	later.agent.Since = noon.Add(time.Second)
	b.settle([]worker{later}, false)
	if b != (backoff{}) {
		t.Errorf("a worker has connected since: %+v", b)
	}
}
