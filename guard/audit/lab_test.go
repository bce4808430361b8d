package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	acorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead/guard/audit"
	"bulkhead.dev/bulkhead/lab"
)

// follow follows a log until the end of the test.
func follow(t testing.TB, path string, o audit.Options) *audit.Users {
	t.Helper()
	users := &audit.Users{}
	o.Users = users
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); audit.Follow(ctx, path, o) }()
	t.Cleanup(func() { cancel(); <-done })
	return users
}

// people are users of a namespace of the lab who may make what they want there.
type people struct {
	testing.TB
	*lab.Lab
	ns string
}

func newPeople(t *testing.T) *people {
	l := lab.Start(t)
	return &people{t, l, l.Namespace(t)}
}

func (p *people) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *people) permit(subject rbacv1.Subject) {
	p.Helper()
	_, err := p.Client().RbacV1().RoleBindings(p.ns).Create(p.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: subject.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}, Subjects: []rbacv1.Subject{subject},
	}, metav1.CreateOptions{})
	p.check(err)
}

// impersonated is a user whom the administrator impersonates.
func (p *people) impersonated(name string) kubernetes.Interface {
	p.Helper()
	p.permit(rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name})
	config := p.Config()
	config.Impersonate.UserName = name
	return p.client(config)
}

// account is a service account with its own token.
func (p *people) account(name string) kubernetes.Interface {
	p.Helper()
	accounts := p.Client().CoreV1().ServiceAccounts(p.ns)
	_, err := accounts.Create(p.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	p.check(err)
	p.permit(rbacv1.Subject{Kind: "ServiceAccount", Name: name, Namespace: p.ns})
	token, err := accounts.CreateToken(p.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	p.check(err)
	config := rest.AnonymousClientConfig(p.Config())
	config.BearerToken = token.Status.Token
	return p.client(config)
}

func (p *people) client(config *rest.Config) kubernetes.Interface {
	p.Helper()
	config.UserAgent = "loop/1.0 (of a test)"
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	p.check(err)
	// A new right counts when the API server has seen it.
	p.Eventually(p, "rights count", func(ctx context.Context) bool {
		_, err := client.CoreV1().ConfigMaps(p.ns).List(ctx, metav1.ListOptions{})
		return err == nil
	})
	return client
}

// make makes ConfigMaps of a family, and returns the last one's name.
func (p *people) make(client kubernetes.Interface, prefix string, from, to int) string {
	p.Helper()
	name := ""
	for i := from; i < to; i++ {
		name = fmt.Sprintf("%s-%08x-config", prefix, uint32(i+1)*2654435761)
		_, err := client.CoreV1().ConfigMaps(p.ns).Create(p.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		p.check(err)
	}
	return name
}

func (p *people) log() string { return filepath.Join(p.Dir(), lab.LogFolder, lab.AuditFile) }

// until waits for the makers of a family.
func (p *people) until(users *audit.Users, name string, want audit.Answer) {
	p.Helper()
	var got audit.Answer
	p.Eventually(p, "makers of "+name+" are known", func(context.Context) bool {
		got = users.Of("configmaps", p.ns, name, time.Time{})
		total := int64(0)
		for _, m := range got.Makers {
			total += m.Objects
		}
		for _, m := range want.Makers {
			total -= m.Objects
		}
		return total >= 0
	})
	if diff := cmp.Diff(want, got); diff != "" {
		p.Errorf("makers of %s (-want +got):\n%s", name, diff)
	}
}

func by(user string, n int64) audit.Answer {
	return audit.Answer{Makers: []audit.Maker{{User: user, Client: "loop/1.0", Objects: n}}, Named: true}
}

func TestUsersOfARealAPIServerAreTold(t *testing.T) {
	p := newPeople(t)
	users := follow(t, p.log(), audit.Options{})
	ann, deployer := p.impersonated("ann"), p.account("deployer")

	last := p.make(ann, "mail", 0, 30)
	p.make(deployer, "web", 0, 20)
	_, err := ann.CoreV1().ConfigMaps(p.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: last}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same name again: %v", err)
	}
	_, err = ann.CoreV1().ConfigMaps(p.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mail-4e6fa1b2-config"}},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	p.check(err)
	for range 2 { // the second one changes nothing
		_, err = ann.CoreV1().ConfigMaps(p.ns).Apply(t.Context(), acorev1.ConfigMap("mail-a1f6e4c2-config", p.ns), metav1.ApplyOptions{FieldManager: "loop"})
		p.check(err)
	}
	_, err = deployer.CoreV1().ConfigMaps(p.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "nameless-"}}, metav1.CreateOptions{})
	p.check(err)
	p.check(ann.CoreV1().ConfigMaps(p.ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	p.make(ann, "end", 0, 1)

	account := "system:serviceaccount:" + p.ns + ":deployer"
	p.until(users, "end-*-config", by("ann", 1)) // what came before has been read
	p.until(users, "mail-*-config", by("ann", 31))
	p.until(users, "web-*-config", by(account, 20))
	nameless := by(account, 1)
	nameless.Named = false // at level Metadata nobody knows its name
	p.until(users, "nameless-*", nameless)
	// What the cluster's controllers make is theirs.
	root := users.Of("configmaps", p.ns, "kube-root-ca.crt", time.Time{})
	if len(root.Makers) != 1 || root.Makers[0].User != "system:serviceaccount:kube-system:root-ca-cert-publisher" {
		t.Errorf("kube-root-ca.crt was made by %+v", root)
	}
}

func TestNothingIsMissedWhenTheLogIsRotated(t *testing.T) {
	p := newPeople(t)
	users := follow(t, p.log(), audit.Options{})
	ann := p.impersonated("ann")
	p.make(ann, "mail", 0, 10)
	p.until(users, "mail-*-config", by("ann", 10))

	p.check(os.Truncate(p.log(), 0)) // as logrotate's copytruncate does, once it has a copy
	p.make(ann, "mail", 10, 20)
	p.until(users, "mail-*-config", by("ann", 20))

	// Another one takes its place, and what was written to the old one is read to its end.
	p.make(ann, "mail", 20, 30)
	p.check(os.Rename(p.log(), p.log()+".1"))
	p.make(ann, "mail", 30, 40)
	p.KillAPIServer(t)()
	p.make(ann, "mail", 40, 50)
	p.until(users, "mail-*-config", by("ann", 50))
}
