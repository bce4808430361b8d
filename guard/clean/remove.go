package clean

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bulkhead.dev/bulkhead"
)

// Summary is what Remove has done. It is given also when it could not do all.
type Summary struct {
	Deleted map[string]int `json:"deleted"` // by kind
	// Gone had been deleted by others.
	Gone int `json:"gone"`
	// Spared were to go, and something has changed meanwhile.
	Spared []Object `json:"spared,omitempty"`
	// PutBack were deleted, and something began to use them just then.
	PutBack []Object `json:"putBack,omitempty"`
	// Left is how many were not come to.
	Left int `json:"left"`
	// Stopped says why; "": all was done.
	Stopped string `json:"stopped,omitempty"`
}

// Total is how many objects are gone by us.
func (s *Summary) Total() (n int) {
	for _, of := range s.Deleted {
		n += of
	}
	return n
}

// Progress is told after each batch.
type Progress struct {
	Deleted, Of int
	Slow        string // why it is slower than the rate; "": it is not
}

// remover is one Remove.
type remover struct {
	*Cleaner

	undo     *Undo
	found    *Found
	sum      Summary
	recent   []*item   // deleted since the last look
	other    time.Time // when kinds that make no pods were looked at last
	took     time.Duration
	progress func(Progress)
}

// afterwards is how long what has to be done after an end may take.
const afterwards = 30 * time.Second

// otherEvery is how often kinds are looked at that change rarely.
const otherEvery = time.Minute

// Remove removes what Find has found, and tells progress. It stops, and returns what
// it has done with the error, when ctx ends, the verdict says so, the undo file cannot
// be written, or the API server has refused or failed.
func (c *Cleaner) Remove(ctx context.Context, f *Found, undo *Undo, progress func(Progress)) (Summary, error) {
	r := &remover{Cleaner: c, undo: undo, found: f, sum: Summary{Deleted: map[string]int{}, Left: len(f.Leftovers)}, other: c.opts.Now(), progress: progress}
	if err := c.mayRemove(ctx, f); err != nil {
		return r.sum, err
	}
	err := r.all(ctx)
	// What was deleted last is looked at once more, also after an end.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if len(r.recent) > 0 {
		err = errors.Join(err, r.lookAgain(after, r.found.scans[r.recent[0].meta.namespace]))
	}
	if err != nil {
		r.sum.Stopped = err.Error()
	}
	return r.sum, err
}

func (r *remover) all(ctx context.Context) error {
	for n, b := range r.found.batches {
		factor, err := r.verdict(ctx)
		if err != nil {
			return err
		}
		if n > 0 && r.found.batches[n-1].namespace != b.namespace {
			if err := r.lookAgain(ctx, r.found.scans[r.found.batches[n-1].namespace]); err != nil {
				return err
			}
		}
		before := r.sum.Total()
		err = r.batch(ctx, &b)
		r.sum.Left -= len(b.items)
		if err != nil {
			r.sum.Left += r.untouched(&b)
			return err
		}
		if err := r.rest(ctx, r.sum.Total()-before, factor); err != nil {
			return err
		}
	}
	return nil
}

// untouched is how many of a batch nothing was said about.
func (r *remover) untouched(b *batch) (n int) {
	for _, i := range b.items {
		if !i.gone && i.stays() == "" {
			n++
		}
	}
	return n
}

// verdict asks whether to go on.
func (r *remover) verdict(ctx context.Context) (factor float64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	v := r.opts.Verdict()
	switch v.Level {
	case bulkhead.Stop:
		return 0, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: "stopped: " + v.Reason, Hint: v.Lifts}
	case bulkhead.Slow:
		return cmp.Or(v.Factor, 1), nil
	}
	return 1, nil
}

// rest waits after deletes, as the rate and the verdict say, and longer where to look
// takes long: that is the load.
func (r *remover) rest(ctx context.Context, deleted int, factor float64) error {
	wait := time.Duration(float64(deleted) / (r.opts.Rate * factor) * float64(time.Second))
	p := Progress{Deleted: r.sum.Total(), Of: len(r.found.Leftovers)}
	if factor < 1 {
		p.Slow = "the verdict is to be slow: " + r.opts.Verdict().Reason
	}
	if look := lookShare * r.took; look > wait {
		wait, p.Slow = look, fmt.Sprintf("to look again takes %s each time", r.took.Round(time.Millisecond))
	}
	if r.progress != nil {
		r.progress(p)
	}
	if deleted == 0 {
		return nil
	}
	return r.wait(ctx, jittered(wait))
}

// lookShare is how many times as long as a look the wait after it is, at least.
const lookShare = 5

// batch removes a few objects, or a release.
func (r *remover) batch(ctx context.Context, b *batch) error {
	s := r.found.scans[b.namespace]
	live, err := r.read(ctx, b)
	if err != nil {
		return err
	}
	if len(live) > 0 {
		r.opts.At(StepWrite, live[0].object())
		if err := r.undo.add(live); err != nil {
			return err
		}
		r.opts.At(StepLook, live[0].object())
	}
	if err := r.lookAgain(ctx, s); err != nil {
		return err
	}
	defer r.settle(b)
	return r.deleteAll(ctx, s, live)
}

// settle lets go of what of a batch stays.
func (r *remover) settle(b *batch) {
	for _, i := range b.items {
		if i.gone {
			continue
		}
		r.found.scans[b.namespace].drop(i)
		i.content = nil
		if i.stays() != "" {
			r.sum.Spared = append(r.sum.Spared, i.object())
		}
	}
}

// deleteAll deletes what was written to the undo file and looked at, a few at a time.
func (r *remover) deleteAll(ctx context.Context, s *scan, live []*item) error {
	for n, i := range live {
		if n > 0 && n%batchSize == 0 { // a large release
			if err := r.rest(ctx, batchSize, 1); err != nil {
				return err
			}
			if err := r.lookAgain(ctx, s); err != nil {
				return err
			}
		}
		if i.stays() != "" {
			continue
		}
		// What has begun is finished: a delete whose answer nobody reads is one of which
		// nobody knows.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
		err := r.delete(one, i)
		cancel()
		if err != nil {
			return err
		}
		if i.release == nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// read reads the objects of a batch as they are now, and spares those that have
// changed so that they are left over no more.
func (r *remover) read(ctx context.Context, b *batch) (live []*item, err error) {
	if b.release != nil {
		same, err := r.unchanged(ctx, b.release)
		if err != nil {
			return nil, err
		}
		if !same {
			b.release.spare("Helm has changed it meanwhile")
			return nil, nil
		}
	}
	for _, i := range b.items {
		if i.stays() != "" {
			continue
		}
		r.opts.At(StepRead, i.object())
		o, err := r.get(ctx, i.kind, i.meta.namespace, i.meta.name)
		switch {
		case apierrors.IsNotFound(err) || err == nil && o.GetUID() != i.meta.uid:
			r.gone(i)
			continue
		case err != nil:
			return nil, r.refused("get", i.kind, i.meta.namespace, err)
		}
		if r.judgeAgain(i, o); i.stays() == "" {
			i.content = o
			live = append(live, i)
		}
	}
	if b.release != nil && b.release.spared != "" {
		return nil, nil
	}
	return live, nil
}

func (r *remover) gone(i *item) {
	i.gone = true
	r.sum.Gone++
	r.found.scans[i.meta.namespace].drop(i)
}

// judgeAgain looks at an object again. Who has changed it since it was found, uses it.
func (r *remover) judgeAgain(i *item, o *unstructured.Unstructured) {
	if why := r.keeps(i, metaObject(o)); why != "" {
		i.spare("%s", why)
	}
	if o.GetResourceVersion() != i.meta.version {
		i.spare("it has changed meanwhile")
	}
}

// lookAgain looks at what has changed in a namespace, spares what is used now, and puts
// back what was deleted and is used.
func (r *remover) lookAgain(ctx context.Context, s *scan) error {
	begun := time.Now()
	all := r.opts.Now().Sub(r.other) >= otherEvery
	if all {
		r.other = r.opts.Now()
	}
	if err := r.look(ctx, s, all); err != nil {
		return err
	}
	r.took = time.Since(begun)
	for _, i := range s.begun {
		if err := r.putBack(ctx, i); err != nil {
			return err
		}
	}
	s.begun = nil
	for _, i := range r.recent {
		s.drop(i)
		i.content = nil
	}
	r.recent = nil
	return nil
}

func (r *remover) putBack(ctx context.Context, i *item) error {
	err := r.try(ctx, "put back "+i.kind.kind(), func() error { return r.create(ctx, i.kind, i.meta.namespace, bare(i.content)) })
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: fmt.Sprintf("%s %s/%s was deleted, is used since, and cannot be put back", i.kind.one(), i.meta.namespace, i.meta.name), Err: err,
			Hint: "bulkhead guard clean --restore " + r.undo.Path()}
	}
	r.sum.Deleted[i.kind.kind()]--
	r.sum.PutBack = append(r.sum.PutBack, i.object())
	return nil
}

func (c *Cleaner) create(ctx context.Context, k kind, namespace string, o *unstructured.Unstructured) error {
	_, err := c.dynamic.Resource(k.gvr()).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{})
	return err
}

// delete deletes an object, if it is what was written to the undo file.
func (r *remover) delete(ctx context.Context, i *item) error {
	r.opts.At(StepDelete, i.object())
	uid, version, propagation := i.meta.uid, i.meta.version, metav1.DeletePropagationBackground
	err := r.try(ctx, "delete "+i.kind.kind(), func() error {
		return r.dynamic.Resource(i.kind.gvr()).Namespace(i.meta.namespace).Delete(ctx, i.meta.name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}, PropagationPolicy: &propagation,
		})
	})
	switch {
	case err == nil:
		i.gone = true
		r.recent = append(r.recent, i)
		r.sum.Deleted[i.kind.kind()]++
		return nil
	case apierrors.IsNotFound(err):
		r.gone(i)
		return nil
	case apierrors.IsConflict(err):
		i.spare("it has changed meanwhile")
		return nil
	case apierrors.IsForbidden(err):
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("%s %s/%s may not be deleted", i.kind.one(), i.meta.namespace, i.meta.name), Err: err}
	}
	return fmt.Errorf("delete %s %s/%s: %w", i.kind.one(), i.meta.namespace, bulkhead.Quote(i.meta.name), err)
}

// mayRemove asks, before anything is deleted, whether everything may be, and be put
// back.
func (c *Cleaner) mayRemove(ctx context.Context, f *Found) error {
	type right struct {
		namespace, verb string
		kind            kind
	}
	var asked []right
	for _, b := range f.batches {
		for _, i := range b.items {
			for _, verb := range []string{"delete", "get", "create"} {
				want := right{b.namespace, verb, i.kind}
				if slices.Contains(asked, want) {
					continue
				}
				asked = append(asked, want)
				if err := c.may(ctx, want.namespace, want.verb, want.kind); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *Cleaner) may(ctx context.Context, namespace, verb string, k kind) error {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: k.group, Resource: k.resource},
	}}
	err := c.try(ctx, "ask for rights", func() (err error) {
		review, err = c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for rights: %w", err)
	}
	if review.Status.Allowed {
		return nil
	}
	hint := fmt.Sprintf("nothing was deleted; `kubectl auth can-i %s %s -n %s` says the same", verb, k.kind(), namespace)
	if verb == "create" {
		hint = "nothing was deleted: what somebody begins to use meanwhile could not be put back; " + hint
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not %s %s in namespace %s", verb, k.kind(), namespace), Hint: hint}
}
