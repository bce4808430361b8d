package kube

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	requestx509 "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// Audience is what the tokens of workers are for, and no others.
const Audience = "bulkhead.dev"

// ReviewOptions are those of NewReviews. Config is required.
type ReviewOptions struct {
	Config *rest.Config
	// Stale is how much longer what the cluster has allowed counts while it cannot
	// be asked. Default: 15 minutes.
	Stale time.Duration
	// Asked counts the questions: user, access or worker, and ok or error. Default: nobody counts.
	Asked func(kind, outcome string)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Reviews asks the cluster who somebody is, and what he may do: as every server
// does that delegates both to it
// (https://kubernetes.io/docs/reference/access-authn-authz/webhook/), by
// TokenReview, SubjectAccessReview, and the certificate authority that the API
// server publishes in kube-system/extension-apiserver-authentication.
type Reviews struct {
	client  *kubernetes.Clientset
	ca      *dynamiccertificates.ConfigMapCAController
	byCert  authenticator.Request
	now     func() time.Time
	users   *answers[identity]
	workers *answers[identity]
	access  *answers[bool]
}

// identity is what the cluster says of a token.
type identity struct {
	user bulkhead.User
	ok   bool
}

const (
	// How long an answer counts without asking again: a right that is taken away is
	// gone after that, one that is given is there.
	allowedFor = time.Minute
	deniedFor  = 10 * time.Second
	// A worker's token counts until its own end, because the end of its pod is seen.
	workerFor    = 2 * time.Hour
	defaultStale = 15 * time.Minute
	// maxKeyToken is the longest token that is sent on, in bytes.
	maxKeyToken = 64 << 10
	// maxChain is how many certificates a caller may show. Each call looks for a way
	// from the first to the authority, by way of all others if they are made for it.
	maxChain = 5
	// reviewsPerSecond bounds the requests to the API server, of each of the kinds.
	reviewsPerSecond = 50
)

var (
	// newTokens bounds what is asked of tokens that the cluster has not accepted
	// lately: of all callers together, because nobody knows who they are.
	newTokens = limit{30, 60}
	// newRights is the same for what one user wants to do: a list of runs asks of each
	// namespace that has some.
	newRights = limit{20, 400}
)

// NewReviews readies the questions. Run follows the certificate authority.
func NewReviews(o ReviewOptions) (*Reviews, error) {
	if o.Stale == 0 {
		o.Stale = defaultStale
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Asked == nil {
		o.Asked = func(string, string) {}
	}
	config := rest.CopyConfig(o.Config)
	config.QPS = -1 // see answers
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	r := &Reviews{client: client, now: o.Now}
	r.ca, err = dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", metav1.NamespaceSystem,
		"extension-apiserver-authentication", "client-ca-file", client)
	if err != nil {
		return nil, fmt.Errorf("follow the cluster's certificate authority: %w", err)
	}
	r.byCert = group.NewAuthenticatedGroupAdder(requestx509.NewDynamic(r.ca.VerifyOptions, requestx509.CommonNameUserConversion))
	counted := func(kind string) func(string) { return func(outcome string) { o.Asked(kind, outcome) } }
	known := func(i identity) bool { return i.ok }
	r.users = newAnswers(o.Stale, o.Now, known, counted("user"), newTokens)
	r.workers = newAnswers(o.Stale, o.Now, known, counted("worker"), newTokens)
	r.access = newAnswers(o.Stale, o.Now, func(allowed bool) bool { return allowed }, counted("access"), newRights)
	return r, nil
}

// Run follows the certificate authority of the cluster's users until ctx ends.
func (r *Reviews) Run(ctx context.Context) {
	_ = r.ca.RunOnce(ctx) // it is tried again
	r.ca.Run(ctx, 1)
}

// User says whose a token or, without one, a client certificate is. What is
// nobody's is CodeDenied; CodeUnavailable means that the cluster cannot be asked.
func (r *Reviews) User(ctx context.Context, token string, chain []*x509.Certificate) (bulkhead.User, error) {
	if token == "" {
		return r.certified(ctx, chain)
	}
	id, err := r.users.get(ctx, anybody, keyOf(token), func(ctx context.Context) (identity, time.Duration, error) {
		id, err := r.review(ctx, token, nil)
		if err != nil || !id.ok {
			return id, deniedFor, err
		}
		return id, allowedFor, nil
	})
	switch {
	case err != nil:
		return bulkhead.User{}, unasked("whose the token is", err)
	case !id.ok:
		return bulkhead.User{}, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "the cluster does not accept the token",
			Hint: "has it expired? `kubectl auth whoami` says whether your kubeconfig works"}
	}
	return id.user, nil
}

// certified says whose a client certificate is. The handshake has shown that the
// caller has its key.
func (r *Reviews) certified(ctx context.Context, chain []*x509.Certificate) (bulkhead.User, error) {
	if len(chain) > maxChain {
		return bulkhead.User{}, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("the client certificate came with %d others", len(chain)-1),
			Hint: fmt.Sprintf("send those that lead to the cluster's authority, %d at most", maxChain-1)}
	}
	req := (&http.Request{TLS: &tls.ConnectionState{PeerCertificates: chain}}).WithContext(ctx)
	res, ok, err := r.byCert.AuthenticateRequest(req)
	switch {
	case err != nil:
		return bulkhead.User{}, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "the client certificate is not accepted: " + reasonOf(err),
			Hint: "`kubectl auth whoami` says whether your kubeconfig works"}
	case !ok && len(r.ca.CurrentCABundleContent()) == 0:
		return bulkhead.User{}, unasked("who signs the certificates of its users",
			errors.New("ConfigMap kube-system/extension-apiserver-authentication was not read yet, or has no client-ca-file"))
	case !ok:
		return bulkhead.User{}, &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "the client certificate names nobody"}
	}
	return userOf(res.User), nil
}

// reasonOf is the part of what package x509 of the API server says that helps.
func reasonOf(err error) string {
	text := err.Error()
	if at := strings.Index(text, "x509: "); at >= 0 {
		text = text[at:]
	}
	return text
}

func userOf(u user.Info) bulkhead.User {
	return bulkhead.User{Name: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: u.GetExtra()}
}

// Pod names the pod that a worker's token is bound to, and its UID. Errors are
// those of User.
func (r *Reviews) Pod(ctx context.Context, token string) (namespace, name, uid string, err error) {
	id, err := r.workers.get(ctx, anybody, keyOf(token), func(ctx context.Context) (identity, time.Duration, error) {
		id, err := r.review(ctx, token, []string{Audience})
		if err != nil || !id.ok {
			return id, deniedFor, err
		}
		return id, r.lifeOf(token), nil
	})
	if err != nil {
		return "", "", "", unasked("whose the token is", err)
	}
	account, isAccount := strings.CutPrefix(id.user.Name, "system:serviceaccount:")
	namespace, _, _ = strings.Cut(account, ":")
	name, uid = one(id.user.Extra["authentication.kubernetes.io/pod-name"]), one(id.user.Extra["authentication.kubernetes.io/pod-uid"])
	if !id.ok || !isAccount || name == "" || uid == "" {
		return "", "", "", &bulkhead.Error{Code: bulkhead.CodeDenied,
			Message: fmt.Sprintf("the token is not one of a pod, for %s", Audience),
			Hint:    "workers have theirs from the volume that the server puts into their pods"}
	}
	return namespace, name, uid, nil
}

func one(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return ""
}

// lifeOf is how long a token may be used that the cluster has accepted: it is a JWT
// and says so itself. The cluster has checked it, so nothing of it is checked here.
func (r *Reviews) lifeOf(token string) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return allowedFor
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Exp == 0 {
		return allowedFor
	}
	return min(time.Unix(claims.Exp, 0).Sub(r.now()), workerFor)
}

// anybody asks of tokens: who it is, is the question.
const anybody = ""

// keyOf names a token without keeping it.
func keyOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return string(sum[:])
}

// review asks the cluster whose a token is.
func (r *Reviews) review(ctx context.Context, token string, audiences []string) (identity, error) {
	if len(token) > maxKeyToken {
		return identity{}, nil
	}
	ask := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}
	said, err := r.client.AuthenticationV1().TokenReviews().Create(ctx, ask, metav1.CreateOptions{})
	if err != nil {
		return identity{}, err
	}
	st := &said.Status
	if !st.Authenticated {
		return identity{}, nil
	}
	// One that knows no audiences says nothing of them.
	if len(audiences) > 0 && !slices.ContainsFunc(st.Audiences, func(a string) bool { return slices.Contains(audiences, a) }) {
		return identity{}, nil
	}
	u := bulkhead.User{Name: st.User.Username, UID: st.User.UID, Groups: st.User.Groups, Extra: map[string][]string{}}
	for key, values := range st.User.Extra {
		u.Extra[key] = values
	}
	return identity{u, true}, nil
}

// May is the error for a user who may not do something (a verb of RBAC) with the
// resources of one kind (runs, brakes) in a namespace: CodeDenied, with the command
// that would allow it, or CodeUnavailable.
func (r *Reviews) May(ctx context.Context, u bulkhead.User, verb, resource, namespace string) error {
	key, err := json.Marshal([]any{u, verb, resource, namespace})
	if err != nil {
		return err
	}
	allowed, err := r.access.get(ctx, u.Name, keyOf(string(key)), func(ctx context.Context) (bool, time.Duration, error) {
		allowed, err := r.mayNow(ctx, u, verb, resource, namespace)
		if err != nil || !allowed {
			return false, deniedFor, err
		}
		return true, allowedFor, nil
	})
	switch {
	case err != nil:
		return unasked(fmt.Sprintf("whether %s may %s %s", bulkhead.Quote(u.Name), verb, resource), err)
	case !allowed:
		return lacking(u.Name, verb, resource, namespace)
	}
	return nil
}

func (r *Reviews) mayNow(ctx context.Context, u bulkhead.User, verb, resource, namespace string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range u.Extra {
		extra[key] = values
	}
	ask := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: u.Name, UID: u.UID, Groups: u.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: "bulkhead.dev", Version: "*", Resource: resource},
	}}
	said, err := r.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, ask, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return said.Status.Allowed && !said.Status.Denied, nil
}

func unasked(what string, err error) error {
	if errors.Is(err, errBusy) {
		return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: fmt.Sprintf("the server has too much to ask the cluster to ask %s", what),
			Hint: "try again in a moment"}
	}
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: fmt.Sprintf("the cluster does not say %s: %v", what, err),
		Hint: "what it has allowed before goes on for a while; an administrator's token on the server's host works without it"}
}
