// Package quota stops a growth at the API itself, with the brake that Kubernetes has
// built in: a ResourceQuota that counts the objects of the kinds that grow
// (https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count).
// The API server then refuses to create more of them in that namespace, whoever asks,
// and says so with the quota's name. What is there stays, and can be changed and
// deleted.
//
// It is a blunt brake, so what it would refuse is said first (Look), it leaves room
// for what is normal (Headroom), it never counts pods or replica sets unless they are
// named, without which deployments could not roll, and it goes by itself: its
// annotation says until when, and Expire removes it then.
//
// There is one in a namespace, named Name. Quotas of others are not touched.
package quota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// What our quota is called and marked with.
const (
	Name            = "bulkhead-guard"
	UntilAnnotation = "bulkhead.dev/until" // RFC 3339
	ManagedByLabel  = "app.kubernetes.io/managed-by"
	ManagedBy       = "bulkhead" // also the field manager
)

// Options of Look. Config, Namespace and Kinds are required.
type Options struct {
	Config    *rest.Config
	Namespace string
	// Kinds are what is limited, as kubectl takes them: jobs.batch, configmaps, netpol.
	Kinds []string
	// Headroom is how many more than now there may be. Default: 5 %.
	Headroom Headroom
	// For is how long it stays. Default: two hours.
	For time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Headroom is a number of objects, or a share of those that are there. The zero value
// is the default.
type Headroom struct {
	Percent float64
	Objects int64
	set     bool
}

const (
	defaultPercent = 5
	defaultFor     = 2 * time.Hour
	// longest is how long a quota may stay: who wants it for good has one of his own.
	longest = 7 * 24 * time.Hour
	// most is how many more objects there may be: more is no limit.
	most = 1_000_000
)

// ParseHeadroom reads 5% or a number of objects.
func ParseHeadroom(text string) (Headroom, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > most || !percent && n != math.Trunc(n) {
		return Headroom{}, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("headroom %s is neither a share nor a number of objects", bulkhead.Quote(text)), Hint: "for example 5% or 20"}
	}
	if percent {
		return Headroom{Percent: n, set: true}, nil
	}
	return Headroom{Objects: int64(n), set: true}, nil
}

// limit is what there may be where there is n now.
func (h Headroom) limit(n int64) int64 {
	if !h.set && h.Percent == 0 && h.Objects == 0 {
		h.Percent = defaultPercent
	}
	return n + h.Objects + int64(math.Ceil(float64(n)*h.Percent/100))
}

func (h Headroom) String() string {
	if h.Objects > 0 || h.set && h.Percent == 0 {
		return fmt.Sprint(h.Objects)
	}
	return fmt.Sprintf("%g%%", cmp.Or(h.Percent, defaultPercent))
}

// Plan is a quota that is not there yet, with what it would do.
type Plan struct {
	Namespace string    `json:"namespace"`
	Until     time.Time `json:"until"`
	Headroom  string    `json:"headroom"`
	Kinds     []Kind    `json:"kinds"`
	// Others are quotas that limit the same kinds already.
	Others []Other `json:"others,omitempty"`
	// Replaces is the time of ours that is there; zero: there is none.
	Replaces time.Time `json:"replaces,omitzero"`
	// Lifts are kinds that ours limits now, and would not any more.
	Lifts []string `json:"lifts,omitempty"`
	// Notes say what could not be looked at.
	Notes    []string              `json:"notes,omitempty"`
	Manifest *corev1.ResourceQuota `json:"manifest"`
}

// Kind is what becomes of one kind.
type Kind struct {
	Kind  string `json:"kind"`
	Count int64  `json:"count"` // now
	Limit int64  `json:"limit"`
	// Makers create such objects now: they would be refused.
	Makers []Maker `json:"makers,omitempty"`
	// Refuses says in words what else would be.
	Refuses []string `json:"refuses,omitempty"`
}

// Maker is who creates objects.
type Maker struct {
	Client   string    `json:"client"`          // as managedFields have it
	Owner    string    `json:"owner,omitempty"` // kind of what owns them
	LastHour int64     `json:"lastHour"`
	LastDay  int64     `json:"lastDay"`
	Newest   string    `json:"newest"`
	At       time.Time `json:"at"` // when the newest was created
}

// Other is a quota of somebody else that limits a kind.
type Other struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Used string `json:"used"`
	Hard string `json:"hard"`
}

// Look says what a quota would do. It changes nothing.
func Look(ctx context.Context, o Options) (*Plan, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	o.For = cmp.Or(o.For, defaultFor)
	switch {
	case o.Namespace == "":
		return nil, usage("--namespace says which", "a quota is for one namespace")
	case o.For < time.Minute || o.For > longest:
		return nil, usage(fmt.Sprintf("from 1m to %dd", longest/(24*time.Hour)), "a quota for %s is out of range", o.For)
	}
	config := rest.CopyConfig(o.Config)
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	l := &looker{client: client, meta: meta, namespace: o.Namespace, now: now().UTC().Truncate(time.Second)}
	p := &Plan{Namespace: o.Namespace, Until: l.now.Add(o.For), Headroom: o.Headroom.String()}
	if err := namespaceThere(ctx, client, o.Namespace); err != nil {
		return nil, err
	}
	kinds, err := l.resolve(ctx, o.Kinds)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		one, err := l.kind(ctx, k, o.Headroom)
		if err != nil {
			return nil, err
		}
		p.Kinds = append(p.Kinds, one)
	}
	if err := l.others(ctx, p); err != nil {
		return nil, err
	}
	p.Notes, p.Manifest = l.notes, p.manifest()
	return p, nil
}

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (p *Plan) manifest() *corev1.ResourceQuota {
	q := &corev1.ResourceQuota{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ResourceQuota"},
		ObjectMeta: metav1.ObjectMeta{
			Name: Name, Namespace: p.Namespace, Labels: map[string]string{ManagedByLabel: ManagedBy},
			Annotations: map[string]string{UntilAnnotation: p.Until.Format(time.RFC3339)},
		},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}},
	}
	for _, k := range p.Kinds {
		q.Spec.Hard[corev1.ResourceName("count/"+k.Kind)] = *resource.NewQuantity(k.Limit, resource.DecimalSI)
	}
	return q
}

// Apply writes the quota of a plan, in place of ours that is there.
func Apply(ctx context.Context, config *rest.Config, p *Plan) (*corev1.ResourceQuota, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if _, err := ours(ctx, client, p.Namespace); err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	m := p.Manifest
	q, err := client.CoreV1().ResourceQuotas(p.Namespace).Apply(ctx, applycorev1.ResourceQuota(m.Name, m.Namespace).
		WithLabels(m.Labels).WithAnnotations(m.Annotations).
		WithSpec(applycorev1.ResourceQuotaSpec().WithHard(m.Spec.Hard)), metav1.ApplyOptions{FieldManager: ManagedBy})
	switch {
	case apierrors.IsForbidden(err):
		return nil, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not write resourcequotas in namespace %s", p.Namespace), Err: err,
			Hint: "who may can apply what -o yaml prints"}
	case apierrors.IsConflict(err):
		return nil, foreign(p.Namespace, err)
	case err != nil:
		return nil, fmt.Errorf("write quota: %w", err)
	}
	return q, nil
}

// ours is the quota that we have written in a namespace; one under its name that
// somebody else has made is an error.
func ours(ctx context.Context, client kubernetes.Interface, namespace string) (*corev1.ResourceQuota, error) {
	q, err := client.CoreV1().ResourceQuotas(namespace).Get(ctx, Name, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return nil, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not get resourcequotas in namespace %s", namespace), Err: err}
	case err != nil:
		return nil, err
	case q.Labels[ManagedByLabel] != ManagedBy:
		return nil, foreign(namespace, nil)
	}
	return q, nil
}

func foreign(namespace string, err error) error {
	return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("quota %s of namespace %s is not of Bulkhead alone", Name, namespace), Err: err,
		Hint: fmt.Sprintf("nothing was changed; whose is it? kubectl get resourcequota %s -n %s -o yaml --show-managed-fields", Name, namespace)}
}

// Remove removes our quota from a namespace, which must be there; it reports whether
// there was one.
func Remove(ctx context.Context, client kubernetes.Interface, namespace string) (bool, error) {
	was, err := removeOurs(ctx, client, namespace)
	if err != nil || was {
		return was, err
	}
	return false, namespaceThere(ctx, client, namespace)
}

// removeOurs reads the quota anew if it has changed just then: the cluster writes into
// it what is used.
func removeOurs(ctx context.Context, client kubernetes.Interface, namespace string) (was bool, err error) {
	for range triesToRemove {
		q, err := ours(ctx, client, namespace)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if was, err = remove(ctx, client, q); !apierrors.IsConflict(err) {
			return was, err
		}
	}
	return false, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("quota %s of namespace %s changes all the time", Name, namespace), Err: err, Hint: "try again"}
}

const triesToRemove = 10

// remove removes a quota if it is still what was read: somebody may have given it more
// time.
func remove(ctx context.Context, client kubernetes.Interface, q *corev1.ResourceQuota) (bool, error) {
	err := client.CoreV1().ResourceQuotas(q.Namespace).Delete(ctx, q.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &q.UID, ResourceVersion: &q.ResourceVersion}})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case apierrors.IsForbidden(err):
		return false, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not delete resourcequotas in namespace %s", q.Namespace), Err: err}
	case err != nil:
		return false, fmt.Errorf("remove quota of namespace %s: %w", q.Namespace, err)
	}
	return true, nil
}

// Until is how long a quota stays.
func Until(q *corev1.ResourceQuota) (time.Time, error) {
	until, err := time.Parse(time.RFC3339, q.Annotations[UntilAnnotation])
	if err != nil {
		return until, fmt.Errorf("quota %s of namespace %s does not say until when it stays (%s: %s)", q.Name, q.Namespace, UntilAnnotation, bulkhead.Quote(q.Annotations[UntilAnnotation]))
	}
	return until, nil
}

const (
	// page is how many quotas are asked for at once.
	page = 200
	// expireFor is how long Expire may take. An API server that hangs would else keep it
	// from trying again once another one answers.
	expireFor = 30 * time.Second
)

// Expire removes our quotas whose time is over, in the given namespaces or, without
// any, everywhere, and names their namespaces. Who guards a cluster calls it each
// minute. It goes on after an error, and returns all of them; after half a minute it
// ends, and the next call does the rest.
func Expire(ctx context.Context, client kubernetes.Interface, now time.Time, namespaces ...string) (removed []string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, expireFor, errors.New("the API server does not answer"))
	defer cancel()
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		o := metav1.ListOptions{LabelSelector: ManagedByLabel + "=" + ManagedBy, FieldSelector: "metadata.name=" + Name, Limit: page}
		for {
			list, listed := client.CoreV1().ResourceQuotas(namespace).List(ctx, o)
			if listed != nil {
				err = errors.Join(err, fmt.Errorf("list quotas: %w", cmp.Or(context.Cause(ctx), listed)))
				break
			}
			for i := range list.Items {
				gone, failed := expire(ctx, client, &list.Items[i], now)
				if err = errors.Join(err, failed); gone {
					removed = append(removed, list.Items[i].Namespace)
				}
			}
			if o.Continue = list.Continue; o.Continue == "" {
				break
			}
		}
	}
	slices.Sort(removed)
	return removed, err
}

func expire(ctx context.Context, client kubernetes.Interface, q *corev1.ResourceQuota, now time.Time) (gone bool, err error) {
	until, err := Until(q)
	if err != nil || now.Before(until) {
		return false, err
	}
	gone, err = remove(ctx, client, q)
	if apierrors.IsConflict(err) {
		return false, nil // it has changed just now: the next time says
	}
	return gone, err
}

// Hold waits until our quota of a namespace has had its time, also if it is given more
// meanwhile, and removes it. If ctx ends before, the quota is removed at once, within a
// few seconds. It returns when there is none, and says whether that is its doing: somebody
// else may have removed it, which it sees within seconds.
func Hold(ctx context.Context, client kubernetes.Interface, namespace string) (removed bool, err error) {
	for {
		q, err := ours(ctx, client, namespace)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if ctx.Err() != nil {
			return removeAfter(ctx, client, namespace)
		}
		if code := bulkhead.CodeOf(err); err != nil && (code == bulkhead.CodeConflict || code == bulkhead.CodeDenied) {
			return false, err
		}
		wait := retryHold
		if err == nil {
			until, err := Until(q)
			if err != nil {
				return false, err
			}
			if wait = time.Until(until); wait <= 0 {
				if was, err := remove(ctx, client, q); err == nil {
					return was, nil
				}
				wait = retryHold
			}
		}
		timer := time.NewTimer(min(wait, lookHold+rand.N(lookHold/2)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return removeAfter(ctx, client, namespace)
		}
	}
}

const (
	// retryHold is when Hold tries again what the API server could not do.
	retryHold = 5 * time.Second
	// lookHold is how often it looks whether the quota was given more time, or is gone.
	// That is one request for one object.
	lookHold = 10 * time.Second
	// afterEnd is how long removing it after an end may take.
	afterEnd = 10 * time.Second
)

func removeAfter(ctx context.Context, client kubernetes.Interface, namespace string) (removed bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterEnd)
	defer cancel()
	return removeOurs(ctx, client, namespace)
}
