package census_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/lab"
)

func TestWhatCallsOfTheToolLeaveIsOneFamilyForEachThing(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	c, _ := run(t, l.Config(), census.Options{})
	l.Eventually(t, "all kinds are counted", func(context.Context) bool {
		return status(c.Snapshot(), census.BuiltIn[len(census.BuiltIn)-1]).Exact
	})
	l.HelmRelease(t, ns, 3)
	eventuallyExact(t, l, c)

	var got []bulkhead.Tally
	for _, x := range c.Snapshot().Tallies {
		if x.Namespace == ns && x.Created > 0 {
			x.Namespace, x.Born, x.Example = "", nil, bulkhead.Example{}
			x.Facts = byKey(x.Facts, "username", "script", "comment")
			got = append(got, x)
		}
	}
	want := []bulkhead.Tally{
		{Key: bulkhead.Key{Kind: "jobs.batch", Family: "mediawiki-*", Origin: "release/*", Manager: "helm"}, Facts: who},
		{Key: bulkhead.Key{Kind: "networkpolicies.networking.k8s.io", Family: "mediawiki-*", Origin: "release/*", Manager: "helm"}, Rules: 3 * 90},
		{Key: bulkhead.Key{Kind: "pods", Family: "mediawiki-*", Origin: "jobs.batch/mediawiki-*", Manager: "kube-controller-manager"}, Facts: who},
		{Key: bulkhead.Key{Kind: "secrets", Family: "sh.helm.release.v1.*.v*", Origin: "release/*", Manager: "Helm"}},
	}
	for _, part := range []string{"envoy-config", "httpd-sites", "mail-config", "mcrouter-config", "php-config", "rsyslog-config", "wikimedia-cluster"} {
		want = append(want, bulkhead.Tally{Key: bulkhead.Key{Kind: "configmaps", Family: "mediawiki-*-" + part, Origin: "release/*", Manager: "helm"}})
	}
	for i := range want {
		want[i].Objects, want[i].Created, want[i].Keeps.Nothing = 3, 3, 3
		if want[i].Kind == "pods" {
			want[i].Keeps = bulkhead.Keep{Owned: 3}
		}
	}
	sorted := cmpopts.SortSlices(func(a, b bulkhead.Tally) bool { return a.Kind+a.Family < b.Kind+b.Family })
	if diff := cmp.Diff(want, got, sorted); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// who is what the Jobs of the lab's releases say.
var who = []bulkhead.Fact{{Key: "comment", Value: "T363966", Objects: 3}, {Key: "script", Value: "requeueTranscodes.php", Objects: 3}, {Key: "username", Value: "ann", Objects: 3}}

func byKey(facts []bulkhead.Fact, keys ...string) []bulkhead.Fact {
	var some []bulkhead.Fact
	for _, f := range facts {
		for _, k := range keys {
			if f.Key == k {
				some = append(some, f)
			}
		}
	}
	return some
}

func TestAWatchThatBreaksGoesOnWhereItWas(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	p := l.Proxy(t)
	c, _ := run(t, p.Config(), census.Options{Kinds: some})
	configMaps(t, l, ns, 30)
	eventuallyExact(t, l, c)
	before := l.Requests(t)

	p.Cut(true)
	l.Eventually(t, "the census says that it sees nothing", func(context.Context) bool {
		k := status(c.Snapshot(), "configmaps")
		return !k.Exact && strings.HasPrefix(k.Reason, "not seen for now")
	})
	configMaps(t, l, ns, 20)
	l.Kubectl(t, "delete", "configmap", "-n", ns, "kube-root-ca.crt")
	p.Cut(false)
	eventuallyExact(t, l, c)
	got := tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config")
	if got.Objects != 50 || got.Created < 20 {
		t.Errorf("%d objects, %d created; want 50 and at least 20", got.Objects, got.Created)
	}
	lists := l.Requests(t).Of(mine) - before.Of(mine)
	if lists > 30 { // some for each kind, while nothing answered
		t.Errorf("%d requests to go on", lists)
	}
}

// some kinds are enough for most tests.
var some = []string{"-*", "configmaps", "secrets"}

func mine(r lab.Request) bool { return r.Client == "bulkhead-census" }

// An API server that starts anew remembers no changes: versions from before are too
// old for it.
func TestAfterTheAPIServerStartedAnewTheCountsAreExact(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	p := l.Proxy(t)
	c, _ := run(t, p.Config(), census.Options{Kinds: some})
	other, _ := run(t, l.Config(), census.Options{Kinds: some})
	configMaps(t, l, ns, 100)
	eventuallyExact(t, l, c, other)

	p.Cut(true)
	l.Kubectl(t, "delete", "configmap", "-n", ns, "-l", "username=ann")
	configMaps(t, l, ns, 40)
	l.KillAPIServer(t)()
	p.Cut(false)
	eventuallyExact(t, l, c, other)
	for _, c := range []*census.Census{c, other} {
		got := tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config")
		if got.Objects != 40 || got.Deleted < 100 {
			t.Errorf("%d objects, %d deleted; want 40 and 100", got.Objects, got.Deleted)
		}
	}
}

func TestAKindThatAppearsIsCountedAndForgottenWhenItDisappears(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	c, _ := run(t, l.Config(), census.Options{})
	eventuallyExact(t, l, c)
	const kind = "barges.census.example.org"
	for _, scope := range []string{"Namespaced", "Namespaced", "Cluster"} { // a kind with the same name, too
		where, path := ns, "/apis/census.example.org/v1/namespaces/"+ns+"/barges"
		if scope == "Cluster" {
			where, path = "", "/apis/census.example.org/v1/barges"
		}
		apply(t, l, strings.Replace(definition("census.example.org", "barges", "Barge"), "scope: Namespaced", "scope: "+scope, 1))
		l.Eventually(t, "the kind is there", func(context.Context) bool { return status(c.Snapshot(), kind).Exact })
		for range 3 {
			// kubectl would remember the scope that the kind had.
			barge := fmt.Sprintf(`{"apiVersion":"census.example.org/v1","kind":"Barge","metadata":{"name":"barge-%s"}}`, randomName())
			if err := l.Client().Discovery().RESTClient().Post().AbsPath(path).Body([]byte(barge)).Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		l.Eventually(t, "the objects are counted", func(context.Context) bool {
			return tally(c.Snapshot(), kind, where, "barge-*").Objects == 3
		})
		l.Kubectl(t, "delete", "crd", kind)
		l.Eventually(t, "the kind is gone", func(context.Context) bool {
			s := c.Snapshot()
			return status(s, kind).Kind == "" && tally(s, kind, where, "barge-*").Objects == 0
		})
	}
	eventuallyExact(t, l, c)
}

func definition(group, plural, kind string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {plural: %[2]s, singular: %[4]s, kind: %[3]s}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`, group, plural, kind, strings.ToLower(kind))
}

func TestAllObjectsOfANamespaceDeletedAtOnce(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	c, _ := run(t, l.Config(), census.Options{Kinds: some})
	const n = 2_000
	configMaps(t, l, ns, n)
	eventuallyExact(t, l, c)
	err := l.Client().CoreV1().ConfigMaps(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "username=ann"})
	if err != nil {
		t.Fatal(err)
	}
	eventuallyExact(t, l, c)
	got := tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config")
	if got.Objects != 0 || got.Deleted != n || len(got.Born) != 0 || len(got.Facts) != 0 {
		t.Errorf("after all were deleted: %+v", got)
	}
}

func TestARightThatIsMissingIsSaidAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: ns}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"", "apps"}, Resources: []string{"pods", "configmaps", "events", "deployments"}, Verbs: []string{"list", "watch"}},
	}}
	if _, err := l.Client().RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := l.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: ns},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "counter"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, l, "/apis/rbac.authorization.k8s.io/v1/clusterroles/"+ns)
	atEnd(t, l, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/"+ns)
	config := l.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "counter", Groups: []string{"system:authenticated"}}
	c, _ := run(t, config, census.Options{})
	configMaps(t, l, ns, 5)
	eventually := func(kind string, want bulkhead.KindStatus) {
		t.Helper()
		l.Eventually(t, fmt.Sprintf("%s has %+v", kind, want), func(context.Context) bool {
			got := status(c.Snapshot(), kind)
			return got.Exact == want.Exact && got.Reason == want.Reason
		})
	}
	eventually("secrets", bulkhead.KindStatus{Reason: `not permitted: grant the verbs list and watch on secrets of API group "" in the cluster; tried again within 10 minutes`})
	eventually("jobs.batch", bulkhead.KindStatus{Reason: `not permitted: grant the verbs list and watch on jobs of API group "batch" in the cluster; tried again within 10 minutes`})
	eventually("configmaps", bulkhead.KindStatus{Exact: true})
	if got := tally(c.Snapshot(), "configmaps", ns, "mediawiki-*-mail-config").Objects; got != 5 {
		t.Errorf("%d ConfigMaps, want 5", got)
	}
	// Metrics are not permitted either, and events are asked for.
	if got := status(c.Snapshot(), "events"); got.Reason != "counted once a minute, never watched" {
		t.Errorf("events: %+v", got)
	}

	role.Rules[0].Resources = append(role.Rules[0].Resources, "secrets")
	if _, err := l.Client().RbacV1().ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("secrets", bulkhead.KindStatus{Exact: true})
}

func TestRightsInOneNamespaceAreEnoughForItsCensus(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns, other := l.Namespace(t), l.Namespace(t)
	_, err := l.Client().RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "counter"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "viewer"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	configMaps(t, l, ns, 4)
	configMaps(t, l, other, 4)
	config := l.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "viewer", Groups: []string{"system:authenticated"}}
	s, err := census.Once(t.Context(), config, census.Options{Namespaces: []string{ns}})
	if err != nil {
		t.Fatal(err)
	}
	if got := objects(s)["configmaps"]; got != 5 || !status(s, "configmaps").Exact {
		t.Errorf("%d ConfigMaps, want 5: %+v", got, status(s, "configmaps"))
	}
	want := fmt.Sprintf(`not permitted: grant the verbs list and watch on secrets of API group "" in namespace %s; tried again within 10 minutes`, ns)
	if got := status(s, "secrets").Reason; got != want {
		t.Errorf("secrets: %s", got)
	}
}

func TestOnceListsEverythingAndSaysWhenItWasBorn(t *testing.T) {
	l := lab.Start(t)
	ns := l.Namespace(t)
	configMaps(t, l, ns, 10)
	before := l.Requests(t)
	s, err := census.Once(t.Context(), l.Config(), census.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := tally(s, "configmaps", ns, "mediawiki-*-mail-config")
	born := int64(0)
	for _, b := range got.Born {
		born += b.Objects
	}
	if got.Objects != 10 || born != 10 || got.Created != 0 {
		t.Errorf("%+v", got)
	}
	for _, k := range s.Kinds {
		if !k.Exact && strings.HasPrefix(k.Reason, "not ") {
			t.Errorf("%s: %s", k.Kind, k.Reason)
		}
	}
	requests := l.Requests(t).Of(mine) - before.Of(mine)
	if kinds := len(s.Kinds); requests > kinds+10 {
		t.Errorf("%d requests for %d kinds", requests, kinds)
	}
}

// One of them is asked for, and how many remain.
func TestEventsAreCountedWithoutReadingThem(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	for i := range 30 {
		_, err := l.Client().CoreV1().Events(ns).Create(t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("web.%016x", i)},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: "web"}, Reason: "Test"}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := census.Once(t.Context(), l.Config(), census.Options{Kinds: []string{"-*", "events"}, Namespaces: []string{ns, "no-such"}})
	if err != nil {
		t.Fatal(err)
	}
	want := bulkhead.Tally{Key: bulkhead.Key{Kind: "events", Family: "*"}, Objects: 30}
	if diff := cmp.Diff(want, tally(s, "events", "", "*")); diff != "" || status(s, "events").Exact {
		t.Errorf("%+v, -want +got:\n%s", status(s, "events"), diff)
	}
}

func TestTheAPIServersOwnCountsServeWhereWatchingIsTooMuch(t *testing.T) {
	l := lab.Start(t)
	l.Namespace(t)
	l.Eventually(t, "the API server has counted", func(context.Context) bool {
		before := l.Requests(t)
		s, err := census.Once(t.Context(), l.Config(), census.Options{MetricsOnly: true, Kinds: []string{"-leases.coordination.k8s.io"}})
		if err != nil {
			t.Fatal(err)
		}
		if status(s, "leases.coordination.k8s.io").Kind != "" {
			t.Fatal("leases are switched off, and counted")
		}
		if n := l.Requests(t).Of(mine) - before.Of(mine); n != 1 {
			t.Fatalf("%d requests, want 1", n)
		}
		k := status(s, "serviceaccounts")
		return k.Objects > 10 && k.Objects == tally(s, "serviceaccounts", "", "*").Objects && !k.Exact && k.Reason != ""
	})
}

func TestAPolicysRulesAreCountedAndNotKept(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	apply(t, l, definition("crd.projectcalico.org", "networkpolicies", "NetworkPolicy"))
	atEnd(t, l, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/networkpolicies.crd.projectcalico.org")
	c, _ := run(t, l.Config(), census.Options{})
	rules := func(kind, family string, want int64) {
		t.Helper()
		l.Eventually(t, fmt.Sprintf("%s has %d rules", kind, want), func(context.Context) bool {
			return tally(c.Snapshot(), kind, ns, family).Rules == want
		})
	}
	policy := func(name, egress string) {
		apply(t, l, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s, namespace: %s}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [%s]}`, name, ns, egress))
	}
	const kind = "networkpolicies.networking.k8s.io"
	policy("a1b2c3d4", "{to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 192.168.0.0/16}}], ports: [{port: 80}, {port: 443}, {port: 53}]}")
	rules(kind, "*", 1+2*3)
	policy("e5f6g7h8", "{ports: [{port: 80}, {port: 443}]}, {to: [{podSelector: {}}]}")
	rules(kind, "*", 1+2*3+1+2+1)
	policy("a1b2c3d4", "")
	rules(kind, "*", 1+1+2+1)
	l.Kubectl(t, "delete", "networkpolicy.networking.k8s.io", "-n", ns, "e5f6g7h8")
	rules(kind, "*", 1)

	l.Eventually(t, "Calico's policies are there", func(context.Context) bool { return status(c.Snapshot(), "networkpolicies.crd.projectcalico.org").Exact })
	apply(t, l, fmt.Sprintf(`
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.allow, namespace: %s}
spec:
  ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 192.168.0.0/16]}, destination: {ports: [80, 443]}}, {action: Deny}]
  egress: [{action: Allow, destination: {nets: [10.0.0.0/8], ports: [80]}}, "nonsense"]`, ns))
	rules("networkpolicies.crd.projectcalico.org", "default.allow", 2*2+1+1)
}

func TestTheTimeToLiveOfAFamilysJobs(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	ns := l.Namespace(t)
	ttl := int32(7 * 24 * 3600)
	_, err := l.Client().BatchV1().Jobs(ns).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "r8x2k9qa"},
		Spec: batchv1.JobSpec{TTLSecondsAfterFinished: &ttl, Suspend: new(true), Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "script", Image: lab.BusyboxImage}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := census.TTL(t.Context(), l.Config(), bulkhead.Key{Kind: "jobs.batch", Namespace: ns, Family: "*"}, "r8x2k9qa")
	if err != nil || got.Hours() != 7*24 {
		t.Errorf("%v, %v", got, err)
	}
	got, err = census.TTL(t.Context(), l.Config(), bulkhead.Key{Kind: "configmaps", Namespace: ns, Family: "*"}, "r8x2k9qa")
	if err != nil || got != 0 {
		t.Errorf("of a ConfigMap: %v, %v", got, err)
	}
}

func TestAKindThatIsNoNameIsRefused(t *testing.T) {
	for _, kind := range []string{"", "-", "+-events", "--events"} {
		_, err := census.New(&rest.Config{}, census.Options{Kinds: []string{kind}})
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func TestASwitchedKindThatTheClusterHasNotIsSaidOnce(t *testing.T) {
	t.Parallel()
	l := lab.Start(t)
	var log lines
	c, _ := run(t, l.Config(), census.Options{Kinds: []string{"-*", "configmaps", "+foos.example.org"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	l.Eventually(t, "the kinds were looked at", func(context.Context) bool { return status(c.Snapshot(), "configmaps").Exact })
	if n := strings.Count(log.String(), "foos.example.org"); n != 1 {
		t.Errorf("foos.example.org is named %d times:\n%s", n, log.String())
	}
}
