package family_test

import (
	"math/rand/v2"
	"testing"

	"bulkhead.dev/bulkhead/guard/family"
)

// tools are names as the tools make them that are known to multiply, and the families
// that they must be in.
var tools = map[string][][2]string{
	"Argo Workflows": {
		{"hello-world-x7k2q-print-1234567890", "hello-world-*-print-*"},
		{"dag-diamond-coinflip-9xjq2-2871408128", "dag-diamond-coinflip-*"},
		{"nightly-report-28915800", "nightly-report-*"}, // of a CronWorkflow
	},
	"Tekton": {
		{"build-run-7tx2d-fetch-source-pod", "build-run-*-fetch-source-pod"},
		{"build-run-7tx2d-fetch-sources-pod", "build-run-*-fetch-sources-pod"}, // another task
		{"affinity-assistant-0f8a3b12c7", "affinity-assistant-*"},
	},
	"Spark": {
		{"spark-pi-1728450096123-driver", "spark-pi-*-driver"},
		{"spark-pi-7f0d3a8b91c2e4f6-exec-1", "spark-pi-*-exec-*"},
		{"spark-pi-7f0d3a8b91c2e4f6-exec-27", "spark-pi-*-exec-*"},
		{"spark-8f3ab1927d1b9f21-driver-svc", "spark-*-driver-svc"},
	},
	"Airflow": {
		{"import-users-load-k3b5x1a2", "import-users-load-*"},
		{"import-users-extract-k3b5x1a2", "import-users-extract-*"}, // another task
		{"airflow-worker-0", "airflow-worker-*"},
	},
	"runners of CI": {
		{"runner-zxwquxcv-project-123456-concurrent-0-x8s2k7vq", "runner-*-project-*-concurrent-*"}, // GitLab
		{"runner-t1k9mxz-project-42-concurrent-3", "runner-*-project-*-concurrent-*"},
		{"arc-runner-set-7kq2d-runner-x8zlw", "arc-runner-set-*-runner-*"}, // GitHub
		{"my-pipeline-42-7x9kp-2zvml-p5q6r", "my-pipeline-*"},              // Jenkins
		{"jenkins-agent-j4l2k", "jenkins-agent-*"},
		{"buildkite-0192a7f3-4c5e-7b8a-9d0e-1f2a3b4c5d6e", "buildkite-*"}, // UUID, version 7
		{"review-fix-typo-8fkq1z", "review-fix-typo-*"},                   // an environment of a branch
		{"review-feature-login-3zknud", "review-feature-login-*"},
		{"mr-987-review-web", "mr-*-review-web"},
	},
	"Knative": {
		{"hello-00002", "hello-*"},
		{"hello-00002-private", "hello-*-private"},
		{"hello-00002-deployment-6b9f7c8d5d-4x2lq", "hello-*-deployment-*"},
	},
	"cert-manager": {
		{"site-example-org-tls-1-2739812345", "site-example-org-tls-*"}, // an Order
		{"site-tls-hw8zl", "site-tls-*"},                                // a key that is not used yet
		{"cm-acme-http-solver-8s9fx", "cm-acme-http-solver-*"},
		{"site-example-org-tls", "site-example-org-tls"},
		{"shop-example-org-tls", "shop-example-org-tls"}, // another site
	},
	"backups": {
		{"velero-daily-20241009050136", "velero-daily-*"},
		{"daily-backup-20241009-0501", "daily-backup-*"},
		{"import-2024-10-09t05-01-36", "import-*"},
	},
	"machine learning": {
		{"pytorchjob-train-master-0", "pytorchjob-train-master-*"},
		{"pytorchjob-train-worker-0", "pytorchjob-train-worker-*"}, // another role
		{"katib-trial-x7d9k2p1", "katib-trial-*"},
		{"dask-worker-7d3e1c0a-9", "dask-worker-*"},
		{"ray-worker-default-worker-4hs9d", "ray-worker-default-worker-*"},
		{"jupyter-alice--5f3a2b1c", "jupyter-alice--*"},
	},
	"nodes of clouds": {
		{"gke-prod-default-pool-3f8a2b1c-x7zq", "gke-prod-default-pool-*"},
		{"ip-10-0-1-23.eu-west-1.compute.internal", "ip-*.eu-west-*.compute.internal"},
		{"aks-nodepool1-12345678-vmss00000a", "aks-nodepool1-*"},
	},
	"ids of programs": {
		{"job-01hf3z8k9m2n4p6q8r0s2t4v6w-worker", "job-*-worker"}, // ULID
		{"job-01HF3Z8K9M2N4P6Q8R0S2T4V6W", "job-*"},
		{"cuid-ckopqwooh000001la8mbi2im9", "cuid-*"},
		{"nanoid-v1stgxr8z5jdhi6bmyt", "nanoid-*"},
		{"doc-507f1f77bcf86cd799439011", "doc-*"}, // MongoDB's ObjectId
		{"post-1541815603606036480", "post-*"},    // a snowflake
		{"app-4f2d1c9", "app-*"},                  // git's SHA, short
		{"app-4f2d1c9e8b7a6d5c4f3e2d1c0b9a8f7e6d5c4b3a", "app-*"},
	},
	"what is not one of many": {
		{"ingress-nginx-admission-create", "ingress-nginx-admission-create"},
		{"ingress-nginx-admission-patch", "ingress-nginx-admission-patch"},
		{"openshift-service-ca.crt", "openshift-service-ca.crt"},
		{"istio-sidecar-injector", "istio-sidecar-injector"},
		{"rook-ceph-mon-a", "rook-ceph-mon-a"},
		{"loki-compactor", "loki-compactor"},
		{"tenant-acme", "tenant-acme"},
		{"tenant-globex", "tenant-globex"},
		{"backup-mon", "backup-mon"},
		{"argocd-application-controller", "argocd-application-controller"},
		{"descheduler", "descheduler"},
		{"vulnerabilityreports", "vulnerabilityreports"},
		{"konnectivity-agent", "konnectivity-agent"},
		{"alertmanager-main", "alertmanager-main"},
	},
}

func TestNamesThatToolsMakeAreTheirFamilies(t *testing.T) {
	for tool, cases := range tools {
		t.Run(tool, func(t *testing.T) {
			for _, c := range cases {
				if got := family.Name(c[0], family.Hints{}); got != c[1] {
					t.Errorf("Name(%q) = %q, want %q", c[0], got, c[1])
				}
			}
		})
	}
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyz"
)

// What is made up at random is one family, but for the few that read like something
// else by chance. Those a census puts to the others.
func TestWhatToolsMakeUpAtRandomIsOneFamily(t *testing.T) {
	for name, c := range map[string]struct {
		alphabet string
		length   int
		share    float64 // that has to be of one family
	}{
		"a suffix of the API server's":      {"bcdfghjklmnpqrstvwxz2456789", 5, 0.995},
		"a suffix of Jenkins's":             {"bcdfghjklmnpqrstvwxz0123456789", 5, 0.9},
		"a suffix of GitLab's or Airflow's": {letters + digits, 8, 0.99},
		"a short SHA of git's":              {digits + "abcdef", 7, 0.93},
		"a SHA of git's":                    {digits + "abcdef", 40, 1},
		"an id of Spark's":                  {digits + "abcdef", 16, 0.995},
		"a hash of Tekton's":                {digits + "abcdef", 10, 0.98},
		"a ULID":                            {"0123456789abcdefghjkmnpqrstvwxyz", 26, 0.999},
		"an xid":                            {digits + "abcdefghijklmnopqrstuv", 20, 0.999},
		"a cuid":                            {letters + digits, 24, 0.999},
		"base32":                            {letters + "234567", 13, 0.99},
		"ten letters":                       {letters, 10, 0.95},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 5000
			random, families := rand.New(rand.NewPCG(1, 2)), map[string]int{}
			made := make([]byte, c.length)
			for range n {
				for i := range made {
					made[i] = c.alphabet[random.IntN(len(c.alphabet))]
				}
				families[family.Name("web-"+string(made)+"-config", family.Hints{})]++
			}
			if share := float64(families["web-*-config"]) / n; share < c.share {
				t.Errorf("%.1f %% are of one family, want %.1f %%", 100*share, 100*c.share)
			}
		})
	}
}
