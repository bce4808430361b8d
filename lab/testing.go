package lab

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shared is the lab of this test binary.
var shared struct {
	once sync.Once
	lab  *Lab
	err  error
}

// Start gives a test the lab of its binary, and starts it for the first one. It
// ends with the binary. Tests share it: what they make goes into a Namespace of
// theirs, and a test that harms the whole (StopAPIServer and the like) must not
// be parallel to others.
func Start(t testing.TB) *Lab {
	t.Helper()
	shared.once.Do(func() {
		// Not the test's context: the lab outlives it.
		shared.lab, shared.err = Launch(context.Background(), Options{Log: os.Stderr})
	})
	if shared.err != nil {
		t.Fatal("start the lab:", shared.err)
	}
	l := shared.lab
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.troubles())
		}
	})
	return l
}

// troubles is what the components said last, for a test that failed.
func (l *Lab) troubles() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(l.dir, LogFolder, "*.log"))
	for _, file := range append(files, filepath.Join(l.dir, KeeperLog)) {
		if filepath.Base(file) == AuditFile {
			continue
		}
		fmt.Fprintf(&b, "== the end of %s\n%s\n", file, tail(lastBytes(file, 4<<10), 12))
	}
	return b.String()
}

func lastBytes(file string, n int64) []byte {
	f, err := os.Open(file)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return []byte(err.Error())
	}
	buf := make([]byte, min(n, info.Size()))
	_, err = f.ReadAt(buf, info.Size()-int64(len(buf)))
	if err != nil {
		return []byte(err.Error())
	}
	return buf
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// Namespace makes a namespace for the test. At its end it is deleted with all
// that is in it, so that the next test counts only its own.
func (l *Lab) Namespace(t testing.TB) string {
	t.Helper()
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	ns, err := l.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name[:min(len(name), 40)] + "-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal("make a namespace:", err)
	}
	t.Cleanup(func() {
		err := l.client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), ns.Name, metav1.DeleteOptions{})
		if err != nil {
			t.Error("delete the namespace:", err)
		}
		l.Eventually(t, "namespace "+ns.Name+" is gone", func(ctx context.Context) bool {
			_, err := l.client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
	// The controllers put two things into it, of which pods need one.
	l.Eventually(t, "namespace "+ns.Name+" is furnished", func(ctx context.Context) bool {
		_, err := l.client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			_, err = l.client.CoreV1().ConfigMaps(ns.Name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		}
		return err == nil
	})
	return ns.Name
}

// Eventually waits until ok, for at most two minutes.
func (l *Lab) Eventually(t testing.TB, what string, ok func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if !poll(ctx, func() bool { return ok(ctx) }) {
		t.Fatalf("in two minutes it did not come true that %s", what)
	}
}

// poll asks until ok or ctx ends, less and less often.
func poll(ctx context.Context, ok func() bool) bool {
	const first, last = 10 * time.Millisecond, 500 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := first; ; wait = min(wait*3/2, last) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
		if ok() {
			return true
		}
		timer.Reset(wait)
	}
}

// order asks process 1 for something on behalf of a test.
func (l *Lab) order(t testing.TB, path string, query url.Values) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := l.ask(ctx, "POST", path, query, nil); err != nil {
		t.Fatal(err)
	}
}

// Kubectl runs kubectl as the administrator and returns what it prints.
func (l *Lab) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := l.program(t.Context(), "kubectl", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// program runs one of the cluster's programs against it.
func (l *Lab) program(ctx context.Context, name string, args ...string) (string, error) {
	args = append([]string{name, "--kubeconfig", l.Kubeconfig()}, args...)
	return output(ctx, "", l.programs.Kubernetes, args...)
}
