//go:build !quick

package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/quota"
	"bulkhead.dev/bulkhead/plan"
	"bulkhead.dev/bulkhead/store/history"
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
	f.sayNamespace(a, o.Namespace, f.finding)
	if f.remove {
		return a.removeQuota(ctx, o.Config, o.Namespace)
	}
	p, err := quota.Look(ctx, o)
	if err != nil {
		return a.guardEnd(ctx, err, "nothing was written")
	}
	if f.format == "text" {
		if err := a.printQuota(p); err != nil {
			return err
		}
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
	o.Kinds = guard.QuotaKinds(finding)
	return o, nil
}

func (a *app) quotaNotWritten(f *guardQuotaFlags, p *quota.Plan) error {
	switch f.format {
	case "json":
		return writeJSON(a.stdout, quotaView{Plan: p})
	case "yaml":
		return a.writeManifest(p)
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
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
	if len(p.Lifts) > 0 && f.format != "text" { // else it was said above
		a.tell("no longer limited: %s", lifted(p))
	}
	until := p.Until.Format(time.RFC3339)
	remove := "bulkhead guard quota -n " + p.Namespace + " --remove"
	if f.wait {
		a.tell("quota %s is in namespace %s; it is removed at %s, or at once on Ctrl-C. If this is killed: %s", quota.Name, p.Namespace, until, remove)
		removed, err := quota.Hold(ctx, client, p.Namespace)
		if err != nil {
			return fmt.Errorf("remove quota: %w", err)
		}
		if !removed {
			a.tell("quota %s is gone: somebody else has removed it", quota.Name)
		} else {
			a.tell("quota %s is gone", quota.Name)
		}
		if ctx.Err() != nil {
			return exitError(exitInterrupted)
		}
		return nil
	}
	a.tell("quota %s is in namespace %s until %s; before that: %s", quota.Name, p.Namespace, until, remove)
	a.tell("%s", a.whoRemoves(ctx, client))
	return nil
}

// whoRemoves says who removes a quota at its time. A guard may run anywhere that has a
// kubeconfig: only one in the cluster, or of this state folder, is seen.
func (a *app) whoRemoves(ctx context.Context, client kubernetes.Interface) string {
	if guard := guardIn(ctx, client); guard != "" {
		return fmt.Sprintf("the guard in %s removes it then", guard)
	}
	if dir, err := a.stateDir(); err == nil && guarded(dir) {
		return fmt.Sprintf("the guard of %s removes it then, if this cluster is the one that it guards", printable(dir, 0))
	}
	return "no guard runs in this cluster or with this state folder, as far as can be seen; one that runs elsewhere is not seen from here. If none guards this cluster, nobody removes it then: the command above does, or --wait"
}

// guarded reports whether a guard writes its history into a state folder now.
func guarded(dir string) bool {
	h, err := history.Read(filepath.Join(dir, history.Name))
	if err != nil {
		return false
	}
	defer func() { _ = h.Close() }()
	return h.Written()
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
		a.tell("there is no quota %s in namespace %s", quota.Name, namespace)
		return nil
	}
	a.tell("quota %s is gone from namespace %s", quota.Name, namespace)
	return nil
}

func (a *app) printQuota(p *quota.Plan) error {
	for _, note := range p.Notes {
		a.tell("note: %s", note)
	}
	var out bytes.Buffer
	tw := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tNOW\tLIMIT\tHEADROOM")
	for _, k := range p.Kinds {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\n", printable(k.Kind, 60), k.Count, k.Limit, k.Limit-k.Count)
	}
	_ = tw.Flush() // to memory
	fmt.Fprintf(&out, "\nFrom the limit on, until %s, is refused in namespace %s:\n", p.Until.Format(time.RFC3339), p.Namespace)
	for _, k := range p.Kinds {
		fmt.Fprintf(&out, "  new %s\n", printable(k.Kind, 60))
		for _, m := range k.Makers {
			by := m.Client
			if m.Owner != "" {
				by += ", for a " + strings.ToLower(m.Owner)
			}
			fmt.Fprintf(&out, "    of %s: %d in the last hour, %d in the last day, the newest %s\n", printable(by, 60), m.LastHour, m.LastDay, printable(m.Newest, 80))
		}
		for _, r := range k.Refuses {
			fmt.Fprintf(&out, "    and %s\n", r)
		}
	}
	for _, o := range p.Others {
		fmt.Fprintf(&out, "Quota %s limits %s already: %s of %s.\n", printable(o.Name, 60), printable(o.Kind, 60), o.Used, o.Hard)
	}
	if !p.Replaces.IsZero() {
		fmt.Fprintf(&out, "It replaces the one that is there until %s.\n", p.Replaces.Format(time.RFC3339))
	}
	if len(p.Lifts) > 0 {
		fmt.Fprintf(&out, "No longer limited: %s. To keep them limited name them, too: --kinds %s\n", lifted(p), strings.Join(allKinds(p), ","))
	}
	_, err := out.WriteTo(a.stdout)
	return err
}

// lifted are the kinds that were limited, and are not any more.
func lifted(p *quota.Plan) string { return printable(strings.Join(p.Lifts, ", "), 400) }

// allKinds are those, and the ones that are limited.
func allKinds(p *quota.Plan) (all []string) {
	for _, k := range p.Kinds {
		all = append(all, printable(k.Kind, 0))
	}
	for _, k := range p.Lifts {
		all = append(all, printable(k, 60))
	}
	return all
}
