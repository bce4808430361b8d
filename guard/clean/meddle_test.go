package clean_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/clean"
)

// unused makes n ConfigMaps of the family that nothing names.
func (s *space) unused(n int) (all []string) {
	s.Helper()
	for i := range n {
		name := nameOf(fmt.Sprint("unused", i))
		s.configMap(name)
		all = append(all, name)
	}
	return all
}

func TestWhatSomebodyBeginsToUseMeanwhileStays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		step    clean.Step
		meddle  func(s *space, name string)
		putBack bool
	}{
		"a pod that mounts it is made before it is read":       {clean.StepRead, mountIt, false},
		"a pod that mounts it is made before it is written":    {clean.StepWrite, mountIt, false},
		"a pod that mounts it is made before the last look":    {clean.StepLook, mountIt, false},
		"a pod that mounts it is made between look and delete": {clean.StepDelete, mountIt, true},
		"it is edited before it is read":                       {clean.StepRead, editIt, false},
		"it is edited before the last look":                    {clean.StepLook, editIt, false},
		"it is edited between look and delete":                 {clean.StepDelete, editIt, false},
		"it is made anew between look and delete":              {clean.StepDelete, makeItAnew, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			all := s.unused(3)
			var target string
			o := s.options()
			o.Family = configFamily
			o.At = func(step clean.Step, o clean.Object) {
				if step == c.step && target == "" {
					target = o.Name
					c.meddle(s, o.Name)
				}
			}
			sum, _, err := s.remove(o)
			if err != nil || sum.Total() != 2 {
				t.Errorf("%+v %v", sum, err)
			}
			if diff := cmp.Diff([]string{"configmaps/" + target}, s.there()); diff != "" {
				t.Errorf("of %q stays -want +got:\n%s", all, diff)
			}
			if (len(sum.PutBack) == 1) != c.putBack || (len(sum.Spared) == 1) == c.putBack {
				t.Errorf("spared %+v, put back %+v", sum.Spared, sum.PutBack)
			}
		})
	}
}

func mountIt(s *space, name string) { s.check(s.pod("uses-"+name, nil, mounting(name))) }

func editIt(s *space, name string) {
	s.Kubectl(s, "patch", "configmap", name, "-n", s.ns, "-p", `{"data":{"new":"value"}}`)
}

func makeItAnew(s *space, name string) {
	s.Kubectl(s, "delete", "configmap", name, "-n", s.ns)
	s.configMap(name)
}

func TestAPolicyThatSelectsAPodThatIsMadeMeanwhileStays(t *testing.T) {
	t.Parallel()
	for _, step := range []clean.Step{clean.StepLook, clean.StepDelete} {
		s := newSpace(t)
		s.check(s.pod("p", map[string]string{"app": "none"}))
		s.policy(nameOf("a"), selecting("app", "a"))
		o := s.options()
		o.Family = configFamily
		o.At = func(at clean.Step, _ clean.Object) {
			if at == step { // its label makes the policy select it
				s.Kubectl(t, "label", "pod", "p", "-n", s.ns, "app=a", "--overwrite")
			}
		}
		sum, _, err := s.remove(o)
		if err != nil || sum.Total() != 0 || len(sum.Spared)+len(sum.PutBack) != 1 {
			t.Errorf("at %s: %+v %v", step, sum, err)
		}
		if diff := cmp.Diff([]string{"networkpolicies/" + nameOf("a")}, s.there()); diff != "" {
			t.Errorf("at %s -want +got:\n%s", step, diff)
		}
	}
}

// Whatever makes many pods at once: it is not looked at one by one.
func TestWhatOneOfManyNewPodsMountsStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(2)
	target := nameOf("unused0")
	o := s.options()
	o.Family = configFamily
	o.At = func(step clean.Step, _ clean.Object) {
		if step != clean.StepLook {
			return
		}
		for i := range 30 {
			s.check(s.pod(fmt.Sprintf("p-%02d", i), nil))
		}
		s.check(s.pod("q", nil, mounting(target))) // the last one in each list
	}
	sum, _, err := s.remove(o)
	if err != nil || sum.Total() != 1 || len(sum.Spared) != 1 || len(sum.PutBack) > 0 {
		t.Errorf("%+v %v", sum, err)
	}
}

// TestNothingInUseIsGoneWhileEverythingChanges: pods that mount, policies that begin to
// select, edits and annotations, all at random and without a pause, while leftovers are
// removed. Whatever was there when its user was made is there at the end.
func TestNothingInUseIsGoneWhileEverythingChanges(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	const n = 60
	for i := range n {
		s.configMap(nameOf(fmt.Sprint("map", i)))
		s.policy(nameOf(fmt.Sprint("policy", i)), selecting("app", strconv.Itoa(i)))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	used := map[string]bool{} // what has to be there at the end
	use := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		used[name] = true
	}
	// Each step of the removal lets somebody change something, so that it happens then, and
	// not before it has begun.
	steps := make(chan struct{}, 4*n)
	for worker := range 3 {
		random := rand.New(rand.NewPCG(uint64(worker), rand.Uint64()))
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-steps:
				case <-ctx.Done():
					return
				}
				i := random.IntN(n)
				name := nameOf(fmt.Sprint("map", i))
				switch random.IntN(3) {
				case 0: // if it is there now, it was used from now on
					pod := fmt.Sprintf("m-%d-%d", worker, j)
					if err := s.pod(pod, nil, mounting(name)); err == nil && s.lookFor(name) {
						use("configmaps/" + name)
					}
				case 1:
					policy := nameOf(fmt.Sprint("policy", i))
					if err := s.pod(fmt.Sprintf("s-%d-%d", worker, j), map[string]string{"app": strconv.Itoa(i)}); err == nil {
						if _, err := s.Client().NetworkingV1().NetworkPolicies(s.ns).Get(ctx, policy, metav1.GetOptions{}); err == nil {
							use("networkpolicies/" + policy)
						}
					}
				case 2:
					patch := `{"metadata":{"annotations":{"bulkhead.dev/keep":"yes"}}}`
					if _, err := s.Client().CoreV1().ConfigMaps(s.ns).Patch(ctx, name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err == nil {
						use("configmaps/" + name)
					}
				}
			}
		})
	}
	o := s.options()
	o.Family = configFamily
	o.At = func(step clean.Step, _ clean.Object) {
		if step == clean.StepScan {
			return
		}
		select {
		case steps <- struct{}{}:
		default:
		}
	}
	sum, undo, err := s.remove(o)
	stop()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	there := s.there()
	for name := range used {
		if !has(there, name) {
			t.Errorf("%s was in use, and is gone", name)
		}
	}
	if sum.Total()+len(there) != 2*n {
		t.Errorf("%d deleted, %d there, of %d", sum.Total(), len(there), 2*n)
	}
	t.Logf("%d deleted, %d spared, %d put back, %d in use", sum.Total(), len(sum.Spared), len(sum.PutBack), len(used))
	if done, err := s.restore(undo); err != nil || len(s.there()) != 2*n {
		t.Errorf("put back %+v %v", done, err)
	}
}

func (s *space) lookFor(configMap string) bool {
	_, err := s.Client().CoreV1().ConfigMaps(s.ns).Get(context.WithoutCancel(s.Context()), configMap, metav1.GetOptions{})
	return err == nil
}

// The process that is killed: where its cluster and its undo file are.
const (
	killedEnv     = "BULKHEAD_CLEAN_TEST_UNDO"
	kubeconfigEnv = "BULKHEAD_CLEAN_TEST_KUBECONFIG"
	namespaceEnv  = "BULKHEAD_CLEAN_TEST_NAMESPACE"
	deletesEnv    = "BULKHEAD_CLEAN_TEST_DELETES"
)

// cleanUntilKilled removes leftovers, and kills its own process before one of the deletes.
func cleanUntilKilled(undo string) int {
	ctx := context.Background()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(kubeconfigEnv))
	left, _ := strconv.Atoi(os.Getenv(deletesEnv))
	o := clean.Options{Config: config, Namespace: os.Getenv(namespaceEnv), Family: configFamily, Now: later, Rate: 100}
	o.At = func(step clean.Step, _ clean.Object) {
		if step == clean.StepDelete {
			if left--; left < 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
	}
	if err == nil {
		var c *clean.Cleaner
		var f *clean.Found
		var u *clean.Undo
		if c, err = clean.New(o); err == nil {
			f, err = c.Find(ctx)
		}
		if err == nil {
			u, err = clean.CreateUndo(undo, time.Now())
		}
		if err == nil {
			_, err = c.Remove(ctx, f, u, nil)
		}
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	return 3
}

func TestWhatIsGoneWhenItIsKilledIsInTheUndoFile(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(25)
	s.secret(nameOf("secret"))
	for _, deletes := range []int{0, 13} {
		before := s.contents()
		undo := filepath.Join(t.TempDir(), "undo.json")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedEnv+"="+undo, kubeconfigEnv+"="+s.Kubeconfig(), namespaceEnv+"="+s.ns, deletesEnv+"="+strconv.Itoa(deletes))
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != -1 {
			t.Fatalf("%v: %s", err, out)
		}
		if n := len(before) - len(s.contents()); n != deletes {
			t.Errorf("%d are gone after %d deletes", n, deletes)
		}
		if info, err := os.Stat(undo); err != nil || info.Mode() != 0o600 {
			t.Errorf("the undo file: %v %v", info.Mode(), err)
		}
		if done, err := s.restore(undo); err != nil || done.Created != deletes {
			t.Errorf("put back %+v %v", done, err)
		}
		if diff := cmp.Diff(before, s.contents()); diff != "" {
			t.Errorf("before - and after it was put back +:\n%s", diff)
		}
	}
}

func TestKubectlTakesTheUndoFile(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(3)
	s.secret(nameOf("secret"))
	s.policy(nameOf("policy"), selecting("a", "b"))
	before := s.contents()
	o := s.options()
	o.Family = configFamily
	sum, undo, err := s.remove(o)
	if err != nil || sum.Total() != 5 {
		t.Fatalf("%+v %v", sum, err)
	}
	s.Kubectl(t, "create", "-f", undo)
	if diff := cmp.Diff(before, s.contents()); diff != "" {
		t.Errorf("before - and after +:\n%s", diff)
	}
}

func TestAnUndoFileThatIsDamagedIsPutBackAsFarAsItGoes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(3)
	o := s.options()
	o.Family = configFamily
	_, undo, err := s.remove(o)
	s.check(err)
	text, err := os.ReadFile(undo)
	s.check(err)
	torn := filepath.Join(t.TempDir(), "torn")
	s.check(os.WriteFile(torn, text[:len(text)-20], 0o600))
	done, err := s.restore(torn)
	if err != nil || done.Created != 2 || !done.CutOff {
		t.Errorf("%+v %v", done, err)
	}
	// Also where not even the first of them is whole, or nothing is left.
	for _, size := range []int{0, 50, 300} {
		done, err := clean.Restore(t.Context(), s.Config(), bytes.NewReader(text[:size]), 1000)
		if err != nil || done.Created+done.There != 0 || !done.CutOff {
			t.Errorf("%d bytes: %+v %v", size, done, err)
		}
	}
	for name, line := range map[string]string{
		"no JSON":             "x\n",
		"of another kind":     `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}` + "\n",
		"without a name":      `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"x"}}` + "\n",
		"without a namespace": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}` + "\n",
	} {
		_, err := clean.Restore(t.Context(), s.Config(), strings.NewReader("# head\n---\n"+line), 1000)
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !contains(err.Error(), "line 3 of the undo file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"no-such"}}` + "\n"
	if _, err := clean.Restore(t.Context(), s.Config(), strings.NewReader(gone), 1000); bulkhead.CodeOf(err) != bulkhead.CodeNotFound {
		t.Errorf("a namespace that is gone: %v", err)
	}
}

func TestNothingIsDeletedThatTheUndoFileCannotTake(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		s := newSpace(t)
		for i := range 30 {
			s.configMap(nameOf(fmt.Sprint("big", i)), func(c *corev1.ConfigMap) {
				c.Data["big"] = strings.Repeat("x", 10<<10)
			})
		}
		before := s.contents()
		o := s.options()
		o.Family = configFamily
		c, f := s.find(o)
		path := filepath.Join(disk, "undo.json")
		u, err := clean.CreateUndo(path, time.Now())
		s.check(err)
		defer u.Close()
		sum, err := c.Remove(t.Context(), f, u, nil)
		if bulkhead.CodeOf(err) != bulkhead.CodeUnavailable || !errors.Is(err, syscall.ENOSPC) || sum.Total() != 20 || sum.Left != 10 {
			t.Errorf("%+v %v", sum, err)
		}
		if done, err := s.restore(path); err != nil || done.Created != 20 || done.CutOff {
			t.Errorf("put back %+v %v", done, err)
		}
		if diff := cmp.Diff(before, s.contents()); diff != "" {
			t.Errorf("before - and after it was put back +:\n%s", diff)
		}
		full := strings.Repeat("x", 1<<20)
		_ = os.WriteFile(filepath.Join(disk, "ballast"), []byte(full), 0o600) // as far as it goes
		if _, err := clean.CreateUndo(filepath.Join(disk, "other"), time.Now()); err == nil {
			t.Error("an undo file on a full disk")
		}
	})
}

const diskEnv = "BULKHEAD_CLEAN_TEST_DISK"

// onSmallDisk runs the test on a file system of 256 KiB, in a process of its own if
// only that may mount one.
func onSmallDisk(t *testing.T, test func(t *testing.T, disk string)) {
	disk := t.TempDir()
	err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=0700")
	if errors.Is(err, syscall.EPERM) && os.Getenv(diskEnv) == "" {
		cmd := exec.CommandContext(t.Context(), "unshare", "-rm", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), diskEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in a namespace: %v\n%s", err, out)
		}
		return
	}
	if err != nil {
		t.Fatal("mount:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	test(t, disk)
}

// as is the configuration of a user with these rights, and no others.
func (s *space) as(user string, rules ...rbacv1.PolicyRule) clean.Options {
	s.Helper()
	_, err := s.Client().RbacV1().Roles(s.ns).Create(s.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{})
	s.check(err)
	_, err = s.Client().RbacV1().RoleBindings(s.ns).Create(s.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}}, metav1.CreateOptions{})
	s.check(err)
	o := s.options()
	o.Config.Impersonate.UserName = user
	o.Family = configFamily
	return o
}

func rule(verbs string, groups string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Split(groups, ","), Resources: resources}
}

func TestWhoMayNotDoAllOfItIsToldBeforeAnythingIsDeleted(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(3)
	want := s.there()
	sees := rule("get list", "*", "*")
	for name, c := range map[string]struct {
		rules []rbacv1.PolicyRule
		says  string
	}{
		"who may see nothing":         {nil, "you may not list networkpolicies"},
		"who may not see pods":        {[]rbacv1.PolicyRule{rule("get list", ",networking.k8s.io", "configmaps", "secrets", "networkpolicies")}, "you may not list pods"},
		"who may not see cron jobs":   {[]rbacv1.PolicyRule{rule("get list", ",networking.k8s.io,apps", "*"), rule("get list", "batch", "jobs")}, "you may not list cronjobs.batch"},
		"who may not delete":          {[]rbacv1.PolicyRule{sees}, "you may not delete configmaps"},
		"who may not put back":        {[]rbacv1.PolicyRule{sees, rule("delete", "", "configmaps")}, "you may not create configmaps"},
		"who may delete only secrets": {[]rbacv1.PolicyRule{sees, rule("delete create", "", "secrets")}, "you may not delete configmaps"},
	} {
		user := strings.ReplaceAll(name, " ", "-")
		o := s.as(user, c.rules...)
		cl, err := clean.New(o)
		s.check(err)
		f, err := cl.Find(t.Context())
		if err == nil {
			u, undoErr := clean.CreateUndo(filepath.Join(t.TempDir(), "undo"), time.Now())
			s.check(undoErr)
			_, err = cl.Remove(t.Context(), f, u, nil)
			s.check(u.Close())
		}
		if bulkhead.CodeOf(err) != bulkhead.CodeDenied || !contains(err.Error(), c.says) || !contains(bulkhead.HintOf(err), "nothing was deleted") {
			t.Errorf("%s: %v (%s)", name, err, bulkhead.HintOf(err))
		}
	}
	if diff := cmp.Diff(want, s.there()); diff != "" {
		t.Errorf("there -want +got:\n%s", diff)
	}
	// With these rights alone it goes, and says what it could not look at.
	may := s.as("ann", rule("get list", ",apps,batch,networking.k8s.io", "*"), rule("delete create", "", "configmaps"))
	cl, f := s.find(may)
	if len(f.Notes) == 0 || !contains(strings.Join(f.Notes, "\n"), "roles.rbac.authorization.k8s.io of namespace") {
		t.Errorf("notes %q", f.Notes)
	}
	u, err := clean.CreateUndo(filepath.Join(t.TempDir(), "undo"), time.Now())
	s.check(err)
	defer u.Close()
	if sum, err := cl.Remove(t.Context(), f, u, nil); err != nil || sum.Total() != 3 {
		t.Errorf("%+v %v", sum, err)
	}
}

func TestAnAPIServerThatFailsIsGivenTimeAndNotMore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code, fails int
		deleted     int
	}{
		"it is busy, and then not":        {429, 4, 12},
		"it fails, and then does not":     {500, 4, 12},
		"it is busy for good":             {429, 1 << 30, 0},
		"it is unavailable after a while": {503, -3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.unused(12)
			var deletes, failed atomic.Int64
			o := s.options()
			o.Family = configFamily
			o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
				return answers{next, func(r *http.Request) int {
					if r.Method != http.MethodDelete {
						return 0
					}
					n := deletes.Add(1)
					if c.fails < 0 && n <= int64(-c.fails) || c.fails > 0 && n > int64(c.fails) {
						return 0
					}
					failed.Add(1)
					return c.code
				}}
			})
			cl, f := s.find(o)
			var waited []time.Duration
			cl.SetWait(func(_ context.Context, d time.Duration) error { waited = append(waited, d); return nil })
			u, err := clean.CreateUndo(filepath.Join(t.TempDir(), "undo"), time.Now())
			s.check(err)
			defer u.Close()
			sum, err := cl.Remove(t.Context(), f, u, nil)
			if sum.Total() != c.deleted || sum.Left != 12-c.deleted {
				t.Errorf("%+v %v", sum, err)
			}
			if c.deleted == 12 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if bulkhead.CodeOf(err) != bulkhead.CodeUnavailable || !contains(err.Error(), "failed 5 times in a row") || failed.Load() != 5 {
				t.Errorf("after %d failures: %v", failed.Load(), err)
			}
		})
	}
}

func TestAVerdictStopsAndSlowsIt(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(25)
	o := s.options()
	o.Family = configFamily
	asked := 0
	o.Verdict = func() bulkhead.Verdict {
		switch asked++; {
		case asked <= 1:
			return bulkhead.Verdict{Level: bulkhead.Slow, Factor: 0.01, Reason: "agents are behind"}
		case asked <= 3:
			return bulkhead.Verdict{}
		}
		return bulkhead.Verdict{Level: bulkhead.Stop, Reason: "calico-node is not ready", Lifts: "when it is"}
	}
	cl, f := s.find(o)
	var waited []time.Duration
	cl.SetWait(func(_ context.Context, d time.Duration) error { waited = append(waited, d); return nil })
	u, err := clean.CreateUndo(filepath.Join(t.TempDir(), "undo"), time.Now())
	s.check(err)
	defer u.Close()
	sum, err := cl.Remove(t.Context(), f, u, nil)
	if err == nil || !contains(err.Error(), "calico-node is not ready") || bulkhead.HintOf(err) != "when it is" || sum.Total() != 20 || sum.Left != 5 || !contains(sum.Stopped, "calico-node") {
		t.Errorf("%+v %v", sum, err)
	}
	if len(s.there()) != 5 {
		t.Errorf("%d are there", len(s.there()))
	}
	// The first 10 objects at 1 a second, not at 100.
	if len(waited) != 2 || waited[0] < 7*time.Second {
		t.Errorf("waited %v", waited)
	}
}

func TestAnInterruptEndsItWithWhatWasDone(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.unused(25)
	ctx, interrupt := context.WithCancel(t.Context())
	o := s.options()
	o.Family = configFamily
	deletes := 0
	o.At = func(step clean.Step, o clean.Object) {
		if step != clean.StepDelete {
			return
		}
		if deletes++; deletes == 13 {
			interrupt()
			mountIt(s, o.Name) // it is put back all the same
		}
	}
	c, f := s.find(o)
	u, err := clean.CreateUndo(filepath.Join(t.TempDir(), "undo"), time.Now())
	s.check(err)
	defer u.Close()
	sum, err := c.Remove(ctx, f, u, nil)
	if !errors.Is(err, context.Canceled) || sum.Total() != 12 || len(sum.PutBack) != 1 || sum.Left != 12 {
		t.Errorf("%+v %v", sum, err)
	}
	if n := len(s.there()); n != 13 {
		t.Errorf("%d are there", n)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options clean.Options
		says    string
	}{
		"nothing that is named":      {clean.Options{}, "a family or a release has to be named"},
		"two things":                 {clean.Options{Family: "a", Release: "b"}, "exclude each other"},
		"a kind of a release":        {clean.Options{Release: "a", Kind: "secrets"}, "a kind goes with a family only"},
		"a kind that is not removed": {clean.Options{Family: "a", Kind: "pods"}, `kind "pods" is not one of which`},
		"a negative grace":           {clean.Options{Family: "a", Grace: -1}, "a grace of"},
		"a rate that is none":        {clean.Options{Family: "a", Rate: -1}, "out of range"},
		"a rate that is a flood":     {clean.Options{Family: "a", Rate: 1000}, "out of range"},
		"a finding without a family": {clean.Options{Members: []bulkhead.Key{{Kind: "pods", Family: "x"}}}, "no family of which something could be removed"},
	} {
		_, err := clean.New(c.options)
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage || !contains(err.Error(), c.says) || bulkhead.HintOf(err) == "" {
			t.Errorf("%s: %v (%s)", name, err, bulkhead.HintOf(err))
		}
	}
	if _, err := clean.CreateUndo(filepath.Join(t.TempDir(), "no", "such"), time.Now()); bulkhead.CodeOf(err) != bulkhead.CodeUsage {
		t.Errorf("a folder that is not there: %v", err)
	}
	path := filepath.Join(t.TempDir(), "undo")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := clean.CreateUndo(path, time.Now()); bulkhead.CodeOf(err) != bulkhead.CodeConflict {
		t.Errorf("a file that is there: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("it has %q now: %v", text, err)
	}
}
