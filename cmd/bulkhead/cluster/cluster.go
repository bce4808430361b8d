// Package cluster leads from a kubeconfig to the server in its cluster.
//
//	kubeconfig ── who we are, to the API server and to the Bulkhead server
//	    │
//	    ├── ConfigMap bulkhead-ca   whom to trust            (one request)
//	    ├── pods of the server      where it is              (one request)
//	    └── port-forward            a way to it, TLS inside  (one request)
//
// What goes through the API server is encrypted for the Bulkhead server, which sees
// the credentials of the kubeconfig, and asks the cluster whose they are.
package cluster

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
)

// Options say which cluster, and where in it the server is. The zero value is the
// current context of the kubeconfig that kubectl would use.
type Options struct {
	Kubeconfig      string // file; default as kubectl
	Context         string // of it; default the current one
	ServerNamespace string // of the server; default kube.ServerName
	URL             string // of the server, if it can be reached without port-forward
	CAFile          string // with a URL: whom to trust; default: what the server has published in the cluster
	UserAgent       string
}

// Server is a way to a server.
type Server struct {
	HTTP *http.Client
	URL  string
	Name string // for people: where it is
}

// requestTime bounds a request to the API server.
const requestTime = 15 * time.Second

// Namespace is where objects are looked for that are named without one.
func Namespace(o Options) (string, error) {
	namespace, _, err := o.loader().Namespace()
	if err != nil {
		return "", unreadable(err)
	}
	return namespace, nil
}

// Config is how to reach the API server.
func Config(o Options) (*rest.Config, error) {
	config, err := o.loader().ClientConfig()
	if err != nil {
		return nil, unreadable(err)
	}
	config.UserAgent = o.UserAgent
	return config, nil
}

func (o *Options) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context})
}

func unreadable(err error) error {
	const hint = "another file is named by --kubeconfig or KUBECONFIG"
	if clientcmd.IsEmptyConfig(err) {
		// kubectl passes over files that are not there, and asks localhost then.
		files := clientcmd.NewDefaultClientConfigLoadingRules().GetLoadingPrecedence()
		quoted := make([]string, len(files))
		for i, file := range files {
			quoted[i] = bulkhead.Quote(file)
		}
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: hint,
			Message: "there is no kubeconfig, or it names no cluster: looked at " + strings.Join(quoted, ", ")}
	}
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("the kubeconfig cannot be used: %v", err),
		Hint: "`kubectl config get-contexts` lists its contexts; " + hint}
}

// Dial finds the server. It connects with the first call.
func Dial(ctx context.Context, o Options) (*Server, error) {
	if o.ServerNamespace == "" {
		o.ServerNamespace = kube.ServerName
	}
	if o.URL != "" && !strings.HasPrefix(o.URL, "https://") {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("server %s would be shown the credentials of the kubeconfig without encryption", bulkhead.Quote(o.URL)), Hint: "use https://"}
	}
	config, err := o.loader().ClientConfig()
	if err != nil {
		return nil, unreadable(err)
	}
	if err := check(config); err != nil {
		return nil, err
	}
	config.UserAgent = o.UserAgent
	// The warnings of an API server are about objects, of which we make none.
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, unreadable(err)
	}
	trusted, err := o.trusted(ctx, client)
	if err != nil {
		return nil, err
	}
	server := &Server{URL: o.URL, Name: o.URL}
	forward := &forwarder{client: client, config: config, namespace: o.ServerNamespace}
	if o.URL == "" {
		server.URL = fmt.Sprintf("https://%s.%s.svc:%d", kube.ServerName, o.ServerNamespace, kube.ServerPort)
		server.Name = fmt.Sprintf("namespace %s of cluster %s", o.ServerNamespace, config.Host)
	}
	server.HTTP, err = httpClient(config, &o, forward, trusted)
	return server, err
}

// check refuses what would show credentials to somebody unknown, or would not do
// what it says.
func check(config *rest.Config) error {
	refuse := func(what, hint string) error {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the kubeconfig cannot be used: " + what, Hint: hint}
	}
	u, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return unreadable(err)
	}
	switch {
	case u.Scheme != "https" && !loopback(u.Hostname()): // kubectl proxy is on this machine
		return refuse("it has no https:// address of the API server", "what it says and what it is shown would travel in the clear")
	case config.Insecure:
		return refuse("it does not check who the API server is (insecure-skip-tls-verify)", "give it certificate-authority-data")
	case config.Impersonate.UserName != "":
		return refuse("it impersonates "+bulkhead.Quote(config.Impersonate.UserName), "the Bulkhead server knows users by their own credentials only")
	case config.Username != "":
		return refuse("it has a user name and a password", "use a token, a client certificate or an exec plugin")
	}
	return nil
}

func loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// trusted is whom to trust as the server. It is never nobody: that would be everybody
// whom this machine trusts.
func (o *Options) trusted(ctx context.Context, client kubernetes.Interface) ([]byte, error) {
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "certificates of the server cannot be read", Err: err}
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("file %s holds no certificates", bulkhead.Quote(o.CAFile))}
		}
		return text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	object, err := client.CoreV1().ConfigMaps(o.ServerNamespace).Get(ctx, kube.TrustName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("namespace %s has no Bulkhead server (no ConfigMap %s)", o.ServerNamespace, kube.TrustName),
			Hint: "--server-namespace says where it is; bulkhead install prints what installs one"}
	}
	if err != nil {
		return nil, o.refused("get configmaps", err)
	}
	text := []byte(object.Data[kube.TrustKey])
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: fmt.Sprintf("ConfigMap %s of namespace %s has no certificate yet", kube.TrustName, o.ServerNamespace),
			Hint: "the server puts it there when it starts: does it run? its log says why it could not"}
	}
	return text, nil
}

// refused says what to do about a request that the API server has refused.
func (o *Options) refused(what string, err error) error { return refused(o.ServerNamespace, what, err) }

func refused(namespace, what string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("there is no Bulkhead server in namespace %s, or you may not %s there", namespace, what), Err: err,
			Hint: fmt.Sprintf("--server-namespace says where it is; who administers it can let you in: kubectl create rolebinding bulkhead-connect-USER --role=bulkhead-connect --user=USER --namespace=%s", namespace)}
	case apierrors.IsUnauthorized(err):
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "the cluster does not accept the credentials of the kubeconfig", Hint: "`kubectl auth whoami` says the same; have they expired?"}
	case strings.Contains(err.Error(), "getting credentials"):
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the kubeconfig has a plugin for credentials, which failed", Err: inner(err),
			Hint: "`kubectl auth whoami` runs it, too"}
	}
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the cluster's API server does not answer", Err: inner(err), Hint: "does kubectl work?"}
}

// inner leaves out the request, of which nobody here knows.
func inner(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// httpClient has the credentials of the kubeconfig, and the server's certificates in
// place of the API server's.
func httpClient(config *rest.Config, o *Options, forward *forwarder, trusted []byte) (*http.Client, error) {
	own := rest.CopyConfig(config)
	own.Timeout = 0                                                            // streams go on for days
	own.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }      //nolint:nilnil // no proxy: that of the kubeconfig is for the API server
	own.NextProtos, own.ContentConfig = nil, rest.ContentConfig{}              // of the API server's
	own.QPS, own.RateLimiter = -1, nil                                         // the server bounds us
	own.WarningHandler, own.WarningHandlerWithContext = rest.NoWarnings{}, nil // there are none
	if o.URL == "" {
		own.Dial = forward.dial
	}
	settings, err := own.TransportConfig()
	if err != nil {
		return nil, unreadable(err)
	}
	settings.TLS.CAFile, settings.TLS.CAData, settings.TLS.ReloadCAFiles = "", trusted, false
	settings.TLS.ServerName = ""
	if o.URL == "" {
		settings.TLS.ServerName = kube.ServerName
	}
	carrier, err := transport.New(settings)
	if err != nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the credentials of the kubeconfig cannot be used", Err: err}
	}
	return &http.Client{
		Transport: carrier,
		// Credentials are for the server that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
