//go:build !quick

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/lookout"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/guard/tell"
	"bulkhead.dev/bulkhead/kube/chart"
	"bulkhead.dev/bulkhead/webhook"
)

// guardWatch is `bulkhead guard`.
func (a *app) guardWatch(ctx context.Context, f *guardWatchFlags, every time.Duration) (err error) {
	o, err := f.lookout(every)
	if err != nil {
		return err
	}
	if o.Config, _, err = (&guardFlags{kubeconfig: f.kubeconfig}).of(a); err != nil {
		return err
	}
	if o.State, err = a.stateDir(); err != nil {
		return err
	}
	o.Stdin = a.stdin
	o.Log = slog.New(slog.NewTextHandler(a.stderr, nil))
	o.Looked = func(changes []lookout.Change, _ []bulkhead.Ruling) { a.sayChanges(changes, f.out) }
	l, err := lookout.New(*o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if !l.Alone() {
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: "another guard has the state folder " + bulkhead.Quote(o.State),
			Hint: "give this one its own with --state; two guards of one cluster are told as one"}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	warnOfNamespaces(ctx, o)
	end, err := a.guardWeb(f.listen, l, o.Log)
	if err != nil {
		return err
	}
	defer end()
	return l.Run(ctx)
}

// warnOfNamespaces logs which namespaces are not there: the API server lists nothing in
// them, as in empty ones. They may come; whether they do is not worth much waiting.
func warnOfNamespaces(ctx context.Context, o *lookout.Options) {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return // whoever needs one says so
	}
	for _, namespace := range o.Census.Namespaces {
		if _, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			o.Log.Warn("there is no such namespace; it is watched, in case that it comes", "namespace", namespace)
		}
	}
}

// lookout are the options that the flags say.
func (f *watchFlags) lookout(every time.Duration) (*lookout.Options, error) {
	o := &lookout.Options{
		Census: census.Options{Kinds: f.kinds, MetricsOnly: f.metricsOnly, Namespaces: f.namespaces},
		Tell:   tell.Options{Webhook: webhook.Webhook{URL: f.webhook, URLFile: f.webhookFile, TokenFile: f.tokenFile, CAFile: f.ca}},
		Agents: f.agents, Containers: f.containers, AgentsTokenFile: f.agentsToken, Events: f.events, Every: every, Speed: f.speed,
		AuditLogs: f.audit,
	}
	if len(f.facts) > 0 {
		o.Census.FactKeys = slices.Concat(census.DefaultFacts, f.facts)
	}
	var err error
	o.Budgets, err = budgetsOf(f.budgetFile, f.budgets)
	return o, err
}

// sayChanges writes what has become of findings.
func (a *app) sayChanges(changes []lookout.Change, out outputFlag) {
	for _, c := range changes {
		if out == "json" {
			text, err := json.Marshal(c)
			if err == nil {
				_, err = fmt.Fprintf(a.stdout, "%s\n", text)
			}
			_ = err // nobody reads; what listens otherwise goes on
			continue
		}
		at := c.At.UTC().Format("2006-01-02 15:04:05 UTC")
		if c.What == lookout.Ended || c.What == lookout.Still { // nobody needs the page again
			fmt.Fprintf(a.stdout, "%s %s: %s (%s)\n\n", at, c.What, bulkhead.OneLine(c.Finding.Title, 200), bulkhead.OneLine(c.Finding.ID, 40))
			continue
		}
		fmt.Fprintf(a.stdout, "%s %s: %s\n", at, c.What, bulkhead.OneLine(string(c.Finding.Severity), 20))
		_ = guard.Text(a.stdout, []bulkhead.Finding{c.Finding}, c.At, a.outWidth())
		fmt.Fprintln(a.stdout)
	}
}

// outWidth is how wide a line of standard output may be.
func (a *app) outWidth() int {
	const elsewhere = 100
	if f, ok := a.stdout.(*os.File); ok {
		if columns := int(windowOf(f).Columns); columns > 0 {
			return columns
		}
	}
	return elsewhere
}

// guardWeb serves metrics; what it returns ends that.
func (a *app) guardWeb(address string, l *lookout.Lookout, log *slog.Logger) (end func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usage("--listen says where", "cannot listen on %s: %v", address, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(l.Collectors()...)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	const most = 10 * time.Second
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: most}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, looked := l.Findings(); looked.IsZero() {
			http.Error(w, "nothing was counted yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: most, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	log.Info("listening", "address", listener.Addr().String())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "error", err)
		}
	}()
	return func() { _ = server.Close(); <-done }, nil
}

// guardRules is `bulkhead guard rules`.
func (a *app) guardRules() error {
	_, err := a.stdout.Write(tell.Rules)
	return err
}

// guardRBAC is `bulkhead guard rbac`.
func (a *app) guardRBAC(f *guardRBACFlags) error {
	kinds, err := rightsOf(f.kinds)
	if err != nil {
		return err
	}
	role := rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
		ObjectMeta: metav1.ObjectMeta{Name: f.name}, Rules: append(tell.Rights(kinds), tell.QuotaRules()...),
	}
	if f.events {
		role.Rules = append(role.Rules, tell.EventRules()...)
	}
	if f.agents {
		role.Rules = append(role.Rules, tell.AgentRules()...)
	}
	text, err := yaml.Marshal(role)
	if err != nil {
		return fmt.Errorf("write the role: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
}

// rightsOf are the kinds for which there are to be rights: those that are counted by
// default, but no Secrets, with what the switches say.
func rightsOf(switches []string) ([]string, error) {
	kinds, err := chart.GuardKinds()
	if err != nil {
		return nil, err
	}
	if switches, err = switchesOf(switches); err != nil {
		return nil, err
	}
	for _, s := range switches {
		name := strings.TrimLeft(s, "+-")
		kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == name || name == "*" })
		if s[0] != '-' {
			kinds = append(kinds, name)
		}
	}
	return kinds, nil
}
