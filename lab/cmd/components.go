package main

import (
	"fmt"
	"net"
	"path/filepath"

	"bulkhead.dev/bulkhead/lab"
)

// component is one program: how to start it and how to tell that it is ready.
// They are data; supervisor.go is what is done with them.
type component struct {
	name  string
	needs []string // components that must be ready before
	node  bool     // it runs in the node's network
	ports []string // those of the loopback that it has, by name
	args  func(*layout) []string
	// program is what to run; empty: that of the Kubernetes binary with the
	// component's name.
	program string
	// ready is a URL that answers 200, or a socket that accepts.
	ready func(*layout) string
}

// layout is where everything of one lab is.
type layout struct {
	dir        string
	kubernetes string // the binary
	number     int
	ports      map[string]int // of components, on this machine's loopback
}

func (l *layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l *layout) pki(file string) string { return l.path(lab.PKIFolder, file) }

func (l *layout) kubeconfig(of string) string { return l.path(of + ".kubeconfig") }

func (l *layout) loopback(name string) string { return fmt.Sprintf("127.0.0.1:%d", l.ports[name]) }

// Addresses: of each lab, by its number, a /24 for the link, one for pods and
// one for services. 10.213 is as good as any that nobody is likely to use.
func (l *layout) hostIP() string      { return fmt.Sprintf("10.213.%d.1", l.number) }
func (l *layout) nodeIP() string      { return fmt.Sprintf("10.213.%d.2", l.number) }
func (l *layout) podRange() string    { return fmt.Sprintf("10.214.%d.0/24", l.number) }
func (l *layout) serviceIP() string   { return fmt.Sprintf("10.215.%d.1", l.number) }
func (l *layout) serviceNet() string  { return fmt.Sprintf("10.215.%d.0/24", l.number) }
func (l *layout) nodeName() string    { return "node" }
func (l *layout) containerd() string  { return l.path("run", "containerd.sock") }
func (l *layout) serverIPs() []net.IP { return parseIPs("127.0.0.1", l.hostIP(), l.serviceIP()) }

func parseIPs(list ...string) []net.IP {
	ips := make([]net.IP, len(list))
	for i, ip := range list {
		ips[i] = net.ParseIP(ip)
	}
	return ips
}

// controlPlane is what every lab has.
var controlPlane = []component{
	{name: "etcd", ports: []string{"etcd", "etcd-peer", "etcd-metrics"}, args: etcdArgs, ready: func(l *layout) string {
		return "http://" + l.loopback("etcd-metrics") + "/health?exclude=NOSPACE" // one that is full answers
	}},
	{name: "kube-apiserver", needs: []string{"etcd"}, ports: []string{"kube-apiserver"}, args: apiserverArgs, ready: func(l *layout) string {
		return "https://" + l.loopback("kube-apiserver") + "/readyz"
	}},
	{name: "kube-controller-manager", needs: []string{"kube-apiserver"}, ports: []string{"kube-controller-manager"}, args: managerArgs, ready: func(l *layout) string {
		return "https://" + l.loopback("kube-controller-manager") + "/healthz"
	}},
	{name: "kube-scheduler", needs: []string{"kube-apiserver"}, ports: []string{"kube-scheduler"}, args: schedulerArgs, ready: func(l *layout) string {
		return "https://" + l.loopback("kube-scheduler") + "/healthz"
	}},
}

// node is the real one: Debian's containerd under our kubelet.
var node = []component{
	{name: "containerd", node: true, program: "containerd",
		args:  func(l *layout) []string { return []string{"--config", l.path("config", "containerd.toml")} },
		ready: func(l *layout) string { return "unix://" + l.containerd() }},
	{name: "kube-proxy", node: true, args: proxyArgs, ready: func(l *layout) string {
		return "http://" + l.nodeIP() + ":10256/livez"
	}},
	{name: "kubelet", needs: []string{"containerd"}, node: true, args: kubeletArgs, ready: func(l *layout) string {
		return "http://" + l.nodeIP() + ":10248/healthz"
	}},
}

// kwok plays the nodes that do not exist.
var fake = []component{
	{name: "kwok", needs: []string{"kube-apiserver"}, ports: []string{"kwok"}, args: kwokArgs, ready: func(l *layout) string {
		return "http://" + l.loopback("kwok") + "/healthz"
	}},
}

func etcdArgs(l *layout) []string {
	client := "https://" + l.loopback("etcd")
	peer := "https://" + l.loopback("etcd-peer") // there is none, but who could speak for one could write
	return []string{
		"--name=lab", "--data-dir=" + l.path("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=lab=" + peer,
		"--listen-metrics-urls=http://" + l.loopback("etcd-metrics"),
		"--cert-file=" + l.pki("etcd.crt"), "--key-file=" + l.pki("etcd.key"),
		"--client-cert-auth", "--trusted-ca-file=" + l.pki("ca.crt"),
		"--peer-cert-file=" + l.pki("etcd.crt"), "--peer-key-file=" + l.pki("etcd.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + l.pki("ca.crt"),
		"--unsafe-no-fsync", "--log-level=warn", // a lab does not outlive its machine
	}
}

func apiserverArgs(l *layout) []string {
	return []string{
		"--etcd-servers=https://" + l.loopback("etcd"), "--etcd-cafile=" + l.pki("ca.crt"),
		"--etcd-certfile=" + l.pki("etcd.crt"), "--etcd-keyfile=" + l.pki("etcd.key"),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", l.ports["kube-apiserver"]),
		// What the service "kubernetes" leads to: a forwarder to the loopback, see link.go.
		"--advertise-address=" + l.hostIP(),
		"--tls-cert-file=" + l.pki("apiserver.crt"), "--tls-private-key-file=" + l.pki("apiserver.key"),
		"--client-ca-file=" + l.pki("ca.crt"), "--token-auth-file=" + l.pki("tokens.csv"),
		// Nobody has such a certificate; without the authority all components complain.
		"--requestheader-client-ca-file=" + l.pki("ca.crt"), "--requestheader-allowed-names=aggregator",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + l.pki("accounts.crt"),
		"--service-account-signing-key-file=" + l.pki("accounts.key"), "--service-cluster-ip-range=" + l.serviceNet(),
		"--kubelet-client-certificate=" + l.pki("kubelet-client.crt"), "--kubelet-client-key=" + l.pki("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file=" + l.path("config", "audit.yaml"), "--audit-log-path=" + l.path(lab.LogFolder, lab.AuditFile),
		"--audit-log-maxsize=0", // never another file: lab.Requests reads on where it was
	}
}

func managerArgs(l *layout) []string {
	return append(clientArgs(l, "kube-controller-manager"),
		"--service-account-private-key-file="+l.pki("accounts.key"), "--root-ca-file="+l.pki("ca.crt"),
		"--cluster-signing-cert-file="+l.pki("ca.crt"), "--cluster-signing-key-file="+l.pki("ca.key"),
		"--use-service-account-credentials",
	)
}

func schedulerArgs(l *layout) []string { return clientArgs(l, "kube-scheduler") }

// clientArgs are common to the two that only talk to the API server.
func clientArgs(l *layout, name string) []string {
	config := l.kubeconfig(name)
	return []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", l.ports[name]), "--cert-dir=" + l.path(name),
		"--leader-elect=false",
	}
}

func kubeletArgs(l *layout) []string {
	return []string{
		"--config=" + l.path("config", "kubelet.yaml"), "--kubeconfig=" + l.kubeconfig("kubelet"),
		"--root-dir=" + l.path("kubelet"), "--cert-dir=" + l.path("kubelet-pki"),
		"--hostname-override=" + l.nodeName(), "--node-ip=" + l.nodeIP(),
	}
}

func proxyArgs(l *layout) []string {
	return []string{
		"--kubeconfig=" + l.kubeconfig("kube-proxy"), "--hostname-override=" + l.nodeName(), "--proxy-mode=iptables",
		"--healthz-bind-address=" + l.nodeIP() + ":10256", "--metrics-bind-address=127.0.0.1:10249",
		"--oom-score-adj=0", // the sandbox may not lower it
		// These limits are the machine's and not for a network of its own to set.
		"--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
	}
}

func kwokArgs(l *layout) []string {
	return []string{
		"--config=" + l.path("config", "kwok.yaml"), "--kubeconfig=" + l.kubeconfig("kwok"), "--server-address=" + l.loopback("kwok"),
		"--manage-nodes-with-annotation-selector=" + lab.FakeNodeAnnotation + "=fake",
		"--cidr=10.216.0.0/16", "--node-lease-duration-seconds=200",
	}
}
