package family_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead/guard/family"
)

// names are what clusters have, and the families they must be in.
var names = map[string][][2]string{
	"a release name of eight random letters and digits": {
		{"r8x2k9qa", "*"},
		{"mediawiki-r8x2k9qa-mail-config", "mediawiki-*-mail-config"},
		{"r8x2k9qa-mail-config", "*-mail-config"},
		{"mw-script.codfw.zk3h7x0p", "mw-script.codfw.*"},
		{"mediawiki-main-12345678", "mediawiki-main-*"},
		{"mediawiki-abcd1234-tls", "mediawiki-*-tls"},
		{"mediawiki-1abcdefg-tls", "mediawiki-*-tls"},
		{"mediawiki-v1234567-tls", "mediawiki-*-tls"},
		{"mediawiki-abcd1234.5", "mediawiki-*"},
		{"job-qzxkvbnp", "job-*"}, // no digit, and no word either
	},
	"the hash of a pod template": {
		{"web-5d4f8c7b9", "web-*"},
		{"web-bcdfghjklm", "web-*"},
		{"coredns-7db6d8ff4d", "coredns-*"},
		{"cert-manager-cainjector-69548575fb", "cert-manager-cainjector-*"},
	},
	"a pod of a Deployment": {
		{"web-5d4f8c7b9-x7z2p", "web-*"},
		{"coredns-7db6d8ff4d-ldmqv", "coredns-*"},
		{"calico-kube-controllers-6f6c9f8b5d-bxkzq", "calico-kube-controllers-*"},
		{"nginx-deployment-66b6c48dd5-7hwzc", "nginx-deployment-*"},
	},
	"a pod of a DaemonSet or a Job": {
		{"calico-node-tqzrk", "calico-node-*"},
		{"kube-proxy-bcdfg", "kube-proxy-*"},
		{"r8x2k9qa-x7z2p", "*"},
		{"pi-5rwd7", "pi-*"},
	},
	"a Job of a CronJob, and its pod": {
		{"backup-29301234", "backup-*"},
		{"backup-29301234-k2xvq", "backup-*"},
		{"wikidata-dump-28915800", "wikidata-dump-*"},
	},
	"ordinals": {
		{"web-0", "web-*"},
		{"web-12", "web-*"},
		{"data-postgres-0", "data-postgres-*"},
		{"elasticsearch-master-2", "elasticsearch-master-*"},
		{"shard-07-of-16", "shard-*-of-*"},
		{"mw1234", "mw*"},
		{"kubernetes2007.codfw.wmnet", "kubernetes*.codfw.wmnet"},
	},
	"dates and times": {
		{"backup-2024-10-09", "backup-*"},
		{"backup-20241009", "backup-*"},
		{"dump-20241009t050136z", "dump-*"},
		{"dump-20241009-050136-full", "dump-*-full"},
		{"snapshot-2024-10-09t05.01.36z", "snapshot-*"},
		{"export-1728450096", "export-*"},
		{"export-1728450096123", "export-*"},
	},
	"UUIDs": {
		{"pvc-3f2504e0-4f89-11d3-9a0c-0305e82c3301", "pvc-*"},
		{"3f2504e0-4f89-41d3-9a0c-0305e82c3301", "*"},
		{"scan-deadbeef-dead-beef-dead-beefdeadbeef-result", "scan-*-result"},
		{"vol-3f2504e04f8911d39a0c0305e82c3301", "vol-*"},
	},
	"hexadecimal and other hashes": {
		{"app-a3f5c9e", "app-*"},
		{"app-config-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "app-config-*"},
		{"sha256.9f86d081884c", "sha256.*"},
		{"web-config-t5kh6c2m8b", "web-config-*"}, // kustomize
		{"apiserver-7sbq2k3xg4tqk6b2uq3mlnpqku", "apiserver-*"},
		{"pytorch-9wldk8z1", "pytorch-*"},
	},
	"base32 and other ids": {
		{"wf-mzxw6ytboi4a", "wf-*"},
		{"build-01arz3ndektsv4rrffq69g5fav", "build-*"}, // ULID
		{"task-0ujtsycgvsthgxdsl7wpyezwf", "task-*"},
		{"session-cn4sq9q2n5u8f1dh7ad0", "session-*"},
	},
	"an event": {
		{"web-0.17a2b3c4d5e6f", "web-*"},
		{"r8x2k9qa-x7z2p.17fd2c8a9b3e4d10", "*"},
		{"coredns.17fd2c8a9b3e4d10", "coredns.*"},
	},
	"records of Helm releases": {
		{"sh.helm.release.v1.prometheus.v3", "sh.helm.release.v1.prometheus.v*"},
		{"sh.helm.release.v1.prometheus.v12", "sh.helm.release.v1.prometheus.v*"},
		{"sh.helm.release.v1.r8x2k9qa.v1", "sh.helm.release.v1.*.v*"},
		{"sh.helm.release.v1.mediawiki-r8x2k9qa.v1", "sh.helm.release.v1.mediawiki-*.v*"},
	},
	"addresses": {
		{"ip-10-0-17-203.ec2.internal", "ip-*.ec2.internal"},
		{"10.0.17.203", "*"},
		{"node-10.0.17.203-health", "node-*-health"},
	},
	"versions": {
		{"app-v1.2.3", "app-v*"},
		{"app-v1.2.3-rc1", "app-v*-rc1"},
		{"app-1.2.3", "app-*"},
		{"python3.11-builder", "python*-builder"},
		{"app-v17", "app-v*"},
		{"v1.apps", "v1.apps"},
		{"v1beta1.metrics.k8s.io", "v1beta1.metrics.k8s.io"},
		{"hello-00001", "hello-*"},
	},
	"tasks and builds": {
		{"t363966-requeue", "t*-requeue"},
		{"pr-1234-web", "pr-*-web"},
		{"gitlab-runner-concurrent-0", "gitlab-runner-concurrent-*"},
	},
	"wikis": {
		{"dump-enwiki", "dump-*wiki"},
		{"dump-mrwiki", "dump-*wiki"},
		{"dump-arzwiki-articles", "dump-*wiki-articles"},
		{"dump-dewiktionary", "dump-*wiktionary"},
		{"mediawiki", "mediawiki"},
		{"commonswiki", "commonswiki"},
	},
	"words that look made up and are not": {
		{"kubernetes", "kubernetes"}, {"nginx", "nginx"}, {"mysql8", "mysql8"}, {"es7", "es7"}, {"k8s", "k8s"},
		{"s3", "s3"}, {"ipv6", "ipv6"}, {"x86", "x86"}, {"k3s-agent", "k3s-agent"}, {"log4j", "log4j"},
		{"utf8mb4", "utf8mb4"}, {"amd64", "amd64"}, {"base64", "base64"}, {"sha256", "sha256"}, {"i18n", "i18n"},
		{"http2", "http2"}, {"oauth2-proxy", "oauth2-proxy"}, {"s3proxy", "s3proxy"}, {"neo4j", "neo4j"},
		{"php74", "php74"}, {"redis6", "redis6"}, {"python39", "python39"}, {"mariadb10", "mariadb10"},
		{"https", "https"}, {"httpd", "httpd"}, {"btrfs", "btrfs"}, {"cfssl-issuer", "cfssl-issuer"},
		{"mwscript", "mwscript"}, {"mcrouter", "mcrouter"}, {"pgbouncer", "pgbouncer"}, {"kubectl", "kubectl"},
		{"haproxy", "haproxy"}, {"rsyslog", "rsyslog"}, {"xtrabackup", "xtrabackup"}, {"cxserver", "cxserver"},
		{"kartotherian", "kartotherian"}, {"changeprop-jobqueue", "changeprop-jobqueue"}, {"tls-proxy-certs", "tls-proxy-certs"},
		{"istio-ingressgateway", "istio-ingressgateway"}, {"text2image", "text2image"}, {"k8ssandra", "k8ssandra"},
		{"kube-root-ca.crt", "kube-root-ca.crt"}, {"extension-apiserver-authentication", "extension-apiserver-authentication"},
		{"system:controller:job-controller", "system:controller:job-controller"}, {"cert-manager-controller", "cert-manager-controller"},
		{"prometheus-operator", "prometheus-operator"}, {"vtctld", "vtctld"}, {"web01", "web01"}, {"worker01", "worker01"},
		{"ws-daemon", "ws-daemon"}, {"ttlsecondsafterfinished", "ttlsecondsafterfinished"}, {"blackbox-exporter", "blackbox-exporter"},
	},
	"leases": {
		{"kube-scheduler", "kube-scheduler"},
		{"kube-controller-manager", "kube-controller-manager"},
		{"apiserver-xyz7q2mzmqk4w7sdb5ouwlmzzm", "apiserver-*"},
	},
	// Nothing in a name says that a word is a person's, and so one of many. Who sees
	// all objects makes them one, see Star.
	"names of people stay": {
		{"alice", "alice"},
		{"jdoe", "jdoe"},
		{"user-alice-config", "user-alice-config"},
		{"user-bob-config", "user-bob-config"},
		{"home-mhernandez", "home-mhernandez"},
	},
	"what nobody would write": {
		{"", ""},
		{"---", "---"},
		{"a\x1b[31mb\nc", "a?[31mb?c"},
		{"*", "*"},
		{"a-*-*", "a-*"},
		{"sh.helm.release.v1.", "sh.helm.release.v1."},
		{"\xff\xfe", "??"},
		{"naïve-ünïcode", "naïve-ünïcode"},
	},
}

func TestANameKeepsWhatIsFixedAndLosesWhatVaries(t *testing.T) {
	for about, cases := range names {
		t.Run(about, func(t *testing.T) {
			for _, c := range cases {
				if got := family.Name(c[0], family.Hints{}); got != c[1] {
					t.Errorf("Name(%q) = %q, want %q", c[0], got, c[1])
				}
			}
		})
	}
}

func TestAHintIsCertain(t *testing.T) {
	for name, c := range map[string]struct {
		name, want string
		known      []string
	}{
		"a part that reads like a word":   {"web-main-config", "web-*-config", []string{"main"}},
		"several parts":                   {"web-main-config", "*-config", []string{"main", "web"}},
		"a part of two words":             {"web-alice-smith-config", "web-*-config", []string{"alice-smith"}},
		"only whole words":                {"web-mainframe", "web-mainframe", []string{"main", "frame"}},
		"nothing that is empty":           {"web-main", "web-main", []string{""}},
		"at the end":                      {"web-main", "web-*", []string{"main"}},
		"in the record of a Helm release": {"sh.helm.release.v1.main.v3", "sh.helm.release.v1.*.v*", []string{"main"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := family.Name(c.name, family.Hints{Known: c.known}); got != c.want {
				t.Errorf("Name(%q, %q) = %q, want %q", c.name, c.known, got, c.want)
			}
		})
	}
}

func TestAFamilysNameIsItsOwnFamily(t *testing.T) {
	name := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]{1,12}([-._:][a-z0-9*]{1,12}){0,6}`),
		rapid.String(),
		rapid.StringMatching(`sh\.helm\.release\.v1\.[a-z0-9.*-]{0,20}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		n := name.Draw(t, "name")
		once := family.Name(n, family.Hints{})
		if twice := family.Name(once, family.Hints{}); twice != once {
			t.Fatalf("Name(%q) = %q, and of that %q", n, once, twice)
		}
		if again := family.Name(n, family.Hints{}); again != once {
			t.Fatalf("Name(%q) = %q, then %q", n, once, again)
		}
	})
}

// Eight letters and digits are what tools for scripts call their releases.
func TestARandomTokenWithADigitNeverGivesTwoFamilies(t *testing.T) {
	token := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]{8}`), rapid.StringMatching(`[a-z]{1,7}[0-9]{1,7}`), rapid.StringMatching(`[0-9]{1,7}[a-z]{1,7}`),
	).Filter(func(s string) bool { return len(s) == 8 && strings.ContainsAny(s, "0123456789") })
	rapid.Check(t, func(t *rapid.T) {
		r := token.Draw(t, "token")
		for name, want := range map[string]string{
			r:                                 "*",
			"mediawiki-" + r + "-mail-config": "mediawiki-*-mail-config",
			r + "-tls":                        "*-tls",
			"sh.helm.release.v1." + r + ".v1": "sh.helm.release.v1.*.v*",
			"web." + r + ".1":                 "web.*",
		} {
			if got := family.Name(name, family.Hints{}); got != want && !family.IsFixed(r) {
				t.Fatalf("Name(%q) = %q, want %q", name, got, want)
			}
		}
	})
}

// One in fourteen has no digit, and of those one in fourteen reads like a word. It is
// for who sees all of them to put it to the others.
func TestHardlyAnyRandomTokenIsTakenForAWord(t *testing.T) {
	const letters, n = "abcdefghijklmnopqrstuvwxyz0123456789", 200_000
	random := rand.New(rand.NewPCG(1, 2))
	words := 0
	token := make([]byte, 8)
	for range n {
		for i := range token {
			token[i] = letters[random.IntN(len(letters))]
		}
		if family.Name(string(token), family.Hints{}) != "*" {
			words++
		}
	}
	t.Logf("%.2f %% of random tokens read like words", 100*float64(words)/n)
	if words > n/150 {
		t.Errorf("%d of %d random tokens were taken for words", words, n)
	}
}

func TestWhatTheAPIServerAppendsIsAlwaysFound(t *testing.T) {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	suffix := rapid.StringOfN(rapid.RuneFrom([]rune(letters)), 5, 10, -1)
	rapid.Check(t, func(t *rapid.T) {
		s := suffix.Draw(t, "suffix")
		if got := family.Name("web-"+s, family.Hints{}); got != "web-*" && !family.IsFixed(s) {
			t.Fatalf("Name(%q) = %q", "web-"+s, got)
		}
	})
}

func TestALongNameIsCut(t *testing.T) {
	got := family.Name(strings.Repeat("ab-", 1<<20), family.Hints{})
	if len(got) > 256 {
		t.Errorf("a name of %d bytes", len(got))
	}
}

func BenchmarkName(b *testing.B) {
	for _, name := range []string{"mediawiki-r8x2k9qa-mail-config", "coredns-7db6d8ff4d-ldmqv", "extension-apiserver-authentication"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				family.Name(name, family.Hints{})
			}
		})
	}
}
