package family_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/family"
)

func TestAKeySaysWhatAnObjectComesFrom(t *testing.T) {
	for name, c := range map[string]struct {
		object family.Object
		want   bulkhead.Key
	}{
		"a ConfigMap of a Helm release with a random name": {
			family.Object{Kind: "configmaps", Namespace: "mw-script", Name: "mediawiki-r8x2k9qa-mail-config", Manager: "helm",
				Labels:      map[string]string{"app.kubernetes.io/managed-by": "Helm"},
				Annotations: map[string]string{"meta.helm.sh/release-name": "r8x2k9qa"}},
			bulkhead.Key{Kind: "configmaps", Namespace: "mw-script", Family: "mediawiki-*-mail-config", Origin: "release/*", Manager: "helm"},
		},
		"Helm's own record": {
			family.Object{Kind: "secrets", Namespace: "mw-script", Name: "sh.helm.release.v1.r8x2k9qa.v1",
				Labels: map[string]string{"owner": "helm", "name": "r8x2k9qa", "version": "1"}},
			bulkhead.Key{Kind: "secrets", Namespace: "mw-script", Family: "sh.helm.release.v1.*.v*", Origin: "release/*"},
		},
		"a policy whose release is named by a label": {
			family.Object{Kind: "networkpolicies.networking.k8s.io", Name: "r8x2k9qa", Labels: map[string]string{"release": "r8x2k9qa"}},
			bulkhead.Key{Kind: "networkpolicies.networking.k8s.io", Family: "*", Origin: "release/*"},
		},
		"a pod of a Deployment whose ReplicaSet was not seen": {
			family.Object{Kind: "pods", Name: "main-7db6d8ff4d-http2", GenerateName: "main-7db6d8ff4d-", Manager: "kube-controller-manager",
				Labels: map[string]string{"pod-template-hash": "7db6d8ff4d"},
				Owners: []family.Owner{{"apps/v1", "ReplicaSet", "main-7db6d8ff4d", true}}},
			bulkhead.Key{Kind: "pods", Family: "main-*", Origin: "deployments.apps/main", Manager: "kube-controller-manager"},
		},
		"a pod of a Job whose CronJob was not seen": {
			family.Object{Kind: "pods", Name: "backup-29301234-k2xvq",
				Owners: []family.Owner{{"batch/v1", "Job", "backup-29301234", true}}},
			bulkhead.Key{Kind: "pods", Family: "backup-*", Origin: "cronjobs.batch/backup"},
		},
		"a Job with a date is not a CronJob's": {
			family.Object{Kind: "pods", Name: "backup-20241009-k2xvq",
				Owners: []family.Owner{{"batch/v1", "Job", "backup-20241009", true}}},
			bulkhead.Key{Kind: "pods", Family: "backup-*", Origin: "jobs.batch/backup-*"},
		},
		"the chain goes on where the owner is known": {
			family.Object{Kind: "pods", Name: "step-one-k2xvq", Owners: []family.Owner{{"batch/v1", "Job", "step-one", true}},
				ParentKey: bulkhead.Key{Kind: "jobs.batch", Family: "step-one", Origin: "workflows.argoproj.io/import"}},
			bulkhead.Key{Kind: "pods", Family: "step-one-*", Origin: "workflows.argoproj.io/import"},
		},
		"owners count before releases": {
			family.Object{Kind: "pods", Name: "r8x2k9qa-k2xvq", Labels: map[string]string{"release": "r8x2k9qa"},
				Owners:    []family.Owner{{"batch/v1", "Job", "r8x2k9qa", true}},
				ParentKey: bulkhead.Key{Kind: "jobs.batch", Family: "*", Origin: "release/*"}},
			bulkhead.Key{Kind: "pods", Family: "*", Origin: "jobs.batch/*"},
		},
		"the controller counts before other owners": {
			family.Object{Kind: "secrets", Name: "token",
				Owners: []family.Owner{{"v1", "ConfigMap", "other", false}, {"cert-manager.io/v1", "Certificate", "site", true}}},
			bulkhead.Key{Kind: "secrets", Family: "token", Origin: "certificates.cert-manager.io/site"},
		},
		"what belongs to a node": {
			family.Object{Kind: "pods", Name: "kube-proxy-alpha", Owners: []family.Owner{{"v1", "Node", "alpha", true}}},
			bulkhead.Key{Kind: "pods", Family: "kube-proxy-*", Origin: "nodes/*"},
		},
		"a suffix that reads like a word": {
			family.Object{Kind: "pods", Name: "calico-node-https", GenerateName: "calico-node-"},
			bulkhead.Key{Kind: "pods", Family: "calico-node-*"},
		},
		"a StatefulSet's pod with the hash of its revision": {
			family.Object{Kind: "pods", Name: "web-12", Labels: map[string]string{"controller-revision-hash": "web-68c7b4d9f5"},
				Owners: []family.Owner{{"apps/v1", "StatefulSet", "web", true}}},
			bulkhead.Key{Kind: "pods", Family: "web-*", Origin: "statefulsets.apps/web"},
		},
		"nothing to see": {
			family.Object{Kind: "configmaps", Namespace: "default", Name: "kube-root-ca.crt"},
			bulkhead.Key{Kind: "configmaps", Namespace: "default", Family: "kube-root-ca.crt"},
		},
		"a client that names itself by its version": {
			family.Object{Kind: "secrets", Name: "token", Manager: "python3.11"},
			bulkhead.Key{Kind: "secrets", Family: "token", Manager: "python*"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, family.Key(c.object)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAWordThatTurnsOutToBeOneOfManyBecomesAStar(t *testing.T) {
	key := bulkhead.Key{Kind: "configmaps", Family: "user-alice-config", Origin: "release/web-alice", Manager: "helm"}
	if diff := cmp.Diff([]string{"user", "alice", "config", "web"}, family.Words(key)); diff != "" {
		t.Errorf("words, -want +got:\n%s", diff)
	}
	want := bulkhead.Key{Kind: "configmaps", Family: "user-*-config", Origin: "release/web-*", Manager: "helm"}
	if diff := cmp.Diff(want, family.Star(key, "alice")); diff != "" {
		t.Errorf("starred, -want +got:\n%s", diff)
	}
	helm := bulkhead.Key{Kind: "secrets", Family: "sh.helm.release.v1.alice.v*", Origin: "release/alice"}
	want = bulkhead.Key{Kind: "secrets", Family: "sh.helm.release.v1.*.v*", Origin: "release/*"}
	if diff := cmp.Diff(want, family.Star(helm, family.Words(helm)[0])); diff != "" {
		t.Errorf("starred, -want +got:\n%s", diff)
	}
}

func TestTheAPIsNameOfAKind(t *testing.T) {
	for kind, want := range map[string]string{
		"Pod": "pods", "NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "Endpoints": "endpoints",
		"Gateway": "gateways", "StorageClass": "storageclasses", "Mesh": "meshes", "ReplicaSet": "replicasets", "": "",
	} {
		if got := family.Resource(kind); got != want {
			t.Errorf("Resource(%q) = %q, want %q", kind, got, want)
		}
	}
}
