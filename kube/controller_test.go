package kube_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
	"bulkhead.dev/bulkhead/lab"
)

// asIs is the class without changes.
var asIs bulkhead.Shape

func TestPodsFollowDemandAndNothingElseIsMade(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 3)
	ns := c.namespace(t)
	before := c.Objects(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 5))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 3)
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	s.want(t, wiki, asIs, 100)
	all := []string{"wiki-0-0", "wiki-0-1", "wiki-0-2", "wiki-0-3", "wiki-0-4"}
	c.running(t, ns, all...)
	c.become(t, ns, all...)
	for _, name := range all {
		s.connect(t, wiki, ns+"/"+name, 1)
	}
	spec := c.pods(t, ns)["wiki-0-0"].Spec
	command := strings.Join(spec.Containers[0].Command, " ")
	if !strings.Contains(command, " --stop-within 1m0s") || *spec.TerminationGracePeriodSeconds != 60 {
		t.Errorf("the worker has %d s to stop and does not know it: %s", *spec.TerminationGracePeriodSeconds, command)
	}
	c.Eventually(t, "the status says so", func(context.Context) bool {
		status := c.get(t, ns, "wiki").Status
		return status.Ready == 5 && status.Busy == 5 && status.Workers == 5
	})
	table := c.Kubectl(t, "get", "scriptclasses", "-n", ns)
	for _, part := range []string{"WAITS FOR", "100 items wait for a slot: all 5 workers are in use (workers.max)"} {
		if !strings.Contains(table, part) {
			t.Errorf("kubectl get scriptclasses does not say %q:\n%s", part, table)
		}
	}

	want := map[string]int{"scriptclasses.bulkhead.dev": 1, "configmaps": 1, "networkpolicies": 1, "pods": 5}
	got := lab.Counts{Objects: c.Objects(t)}.Since(lab.Counts{Objects: before}).Objects
	delete(got, "events") // of the scheduler: one for each pod
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what has been made (-want +got):\n%s", diff)
	}
}

func TestAPodThatHasEndedIsDeletedAndItsNameIsUsedAgain(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 3))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 3)
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	for name := range c.pods(t, ns) {
		s.connect(t, wiki, ns+"/"+name, 1)
	}
	first := c.pods(t, ns)["wiki-0-1"].UID
	c.end(t, ns, "wiki-0-1")
	c.Eventually(t, "a new pod has its name", func(context.Context) bool {
		p, ok := c.pods(t, ns)["wiki-0-1"]
		return ok && p.UID != first
	})
	if !s.isGone(ns + "/wiki-0-1") {
		t.Error("the server was not told that the agent is gone")
	}

	// Of a pod that only was forgotten nobody knows whether its script still runs.
	s.want(t, wiki, asIs, 2)
	zero := int64(0)
	if err := c.api.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "wiki-0-2"}},
		&client.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	c.become(t, ns, "wiki-0-0", "wiki-0-1")
	c.end(t, ns, "wiki-0-0")
	c.Eventually(t, "the other agent is gone", func(context.Context) bool { return s.isGone(ns + "/wiki-0-0") })
	if s.isGone(ns + "/wiki-0-2") {
		t.Error("an agent was called gone that may still run")
	}
}

// end plays the kubelet of a pod whose containers have ended well.
func (c *cluster) end(t *testing.T, ns, name string) {
	t.Helper()
	c.status(t, ns, name, func(s *corev1.PodStatus) {
		s.Phase = corev1.PodSucceeded
		for i := range s.ContainerStatuses {
			s.ContainerStatuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}
		}
	})
}

// status plays the kubelet of a pod.
func (c *cluster) status(t *testing.T, ns, name string, how func(*corev1.PodStatus)) {
	t.Helper()
	p := c.pods(t, ns)[name]
	was := p.DeepCopy()
	how(&p.Status)
	if err := c.api.Status().Patch(t.Context(), &p, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}
}

func TestAChangeOfTheClassReplacesWorkersAsTheyBecomeFree(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 2))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 2)
	c.running(t, ns, "wiki-0-0", "wiki-0-1")
	s.connect(t, wiki, ns+"/wiki-0-0", 1)
	s.connect(t, wiki, ns+"/wiki-0-1", 1)
	before := c.pods(t, ns)

	c.change(t, ns, "wiki", func(class *v1alpha1.ScriptClass) { class.Spec.Limit = 7; class.Spec.Command = []string{"php"} })
	c.Eventually(t, "the class was looked at", func(context.Context) bool {
		class := c.get(t, ns, "wiki")
		return class.Status.ObservedGeneration == class.Generation
	})
	if s.isRetired(ns + "/wiki-0-0") {
		t.Error("a change that does not concern pods replaces them")
	}

	c.change(t, ns, "wiki", func(class *v1alpha1.ScriptClass) {
		class.Spec.Template.Container.Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
	})
	c.Eventually(t, "both agents are to go", func(context.Context) bool {
		return s.isRetired(ns+"/wiki-0-0") && s.isRetired(ns+"/wiki-0-1")
	})
	if diff := cmp.Diff(slices.Sorted(maps.Keys(before)), c.names(t, ns)); diff != "" {
		t.Errorf("pods that run were touched (-before +now):\n%s", diff)
	}
	c.end(t, ns, "wiki-0-1")
	c.Eventually(t, "a new pod takes the place of one that ended", func(context.Context) bool {
		p, ok := c.pods(t, ns)["wiki-0-1"]
		return ok && p.UID != before["wiki-0-1"].UID && p.Spec.Containers[0].Env[0].Value == "b"
	})
	if p := c.pods(t, ns)["wiki-0-0"]; p.UID != before["wiki-0-0"].UID || p.DeletionTimestamp != nil {
		t.Error("the pod that still runs was touched")
	}
}

func TestAPodThatCannotStartIsReplacedWhenTheClassIsPutRight(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	broken := class(ns, "wiki", 100)
	broken.Spec.Template.NodeSelector = map[string]string{"no": "such"}
	c.create(t, broken)
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 100)
	c.Eventually(t, "every waiting run is told why", func(context.Context) bool {
		return strings.Contains(s.reason(wiki), "didn't match Pod's node affinity/selector")
	})
	c.Eventually(t, "the status says so", func(context.Context) bool {
		status := c.get(t, ns, "wiki").Status
		return meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionBlocked) &&
			meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionReady) && strings.Contains(status.Waiting, "no node takes pod wiki-0-")
	})
	if n := len(c.names(t, ns)); n > 12 {
		t.Errorf("there are %d pods that cannot start", n)
	}
	c.change(t, ns, "wiki", func(class *v1alpha1.ScriptClass) {
		class.Spec.Template.NodeSelector = map[string]string{lab.FakeNodeLabel: ""}
		class.Spec.Workers.Max = 3
	})
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	c.Eventually(t, "the runs are told that it is over", func(context.Context) bool { return s.reason(wiki) == "" })
}

func TestAQuotaHoldsPodsBackAndSaysSo(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "few"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}}}
	c.create(t, quota)
	c.Eventually(t, "the quota counts", func(ctx context.Context) bool {
		var q corev1.ResourceQuota
		return c.api.Get(ctx, client.ObjectKeyFromObject(quota), &q) == nil && len(q.Status.Hard) > 0
	})
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 4))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 4)
	c.running(t, ns, "wiki-0-0", "wiki-0-1")
	c.Eventually(t, "the runs are told", func(context.Context) bool {
		return strings.Contains(s.reason(wiki), "2 of 4 workers cannot start") && strings.Contains(s.reason(wiki), "exceeded quota: few")
	})
	condition := meta.FindStatusCondition(c.get(t, ns, "wiki").Status.Conditions, v1alpha1.ConditionBlocked)
	if condition == nil || condition.Reason != "QuotaExceeded" {
		t.Errorf("condition %+v", condition)
	}
	if err := c.api.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2", "wiki-0-3")
	c.Eventually(t, "the runs are told that it is over", func(context.Context) bool { return s.reason(wiki) == "" })
}

func TestAClassThatIsDeletedTakesEverythingWithIt(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	before := c.Objects(t)
	s := newServer()
	ctl, _ := run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 3))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 3)
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	if _, ok := ctl.Class(wiki); !ok || ctl.Synced() != nil {
		t.Error("the class is not known")
	}
	s.connect(t, wiki, ns+"/wiki-0-0", 1)
	if err := c.api.Delete(t.Context(), class(ns, "wiki", 3)); err != nil {
		t.Fatal(err)
	}
	c.become(t, ns)
	c.Eventually(t, "nothing is left", func(context.Context) bool {
		left := lab.Counts{Objects: c.Objects(t)}.Since(lab.Counts{Objects: before}).Objects
		delete(left, "events")
		return len(left) == 0
	})
	c.Eventually(t, "the runs are told", func(context.Context) bool {
		_, known := ctl.Class(wiki)
		return s.reason(wiki) == "class "+wiki+" does not exist" && !known
	})
	if names := ctl.Names(); len(names) != 0 {
		t.Errorf("classes %q", names)
	}

	// One of the same name is another one.
	c.create(t, class(ns, "wiki", 1))
	c.running(t, ns, "wiki-0-0")
}

func TestPodsAreMadeNoFasterThanTheyMay(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	o := options(c.Config(), ns)
	o.PodsPerSecond, o.PodsBurst = 2, 2
	run(t, s, o)
	c.create(t, class(ns, "one", 4))
	c.create(t, class(ns, "two", 4))
	s.want(t, ns+"/one", asIs, 4)
	s.want(t, ns+"/two", asIs, 4)
	c.become(t, ns, "one-0-0", "one-0-1", "one-0-2", "one-0-3", "two-0-0", "two-0-1", "two-0-2", "two-0-3")
	var times []time.Time
	for _, p := range c.pods(t, ns) {
		times = append(times, p.CreationTimestamp.Time)
	}
	slices.SortFunc(times, time.Time.Compare)
	// Eight at two a second, two of them at once, take three seconds; times are whole ones.
	if took := times[7].Sub(times[0]); took < 2*time.Second {
		t.Errorf("8 pods were made within %s", took)
	}
}

func TestAnIdleControllerAsksNothing(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 3))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 2)
	c.running(t, ns, "wiki-0-0", "wiki-0-1")
	s.connect(t, wiki, ns+"/wiki-0-0", 1)
	s.connect(t, wiki, ns+"/wiki-0-1", 1)
	c.Eventually(t, "the status is what it should be", func(context.Context) bool { return c.get(t, ns, "wiki").Status.Ready == 2 })
	mine := func(r lab.Request) bool { return r.Client == userAgent && r.Verb != "watch" }

	total := c.Requests(t)
	for verb, n := range total.By(func(r lab.Request) string { return r.Client + " " + r.Verb + " " + r.Resource }) {
		if strings.HasPrefix(verb, userAgent+" list") || strings.HasPrefix(verb, userAgent+" get") {
			t.Errorf("%d requests %q", n, verb)
		}
	}
	<-time.After(6 * time.Second) // until what the last changes have put off is done
	before := c.Requests(t)
	<-time.After(10 * time.Second)
	now := c.Requests(t)
	if n := now.Of(mine) - before.Of(mine); n != 0 {
		t.Errorf("%d requests while there was nothing to do: %v", n, lab.Counts{Requests: now}.Since(lab.Counts{Requests: before}).Requests)
	}
}

func TestALongNameFits(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	name := strings.Repeat("x", 49)
	long := class(ns, name, 10000)
	long.Spec.Shapes.Max = 1
	c.create(t, long)
	shape := bulkhead.Shape{Memory: "100Mi"}
	s.want(t, ns+"/"+name, shape, 1)
	c.running(t, ns, name+"-"+shape.Key()+"-0")
	err := c.api.Create(t.Context(), class(ns, name+"x", 1))
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "at most 49") {
		t.Errorf("a longer one: %v", err)
	}
}

func TestShapesShareTheWorkersAndAreBounded(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	shaped := class(ns, "wiki", 4)
	shaped.Spec.Shapes.Max = 1
	c.create(t, shaped)
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 10)
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2", "wiki-0-3")
	s.connect(t, wiki, ns+"/wiki-0-0", 1)
	s.connect(t, wiki, ns+"/wiki-0-1", 0)
	s.connect(t, wiki, ns+"/wiki-0-2", 1)
	s.connect(t, wiki, ns+"/wiki-0-3", 1)

	large := bulkhead.Shape{Image: "example.org/other:1", CPU: "2", Memory: "3Gi"}
	s.want(t, wiki, large, 10)
	c.Eventually(t, "two agents make room, the idle one among them", func(context.Context) bool {
		n := 0
		for i := range 4 {
			if s.isRetired(fmt.Sprintf("%s/wiki-0-%d", ns, i)) {
				n++
			}
		}
		return n == 2 && s.isRetired(ns+"/wiki-0-1") && s.isRetired(ns+"/wiki-0-3")
	})
	c.end(t, ns, "wiki-0-1")
	pod := "wiki-" + large.Key() + "-0"
	c.running(t, ns, pod)
	script := c.pods(t, ns)[pod].Spec.Containers[0]
	if script.Image != large.Image || script.Resources.Limits.Memory().String() != "3Gi" || script.Resources.Requests.Cpu().String() != "2" {
		t.Errorf("the shape of %+v", script)
	}

	s.want(t, wiki, bulkhead.Shape{CPU: "1"}, 10)
	c.Eventually(t, "the third shape waits", func(context.Context) bool {
		return strings.Contains(c.get(t, ns, "wiki").Status.Waiting, "1 shape waits for others to have no pods")
	})
}

func TestNetworkPolicies(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 1))
	wiki, key := ns+"/wiki", client.ObjectKey{Namespace: ns, Name: "bulkhead-wiki"}
	policy := func(ctx context.Context) (*networkingv1.NetworkPolicy, error) {
		var p networkingv1.NetworkPolicy
		return &p, c.api.Get(ctx, key, &p)
	}
	c.Eventually(t, "there is a policy that lets everything out and nobody in", func(ctx context.Context) bool {
		p, err := policy(ctx)
		return err == nil && len(p.Spec.Ingress) == 0 && len(p.Spec.Egress) == 1 && len(p.Spec.PolicyTypes) == 2
	})
	c.Eventually(t, "it comes back when it is deleted", func(ctx context.Context) bool {
		p, err := policy(ctx)
		if err != nil {
			return false
		}
		if err := c.api.Delete(ctx, p); err != nil {
			t.Fatal(err)
		}
		c.Eventually(t, "it is there again", func(ctx context.Context) bool {
			again, err := policy(ctx)
			return err == nil && again.UID != p.UID
		})
		return true
	})

	c.change(t, ns, "wiki", func(class *v1alpha1.ScriptClass) {
		class.Spec.NetworkPolicy.Egress = []networkingv1.NetworkPolicyEgressRule{}
	})
	c.Eventually(t, "it lets out what workers need", func(ctx context.Context) bool {
		p, err := policy(ctx)
		return err == nil && len(p.Spec.Egress) == 2 && p.Spec.Egress[0].Ports[0].Port.IntValue() == 53 &&
			p.Spec.Egress[1].Ports[0].Port.IntValue() == 8443
	})

	c.change(t, ns, "wiki", func(class *v1alpha1.ScriptClass) {
		class.Spec.NetworkPolicy = v1alpha1.NetworkPolicy{Existing: "scripts"}
		class.Spec.Template.Labels = map[string]string{"app": "scripts"}
	})
	c.Eventually(t, "the policy that is named is missed", func(context.Context) bool {
		return strings.Contains(s.reason(wiki), `has no NetworkPolicy "scripts"`)
	})
	s.want(t, wiki, asIs, 1)
	c.Eventually(t, "the status says what waits", func(context.Context) bool {
		return strings.HasPrefix(c.get(t, ns, "wiki").Status.Waiting, "1 item waits for workers: networkPolicy.existing: ")
	})
	if names := c.names(t, ns); len(names) != 0 {
		t.Errorf("pods %q", names)
	}
	c.create(t, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "scripts"},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "scripts"}}}})
	c.running(t, ns, "wiki-0-0")
	if _, err := policy(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("the class's own policy: %v", err)
	}
}

func TestClassesAreKnownWhileTheAPIServerIsAway(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	proxy := c.Proxy(t)
	o := options(proxy.Config(), ns)
	proxy.Cut(true)
	ctl, _ := run(t, s, o)
	if ctl.Synced() == nil {
		t.Error("the classes are known without an API server")
	}
	c.create(t, class(ns, "wiki", 2))
	proxy.Cut(false)
	c.Eventually(t, "the class is known", func(context.Context) bool {
		_, ok := ctl.Class(ns + "/wiki")
		return ok && ctl.Synced() == nil
	})
	s.want(t, ns+"/wiki", asIs, 1)
	c.running(t, ns, "wiki-0-0")
	proxy.Cut(true)
	s.want(t, ns+"/wiki", asIs, 2)
	c.Eventually(t, "the runs are told", func(context.Context) bool {
		_, ok := ctl.Class(ns + "/wiki")
		return ok && strings.Contains(s.reason(ns+"/wiki"), "does not answer")
	})
	proxy.Cut(false)
	c.running(t, ns, "wiki-0-0", "wiki-0-1")
	c.Eventually(t, "it is over", func(context.Context) bool { return s.reason(ns+"/wiki") == "" })
}

func TestAConfigMapIsTheClassesOwn(t *testing.T) {
	c := start(t)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 1))
	var config corev1.ConfigMap
	isThere := func(ctx context.Context) bool {
		return c.api.Get(ctx, types.NamespacedName{Namespace: ns, Name: "bulkhead-wiki"}, &config) == nil
	}
	c.Eventually(t, "it is there", isThere)
	if config.Data["ca.crt"] != "CA" || config.OwnerReferences[0].Kind != "ScriptClass" {
		t.Errorf("it is %+v", config)
	}
	if err := c.api.Delete(t.Context(), &config); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "it is there again", isThere)
	config.Data["ca.crt"] = "another"
	if err := c.api.Update(t.Context(), &config); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "it is as it was", func(ctx context.Context) bool { return isThere(ctx) && config.Data["ca.crt"] == "CA" })
}

func TestANameThatSomebodyElseHasIsLeftToHim(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 1)
	ns := c.namespace(t)
	s := newServer()
	his := class(ns, "his", 1)
	his.Spec.NetworkPolicy.None = true
	run(t, s, options(c.Config(), ns))
	c.create(t, his)
	s.want(t, ns+"/his", asIs, 1)
	c.running(t, ns, "his-0-0")
	p := c.pods(t, ns)["his-0-0"]
	c.create(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "wiki-0-0"}, Spec: p.Spec})
	c.create(t, class(ns, "wiki", 2))
	s.want(t, ns+"/wiki", asIs, 2)
	c.Eventually(t, "the runs are told", func(context.Context) bool {
		return strings.Contains(s.reason(ns+"/wiki"), `pods "wiki-0-0" already exists, and is not of this class`)
	})
	c.running(t, ns, "wiki-0-1", "wiki-0-2")
	c.Eventually(t, "the runs are told that it is over", func(context.Context) bool { return s.reason(ns+"/wiki") == "" })
}

func TestWhatSomebodyElseHasMadeIsNotTaken(t *testing.T) {
	c := start(t)
	ns := c.namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	his := metav1.ObjectMeta{Namespace: ns, Name: "bulkhead-wiki"}
	config := &corev1.ConfigMap{ObjectMeta: his, Data: map[string]string{"settings": "his"}}
	c.create(t, config)
	c.create(t, class(ns, "wiki", 1))
	wiki := ns + "/wiki"
	s.want(t, wiki, asIs, 1)
	c.Eventually(t, "the runs are told about the ConfigMap", func(context.Context) bool {
		return strings.Contains(s.reason(wiki), "there is another ConfigMap bulkhead-wiki, which is not of this class")
	})
	policy := &networkingv1.NetworkPolicy{ObjectMeta: his, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "his"}}}}
	c.create(t, policy)
	before := []client.Object{config.DeepCopy(), policy.DeepCopy()}
	if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(config), config); err != nil {
		t.Fatal(err)
	}
	if err := c.api.Delete(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "the runs are told about the policy", func(context.Context) bool {
		return strings.Contains(s.reason(wiki), "there is another NetworkPolicy bulkhead-wiki, which is not of this class")
	})
	if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(policy), policy); err != nil {
		t.Fatal(err)
	}
	for i, now := range []client.Object{config, policy} {
		if now.GetResourceVersion() != before[i].GetResourceVersion() {
			t.Errorf("it was changed: %+v", now)
		}
	}
	if names := c.names(t, ns); len(names) != 0 {
		t.Errorf("pods %q", names)
	}
}
