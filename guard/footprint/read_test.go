package footprint_test

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/footprint"
)

func read(t testing.TB, text string, o footprint.Options) *footprint.Footprint {
	t.Helper()
	f, err := footprint.Read(strings.NewReader(text), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return f
}

// summary is the parts of a footprint but events, one a line, without their bytes.
func summary(f *footprint.Footprint) string {
	var lines []string
	for _, p := range f.Parts {
		line := fmt.Sprintf("%d %s", p.Objects, p.Kind)
		if p.Rules > 0 {
			line += fmt.Sprintf(" rules=%d", p.Rules)
		}
		if p.Namespace != "default" {
			line += " in=" + p.Namespace
		}
		if p.By != footprint.ByManifest {
			line += " by=" + p.By
		}
		if p.Life.Ends != footprint.Uninstall {
			line += fmt.Sprintf(" %s=%s", p.Life.Ends, p.Life.After)
		}
		if p.Kind != "events" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

const pod = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a}]}\n"

func of(group, kind, spec string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: a}\nspec: %s\n", group, kind, spec)
}

func TestWhatIsMadeOfAnObjectIsCountedWithIt(t *testing.T) {
	const template = "template: {spec: {containers: [{name: a}]}}"
	for name, c := range map[string]struct{ text, want string }{
		"a pod":                           {pod, "1 pods"},
		"a Job has one pod":               {of("batch/v1", "Job", "{"+template+"}"), "1 jobs.batch\n1 pods by=controller"},
		"a Job with a time to live":       {of("batch/v1", "Job", "{ttlSecondsAfterFinished: 3600, "+template+"}"), "1 jobs.batch ttl=1h0m0s\n1 pods by=controller ttl=1h0m0s"},
		"a Job with completions":          {of("batch/v1", "Job", "{completions: 5, parallelism: 2}"), "1 jobs.batch\n5 pods by=controller"},
		"a Job with a work queue":         {of("batch/v1", "Job", "{parallelism: 3}"), "1 jobs.batch\n3 pods by=controller"},
		"a suspended Job":                 {of("batch/v1", "Job", "{completions: 5, suspend: true}"), "1 jobs.batch"},
		"a CronJob":                       {of("batch/v1", "CronJob", "{jobTemplate: {spec: {completions: 2}}}"), "1 cronjobs.batch\n5 jobs.batch by=controller\n10 pods by=controller"},
		"a CronJob with history limits":   {of("batch/v1", "CronJob", "{successfulJobsHistoryLimit: 0, failedJobsHistoryLimit: 0, jobTemplate: {}}"), "1 cronjobs.batch\n1 jobs.batch by=controller\n1 pods by=controller"},
		"a suspended CronJob":             {of("batch/v1", "CronJob", "{suspend: true, jobTemplate: {}}"), "1 cronjobs.batch"},
		"a Deployment":                    {of("apps/v1", "Deployment", "{replicas: 3, "+template+"}"), "1 deployments.apps\n3 pods by=controller\n1 replicasets.apps by=controller"},
		"a Deployment without replicas":   {of("apps/v1", "Deployment", "{"+template+"}"), "1 deployments.apps\n1 pods by=controller\n1 replicasets.apps by=controller"},
		"a Deployment of none":            {of("apps/v1", "Deployment", "{replicas: 0}"), "1 deployments.apps\n1 replicasets.apps by=controller"},
		"a StatefulSet leaves its claims": {of("apps/v1", "StatefulSet", "{replicas: 2, volumeClaimTemplates: [{}]}"), "1 controllerrevisions.apps by=controller\n2 persistentvolumeclaims by=controller nothing=0s\n2 persistentvolumes in= by=controller nothing=0s\n2 pods by=controller\n1 statefulsets.apps"},
		"a StatefulSet that does not":     {of("apps/v1", "StatefulSet", "{volumeClaimTemplates: [{}], persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}}"), "1 controllerrevisions.apps by=controller\n1 persistentvolumeclaims by=controller\n1 persistentvolumes in= by=controller\n1 pods by=controller\n1 statefulsets.apps"},
		"a DaemonSet":                     {of("apps/v1", "DaemonSet", "{"+template+"}"), "1 controllerrevisions.apps by=controller\n1 daemonsets.apps\n7 pods by=controller"},
		"a Service":                       {of("v1", "Service", "{selector: {app: a}}"), "1 endpoints by=controller\n1 endpointslices.discovery.k8s.io by=controller\n1 services"},
		"a Service without pods":          {of("v1", "Service", "{type: ExternalName, selector: {app: a}}"), "1 services"},
		"a claim":                         {of("v1", "PersistentVolumeClaim", "{}"), "1 persistentvolumeclaims\n1 persistentvolumes in= by=controller"},
		"a namespace":                     {of("v1", "Namespace", "{}"), "1 configmaps in=a by=controller\n1 namespaces in=\n1 serviceaccounts in=a by=controller"},
		"a namespace of its own":          {"apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: x}", "1 configmaps in=x"},
		"what has no namespace":           {"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {namespace: x}", "1 clusterroles.rbac.authorization.k8s.io in="},
		"a custom resource":               {of("example.com/v1alpha1", "FooPolicy", "{}"), "1 foopolicies.example.com"},
		"an older group":                  {of("extensions/v1beta1", "Deployment", "{}"), "1 deployments.extensions"},
		"peers × ports":                   {of("networking.k8s.io/v1", "NetworkPolicy", "{ingress: [{from: [{}, {}], ports: [{}, {}, {}]}, {}], egress: [{to: [{}, {}]}, {ports: [{}]}]}"), "1 networkpolicies.networking.k8s.io rules=10"},
		"a policy without rules":          {of("networking.k8s.io/v1", "NetworkPolicy", "{policyTypes: [Ingress]}"), "1 networkpolicies.networking.k8s.io"},
		"Calico's own policy":             {of("projectcalico.org/v3", "NetworkPolicy", "{egress: [{destination: {nets: [a, b], ports: [1, 2]}, source: {nets: [c, d]}}, {}]}"), "1 networkpolicies.crd.projectcalico.org rules=9"},
		"Calico's own policy, as stored":  {of("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "{ingress: [{}]}"), "1 globalnetworkpolicies.crd.projectcalico.org rules=1 in="},
		"what is of the wrong type":       {of("batch/v1", "Job", "{completions: many, template: [], ttlSecondsAfterFinished: {}}"), "1 jobs.batch\n1 pods by=controller"},
		"less than nothing":               {of("apps/v1", "Deployment", "{replicas: -5}"), "1 deployments.apps\n1 replicasets.apps by=controller"},
		"more than there can be":          {of("apps/v1", "ReplicaSet", "{replicas: 1e300}"), "1099511627776 pods by=controller\n1 replicasets.apps"},
		"keys that are no text":           {"apiVersion: v1\nkind: ConfigMap\ndata: {1: a, true: b}", "1 configmaps"},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, summary(read(t, c.text, footprint.Options{Nodes: 7}))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHelmsHooksComeAndGoByTheirOwnRules(t *testing.T) {
	job := func(annotations string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {annotations: {" + annotations + "}}"
	}
	for annotations, want := range map[string]string{
		`a: b`:                               "1 configmaps",
		`helm.sh/hook: test`:                 "",
		`helm.sh/hook: "post-upgrade, test"`: "",
		`helm.sh/hook: pre-install`:          "1 configmaps nothing=0s",
		`helm.sh/hook: "test, post-install"`: "1 configmaps nothing=0s",
		`helm.sh/resource-policy: keep`:      "1 configmaps nothing=0s",
		`helm.sh/hook: pre-install, helm.sh/hook-delete-policy: "before-hook-creation,hook-succeeded"`: "1 configmaps done=0s",
	} {
		if d := cmp.Diff(want, summary(read(t, job(annotations), footprint.Options{}))); d != "" {
			t.Errorf("%s:\n%s", annotations, d)
		}
	}
	f := read(t, job(`helm.sh/hook: test`), footprint.Options{})
	if len(f.Notes) != 1 || !strings.Contains(f.Notes[0], "helm test") {
		t.Errorf("notes: %q", f.Notes)
	}
}

func TestTheReleaseOfAChartIsOneSecretMore(t *testing.T) {
	const rendered = "---\n# Source: x/templates/a.yaml\n" + pod
	for name, c := range map[string]struct {
		text string
		o    footprint.Options
		want string
	}{
		"helm template":          {rendered, footprint.Options{Namespace: "n"}, "1 pods in=n\n1 secrets in=n by=helm"},
		"helm get manifest":      {"apiVersion: v1\nkind: Pod\nmetadata: {labels: {app.kubernetes.io/managed-by: Helm}}", footprint.Options{}, "1 pods\n1 secrets by=helm"},
		"no Helm":                {pod, footprint.Options{}, "1 pods"},
		"Argo CD renders charts": {rendered, footprint.Options{NoRelease: true}, "1 pods"},
	} {
		if d := cmp.Diff(c.want, summary(read(t, c.text, c.o))); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestAReleaseThatNoSecretHoldsIsSaid(t *testing.T) {
	var b strings.Builder
	random := uint64(1)
	for range 40 {
		b.WriteString("---\n# Source: x\napiVersion: v1\nkind: ConfigMap\ndata:\n")
		for i := range 400 {
			fmt.Fprintf(&b, "  k%d: \"", i)
			for range 8 {
				random = random*6364136223846793005 + 1442695040888963407
				fmt.Fprintf(&b, "%016x", random)
			}
			b.WriteString("\"\n")
		}
	}
	f := read(t, b.String(), footprint.Options{})
	if !slices.ContainsFunc(f.Notes, func(n string) bool { return strings.Contains(n, "1 MiB") }) {
		t.Errorf("notes: %q", f.Notes)
	}
}

func TestAStreamIsReadHoweverItIsWritten(t *testing.T) {
	two := "apiVersion: v1\nkind: Secret\n---\napiVersion: v1\nkind: ConfigMap\n"
	const want = "1 configmaps\n1 secrets"
	for name, text := range map[string]string{
		"documents":                  two,
		"a separator before all":     "---\n" + two,
		"empty documents":            "---\n---\n# nothing\n---\n" + two + "---\n---",
		"no newline at the end":      strings.TrimSuffix(two, "\n"),
		"ends of documents":          strings.ReplaceAll(two, "---\n", "...\n---\n"),
		"lines of Windows":           strings.ReplaceAll(two, "\n", "\r\n"),
		"a byte order mark":          "\ufeff" + two,
		"separators with comments":   strings.ReplaceAll(two, "---\n", "--- # next\n"),
		"content behind a separator": "--- {apiVersion: v1, kind: Secret}\n--- {apiVersion: v1, kind: ConfigMap}",
		"directives":                 "%YAML 1.2\n---\n" + two,
		"hyphens in a text":          "apiVersion: v1\nkind: Secret\ndata:\n  a: |\n    ---\n    b\n  c: '\n    --- '\n---\napiVersion: v1\nkind: ConfigMap\n",
		"JSON, one behind the other": `{"apiVersion": "v1", "kind": "Secret"}` + "\n" + `{"apiVersion": "v1", "kind": "ConfigMap"}`,
		"JSON and a comment":         `{"apiVersion": "v1", "kind": "Secret"} # a` + "\n---\n" + `{"apiVersion": "v1", "kind": "ConfigMap"}`,
		"flow style":                 "{apiVersion: v1, kind: Secret}\n---\n{apiVersion: v1, kind: ConfigMap}",
		"a List":                     "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret}\n- {apiVersion: v1, kind: ConfigMap}",
		"what kubectl get prints":    `{"apiVersion": "v1", "items": [{"apiVersion": "v1", "kind": "Secret"}, {"apiVersion": "v1", "kind": "ConfigMap"}], "kind": "List", "metadata": {"resourceVersion": ""}}`,
		"anchors":                    "apiVersion: v1\nkind: List\nitems:\n- &a {apiVersion: v1, kind: Secret}\n- {<<: *a, kind: ConfigMap}",
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(want, summary(read(t, text, footprint.Options{}))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestABadDocumentIsNamedByNumberAndLine(t *testing.T) {
	for text, want := range map[string]string{
		pod + "---\nkind: Pod\n":                         "f: document 2 (line 4): \"Pod\" has no apiVersion",
		"---\n---\n" + pod + "\n---\n\napiVersion: v1\n": "f: document 2 (line 7): it has no kind",
		pod + "---\n- a\n":                               "f: document 2 (line 4): it is not an object",
		pod + "---\na: b: c\n":                           "f: document 2 (line 5): mapping values are not allowed in this context",
		pod + "---\na: \"\nb\n":                          "f: document 2 (line 5): found unexpected end of stream",
		"a: [\n":                                         "f: document 1 (line 2): did not find expected node content",
		"a: \xff\n":                                      "f: document 1 (line 1): invalid leading UTF-8 octet",
		"a: *b\n":                                        "f: document 1 (line 1): unknown anchor 'b' referenced",
		`{"apiVersion": "v1", "kind": "Pod"} {"a"`:       "f: document 1 (line 1): did not find expected <document start>",
		"apiVersion: v1\nkind: List\nitems: [1]":         "f: document 1 (line 1): item 1 of the List is not an object",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]": "f: document 1 (line 1): a List is in a List",
		"apiVersion: v1\nkind: \"a\\e[2J\"":                                            "f: document 1 (line 1): kind \"a\\x1b[2J\" is not a name",
		"apiVersion: \"v1\\e\"\nkind: A":                                               "f: document 1 (line 1): apiVersion \"v1\\x1b\" is not understood",
		"apiVersion: v1\nkind: A\nmetadata: {namespace: \"\\e\"}":                      "f: document 1 (line 1): namespace \"\\x1b\" is not a name",
		pod + "---\n" + strings.Repeat("#", 17<<20):                                    "f: document 2 (line 4): it is larger than 16 MiB",
	} {
		_, err := footprint.Read(strings.NewReader(text), footprint.Options{Name: "f"})
		if got := fmt.Sprint(err); got != want || bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%.60q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// bomb is YAML that is a thousand million texts when its aliases are followed.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: A\nl0: &l0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "l%d: &l%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d, ", i), 10), ", "))
	}
	return b.String()
}

func TestAliasesThatMultiplyAreRefused(t *testing.T) {
	_, err := footprint.Read(strings.NewReader(bomb()), footprint.Options{})
	if err == nil || !strings.Contains(err.Error(), "excessive aliasing") {
		t.Error(err)
	}
}

// endlessly is a stream of manifests of some bytes that nobody keeps.
type endlessly struct {
	document []byte
	left     int64
	pos      int
	peak     uint64 // of the heap
	until    int64
}

func (e *endlessly) Read(p []byte) (n int, err error) {
	if e.left <= 0 && e.pos == 0 {
		return 0, io.EOF
	}
	n = copy(p, e.document[e.pos:])
	e.pos = (e.pos + n) % len(e.document)
	if e.left -= int64(n); e.left < e.until {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		e.peak, e.until = max(e.peak, m.HeapAlloc), e.left-1<<20
	}
	return n, nil
}

func TestALongStreamTakesTheMemoryOfADocument(t *testing.T) {
	text, err := os.ReadFile("testdata/incident.yaml")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // of what other tests have left
	e := &endlessly{document: text, left: 16 << 20, until: 1 << 62}
	f, err := footprint.Read(e, footprint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Documents < 2000 {
		t.Errorf("%d documents", f.Documents)
	}
	if e.peak > 48<<20 {
		t.Errorf("the heap had %d MiB", e.peak>>20)
	}
}

func FuzzRead(f *testing.F) {
	incident, err := os.ReadFile("testdata/incident.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(incident[:400])
	f.Add([]byte(bomb()))
	f.Add([]byte("---\r\n{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{}]}\n"))
	f.Add([]byte("apiVersion: apps/v1\nkind: StatefulSet\nspec: {replicas: 9e99, volumeClaimTemplates: [{}, {}]}\n--- |\n a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := footprint.Read(strings.NewReader(string(text)), footprint.Options{Nodes: 1 << 40})
		if err != nil {
			if bulkhead.CodeOf(err) != bulkhead.CodeUsage || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q", err)
			}
			return
		}
		for _, p := range found.Parts {
			if p.Objects <= 0 || p.Rules < 0 || p.Bytes < 0 || strings.ContainsFunc(p.Kind+p.Namespace, func(r rune) bool { return r <= ' ' }) {
				t.Errorf("%+v", p)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text, err := os.ReadFile("testdata/incident.yaml")
	if err != nil {
		b.Fatal(err)
	}
	stream := strings.Repeat(string(text), 112) // 9 documents each
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		f, err := footprint.Read(strings.NewReader(stream), footprint.Options{})
		if err != nil || f.Documents != 1008 {
			b.Fatal(f, err)
		}
	}
}
