package kube

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// reviewer is an API server as Reviews needs it. A token that begins with "of " is that of
// whom it names, until it is revoked.
type reviewer struct {
	asked   atomic.Int64
	revoked atomic.Bool
	away    atomic.Bool
	only    string // the resource that there are rights on; "": any
}

func (r *reviewer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked.Add(1)
	if r.away.Load() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	var token authenticationv1.TokenReview
	var access authorizationv1.SubjectAccessReview
	var said any = &access
	if strings.HasSuffix(req.URL.Path, "tokenreviews") {
		said = &token
	}
	if err := json.NewDecoder(req.Body).Decode(said); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name, known := strings.CutPrefix(token.Spec.Token, "of ")
	token.Status.Authenticated, token.Status.User.Username = known && !r.revoked.Load(), name
	access.Status.Allowed = access.Spec.ResourceAttributes != nil && access.Spec.ResourceAttributes.Namespace == "hers" &&
		(r.only == "" || r.only == access.Spec.ResourceAttributes.Resource)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(said)
}

func reviewsOf(t *testing.T, r *reviewer, now func() time.Time) *Reviews {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	reviews, err := NewReviews(ReviewOptions{Config: config, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return reviews
}

// flood asks for so many at once, and returns when all have their answers.
func flood(n int, ask func(n int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { ask(i) })
	}
	all.Wait()
}

func TestMadeUpTokensTakeNothingFromThoseWhomTheClusterKnows(t *testing.T) {
	var later atomic.Int64
	began := time.Now()
	server := &reviewer{}
	r := reviewsOf(t, server, func() time.Time { return began.Add(time.Duration(later.Load())) })
	ctx := t.Context()
	if _, err := r.User(ctx, "of ann", nil); err != nil {
		t.Fatal(err)
	}
	flood(3000, func(n int) { _, _ = r.User(ctx, fmt.Sprintf("made up %d", n), nil) })
	if n := server.asked.Load(); n > 200 {
		t.Errorf("the cluster was asked %d times", n)
	}
	// Her answer has lapsed, and her token is revoked, while others are at it.
	server.revoked.Store(true)
	later.Store(int64(2 * time.Minute))
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var strangers sync.WaitGroup
	for n := range 500 {
		strangers.Go(func() {
			for i := 0; stop.Err() == nil; i++ {
				_, _ = r.User(stop, fmt.Sprintf("made up %d, again %d", n, i), nil)
				<-time.After(10 * time.Millisecond)
			}
		})
	}
	defer strangers.Wait()
	defer cancel()
	<-time.After(time.Second)
	asked := time.Now()
	_, err := r.User(ctx, "of ann", nil)
	if bulkhead.CodeOf(err) != bulkhead.CodeDenied || time.Since(asked) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(asked), err)
	}
}

func TestRefusalsPushNothingOutThatWasAllowed(t *testing.T) {
	server := &reviewer{}
	r := reviewsOf(t, server, time.Now)
	if _, err := r.User(t.Context(), "of ann", nil); err != nil {
		t.Fatal(err)
	}
	for n := range 2 * maxAnswers { // as they come in ten minutes
		r.users.keep(fmt.Sprint(n), answer[identity]{until: time.Now().Add(deniedFor)})
	}
	if _, err := r.User(t.Context(), "of ann", nil); err != nil || server.asked.Load() != 1 {
		t.Errorf("asked %d times: %v", server.asked.Load(), err)
	}
}

func TestWhoAsksForWhatThereIsNotTakesNothingFromOthers(t *testing.T) {
	r := reviewsOf(t, &reviewer{}, time.Now)
	ctx := t.Context()
	flood(2000, func(n int) { _ = r.May(ctx, bulkhead.User{Name: "mallory"}, "create", "runs", fmt.Sprint("ns", n)) })
	asked := time.Now()
	if err := r.May(ctx, bulkhead.User{Name: "ann"}, "create", "runs", "hers"); err != nil || time.Since(asked) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(asked), err)
	}
}

func TestAChainThatIsLongIsNotLookedAt(t *testing.T) {
	r := reviewsOf(t, &reviewer{}, time.Now)
	chain := slices.Repeat([]*x509.Certificate{{}}, maxChain+1) // to look at one would be to crash
	if _, err := r.User(t.Context(), "", chain); bulkhead.CodeOf(err) != bulkhead.CodeDenied {
		t.Error(err)
	}
}

func TestARightOnRunsIsNoneOnBrakes(t *testing.T) {
	server := &reviewer{only: "runs"}
	var later atomic.Int64
	began := time.Now()
	r := reviewsOf(t, server, func() time.Time { return began.Add(time.Duration(later.Load())) })
	ann := bulkhead.User{Name: "ann"}
	if err := r.May(t.Context(), ann, "create", "runs", "hers"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ verb, namespace, want string }{
		"in a namespace": {"create", "hers", `"ann" may not create brakes.bulkhead.dev in namespace hers; who administers it can allow it: ` +
			`kubectl create rolebinding bulkhead-admin-ann --clusterrole=bulkhead-admin --user=ann --namespace=hers`},
		"everywhere": {"delete", "", `"ann" may not delete brakes.bulkhead.dev in all namespaces; who administers it can allow it: ` +
			`kubectl create clusterrolebinding bulkhead-admin-ann --clusterrole=bulkhead-admin --user=ann`},
		"to see them": {"list", "hers", `"ann" may not list brakes.bulkhead.dev in namespace hers; who administers it can allow it: ` +
			`kubectl create rolebinding bulkhead-viewer-ann --clusterrole=bulkhead-viewer --user=ann --namespace=hers`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := r.May(t.Context(), ann, tt.verb, "brakes", tt.namespace)
			if got := fmt.Sprint(err, "; ", bulkhead.HintOf(err)); bulkhead.CodeOf(err) != bulkhead.CodeDenied || got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	// What was allowed goes on for a while when the cluster does not answer.
	server.only = ""
	later.Store(int64(time.Minute))
	if err := r.May(t.Context(), ann, "create", "brakes", "hers"); err != nil {
		t.Fatal(err)
	}
	server.away.Store(true)
	later.Store(int64(10 * time.Minute))
	if err := r.May(t.Context(), ann, "create", "brakes", "hers"); err != nil {
		t.Error(err)
	}
	if err := r.May(t.Context(), ann, "delete", "brakes", "hers"); bulkhead.CodeOf(err) != bulkhead.CodeUnavailable ||
		!strings.Contains(err.Error(), `whether "ann" may delete brakes`) || !strings.Contains(bulkhead.HintOf(err), "administrator's token") {
		t.Errorf("%v: %s", err, bulkhead.HintOf(err))
	}
}
