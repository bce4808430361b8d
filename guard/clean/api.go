package clean

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// What an API server that does not answer, or is overloaded, is given: so many
// tries of one request, a second apart at first and twice that after each.
const (
	tries    = 5
	backOff  = time.Second
	mostWait = time.Minute
)

// try does a request, and does it again when the server could not.
func (c *Cleaner) try(ctx context.Context, what string, do func() error) error {
	wait := backOff
	for n := 1; ; n++ {
		err := do()
		if err == nil || !overloaded(err) || ctx.Err() != nil {
			return err
		}
		if n == tries {
			return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: fmt.Sprintf("%s: the API server has failed %d times in a row", what, tries), Err: err,
				Hint: "what is left over stays; the same command (with another --undo, if it named one) goes on with the rest once it answers"}
		}
		asked := time.Duration(0)
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			asked = min(time.Duration(seconds)*time.Second, mostWait)
		}
		if err := c.wait(ctx, jittered(max(wait, asked))); err != nil {
			return err
		}
		wait *= 2
	}
}

// overloaded reports whether the same request may succeed later.
func overloaded(err error) bool {
	if status := (apierrors.APIStatus)(nil); errors.As(err, &status) {
		code := status.Status().Code
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return utilnet.IsProbableEOF(err) || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err)
}

// list lists whole objects, page by page.
func (c *Cleaner) list(ctx context.Context, k kind, namespace string, o metav1.ListOptions, each func(*unstructured.Unstructured)) error {
	o.Limit = page
	return c.pages(ctx, k, &o, func() (string, error) {
		list, err := c.dynamic.Resource(k.gvr()).Namespace(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			each(&list.Items[i])
		}
		return list.GetContinue(), nil
	})
}

// listMeta lists metadata, page by page.
func (c *Cleaner) listMeta(ctx context.Context, k kind, namespace string, o metav1.ListOptions, each func(*metav1.PartialObjectMetadata)) error {
	o.Limit = metaPage
	return c.pages(ctx, k, &o, func() (string, error) {
		list, err := c.meta.Resource(k.gvr()).Namespace(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			each(&list.Items[i])
		}
		return list.GetContinue(), nil
	})
}

// pages asks for pages until there is none. A list that the server cannot go on with,
// because it took too long, begins anew: whoever takes the objects in takes the same
// twice.
func (c *Cleaner) pages(ctx context.Context, k kind, o *metav1.ListOptions, next func() (more string, err error)) error {
	for anew := 0; ; {
		err := c.try(ctx, "list "+k.kind(), func() (err error) {
			o.Continue, err = next()
			return err
		})
		if apierrors.IsResourceExpired(err) && anew < tries {
			anew++
			o.Continue = ""
			continue
		}
		if err != nil || o.Continue == "" {
			return err
		}
	}
}

func (c *Cleaner) get(ctx context.Context, k kind, namespace, name string) (o *unstructured.Unstructured, err error) {
	err = c.try(ctx, "get "+k.kind(), func() error {
		o, err = c.dynamic.Resource(k.gvr()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return o, err
}

// refused says what to do about a request that was refused.
func (c *Cleaner) refused(verb string, k kind, namespace string, err error) error {
	if !apierrors.IsForbidden(err) {
		return fmt.Errorf("%s %s: %w", verb, k.kind(), err)
	}
	where, scope := "in namespace "+namespace, " -n "+namespace
	if namespace == "" {
		where, scope = "in all namespaces", " --all-namespaces"
	}
	return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("you may not %s %s %s", verb, k.kind(), where), Err: err,
		Hint: fmt.Sprintf("nothing was deleted: without it nobody can say what is left over; `kubectl auth can-i %s %s%s` says the same", verb, k.kind(), scope)}
}

// patient makes a client that returns what the server refuses for now, instead of
// trying again by itself: try does that, and counts.
func patient(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	// The warnings of an API server are about objects, of which we make none.
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return once{next} })
	return config
}

type once struct{ next http.RoundTripper }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if resp != nil {
		resp.Header.Del("Retry-After")
	}
	return resp, err
}
