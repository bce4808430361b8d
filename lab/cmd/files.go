package main

import (
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bulkhead.dev/bulkhead/lab"
)

// identity is who a component is to the API server.
type identity struct{ name, user, groups string }

func (l *layout) identities() []identity {
	return []identity{
		{"admin", "lab-admin", "system:masters"},
		{"kube-controller-manager", "system:kube-controller-manager", ""},
		{"kube-scheduler", "system:kube-scheduler", ""},
		{"kube-proxy", "system:kube-proxy", ""},
		{"kubelet", "system:node:" + l.nodeName(), "system:nodes"},
		// KWOK writes the status of any node and pod, as a kubelet may only of its own.
		{"kwok", "lab-kwok", "system:masters"},
	}
}

// prepare writes all that the components read: certificates, tokens,
// kubeconfigs and configuration.
func (l *layout) prepare() error {
	for _, dir := range []string{lab.PKIFolder, lab.LogFolder, "config", "run", "cni", lab.ImageFolder} {
		if err := os.MkdirAll(l.path(dir), 0o700); err != nil {
			return err
		}
	}
	ca, err := newAuthority(l.path(lab.PKIFolder))
	if err != nil {
		return fmt.Errorf("make a certificate authority: %w", err)
	}
	if err := l.certificates(ca); err != nil {
		return err
	}
	var tokens strings.Builder
	for _, id := range l.identities() {
		token := newToken()
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, id.user, id.name, id.groups)
		server := l.loopback("kube-apiserver")
		if id.name == "kubelet" || id.name == "kube-proxy" {
			server = fmt.Sprintf("%s:%d", l.hostIP(), l.ports["kube-apiserver"])
		}
		if err := os.WriteFile(l.kubeconfig(id.name), l.kubeconfigOf(token, server), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(l.pki("tokens.csv"), []byte(tokens.String()), 0o600); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"config/audit.yaml": auditPolicy, "config/kubelet.yaml": l.kubeletConfig(), "config/containerd.toml": l.containerdConfig(),
		"cni/10-lab.conflist": l.networkConfig(),
		"config/resolv.conf":  "# a lab has no name server\n",
	} {
		if err := os.WriteFile(l.path(filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) certificates(ca *authority) error {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err := ca.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, names, l.serverIPs()); err != nil {
		return err
	}
	if err := ca.issue("etcd", pkix.Name{CommonName: "etcd"}, names[:1], l.serverIPs()[:1]); err != nil {
		return err
	}
	if err := ca.issue("kubelet-client", pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}}, nil, nil); err != nil {
		return err
	}
	return ca.issue("accounts", pkix.Name{CommonName: "service-accounts"}, nil, nil)
}

func (l *layout) kubeconfigOf(token, server string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: lab, user: {token: %s}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
current-context: lab
`, server, l.pki("ca.crt"), token)
}

// auditPolicy notes who asked for what, once per request: watches when they
// begin, everything else when it is done.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// kubeletConfig: what is not the default is what a shared machine without
// systemd asks for.
func (l *layout) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
healthzBindAddress: %[1]s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[2]q}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: "unix://%[3]s"
cgroupDriver: cgroupfs
cgroupRoot: /%[4]s
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: %[5]q
podLogsDir: /var/log/pods
volumePluginDir: %[6]q
maxPods: 250
registerWithTaints: []
serializeImagePulls: false
evictionHard: {memory.available: 50Mi, nodefs.available: 200Mi, imagefs.available: 200Mi}
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: [pods]
nodeStatusUpdateFrequency: 5s
shutdownGracePeriod: 0s
`, l.nodeIP(), l.pki("ca.crt"), l.containerd(), groupName(l.number), l.path("config", "resolv.conf"), l.path("kubelet", "volumeplugins"))
}

// containerdConfig is for Debian's containerd 1.6. A sandbox may forbid to lower
// an OOM score; then runc fails with "can't get final child's PID from pipe".
func (l *layout) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
oom_score = 0
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
  max_concurrent_downloads = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, l.path("containerd"), "/run/containerd", l.containerd(), lab.PauseImage, l.path("cni"))
}

func (l *layout) networkConfig() string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, l.podRange())
}
