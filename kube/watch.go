package kube

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// Requests to the API server, should anything make very many of them. Who may
// start more pods a second may ask for them, and delete as many: with a bound
// below the pod start rate, that rate was never reached.
const (
	requestsPerSecond = 20
	requestsAtOnce    = 40
)

// forever is longer than any server lives. An API server that is away is waited for.
const forever = 100 * 365 * 24 * time.Hour

// classIndex finds the pods of a class in the cache.
const classIndex = "class"

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// newScheme knows the types that the controller handles.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}

// newMapper says what the cluster would say about these types, without asking it:
// it may be away, and an answer takes a request per group.
func newMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion.WithKind("ScriptClass"),
		corev1.SchemeGroupVersion.WithKind("Pod"),
		corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
	} {
		mapper.Add(kind, meta.RESTScopeNamespace)
		// A cache of one namespace asks about the lists, too.
		mapper.Add(kind.GroupVersion().WithKind(kind.Kind+"List"), meta.RESTScopeNamespace)
	}
	return mapper, nil
}

// manager wires cache, client and reconciler. Only what is Bulkhead's is watched.
func (c *Controller) manager() (manager.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	ours, err := labels.NewRequirement(labelClass, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	log := logr.FromSlogHandler(c.options.Log.Handler())
	crlog.SetLogger(log) // it complains when nobody does
	config := rest.CopyConfig(c.options.Config)
	config.QPS, config.Burst = max(requestsPerSecond, float32(2*c.options.PodsPerSecond)), requestsAtOnce
	yes := true
	options := manager.Options{
		Scheme: scheme, MapperProvider: newMapper, Logger: log,
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Client: client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: &yes}},
		Cache: cache.Options{
			ReaderFailOnMissingInformer: true,
			DefaultTransform:            cache.TransformStripManagedFields(),
			DefaultWatchErrorHandler:    c.noteAway,
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:                 {Label: labels.NewSelector().Add(*ours), Transform: slim, UnsafeDisableDeepCopy: &yes},
				&networkingv1.NetworkPolicy{}: {Label: labels.NewSelector().Add(*ours), Transform: slim},
				&corev1.ConfigMap{}:           {Label: labels.NewSelector().Add(*ours)},
			},
		},
	}
	if len(c.options.Namespaces) > 0 {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range c.options.Namespaces {
			options.Cache.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	m, err := manager.New(config, options)
	if err != nil {
		return nil, err
	}
	return m, c.watch(m)
}

// watch lets the reconciler know of what changes.
func (c *Controller) watch(m manager.Manager) error {
	ctx := context.Background() // it only registers
	err := m.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, classIndex, func(o client.Object) []string {
		return []string{o.GetLabels()[labelClass]}
	})
	if err != nil {
		return err
	}
	anyName, anywhere := true, false
	ctl, err := controller.New("scriptclass", m, controller.Options{
		Reconciler: c, SkipNameValidation: &anyName, NeedLeaderElection: &anywhere, CacheSyncTimeout: forever,
		MaxConcurrentReconciles: 4,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, time.Minute),
	})
	if err != nil {
		return err
	}
	for _, s := range []source.Source{
		source.Kind(m.GetCache(), &v1alpha1.ScriptClass{}, c.classEvents()),
		source.Kind(m.GetCache(), &corev1.Pod{}, c.podEvents()),
		source.Kind(m.GetCache(), &networkingv1.NetworkPolicy{}, changed(func(a, b *networkingv1.NetworkPolicy) bool { return a.Generation == b.Generation })),
		source.Kind(m.GetCache(), &corev1.ConfigMap{}, changed(func(a, b *corev1.ConfigMap) bool { return maps.Equal(a.Data, b.Data) })),
		source.Func(c.watchWork),
	} {
		if err := ctl.Watch(s); err != nil {
			return err
		}
	}
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error { return c.learnAll(ctx, m.GetCache()) }))
}

// slim keeps of a pod or a policy what the controller looks at: a thousand are in memory.
func slim(o any) (any, error) {
	if policy, ok := o.(*networkingv1.NetworkPolicy); ok {
		policy.ManagedFields, policy.Spec = nil, networkingv1.NetworkPolicySpec{} // its generation says all
		return policy, nil
	}
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil // a tombstone
	}
	p.ManagedFields = nil
	p.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName}
	s := p.Status
	p.Status = corev1.PodStatus{Phase: s.Phase, Reason: s.Reason, Message: s.Message}
	for _, condition := range s.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			p.Status.Conditions = append(p.Status.Conditions, condition)
		}
	}
	p.Status.InitContainerStatuses = slimStatuses(s.InitContainerStatuses)
	p.Status.ContainerStatuses = slimStatuses(s.ContainerStatuses)
	return p, nil
}

func slimStatuses(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, s := range all {
		out = append(out, corev1.ContainerStatus{Name: s.Name, State: s.State, LastTerminationState: s.LastTerminationState,
			RestartCount: s.RestartCount, Started: s.Started})
	}
	return out
}

// learnAll waits until the cluster has said what classes there are. Events say
// the same, but not when they are all there.
func (c *Controller) learnAll(ctx context.Context, from cache.Cache) error {
	if _, err := from.GetInformer(ctx, &v1alpha1.ScriptClass{}); err != nil { // it waits until they are there
		return fmt.Errorf("watch the classes: %w", err)
	}
	var all v1alpha1.ScriptClassList
	if err := from.List(ctx, &all); err != nil {
		return fmt.Errorf("list the classes: %w", err)
	}
	for i := range all.Items {
		c.learn(&all.Items[i])
	}
	c.mu.Lock()
	c.away = nil
	c.mu.Unlock()
	return nil
}

// noteAway is told why a watch has ended. That it is begun again is not its business.
func (c *Controller) noteAway(ctx context.Context, r *toolscache.Reflector, err error) {
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		c.away = fmt.Errorf("the Kubernetes API server has not said which classes there are: %w", err)
	}
}

func (c *Controller) classEvents() handler.TypedEventHandler[*v1alpha1.ScriptClass, reconcile.Request] {
	enqueue := func(class *v1alpha1.ScriptClass, q queue) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(class)})
	}
	return handler.TypedFuncs[*v1alpha1.ScriptClass, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*v1alpha1.ScriptClass], q queue) {
			c.learn(e.Object)
			enqueue(e.Object, q)
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*v1alpha1.ScriptClass], q queue) {
			c.learn(e.ObjectNew)
			if e.ObjectOld.Generation != e.ObjectNew.Generation || e.ObjectNew.DeletionTimestamp != nil {
				enqueue(e.ObjectNew, q) // otherwise it is our own status
			}
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*v1alpha1.ScriptClass], q queue) {
			c.forget(e.Object.Namespace + "/" + e.Object.Name)
			enqueue(e.Object, q)
		},
	}
}

func (c *Controller) podEvents() handler.TypedEventHandler[*corev1.Pod, reconcile.Request] {
	return handler.TypedFuncs[*corev1.Pod, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.Pod], q queue) { q.Add(classOf(e.Object)) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*corev1.Pod], q queue) { q.Add(classOf(e.ObjectNew)) },
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*corev1.Pod], q queue) {
			c.noteEnd(e.Object)
			q.Add(classOf(e.Object))
		},
	}
}

// changed lets the class be looked at when something that it has one of was
// changed or deleted.
func changed[T client.Object](same func(a, b T) bool) handler.TypedEventHandler[T, reconcile.Request] {
	return handler.TypedFuncs[T, reconcile.Request]{
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[T], q queue) {
			if !same(e.ObjectOld, e.ObjectNew) {
				q.Add(classOf(e.ObjectNew))
			}
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[T], q queue) { q.Add(classOf(e.Object)) },
	}
}

// classOf is the class that something of ours belongs to.
func classOf(o client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[labelClass]}}
}

// noteEnd remembers that a pod which somebody else has deleted ended before that,
// so that its class's next reconciliation can say so. Of one that was only
// forgotten (a node that is cut off, --force) nobody knows.
func (c *Controller) noteEnd(p *corev1.Pod) {
	if !scriptEnded(p) {
		return
	}
	class := classOf(p).NamespacedName
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[class] = append(c.ended[class], p.Namespace+"/"+p.Name)
}

// takeEnded returns what noteEnd remembered of a class.
func (c *Controller) takeEnded(class types.NamespacedName) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := c.ended[class]
	delete(c.ended, class)
	return ended
}

// watchWork passes on what the server says has changed.
func (c *Controller) watchWork(ctx context.Context, q queue) error {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case name := <-c.work.Changed():
				if key, ok := parseName(name); ok {
					q.Add(reconcile.Request{NamespacedName: key})
				}
			}
		}
	}()
	return nil
}
