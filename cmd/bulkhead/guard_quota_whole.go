//go:build !quick

package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/quota"
	"bulkhead.dev/bulkhead/plan"
)

// quotaView is what guard quota says in JSON: the plan, and whether it was carried out.
type quotaView struct {
	*quota.Plan

	Applied bool `json:"applied"`
}

// guardQuota is `bulkhead guard quota`.
func (a *app) guardQuota(ctx context.Context, f *guardQuotaFlags) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	o, err := a.quotaOptions(ctx, f)
	if err != nil {
		return a.guardEnd(ctx, err, "nothing was written")
	}
	if f.remove {
		return a.removeQuota(ctx, o.Config, o.Namespace)
	}
	p, err := quota.Look(ctx, o)
	if err != nil {
		return a.guardEnd(ctx, err, "nothing was written")
	}
	if f.format == "text" {
		a.printQuota(p)
	}
	if !f.yes {
		return a.quotaNotWritten(f, p)
	}
	if _, err := quota.Apply(ctx, o.Config, p); err != nil {
		return a.guardEnd(ctx, err, "the quota may be there or not: kubectl get resourcequota "+quota.Name+" -n "+p.Namespace)
	}
	return a.quotaWritten(ctx, f, o.Config, p)
}

func (a *app) quotaOptions(ctx context.Context, f *guardQuotaFlags) (o quota.Options, err error) {
	o.Kinds = f.kinds
	if o.Headroom, err = quota.ParseHeadroom(f.headroom); err != nil {
		return o, err
	}
	if o.For, err = plan.ParseDuration(f.lasting); err != nil {
		return o, fmt.Errorf("--for: %w", err)
	}
	if o.Config, o.Namespace, err = f.of(a); err != nil || f.finding == "" {
		return o, err
	}
	finding, err := a.findingByID(ctx, &f.guardFlags, f.finding)
	if err != nil {
		return o, err
	}
	if f.namespace == "" {
		o.Namespace = finding.Namespace
	}
	for _, m := range finding.Members {
		if m.Kind != "pods" && m.Kind != "replicasets.apps" && m.Kind != "events" {
			o.Kinds = append(o.Kinds, m.Kind)
		}
	}
	return o, nil
}

func (a *app) quotaNotWritten(f *guardQuotaFlags, p *quota.Plan) error {
	switch f.format {
	case "json":
		return writeJSON(a.stdout, quotaView{Plan: p})
	case "yaml":
		return a.writeManifest(p)
	}
	fmt.Fprintf(a.stdout, "\n")
	if err := a.writeManifest(p); err != nil {
		return err
	}
	a.tell("nothing was written; --yes does it")
	return nil
}

func (a *app) writeManifest(p *quota.Plan) error {
	text, err := yaml.Marshal(struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`

		Spec corev1.ResourceQuotaSpec `json:"spec"`
	}{p.Manifest.TypeMeta, p.Manifest.ObjectMeta, p.Manifest.Spec})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
}

// quotaWritten says what there is now, and stays if it is to.
func (a *app) quotaWritten(ctx context.Context, f *guardQuotaFlags, config *rest.Config, p *quota.Plan) error {
	var err error
	switch f.format {
	case "json":
		err = writeJSON(a.stdout, quotaView{Plan: p, Applied: true})
	case "yaml":
		err = a.writeManifest(p)
	}
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	until := p.Until.Format(time.RFC3339)
	remove := "bulkhead guard quota -n " + p.Namespace + " --remove"
	if f.wait {
		a.tell("quota %s is in namespace %s; it is removed at %s, or at once on Ctrl-C. If this is killed: %s", quota.Name, p.Namespace, until, remove)
		if err := quota.Hold(ctx, client, p.Namespace); err != nil {
			return fmt.Errorf("remove quota: %w", err)
		}
		a.tell("quota %s is gone", quota.Name)
		if ctx.Err() != nil {
			return exitError(exitInterrupted)
		}
		return nil
	}
	a.tell("quota %s is in namespace %s until %s; before that: %s", quota.Name, p.Namespace, until, remove)
	if guard := guardIn(ctx, client); guard != "" {
		a.tell("the guard in %s removes it then", guard)
		return nil
	}
	a.tell("no guard was seen in this cluster: unless one runs elsewhere, nobody removes it then. The command above does, or --wait")
	return nil
}

// guardIn is where in the cluster something guards it; "": nowhere that can be seen.
func guardIn(ctx context.Context, client kubernetes.Interface) string {
	list, err := client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=bulkhead", Limit: 10})
	if err != nil {
		return ""
	}
	for _, d := range list.Items {
		if d.Status.ReadyReplicas > 0 {
			return "namespace " + printable(d.Namespace, 0)
		}
	}
	return ""
}

func (a *app) removeQuota(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	was, err := quota.Remove(ctx, client, namespace)
	if err != nil {
		return a.guardEnd(ctx, err, "the same command removes what is still there")
	}
	if !was {
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("namespace %s has no quota %s", namespace, quota.Name)}
	}
	a.tell("quota %s is gone from namespace %s", quota.Name, namespace)
	return nil
}

func (a *app) printQuota(p *quota.Plan) {
	for _, note := range p.Notes {
		a.tell("note: %s", note)
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tNOW\tLIMIT\tHEADROOM")
	for _, k := range p.Kinds {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\n", printable(k.Kind, 60), k.Count, k.Limit, k.Limit-k.Count)
	}
	_ = tw.Flush() // output for people
	fmt.Fprintf(a.stdout, "\nFrom the limit on, until %s, is refused in namespace %s:\n", p.Until.Format(time.RFC3339), p.Namespace)
	for _, k := range p.Kinds {
		fmt.Fprintf(a.stdout, "  new %s\n", printable(k.Kind, 60))
		for _, m := range k.Makers {
			by := m.Client
			if m.Owner != "" {
				by += ", for a " + strings.ToLower(m.Owner)
			}
			fmt.Fprintf(a.stdout, "    of %s: %d in the last hour, %d in the last day, the newest %s\n", printable(by, 60), m.LastHour, m.LastDay, printable(m.Newest, 80))
		}
		for _, r := range k.Refuses {
			fmt.Fprintf(a.stdout, "    and %s\n", r)
		}
	}
	for _, o := range p.Others {
		fmt.Fprintf(a.stdout, "Quota %s limits %s already: %s of %s.\n", printable(o.Name, 60), printable(o.Kind, 60), o.Used, o.Hard)
	}
	if !p.Replaces.IsZero() {
		fmt.Fprintf(a.stdout, "It replaces the one that is there until %s.\n", p.Replaces.Format(time.RFC3339))
	}
}
