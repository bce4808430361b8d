package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Programs are the two binaries of a lab.
type Programs struct {
	Kubernetes string // lab/kubernetes: every program of the cluster
	Lab        string // lab/cmd: keeper, process 1 and the commands for people
}

// gitVersion is what tells a build its version, which is chosen in lab/kubernetes/go.mod.
const gitVersion = "k8s.io/component-base/version.git"

// Build builds the binaries, or finds them: Kubernetes takes ten minutes on two
// cores, so it is kept, by the hash of what it is made of, in the user's cache
// folder. Several may ask at once; one builds. What takes long is told to log.
func Build(ctx context.Context, log io.Writer) (Programs, error) {
	root, err := repository(ctx)
	if err != nil {
		return Programs{}, err
	}
	cache, err := cacheDir()
	if err != nil {
		return Programs{}, err
	}
	p := Programs{Lab: filepath.Join(cache, "lab")}
	source := filepath.Join(root, "lab", "kubernetes")
	sum, err := hashFiles(source, "go.mod", "go.sum", "main.go")
	if err != nil {
		return Programs{}, err
	}
	p.Kubernetes = filepath.Join(cache, "kubernetes-"+sum[:16])
	unlock, err := lockFile(filepath.Join(cache, "build.lock"))
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	if _, err := os.Stat(p.Kubernetes); errors.Is(err, os.ErrNotExist) {
		if err := buildKubernetes(ctx, source, p.Kubernetes, log); err != nil {
			return Programs{}, err
		}
	}
	// Go's own cache makes this a second's matter. The name has the hash of the
	// binary, because a running lab may use another one.
	if err := goBuild(ctx, root, p.Lab, "", "./lab/cmd"); err != nil {
		return Programs{}, err
	}
	sum, err = hashFiles(cache, "lab")
	if err != nil {
		return Programs{}, err
	}
	named := p.Lab + "-" + sum[:16]
	if err := os.Rename(p.Lab, named); err != nil {
		return Programs{}, err
	}
	p.Lab = named
	return p, prune(cache, p)
}

// kept says how long what nobody has built or used stays in the cache, by the
// begin of its name: what took long, longer.
var kept = map[string]time.Duration{"lab-": 24 * time.Hour, "kubernetes-": 14 * 24 * time.Hour, "mediawiki-": 14 * 24 * time.Hour}

// prune removes what has become old.
func prune(cache string, used Programs) error {
	now := time.Now()
	for _, path := range []string{used.Kubernetes, used.Lab} {
		if err := os.Chtimes(path, now, now); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone already
		}
		for prefix, long := range kept {
			if strings.HasPrefix(e.Name(), prefix) && now.Sub(info.ModTime()) > long {
				if err := os.Remove(filepath.Join(cache, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func buildKubernetes(ctx context.Context, source, to string, log io.Writer) error {
	version, err := output(ctx, source, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return fmt.Errorf("ask for the version of Kubernetes: %w", err)
	}
	begin := time.Now()
	fmt.Fprintf(log, "lab: building Kubernetes %s, once: ten minutes or more on two cores\n", version)
	number := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(number) != 3 {
		return fmt.Errorf("the version of Kubernetes is %q", version)
	}
	flags := fmt.Sprintf("-s -w -X %[1]sVersion=%[2]s -X %[1]sMajor=%[3]s -X %[1]sMinor=%[4]s",
		gitVersion, version, number[0], number[1])
	if err := goBuild(ctx, source, to+".new", flags, "."); err != nil {
		return err
	}
	if err := os.Rename(to+".new", to); err != nil {
		return err
	}
	fmt.Fprintf(log, "lab: built it in %s\n", time.Since(begin).Round(time.Second))
	return nil
}

// goBuild builds a static binary: those of a lab also run in containers.
func goBuild(ctx context.Context, dir, to, ldflags, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", to, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", pkg, dir, err, tail(out, 40))
	}
	return nil
}

// repository is the folder of Bulkhead's module, which is ours.
func repository(ctx context.Context) (string, error) {
	dir, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "bulkhead.dev/bulkhead")
	if err != nil {
		return "", fmt.Errorf("find Bulkhead's source, in which a lab must be started: %w", err)
	}
	return dir, nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, tail(exit.Stderr, 5))
	}
	return strings.TrimSpace(string(out)), err
}

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(base, "bulkhead", "lab")
	return dir, os.MkdirAll(dir, 0o700)
}

func hashFiles(dir string, names ...string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lockFile waits for an exclusive lock, which the kernel drops if we die.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// tail is the last lines of text.
func tail(text []byte, lines int) string {
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// goarch is the architecture of images and nodes.
const goarch = runtime.GOARCH
