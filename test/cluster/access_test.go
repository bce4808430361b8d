package cluster_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
	"bulkhead.dev/bulkhead/rpc/bulkhead/v1/bulkheadv1connect"
)

// roles are those that the installation brings.
const roles = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: bulkhead-viewer}
rules: [{apiGroups: [bulkhead.dev], resources: [runs, brakes], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: bulkhead-user}
rules: [{apiGroups: [bulkhead.dev], resources: [runs], verbs: [get, list, create, update, attach]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: bulkhead-admin}
rules: [{apiGroups: [bulkhead.dev], resources: [runs], verbs: [get, list, create, update, attach, delete]},
  {apiGroups: [bulkhead.dev], resources: [brakes], verbs: [get, list, create, delete]}]
`

// defineRoles makes the roles of the installation, for as long as the test.
func (b *bed) defineRoles() {
	b.Helper()
	file := filepath.Join(b.TempDir(), "roles.yaml")
	if err := os.WriteFile(file, []byte(roles), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Lab.Kubectl(b, "apply", "-f", file)
}

// token is one of a service account of the bed's namespace, which it makes.
func (b *bed) token(account string, audiences ...string) string {
	b.Helper()
	accounts := b.Lab.Client().CoreV1().ServiceAccounts(b.Namespace)
	_, _ = accounts.Create(b.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	got, err := accounts.CreateToken(b.Context(), account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return got.Status.Token
}

// certificate is one of the cluster for a user.
func (b *bed) certificate(user string) tls.Certificate {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user}}, key)
	if err != nil {
		b.Fatal(err)
	}
	requests := b.Lab.Client().CertificatesV1().CertificateSigningRequests()
	ask, err := requests.Create(b.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bulkhead-test-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = requests.Delete(context.WithoutCancel(b.Context()), ask.Name, metav1.DeleteOptions{}) })
	b.Lab.Kubectl(b, "certificate", "approve", ask.Name)
	b.Lab.Eventually(b, "the certificate is signed", func(ctx context.Context) bool {
		ask, err = requests.Get(ctx, ask.Name, metav1.GetOptions{})
		return err == nil && len(ask.Status.Certificate) > 0
	})
	block, _ := pem.Decode(ask.Status.Certificate)
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// lapsed is a certificate of the cluster for a user that ended an hour ago.
func (b *bed) lapsed(user string) tls.Certificate {
	b.Helper()
	pair, err := tls.LoadX509KeyPair(b.pki("ca.crt"), b.pki("ca.key"))
	if err != nil {
		b.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: user}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (b *bed) pki(name string) string { return filepath.Join(b.Lab.Dir(), "pki", name) }

// lapsedToken is a token of the cluster that ended an hour ago, but for that as good
// as another one.
func (b *bed) lapsedToken(good string) string {
	b.Helper()
	parts := strings.Split(good, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	claims := map[string]any{}
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		b.Fatal(err)
	}
	claims["exp"], claims["nbf"], claims["iat"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-2*time.Hour).Unix()
	text, err = json.Marshal(claims)
	if err != nil {
		b.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(text)
	return signed + "." + base64.RawURLEncoding.EncodeToString(b.sign(signed))
}

// sign signs as the cluster signs the tokens of its accounts.
func (b *bed) sign(text string) []byte {
	b.Helper()
	pair, err := tls.LoadX509KeyPair(b.pki("accounts.crt"), b.pki("accounts.key"))
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	switch key := pair.PrivateKey.(type) {
	case *rsa.PrivateKey:
		out, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			b.Fatal(err)
		}
		return out
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			b.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	b.Fatalf("keys of accounts are %T", pair.PrivateKey)
	return nil
}

// who is a client with a token, or a certificate.
func (b *bed) who(token string, certificates ...tls.Certificate) *rpc.Client {
	client := b.HTTP()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = certificates
	b.Cleanup(client.CloseIdleConnections)
	return rpc.NewClient(rpc.ClientOptions{URL: b.URL, HTTP: client, Token: token, Owner: "somebody@else", Tries: 1})
}

// does tries everything that a user may do with runs, and returns the verbs that he may.
func (b *bed) does(c *rpc.Client, owner string) string {
	b.Helper()
	theirs := b.Submit(2, bulkhead.Spec{Command: []string{"true"}}) // a run of the administrator's
	ctx := b.Context()
	var may []string
	try := func(verb string, err error) {
		switch {
		case err == nil, bulkhead.CodeOf(err) == bulkhead.CodeConflict: // of a run that was quicker, or is slower
			may = append(may, verb)
		case bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), verb+" runs.bulkhead.dev") || !strings.Contains(bulkhead.HintOf(err), "kubectl create rolebinding"):
			b.Errorf("%s: %v (%s)", verb, err, bulkhead.HintOf(err))
		}
	}
	r := &bulkhead.Run{Spec: bulkhead.Spec{Class: b.Class(), Command: []string{"true"}, Limit: 1}}
	err := c.Submit(ctx, r, nil, func() string { return strings.Repeat("0", 64) })
	if try("create", err); err == nil && r.Spec.Owner != owner {
		b.Errorf("the owner of what %s submitted is %s", owner, r.Spec.Owner)
	}
	_, err = c.Run(ctx, theirs)
	try("get", err)
	_, err = c.Runs(ctx, 1)
	try("list", err)
	_, err = c.Ask(ctx, bulkhead.Request{Run: theirs, Kind: bulkhead.RequestCancel})
	try("update", err)
	b.Over(theirs)
	try("delete", c.Delete(ctx, theirs))
	return strings.Join(may, " ")
}

func TestUsersMayDoWhatTheClusterSays(t *testing.T) {
	b := newBed(t, twoWorkers)
	b.defineRoles()
	grant := func(role, subject string) {
		b.Lab.Kubectl(t, "create", "rolebinding", "--namespace", b.Namespace, fmt.Sprintf("test-%x", sha256.Sum256([]byte(role+subject)))[:20], "--clusterrole", role, subject)
	}
	ann, viewer := b.certificate("ann@example.org"), b.certificate("viewer")
	grant("bulkhead-admin", "--user=ann@example.org")
	grant("bulkhead-viewer", "--user=viewer")
	some := b.token("some")
	grant("bulkhead-user", "--serviceaccount="+b.Namespace+":some")
	for name, c := range map[string]struct {
		client *rpc.Client
		owner  string
		may    string
	}{
		"all rights, by certificate":  {b.who("", ann), "ann@example.org", "create get list update delete"},
		"some rights, by certificate": {b.who("", viewer), "viewer", "get list"},
		"no rights, by certificate":   {b.who("", b.certificate("nobody")), "nobody", ""},
		"some rights, by token":       {b.who(some), "system:serviceaccount:" + b.Namespace + ":some", "create get list update"},
		"no rights, by token":         {b.who(b.token("none")), "system:serviceaccount:" + b.Namespace + ":none", ""},
	} {
		if got := b.does(c.client, c.owner); got != c.may {
			t.Errorf("%s: may %q, not %q", name, got, c.may)
		}
	}
	for name, c := range map[string]struct {
		client *rpc.Client
		says   string
	}{
		"a token that has expired":       {b.who(b.lapsedToken(some)), "does not accept the token"},
		"a certificate that has expired": {b.who("", b.lapsed("ann@example.org")), "expired"},
		"a token of another audience":    {b.who(b.token("some", "vault")), "does not accept the token"},
		"a token of nobody":              {b.who("nobody"), "does not accept the token"},
		"nothing":                        {b.who(""), "wants a token"},
	} {
		if _, err := c.client.Runs(t.Context(), 1); bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}

	b.mayBrake(b.who("", ann), b.who("", viewer))

	// The hint is a command that works.
	carl := b.who("", b.certificate("carl o'brien"))
	_, err := carl.Runs(t.Context(), 1)
	_, command, found := strings.Cut(bulkhead.HintOf(err), "kubectl ")
	if !found {
		t.Fatal(err, bulkhead.HintOf(err))
	}
	b.Lab.Kubectl(t, words(command)...)
	b.Lab.Eventually(t, "he may now", func(ctx context.Context) bool { _, err := carl.Runs(ctx, 1); return err == nil })
}

// mayBrake checks that brakes go by rights of their own: of one who may set them in the
// namespace of the class, and of one who may see them.
func (b *bed) mayBrake(admin, viewer *rpc.Client) {
	b.Helper()
	class := bulkhead.Brake{Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: b.Class()}, Reason: "T1"}
	st, _, err := admin.SetBrake(b.Context(), class, time.Hour)
	if err != nil || st.Owner != "ann@example.org" {
		b.Fatalf("%+v, %v", st, err)
	}
	if all, err := viewer.Brakes(b.Context()); err != nil || len(all.Brakes) != 1 || all.Brakes[0].ID != st.ID {
		b.Errorf("who may see them sees %+v, %v", all, err)
	}
	_, err = viewer.LiftBrake(b.Context(), st.ID)
	if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(err.Error(), "may not delete brakes.bulkhead.dev in namespace "+b.Namespace) {
		b.Errorf("who may see them lifts one: %v", err)
	}
	_, _, err = admin.SetBrake(b.Context(), bulkhead.Brake{Reason: "T1"}, 0)
	if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !strings.Contains(bulkhead.HintOf(err), "--clusterrole=bulkhead-admin --user=ann@example.org") {
		b.Errorf("on everything: %v %s", err, bulkhead.HintOf(err))
	}
	if _, err := admin.LiftBrake(b.Context(), st.ID); err != nil {
		b.Error(err)
	}
}

// words are those of a command line with single quotes.
func words(line string) []string {
	var out []string
	for word := range strings.FieldsSeq(strings.ReplaceAll(line, "'carl o'\\''brien'", "carl\x00o\x01brien")) {
		out = append(out, strings.NewReplacer("\x00", " ", "\x01", "'").Replace(word))
	}
	return out
}

// agent is an agent's client with a token.
func (b *bed) agent(token string) bulkheadv1connect.AgentServiceClient {
	b.Helper()
	file := filepath.Join(b.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		b.Fatal(err)
	}
	client, url, opts, err := rpc.Dial(rpc.DialOptions{URL: b.URL, CAFile: b.Key("ca.crt"), TokenFile: file})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.(*http.Client).CloseIdleConnections)
	return bulkheadv1connect.NewAgentServiceClient(client, url, opts...)
}

func TestTheTokenOfAWorkerIsGoodForNothingElse(t *testing.T) {
	b := newBed(t, twoWorkers)
	id := b.Submit(0, bulkhead.Spec{Command: []string{"sleep", "1000"}})
	b.Until(id, "running", func(r *bulkhead.Run) bool { return r.Counts.Running == 1 })
	pod := strings.Fields(b.Lab.Kubectl(t, "get", "pods", "--namespace", b.Namespace, "--output", "name"))[0]
	name := b.Namespace + "/" + strings.TrimPrefix(pod, "pod/")
	token := strings.TrimSpace(b.Lab.Kubectl(t, "exec", "--namespace", b.Namespace, pod, "--", "cat", "/bulkhead-access/token"))
	renew := func(token, name, class, shape string) error {
		_, err := b.agent(token).Renew(t.Context(), &bulkheadv1.RenewRequest{
			Agent: &bulkheadv1.Agent{Name: name, Process: 1, Class: class, Shape: shape, Slots: 1, Api: rpc.APIVersion}})
		return err
	}
	for what, c := range map[string]struct {
		err  error
		code connect.Code
	}{
		"another worker":              {renew(token, b.Namespace+"/scripts-0-9", b.Class(), ""), connect.CodePermissionDenied},
		"another class":               {renew(token, name, b.Namespace+"/other", ""), connect.CodePermissionDenied},
		"another shape":               {renew(token, name, b.Class(), "12345678"), connect.CodePermissionDenied},
		"a token of an account":       {renew(b.token("default"), name, b.Class(), ""), connect.CodeUnauthenticated},
		"one for workers, of no pod":  {renew(b.token("default", "bulkhead.dev"), name, b.Class(), ""), connect.CodeUnauthenticated},
		"the administrator's":         {renew(b.administrator(), name, b.Class(), ""), connect.CodeUnauthenticated},
		"one made of that":            {renew(rpc.Tokens{Secret: b.administrator()}.OfClass(b.Class()), name, b.Class(), ""), connect.CodeUnauthenticated},
		"its own that is over":        {renew(b.lapsedToken(token), name, b.Class(), ""), connect.CodeUnauthenticated},
		"its own, by another process": {renew(token, name, b.Class(), ""), connect.CodeAlreadyExists}, // it is let in, and told that it is not the first
	} {
		if connect.CodeOf(c.err) != c.code && (c.code != connect.CodeAlreadyExists || c.err != nil) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
	if _, err := b.who(token).Runs(t.Context(), 1); bulkhead.CodeOf(err) != bulkhead.CodeDenied {
		t.Errorf("as a user's: %v", err)
	}
	b.Lab.Kubectl(t, "delete", "scriptclass", "--namespace", b.Namespace, "scripts")
	b.Lab.Kubectl(t, "wait", "--for=delete", "--namespace", b.Namespace, pod, "--timeout=60s")
	b.Lab.Eventually(t, "the token of a pod that is gone is refused", func(context.Context) bool {
		return connect.CodeOf(renew(token, name, b.Class(), "")) == connect.CodeUnauthenticated
	})
}

// administrator is the token of the state folder.
func (b *bed) administrator() string {
	b.Helper()
	token, err := os.ReadFile(b.Key("token"))
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

func TestWithoutAnAPIServerThoseWhoWereKnownGoOn(t *testing.T) {
	b := newBed(t, twoWorkers)
	b.defineRoles()
	b.Lab.Kubectl(t, "create", "rolebinding", "--namespace", b.Namespace, "known", "--clusterrole=bulkhead-admin", "--serviceaccount="+b.Namespace+":known")
	known, stranger := b.who(b.token("known")), b.who(b.token("stranger"))
	b.Lab.Eventually(t, "it may", func(context.Context) bool { _, err := known.Runs(t.Context(), 1); return err == nil })
	if got := b.does(known, "system:serviceaccount:"+b.Namespace+":known"); got != "create get list update delete" {
		t.Fatalf("it may %q", got)
	}
	class := bulkhead.Brake{Scope: bulkhead.Scope{Kind: bulkhead.ScopeClass, Name: b.Class()}, Reason: "T1"}
	brake, _, err := known.SetBrake(t.Context(), class, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := known.LiftBrake(t.Context(), brake.ID); err != nil {
		t.Fatal(err)
	}
	start := b.Lab.KillAPIServer(t)
	defer start()
	later(70 * time.Second) // longer than an answer is fresh
	if brake, _, err = known.SetBrake(t.Context(), class, 0); err != nil {
		t.Errorf("a brake of one who was known: %v", err)
	}
	if _, err := known.LiftBrake(t.Context(), brake.ID); err != nil {
		t.Errorf("it is lifted: %v", err)
	}
	all, _, err := b.Client.SetBrake(t.Context(), bulkhead.Brake{Reason: "the API server is away"}, time.Hour)
	if err != nil {
		t.Fatalf("a brake of the administrator: %v", err)
	}
	if _, err := b.Client.LiftBrake(t.Context(), all.ID); err != nil {
		t.Errorf("it is lifted: %v", err)
	}
	if got := b.does(known, "system:serviceaccount:"+b.Namespace+":known"); got != "create get list update delete" {
		t.Errorf("it may %q", got)
	}
	if _, err := stranger.Runs(t.Context(), 1); bulkhead.CodeOf(err) != bulkhead.CodeUnavailable || !strings.Contains(err.Error(), "does not say whose the token is") {
		t.Errorf("a stranger: %v", err)
	}
	id := b.Submit(2, bulkhead.Spec{Command: []string{"sleep", "1000"}})
	if _, err := b.Client.Ask(t.Context(), bulkhead.Request{Run: id, Kind: bulkhead.RequestCancel}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}
