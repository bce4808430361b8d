package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
)

// classCmd is what there is to do with classes.
func (a *app) classCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "class",
		Short: "List the classes of a server, or write one",
		Long: `List the classes of a server, or write one. A class (on Kubernetes a ScriptClass)
is what an operator writes once for many runs: image, environment, how many
workers there may be and what they may reach.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.classLsCmd(), a.classFromCmd())
	return cmd
}

func (a *app) classFromCmd() *cobra.Command {
	var kubeconfig, namespace, format string
	cmd := &cobra.Command{
		Use:   "from KIND/NAME",
		Short: "Write a class from a Job, a CronJob or a Deployment that exists",
		Long: `Write a class from a Job, a CronJob or a Deployment that exists, to standard
output. Nothing in the cluster is changed. What to look at before it is used
goes to standard error.`,
		Example: `  bulkhead class from cronjob/purge-parsercache -n mediawiki >class.yaml
  bulkhead class from deployment/web | kubectl apply -f -`,
		Args: exactly("KIND/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			rules := clientcmd.NewDefaultClientConfigLoadingRules()
			rules.ExplicitPath = kubeconfig
			overrides := &clientcmd.ConfigOverrides{}
			overrides.Context.Namespace = namespace
			return a.classFrom(cmd.Context(), clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides), args[0], format)
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default $KUBECONFIG, else ~/.kube/config)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "`namespace` (default that of the kubeconfig)")
	cmd.Flags().StringVarP(&format, "output", "o", "yaml", "`format`: yaml or json")
	completeFlag(cmd, "output", "yaml", "json")
	return cmd
}

func (a *app) classFrom(ctx context.Context, cluster clientcmd.ClientConfig, workload, format string) error {
	if format != "yaml" && format != "json" {
		return usage("yaml or json", "-o %q is not a format", format)
	}
	if kind, name, _ := strings.Cut(workload, "/"); kind == "" || name == "" {
		return usage("for example deployment/web", "%q is not KIND/NAME", workload)
	}
	namespace, _, err := cluster.Namespace()
	if err != nil {
		return usage("name one with --kubeconfig or KUBECONFIG", "the kubeconfig cannot be read: %v", err)
	}
	config, err := cluster.ClientConfig()
	if err != nil {
		return usage("name one with --kubeconfig or KUBECONFIG", "the kubeconfig cannot be read: %v", err)
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
	if format == "json" {
		text, err = json.MarshalIndent(class, "", "  ")
		text = append(text, '\n')
	}
	if err != nil {
		return fmt.Errorf("write the class: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
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
