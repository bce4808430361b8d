package census_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/census"
	"bulkhead.dev/bulkhead/lab"
)

func TestMain(m *testing.M) {
	if os.Getenv(generatorEnv) != "" {
		if err := generate(os.Stdout, os.Getenv(generatorEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	// Connections are the transports', and the lab's helpers have some, too.
	var ignored []goleak.Option
	for _, f := range []string{"net/http.(*http2ClientConn).readLoop", "net/http.(*persistConn).readLoop", "net/http.(*persistConn).writeLoop",
		"golang.org/x/net/http2.(*ClientConn).readLoop", "bulkhead.dev/bulkhead/lab.startKeeper.func2"} {
		ignored = append(ignored, goleak.IgnoreAnyFunction(f))
	}
	if err := goleak.Find(ignored...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run runs a census until the end of the test, or until stop.
func run(t testing.TB, config *rest.Config, o census.Options) (c *census.Census, stop func()) {
	t.Helper()
	if testing.Verbose() && o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := census.New(config, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error("run:", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// objects is how many of each kind a census has, as etcd calls them.
func objects(s bulkhead.Census) map[string]int {
	n := map[string]int{}
	for _, t := range s.Tallies {
		n[etcdName(t.Kind)] += int(t.Objects)
	}
	return n
}

// etcdName is what the lab calls a kind: those of Kubernetes have no group there.
func etcdName(kind string) string {
	name, group, _ := strings.Cut(kind, ".")
	if group == "apps" || group == "batch" || strings.HasSuffix(group, ".k8s.io") && !strings.HasPrefix(group, "apiextensions") {
		return name
	}
	return kind
}

// exact says how a census differs from what etcd has, in the kinds that it watches.
func exact(l *lab.Lab, t testing.TB, c *census.Census) string {
	t.Helper()
	s := c.Snapshot()
	got, want := map[string]int{}, map[string]int{}
	have, counted := l.Objects(t), objects(s)
	for _, k := range s.Kinds {
		if !k.Exact {
			if k.Reason == "" {
				return k.Kind + " is not exact, without a reason"
			}
			if strings.HasPrefix(k.Reason, "not ") {
				return k.Kind + ": " + k.Reason
			}
			continue
		}
		name := etcdName(k.Kind)
		got[name], want[name] = counted[name], have[name]
		if int(k.Objects) != counted[name] {
			return fmt.Sprintf("%s: %d objects, but %d in its families", k.Kind, k.Objects, counted[name])
		}
	}
	if !status(s, "configmaps").Exact || !status(s, "secrets").Exact {
		return "not all kinds are counted yet"
	}
	maps.DeleteFunc(want, func(_ string, n int) bool { return n == 0 })
	maps.DeleteFunc(got, func(_ string, n int) bool { return n == 0 })
	return cmp.Diff(want, got)
}

// eventuallyExact waits until a census has what etcd has.
func eventuallyExact(t testing.TB, l *lab.Lab, censuses ...*census.Census) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	for _, c := range censuses {
		l.Eventually(t, "the census is exact", func(context.Context) bool {
			last = exact(l, t, c)
			return last == ""
		})
	}
}

// tally is that of one family.
func tally(s bulkhead.Census, kind, namespace, family string) bulkhead.Tally {
	for _, t := range s.Tallies {
		if t.Kind == kind && t.Namespace == namespace && t.Family == family {
			return t
		}
	}
	return bulkhead.Tally{}
}

func status(s bulkhead.Census, kind string) bulkhead.KindStatus {
	for _, k := range s.Kinds {
		if k.Kind == kind {
			return k
		}
	}
	return bulkhead.KindStatus{}
}

func randomName() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	name := make([]byte, 8)
	for i := range name {
		name[i] = letters[rand.IntN(len(letters))]
	}
	name[rand.IntN(len(name))] = '7' // without a digit it might read like a word
	return string(name)
}

// configMaps makes n of one family.
func configMaps(t testing.TB, l *lab.Lab, namespace string, n int) {
	t.Helper()
	names := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for name := range names {
				_, err := l.Client().CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: "mediawiki-" + name + "-mail-config", Labels: map[string]string{"release": name, "username": "ann"}},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Error("make a ConfigMap:", err)
				}
			}
		})
	}
	for range n {
		names <- randomName()
	}
	close(names)
	wg.Wait()
}

// apply makes or changes what a manifest describes.
func apply(t testing.TB, l *lab.Lab, manifest string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Kubectl(t, "apply", "--server-side", "--force-conflicts", "-f", file)
}

// atEnd deletes what is at a path when the test has ended.
func atEnd(t testing.TB, l *lab.Lab, path string) {
	t.Cleanup(func() {
		err := l.Client().Discovery().RESTClient().Delete().AbsPath(path).Do(context.WithoutCancel(t.Context())).Error()
		if err != nil {
			t.Error("delete", path, err)
		}
	})
}

// lines is a log that many write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
