package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// restBetween is the least time between two looks at a class: what happens in
// between is seen together.
const restBetween = 50 * time.Millisecond

// memory is what the controller remembers of a class between two looks at it.
// What is lost with it costs some requests, no more.
type memory struct {
	generation int64
	looked     time.Time
	furnished  furnishing
	backoff    backoff             // of what all of its pods need
	backoffs   map[string]*backoff // of the pods of a shape
	blocked    *string             // what the server was last told
	told       reporting
	foreign    map[string]time.Time // names that pods of somebody else have, since when that is known
}

// backoffOf returns the back-off of a shape.
func (m *memory) backoffOf(shape string) *backoff {
	if m.backoffs == nil {
		m.backoffs = map[string]*backoff{}
	}
	if m.backoffs[shape] == nil {
		m.backoffs[shape] = &backoff{}
	}
	return m.backoffs[shape]
}

// settle forgets troubles that are over, and those of shapes that nobody wants.
func (m *memory) settle(s *snapshot, d *decision) {
	for shape, b := range m.backoffs {
		b.settle(slices.DeleteFunc(slices.Clone(s.workers), func(w worker) bool { return w.shape != shape }), d.amiss[shape])
		wanted := slices.ContainsFunc(s.demand, func(x bulkhead.Demand) bool { return x.Shape == shape })
		if *b == (backoff{}) || !wanted && s.now.After(b.until) {
			delete(m.backoffs, shape)
		}
	}
}

// A name that a pod has which is not of the class is tried again, in case it is
// one that a watch has yet to show, for as long as watchLag, and then once every:
const foreignAgain = 10 * time.Minute

// taken notes that a pod could not be made because there is one of its name.
func (m *memory) taken(name string, now time.Time) {
	if m.foreign == nil {
		m.foreign = map[string]time.Time{}
	}
	if since, ok := m.foreign[name]; !ok || now.Sub(since) > foreignAgain {
		m.foreign[name] = now
	}
}

// avoid returns the names that are somebody else's.
func (m *memory) avoid(now time.Time) []string {
	var names []string
	for name, since := range m.foreign {
		if age := now.Sub(since); age >= watchLag && age < foreignAgain {
			names = append(names, name)
		}
	}
	return names
}

// memoryOf returns the memory of a class. Only its own reconciliation, of which
// there is one at a time, uses it.
func (c *Controller) memoryOf(class types.NamespacedName) *memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.memories[class]
	if m == nil {
		m = &memory{}
		c.memories[class] = m
	}
	return m
}

// Reconcile looks at one class and does what is to be done.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	m := c.memoryOf(req.NamespacedName)
	now := time.Now()
	if rest := restBetween - now.Sub(m.looked); rest > 0 {
		return reconcile.Result{RequeueAfter: rest}, nil
	}
	defer func() { m.looked = time.Now() }()

	// 1. What there is.
	var class v1alpha1.ScriptClass
	err := c.client.Get(ctx, req.NamespacedName, &class)
	if apierrors.IsNotFound(err) || err == nil && class.DeletionTimestamp != nil {
		return c.release(ctx, req.NamespacedName, m)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("read the class: %w", err)
	}
	if m.generation != class.Generation {
		m.generation, m.backoff, m.backoffs = class.Generation, backoff{}, nil // what was wrong may be right now
	}
	s, templates, again, err := c.snapshot(ctx, &class, m, now)
	if err != nil {
		return reconcile.Result{}, err
	}

	// 2. What to do.
	d := decide(s)
	d.lookAgain(again)

	// 3. Do it.
	c.sayGone(req.NamespacedName, s, &d)
	err = c.end(ctx, &d, req.Namespace)
	m.settle(s, &d)
	c.start(ctx, &class, m, s, &d, templates)
	err = errors.Join(err, c.report(ctx, &class, m, s, &d))
	return reconcile.Result{RequeueAfter: d.again}, err
}

// release lets go of a class that is not there any more. Its pods go with it, by
// the cluster's garbage collection; those that were left on purpose (kubectl
// delete --cascade=orphan) finish what they run.
func (c *Controller) release(ctx context.Context, class types.NamespacedName, m *memory) (reconcile.Result, error) {
	pods, err := c.pods(ctx, class)
	if err != nil {
		return reconcile.Result{}, err
	}
	agents := c.agents(class.String())
	s := &snapshot{class: class.Name, released: true}
	for i := range pods {
		w, _ := workerOf(&pods[i], agents, c.began, time.Now())
		// What is owned, the garbage collector deletes; doing it as well doubles the requests.
		w.leaving = w.leaving || len(pods[i].OwnerReferences) > 0 && !w.ended
		s.workers = append(s.workers, w)
	}
	d := decide(s)
	c.sayGone(class, s, &d)
	if err := c.end(ctx, &d, class.Namespace); err != nil {
		return reconcile.Result{}, err
	}
	c.block(class.String(), m, fmt.Sprintf("class %s does not exist", class))
	if len(pods) == 0 {
		c.mu.Lock()
		delete(c.memories, class)
		c.mu.Unlock()
	}
	return reconcile.Result{}, nil
}

func (c *Controller) pods(ctx context.Context, class types.NamespacedName) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.client.List(ctx, &list, client.InNamespace(class.Namespace), client.MatchingFields{classIndex: class.Name})
	if err != nil {
		return nil, fmt.Errorf("list the pods: %w", err)
	}
	return list.Items, nil
}

func (c *Controller) agents(class string) map[string]AgentStatus {
	agents := map[string]AgentStatus{}
	for _, a := range c.work.Agents(class) {
		agents[a.Name] = a
	}
	return agents
}

// snapshot gathers what a decision is made from. Templates are those of the
// shapes that somebody wants.
func (c *Controller) snapshot(ctx context.Context, class *v1alpha1.ScriptClass, m *memory, now time.Time) (
	s *snapshot, templates map[string]*corev1.Pod, again time.Duration, err error) {
	name := class.Namespace + "/" + class.Name
	pods, err := c.pods(ctx, client.ObjectKeyFromObject(class))
	if err != nil {
		return nil, nil, 0, err
	}
	s = &snapshot{class: class.Name, max: max(1, int(class.Spec.Workers.Max)), slots: slots(class), shapes: int(class.Spec.Shapes.Max),
		demand: c.work.Demand(name), now: now, invalid: map[string]trouble{}}
	templates = map[string]*corev1.Pod{}
	for _, x := range s.demand {
		if templates[x.Shape], err = c.options.podTemplate(class, x.Pod); err != nil {
			s.invalid[x.Shape] = trouble{codeBadShape, oneLine("%v", err)}
		}
	}
	agents := c.agents(name)
	for i := range pods {
		p := &pods[i]
		w, later := workerOf(p, agents, c.began, now)
		if later > 0 && (again == 0 || later < again) {
			again = later
		}
		w.leaving = w.leaving || !ownedBy(p, class.UID)
		w.outdated = p.Annotations[annotationHash] != c.hashFor(class, p, templates)
		s.workers = append(s.workers, w)
		if t := endTrouble(p); t != (trouble{}) && !w.leaving && !w.outdated {
			m.backoffOf(w.shape).failed(t, now, rand.Float64())
		}
	}
	slices.SortFunc(s.workers, func(a, b worker) int {
		return cmp.Or(cmp.Compare(a.shape, b.shape), cmp.Compare(a.ordinal, b.ordinal))
	})
	s.backoff, s.backoffs, s.foreign = m.backoff, map[string]backoff{}, m.avoid(now)
	for shape, b := range m.backoffs {
		s.backoffs[shape] = *b
	}
	return s, templates, again, nil
}

// hashFor is the hash that a pod would have if it were made now.
func (c *Controller) hashFor(class *v1alpha1.ScriptClass, p *corev1.Pod, templates map[string]*corev1.Pod) string {
	shape := shapeOf(p)
	t := templates[shape]
	if t == nil {
		var asked bulkhead.Shape
		if json.Unmarshal([]byte(p.Annotations[annotationShape]), &asked) != nil {
			return ""
		}
		var err error
		if t, err = c.options.podTemplate(class, asked); err != nil {
			return ""
		}
		templates[shape] = t
	}
	return t.Annotations[annotationHash]
}

func ownedBy(p *corev1.Pod, class types.UID) bool {
	return slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == class })
}

func shapeOf(p *corev1.Pod) string {
	if key := p.Labels[labelShape]; key != baseShape {
		return key
	}
	return ""
}

// workerOf is a pod as decide sees it. again is when time alone may change that.
func workerOf(p *corev1.Pod, agents map[string]AgentStatus, listening, now time.Time) (w worker, again time.Duration) {
	w = worker{
		name: p.Name, uid: p.UID, version: p.ResourceVersion, shape: shapeOf(p), ordinal: -1, created: p.CreationTimestamp.Time,
		ended:   p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		final:   scriptEnded(p),
		leaving: p.DeletionTimestamp != nil, started: everStarted(p),
	}
	if n, err := strconv.Atoi(p.Name[strings.LastIndexByte(p.Name, '-')+1:]); err == nil {
		w.ordinal = n
	}
	if a, ok := agents[p.Namespace+"/"+p.Name]; ok {
		w.agent = &a
	}
	if s := script(p); s != nil {
		w.crashed = s.State.Running == nil && s.RestartCount > 0
	}
	if !w.ended {
		w.trouble, again = troubleOf(p, w.agent != nil, listening, now)
	}
	return w, again
}

// sayGone tells the server of agents that are over. One whose name a new pod has
// taken meanwhile is left to its leases' end: the name is the new one's.
func (c *Controller) sayGone(class types.NamespacedName, s *snapshot, d *decision) {
	for _, name := range d.gone {
		c.work.Gone(class.Namespace + "/" + name)
	}
	for _, agent := range c.takeEnded(class) {
		again := slices.ContainsFunc(s.workers, func(w worker) bool { return class.Namespace+"/"+w.name == agent })
		if !again {
			c.work.Gone(agent)
		}
	}
}

// end lets workers go and deletes pods.
func (c *Controller) end(ctx context.Context, d *decision, namespace string) error {
	for _, name := range d.retire {
		c.work.Retire(namespace + "/" + name)
	}
	var errs []error
	for _, w := range d.remove {
		p := &corev1.Pod{}
		p.Namespace, p.Name = namespace, w.name
		only := client.Preconditions{UID: &w.uid}
		if !w.ended {
			only.ResourceVersion = &w.version // it may have started meanwhile
		}
		err := c.client.Delete(ctx, p, only)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete pod %s: %w", w.name, err))
		}
	}
	return errors.Join(errs...)
}

// start makes pods, as fast as all classes together may. What goes wrong is
// remembered and shown, not returned: the back-off is the memory's.
func (c *Controller) start(ctx context.Context, class *v1alpha1.ScriptClass, m *memory, s *snapshot, d *decision, templates map[string]*corev1.Pod) {
	if wait := m.backoff.until.Sub(s.now); m.backoff.trouble != (trouble{}) && wait > 0 && len(d.create) == 0 {
		return
	}
	if err := c.furnish(ctx, class, m, s.now); err != nil {
		d.missing += len(d.create)
		d.create = nil
		d.refused(ctx, &m.backoff, err, 0, s.now)
		return
	}
	if age := s.now.Sub(m.furnished.at); age < watchLag {
		d.lookAgain(watchLag - age)
	}
	c.makePods(ctx, m, s, d, templates)
	for _, x := range d.create {
		if shape := x.shape.Key(); d.amiss[shape] {
			b := m.backoffOf(shape)
			b.wait(s.now, rand.Float64())
			d.lookAgain(b.until.Sub(s.now))
		}
	}
}

// makePods makes the pods that are to be made, and leaves those in the decision
// that were.
func (c *Controller) makePods(ctx context.Context, m *memory, s *snapshot, d *decision, templates map[string]*corev1.Pod) {
	wanted, failed := d.create, map[string]bool{}
	d.create = nil
	for i, x := range wanted {
		shape, pods := x.shape.Key(), len(s.workers)+len(d.create)
		if failed[shape] {
			d.missing++
			continue
		}
		if turn := c.starts.ReserveN(s.now, 1); turn.DelayFrom(s.now) > 0 {
			d.lookAgain(turn.DelayFrom(s.now))
			turn.CancelAt(s.now)
			return
		}
		err := c.client.Create(ctx, named(templates[shape], x.name))
		switch {
		case err == nil:
			m.backoff.made(pods)
			m.backoffOf(shape).made(pods)
			d.create = append(d.create, x)
			continue
		case apierrors.IsAlreadyExists(err):
			m.taken(x.name, s.now)
		}
		d.missing++
		failed[shape] = true
		d.refused(ctx, m.backoffOf(shape), err, pods, s.now)
		if m.backoffOf(shape).trouble.Code == codeUnanswered {
			d.missing += len(wanted) - i - 1
			return // nor will it the others
		}
	}
}

// refused notes that something could not be made, of which there were so many pods.
func (d *decision) refused(ctx context.Context, b *backoff, err error, pods int, now time.Time) {
	if ctx.Err() == nil { // otherwise the controller is to end
		b.refused(refusal(err), pods, now, rand.Float64())
		d.lookAgain(b.until.Sub(now))
	}
}

// refusal is why something could not be made.
func refusal(err error) trouble {
	if policy, ok := errors.AsType[errPolicy](err); ok {
		return trouble{codePolicy, oneLine("%v", policy)}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return trouble{codeUnanswered, oneLine("the Kubernetes API server does not answer: %v", err)}
	}
	if apierrors.IsAlreadyExists(err) {
		return trouble{codeTaken, oneLine("%v, and is not of this class", err)}
	}
	code := codeRefused
	if strings.Contains(err.Error(), "exceeded quota") {
		code = "QuotaExceeded"
	}
	return trouble{code, oneLine("%v", err)}
}
