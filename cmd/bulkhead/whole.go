//go:build !quick

package main

// What needs Kubernetes' libraries is in this file and in package serve, which
// nothing else imports: the quick program (quick.go) goes without them.

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/cmd/bulkhead/serve"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/kube/chart"
	"bulkhead.dev/bulkhead/webhook"
)

// serve is `bulkhead serve`.
func (a *app) serve(ctx context.Context, f *serveFlags, every time.Duration) (err error) {
	o := serve.Options{
		Listen: f.listen, Names: f.names, Classes: f.classes, Pprof: f.pprof,
		Announce: serve.Announce{
			Webhook:  webhook.Webhook{URL: f.announce.webhook, URLFile: f.announce.webhookFile, TokenFile: f.announce.tokenFile, CAFile: f.announce.ca},
			AdminLog: f.announce.sal, AdminLogAll: f.announce.all,
		},
		Version: version, Log: slog.New(slog.NewTextHandler(a.stderr, nil)),
	}
	if o.State, err = a.stateDir(); err != nil {
		return err
	}
	if f.kubernetes {
		o.Cluster = &serve.Cluster{
			Kubeconfig: f.kubeconfig, Namespaces: f.namespaces, OwnNamespace: f.ownNamespace, Image: f.image, PullPolicy: f.pullPolicy,
			URL: f.url, PodsPerSecond: f.podsPerSecond,
		}
	}
	if f.guard {
		o.Advise = f.advise
		if o.Guard, err = f.watch.lookout(every); err != nil {
			return err
		}
	}
	// Linux names a process after its file, and this may be one without a name.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0o600)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return serve.Run(ctx, o)
}

// becomeWhole has nothing to do in the whole program.
func becomeWhole() error { return nil }

// dialCluster is the way to the server in a cluster, by a kubeconfig.
func (a *app) dialCluster(ctx context.Context, s *serverAddress) (client connect.HTTPClient, url, name string, err error) {
	o := s.clusterOptions()
	server, err := cluster.Dial(ctx, o)
	if err != nil {
		return nil, "", "", err
	}
	return server.HTTP, server.URL, server.Name, nil
}

// clusterNamespace is the namespace of a kubeconfig.
func clusterNamespace(s *serverAddress) (string, error) { return cluster.Namespace(s.clusterOptions()) }

func (s *serverAddress) clusterOptions() cluster.Options {
	return cluster.Options{Kubeconfig: s.Kubeconfig, Context: s.KubeContext, ServerNamespace: s.ServerNamespace,
		URL: s.URL, CAFile: s.CA, UserAgent: "bulkhead/" + version}
}

// classFrom is `bulkhead class from`.
func (a *app) classFrom(ctx context.Context, workload string, f *classFromFlags) error {
	if f.format != "yaml" && f.format != "json" {
		return usage("yaml or json", "-o %q is not a format", f.format)
	}
	if kind, name, _ := strings.Cut(workload, "/"); kind == "" || name == "" {
		return usage("for example deployment/web", "%q is not KIND/NAME", workload)
	}
	o := cluster.Options{Kubeconfig: f.kubeconfig, UserAgent: "bulkhead/" + version}
	config, err := cluster.Config(o)
	if err != nil {
		return err
	}
	namespace := f.namespace
	if namespace == "" {
		if namespace, err = cluster.Namespace(o); err != nil {
			return err
		}
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	object, err := readWorkload(ctx, client, namespace, workload)
	if err != nil {
		return err
	}
	class, notes, err := kube.FromWorkload(object)
	if err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintf(a.stderr, "note: %s\n", note)
	}
	text, err := yaml.Marshal(class)
	if f.format == "json" {
		text, err = json.MarshalIndent(class, "", "  ")
		text = append(text, '\n')
	}
	if err != nil {
		return fmt.Errorf("write the class: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
}

// install is `bulkhead install`.
func (a *app) install(f *installFlags) error {
	if f.format != "yaml" && f.format != "json" {
		return usage("yaml or json", "-o %q is not a format", f.format)
	}
	if problems := validation.IsDNS1123Label(f.namespace); len(problems) > 0 {
		return usage("", "--namespace %s: %s", bulkhead.Quote(f.namespace), problems[0])
	}
	if f.chart != "" {
		return chart.Write(f.chart, version)
	}
	values, err := f.readValues()
	if err != nil {
		return err
	}
	objects, err := chart.Objects(chart.Options{Namespace: f.namespace, Version: version, Values: values})
	if err != nil {
		return err
	}
	if !f.noNamespace {
		objects = slices.Insert(objects, 0, chart.Namespace(f.namespace))
	}
	if f.format == "json" {
		text, err := json.MarshalIndent(chart.Object{"apiVersion": "v1", "kind": "List", "items": objects}, "", "  ")
		if err != nil {
			return fmt.Errorf("write manifests: %w", err)
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", text)
		return err
	}
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			return fmt.Errorf("write manifests: %w", err)
		}
		if _, err := fmt.Fprintf(a.stdout, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}

// readValues are the values that the command line gives.
func (f *installFlags) readValues() (map[string]any, error) {
	values := map[string]any{}
	if f.values != "" {
		text, err := os.ReadFile(f.values)
		if err != nil {
			return nil, usage("", "--values: %v", err)
		}
		if values, err = chart.ReadValues(text); err != nil {
			return nil, err
		}
	}
	for _, assignment := range f.set {
		if err := chart.Set(values, assignment); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// readWorkload reads KIND/NAME from the cluster.
func readWorkload(ctx context.Context, client kubernetes.Interface, namespace, workload string) (object runtime.Object, err error) {
	kind, name, _ := strings.Cut(workload, "/")
	switch strings.ToLower(kind) {
	case "job", "jobs", "job.batch", "jobs.batch":
		object, err = client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	case "cronjob", "cronjobs", "cj", "cronjob.batch", "cronjobs.batch":
		object, err = client.BatchV1().CronJobs(namespace).Get(ctx, name, metav1.GetOptions{})
	case "deployment", "deployments", "deploy", "deployment.apps", "deployments.apps":
		object, err = client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	default:
		return nil, usage("job, cronjob or deployment", "a class cannot be made from a %q", kind)
	}
	if apierrors.IsNotFound(err) {
		return nil, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("namespace %s has no %s %q", namespace, kind, name),
			Hint: "another namespace is given with -n"}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", workload, err)
	}
	return object, nil
}
